"""Measure a model: natural accuracy, the paper's protocol, attacks on the logits, a robustness curve."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int32, Int64
from pydantic import TypeAdapter
from torch import Tensor, nn

from repulse.attacks import PGD, EmbeddingLoss, Threat
from repulse.attacks.attack import check_inputs
from repulse.attacks.fmn import FMN
from repulse.common.environment import environment
from repulse.common.errors import RepulseError
from repulse.common.files import sha256_of
from repulse.common.settings import Settings
from repulse.evaluation.bench import Bench, Outcome, Progress, device_of
from repulse.evaluation.checks import check_use, examine
from repulse.evaluation.curve import curve_attack, robustness_curve
from repulse.evaluation.expectation import in_expectation, is_random
from repulse.evaluation.gradient_free import GradientFree, has_gradient
from repulse.evaluation.identity import Identity, answers_of
from repulse.evaluation.journal import Journal
from repulse.evaluation.keepsakes import gallery, output_space
from repulse.evaluation.plan import Planned, adaptive_plan, plan
from repulse.evaluation.published import AsPublished
from repulse.evaluation.record import AttackRecord, CheckRecord, DataRecord, Group, ModelRecord, Record, save_evaluation
from repulse.evaluation.settings import EvaluationSettings
from repulse.evaluation.slices import loss_slices
from repulse.evaluation.verdict import judge
from repulse.version import __version__

_CHECKS = TypeAdapter(tuple[CheckRecord, ...])


@dataclass(frozen=True)
class About:
    """What tables and records call the model and the data."""

    model: str = "model"
    description: str = ""
    data: str = "data"
    split: str = "test"
    class_names: tuple[str, ...] = ()
    command: str = ""
    code: str = ""
    """Digest of the program text that the model comes from, if it has one of its own."""


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
    images: Float[Tensor, "N *shape"],
    labels: Int64[Tensor, "N"],
    settings: EvaluationSettings | None = None,
    *,
    training_loss: EmbeddingLoss | None = None,
    about: About | None = None,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> Evaluation:
    """Measure how robust a model is, under the paper's protocol and under attacks that don't give up, side by side.

    The worst case counts an image as robust only if no attack fooled it. The attacks as the paper's script runs them
    change other images by other amounts; they are reported on their own and never counted in the worst case.

    First the way the model is used is checked: scaling, labels, classes, probabilities instead of logits. A model
    that throws dice is measured in expectation over `settings.expectation` draws, and the record says so.

    Args:
        model: any module from images in [0, 1] to logits (N, n); it is measured in evaluation mode, on its own device.
        images: clean images, of any shape, pixels in [0, 1].
        labels: true classes.
        settings: attacks and their strength.
        training_loss: what the model was trained to minimise, on embeddings, for models with `embed` and `classify`;
            None: cross-entropy on the logits.
        about: names for the record.
        progress: told after each batch.
        folder: where to write the evaluation. What is done is kept there batch by batch, so that an evaluation that was
            killed goes on when it is called again, and processes under `torchrun` share the work. None: nothing is
            written, and `save` may be called on what is returned.

    Returns:
        The record and the outcomes of all images.

    Raises:
        RepulseError: if images, labels or logits are impossible, or the model has fewer classes than the data.
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
    described = model_record(model, about)
    data = DataRecord(
        name=about.data,
        split=about.split,
        count=len(images),
        image_shape=tuple(images.shape[1:]),
        class_names=about.class_names,
        sha256=sha256_of(images, labels),
    )
    device = device_of(model, images)
    who = identity_of(model, described, data, settings, about, images, labels, device, training_loss)
    journal = Journal(None if folder is None else folder / "progress", who)

    def use() -> str:
        found = check_use(model, images, labels, device=device, classes=len(about.class_names) or None)
        return _CHECKS.dump_json(found).decode()

    used = _CHECKS.validate_json(journal.text("how the model is used", use))
    some = images[:100].to(device)
    random = is_random(model, some)
    measured = in_expectation(model, settings.expectation) if random else model
    if not has_gradient(measured, some[:1]):
        measured = GradientFree(measured)
    bench = Bench(
        measured,
        images,
        labels,
        batch_size=settings.batch_size,
        seed=settings.seed,
        progress=progress,
        journal=journal,
        random=random,
    )
    # A model may have more outputs than the data has classes; fewer were refused above.
    names = (*about.class_names, *(str(label) for label in range(len(about.class_names), bench.classes)))

    findings = _attack(bench, settings, threat, training_loss)
    curve = robustness_curve(bench, settings, training_loss)
    worst = findings.worst
    checks = (*used, *examine(bench, threat, findings.counted, findings.groups))
    verdict = judge(
        natural=_share(bench.right),
        robust={attack.name: (attack.label, attack.group, attack.robust_accuracy) for attack in findings.records},
        worst=_share(worst.robust),
        count=len(images),
        checks=checks,
        claim=settings.claimed,
        own_loss=training_loss is not None,
        chance=float(labels.bincount().max()) / len(labels),
    )
    record = Record(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=described,
        data=data.model_copy(update={"class_names": names}),
        norm=settings.norm,
        eps=settings.eps,
        seed=settings.seed,
        natural_accuracy=_share(bench.right),
        attacks=tuple(findings.records),
        worst_case_accuracy=_share(worst.robust),
        verdict=verdict,
        checks=checks,
        expectation=settings.expectation if random else 1,
        curve_attack=curve_attack(settings),
        curve=curve,
        confusion_natural=_confusion(labels, bench.natural, len(names)),
        confusion_attacked=_confusion(labels, worst.prediction, len(names)),
        seconds=time.perf_counter() - started,
        environment={**environment(), "command": about.command},
    )
    tensors = {
        "label": labels.int(),
        "natural_prediction": bench.natural.int(),
        "smallest": bench.smallest,
        "robust/worst-case": worst.robust.to(torch.uint8),
    }
    tensors |= findings.cost()
    tensors["fooled_by"] = findings.fooled_by(bench.right)
    for name, outcome in findings.outcomes.items():
        tensors[f"robust/{name}"] = outcome.robust.to(torch.uint8)
        tensors[f"prediction/{name}"] = outcome.prediction.int()
    tensors |= gallery(bench, worst.adversarial, worst.prediction, bench.right & ~worst.robust, settings.gallery)
    tensors |= _slices(bench, worst, threat, settings)
    tensors |= output_space(bench)
    evaluation = Evaluation(record, tensors)
    if folder is not None and journal.rank == 0:
        evaluation.save(folder)
    journal.close()
    return evaluation


