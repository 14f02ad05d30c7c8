"""Measure a model: natural accuracy, the paper's protocol, attacks on the logits, a robustness curve."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from repulse.attacks import EmbeddingLoss, Threat
from repulse.attacks.attack import check_inputs
from repulse.environment import environment
from repulse.errors import RepulseError
from repulse.evaluation.bench import Bench, Outcome, Progress
from repulse.evaluation.curve import curve_attack, robustness_curve
from repulse.evaluation.keepsakes import gallery, output_space
from repulse.evaluation.plan import Planned, plan
from repulse.evaluation.published import AsPublished
from repulse.evaluation.record import AttackRecord, DataRecord, ModelRecord, Record, save_evaluation
from repulse.files import sha256_of
from repulse.settings import EvaluationSettings


@dataclass(frozen=True)
class About:
    """What tables and records call the model and the data."""

    model: str = "model"
    description: str = ""
    data: str = "data"
    split: str = "test"
    class_names: tuple[str, ...] = ()
    command: str = ""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A record, and the outcome of every image behind it."""

    record: Record
    outcomes: dict[str, Tensor] = field(repr=False)

    def save(self, folder: Path) -> None:
        """Write both to a folder.

        Raises:
            RepulseError: if it cannot be written.
        """
        save_evaluation(folder, self.record, self.outcomes)


def evaluate(
    model: nn.Module,
    images: Float[Tensor, "N C H W"],
    labels: Int64[Tensor, "N"],
    settings: EvaluationSettings | None = None,
    *,
    training_loss: EmbeddingLoss | None = None,
    about: About | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure how robust a model is, under the paper's protocol and under attacks on its logits, side by side.

    The worst case counts an image as robust only if no attack fooled it. The attacks as the paper's script runs them
    change other images by other amounts; they are reported on their own and never counted in the worst case.

    Args:
        model: any module from images in [0, 1] to logits (N, n); it is measured in evaluation mode, on its own device.
        images: clean images, pixels in [0, 1].
        labels: true classes.
        settings: attacks and their strength; the defaults are the paper's.
        training_loss: what the model was trained to minimise, on embeddings, for models with `embed` and `classify`;
            None: cross-entropy on the logits.
        about: names for the record.
        progress: told after each batch.

    Returns:
        The record and the outcomes of all images; `save` writes them to a folder.

    Raises:
        RepulseError: if images, labels or logits are impossible, the names are not as many as the model's classes, or
            the model answers the same question in two ways.
    """
    settings, about = settings or EvaluationSettings(), about or About()
    started = time.perf_counter()
    if len(images) == 0:
        raise RepulseError("there are no images to measure")
    threat = Threat(settings.norm, settings.eps)
    # Whole sets need not fit on the model's device: the bench takes batches there.
    images, labels = images.detach().cpu(), labels.cpu()
    # All of them at once: an attack sees only images that are classified right, and would miss the others.
    check_inputs(images, labels, threat)
    bench = Bench(model, images, labels, batch_size=settings.batch_size, seed=settings.seed, progress=progress)
    names = about.class_names or tuple(str(label) for label in range(bench.classes))
    if len(names) != bench.classes:
        raise RepulseError(f"{len(names)} class names, but the model gives {bench.classes} classes")
    bench.check_deterministic()
    script = _script_bench(bench) if settings.norm == "linf" else None

    outcomes: dict[str, Outcome] = {}
    records = []
    for planned in plan(settings, threat, training_loss, published=script is not None):
        runs_on = script if script is not None and planned.group == "paper-as-published" else bench
        after = outcomes.get(planned.continues or "")
        outcomes[planned.name] = runs_on.attack(planned.attack, threat, planned.label, after=after)
        records.append(_attack_record(planned, threat, outcomes[planned.name], runs_on))

    counted = [outcomes[record.name] for record in records if record.group != "paper-as-published"]
    worst = torch.stack([outcome.robust for outcome in counted]).all(0)
    attacked, adversarial = bench.natural.clone(), images.clone()
    for outcome in reversed(counted):
        # The first attack that fooled an image stands for it.
        won = bench.right & ~outcome.robust
        attacked[won], adversarial[won] = outcome.prediction[won], outcome.adversarial[won]

    curve = robustness_curve(bench, settings, training_loss)
    record = Record(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=_model_record(model, about),
        data=DataRecord(
            name=about.data,
            split=about.split,
            count=len(images),
            image_shape=tuple(images.shape[1:]),
            class_names=names,
            sha256=sha256_of(images, labels),
        ),
        norm=settings.norm,
        eps=settings.eps,
        seed=settings.seed,
        natural_accuracy=_share(bench.right),
        attacks=tuple(records),
        worst_case_accuracy=_share(worst),
        curve_attack=curve_attack(settings),
        curve=curve,
        confusion_natural=_confusion(labels, bench.natural, len(names)),
        confusion_attacked=_confusion(labels, attacked, len(names)),
        seconds=time.perf_counter() - started,
        environment={**environment(), "command": about.command},
    )
    tensors = {
        "label": labels.int(),
        "natural_prediction": bench.natural.int(),
        "robust/worst-case": worst.to(torch.uint8),
    }
    for name, outcome in outcomes.items():
        tensors[f"robust/{name}"] = outcome.robust.to(torch.uint8)
        tensors[f"prediction/{name}"] = outcome.prediction.int()
    tensors |= gallery(bench, adversarial, attacked, bench.right & ~worst, settings.gallery)
    tensors |= output_space(bench)
    return Evaluation(record, tensors)


def _script_bench(bench: Bench) -> Bench | None:
    """A bench for the model as the paper's script attacks it, on images as that sees them; None if it cannot."""
    if not AsPublished.fits(bench.model):
        return None
    model = AsPublished(bench.model)
    images = torch.cat([model.normalise(part.to(bench.device)).cpu() for part in torch.split(bench.images, 1000)])
    return Bench(model, images, bench.labels, batch_size=bench.batch_size, seed=bench.seed, progress=bench.progress)


def _attack_record(planned: Planned, threat: Threat, outcome: Outcome, bench: Bench) -> AttackRecord:
    attack = planned.attack
    settings: dict[str, bool | int | float | str] = {
        "steps": attack.steps,
        "step_size": threat.eps / 4 if attack.step_size is None else attack.step_size,
        "restarts": attack.restarts,
        "random_start": attack.random_start,
    }
    if planned.group == "paper-as-published":
        settings["natural_accuracy"] = _share(bench.right)
    if planned.continues is not None:
        settings["only_survivors_of"] = planned.continues
    return AttackRecord(
        name=planned.name,
        label=planned.label,
        group=planned.group,
        norm=threat.norm,
        eps=threat.eps,
        settings=settings,
        robust_accuracy=_share(outcome.robust),
        seconds=outcome.seconds,
        forward_passes=outcome.forward_passes,
        backward_passes=outcome.backward_passes,
        largest_perturbation=outcome.largest,
    )


def _model_record(model: nn.Module, about: About) -> ModelRecord:
    state = model.state_dict().items()
    return ModelRecord(
        name=about.model,
        description=about.description,
        parameters=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        weights_sha256=sha256_of(*(part for name, value in state for part in (name.encode(), value))),
    )


def _confusion(labels: Tensor, predictions: Tensor, classes: int) -> tuple[tuple[int, ...], ...]:
    counts = torch.bincount(labels * classes + predictions, minlength=classes * classes)
    return tuple(tuple(row) for row in counts.reshape(classes, classes).tolist())


def _share(mask: Tensor) -> float:
    return mask.double().mean().item()