@dataclass(frozen=True, eq=False)
class _Findings:
    """What the planned attacks found, and the worst case over those that count."""

    records: list[AttackRecord]
    outcomes: dict[str, Outcome]
    worst: Outcome

    @property
    def groups(self) -> dict[str, Group]:
        """The group of each attack."""
        return {record.name: record.group for record in self.records}

    @property
    def counted(self) -> dict[str, Outcome]:
        """The outcomes that count in the worst case."""
        return {name: self.outcomes[name] for name, group in self.groups.items() if group != "paper-as-published"}

    def fooled_by(self, right: Bool[Tensor, "N"]) -> Int32[Tensor, "N"]:
        """The place in the record of the first attack that counts and fooled each image; see `record` for the rest."""
        first = torch.where(right, -1, -2).int()
        for place, record in enumerate(self.records):
            if record.name in self.counted:
                first[(first == -1) & ~self.outcomes[record.name].robust] = place
        return first

    def cost(self) -> dict[str, Tensor]:
        """What all attacks together spent on each image."""
        outcomes = self.outcomes.values()
        queries = torch.stack([outcome.passes.forward + outcome.passes.backward for outcome in outcomes])
        seconds = torch.stack([outcome.seconds for outcome in outcomes])
        return {"queries": queries.sum(0).int(), "seconds": seconds.sum(0).float()}


def _attack(
    bench: Bench, settings: EvaluationSettings, threat: Threat, training_loss: EmbeddingLoss | None
) -> _Findings:
    """Run the plan. In the worst case, the first attack that fooled an image stands for it."""
    script = _script_bench(bench) if settings.norm == "linf" else None
    outcomes: dict[str, Outcome] = {}
    records: list[AttackRecord] = []
    worst: Outcome | None = None
    todo = plan(settings, threat, training_loss, published=script is not None)
    if settings.attacks == "adaptive":
        todo += adaptive_plan(bench, threat, training_loss)
    for planned in todo:
        if script is not None and planned.group == "paper-as-published":
            outcome = script.attack(planned.attack, threat, planned.label, after=outcomes.get(planned.continues or ""))
            records.append(_attack_record(planned, threat, outcome, script, added=None))
        else:
            after = worst if planned.survivors else outcomes.get(planned.continues or "")
            if isinstance(planned.attack, FMN):
                outcome = bench.minimum(planned.attack, threat, planned.label)
            else:
                outcome = bench.attack(planned.attack, threat, planned.label, after=after)
            before = bench.right if worst is None else worst.robust
            added = int((before & ~outcome.robust).sum())
            records.append(_attack_record(planned, threat, outcome, bench, added))
            worst = outcome if worst is None else outcome.after(worst)
        outcomes[planned.name] = outcome
    assert worst is not None, "a plan always has attacks on the logits"
    return _Findings(records, outcomes, worst)


def _slices(bench: Bench, worst: Outcome, threat: Threat, settings: EvaluationSettings) -> dict[str, Tensor]:
    """The loss surface around a few images of each kind: fooled, and withstanding everything."""
    if settings.gallery == 0 or threat.eps == 0:
        return {}
    kinds = (bench.right & ~worst.robust, worst.robust)
    rows = torch.cat([kind.nonzero().flatten()[: settings.gallery // 4] for kind in kinds])
    return loss_slices(bench, worst.adversarial, rows, threat) if len(rows) else {}


def _script_bench(bench: Bench) -> Bench | None:
    """A bench for the model as the paper's script attacks it, on images as that sees them; None if it cannot."""
    if bench.random or not AsPublished.fits(bench.model):
        return None
    model = AsPublished(bench.model)
    images = torch.cat([model.normalise(part.to(bench.device)).cpu() for part in torch.split(bench.images, 1000)])
    return Bench(
        model,
        images,
        bench.labels,
        batch_size=bench.batch_size,
        seed=bench.seed,
        progress=bench.progress,
        journal=bench.journal,
        variant="as published",
    )


def identity_of(
    model: nn.Module,
    described: ModelRecord,
    data: DataRecord,
    settings: Settings,
    about: About,
    images: Tensor,
    labels: Tensor,
    device: torch.device,
    training_loss: EmbeddingLoss | None = None,
) -> Identity:
    """Everything that decides the outcomes: an interrupted measurement goes on only where it is the same one."""
    # A model left in training mode is said to be.
    modes = bytes(getattr(module, "training", False) for module in model.modules())
    parts = {
        "the weights": described.weights_sha256,
        "the program": about.code,
        "the mode of the model": sha256_of(modes),
        "the images": data.sha256,
        "the number of classes": str(len(data.class_names)),
        "the settings": settings.model_dump_json(),
        "the version of repulse": __version__,
    }
    return Identity(parts, *answers_of(model, images, labels, device, training_loss))


def _attack_record(planned: Planned, threat: Threat, outcome: Outcome, bench: Bench, added: int | None) -> AttackRecord:
    settings = {
        field.name: value
        for field in fields(planned.attack)  # type: ignore[arg-type]
        if isinstance(value := getattr(planned.attack, field.name), (bool, int, float, str))
    }
    if isinstance(planned.attack, PGD):
        settings.setdefault("step_size", threat.eps / 4)
    if planned.group == "paper-as-published":
        settings["natural_accuracy"] = _share(bench.right)
    forward, backward = outcome.passes.total
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
        seconds=outcome.seconds.sum().item(),
        forward_passes=forward,
        backward_passes=backward,
        largest_perturbation=outcome.largest,
        attacked=outcome.attacked,
        added=added,
    )


def model_record(model: nn.Module, about: About) -> ModelRecord:
    """Which model it is: its names, its size, and a digest of all parameters and buffers."""
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
