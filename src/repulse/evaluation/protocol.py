"""Measure a model: natural accuracy, the paper's protocol, attacks on the logits, a robustness curve."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from repulse.attacks import EmbeddingLoss, Threat
from repulse.attacks.attack import check_inputs, ordinary_autograd
from repulse.common.environment import environment
from repulse.common.errors import RepulseError
from repulse.common.run_files import EVALUATIONS
from repulse.common.settings import chosen
from repulse.common.units import in_255ths
from repulse.evaluation.attack_runner import AttackRunner
from repulse.evaluation.checks import check_use, examine
from repulse.evaluation.curve import curve_attack, robustness_curve
from repulse.evaluation.expectation import in_expectation, is_random
from repulse.evaluation.findings import Findings, run_attacks
from repulse.evaluation.gradient_free import GradientFree, has_gradient
from repulse.evaluation.misuse import refuse_misuse, report_misuse
from repulse.evaluation.pictures import gallery, output_space
from repulse.evaluation.record import CheckRecord, Record, load_evaluation, save_evaluation
from repulse.evaluation.settings import EvaluationSettings
from repulse.evaluation.slices import loss_slices
from repulse.evaluation.verdict import judge
from repulse.models.foreign.adapt import adapt_model
from repulse.subject import About, Progress, Subject
from repulse.subject.pairs import images_and_labels
from repulse.subject.subject import silent
from repulse.subject.targeted import towards

_CHECKS = TypeAdapter(tuple[CheckRecord, ...])


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A record, and the outcome of every image behind it."""

    record: Record
    outcomes: dict[str, Tensor] = field(repr=False)
    folder: Path | None = None
    """Where it is kept; None: nowhere yet."""

    def save(self, folder: str | Path) -> None:
        """Write both to a folder.

        Raises:
            RepulseError: if it cannot be written.
        """
        save_evaluation(Path(folder), self.record, self.outcomes)


def evaluate(
    model: nn.Module | Callable[[Tensor], Any],
    images: Any,
    labels: Any = None,
    settings: EvaluationSettings | None = None,
    *,
    training_loss: EmbeddingLoss | None = None,
    target: int | str | None = None,
    about: About | None = None,
    progress: Progress | None = None,
    folder: str | Path | None = None,
    **keywords: Any,
) -> Evaluation:
    """Measure how robust a model is, under the paper's protocol and under attacks that don't give up, side by side.

    The worst case counts an image as robust only if no attack fooled it. The attacks as the paper's script runs them
    change other images by other amounts; they are reported on their own and never counted in the worst case.

    First the way the model is used is checked: scaling, labels, classes, probabilities instead of logits. A stochastic
    model is measured in expectation over `settings.expectation` samples, and the record says so.

    Args:
        model: any module or function from images in [0, 1] to logits (N, n), or to a tuple, a mapping or an object that
            holds `logits`; it is measured in evaluation mode, on its own device.
        images: clean images, of any shape, pixels in [0, 1], or whole numbers from 0 to 255: a tensor, a NumPy array
            or a list; or, without labels, a `DataLoader`, a `Dataset`, a data set of Hugging Face's, or the path of a
            folder.
        labels: true classes: whole numbers of any kind, (N,) or (N, 1), or one-hot rows (N, n).
        settings: attacks and their strength.
        training_loss: what the model was trained to minimise, on embeddings, for models with `embed` and `classify`;
            None: cross-entropy on the logits.
        target: the only class that counts as fooled, by name or number; its own images are left out. None: any.
        about: names for the record.
        progress: called after each batch.
        folder: where to write the evaluation. What is done is kept there batch by batch, so that an evaluation that was
            killed goes on when it is called again, and processes under `torchrun` share the work. None: nothing is
            written, and `save` may be called on what is returned.
        keywords: settings by their names, `eps=8 / 255, attacks="quick"`, in place of `settings`.

    Returns:
        The record and the outcomes of all images.

    Raises:
        RepulseError: if images, labels or logits are impossible, or the model has fewer classes than the data.
    """
    settings = chosen(EvaluationSettings, settings, keywords, "evaluate")
    images, labels = images_and_labels(images, labels)
    subject = Subject(
        adapt_model(model),
        images,
        labels,
        about or About(),
        training_loss=training_loss,
        progress=progress or silent,
    )
    subject = subject if target is None else towards(subject, target)
    return evaluate_subject(subject, settings, None if folder is None else Path(folder))


@ordinary_autograd
def evaluate_subject(
    subject: Subject,
    settings: EvaluationSettings | None = None,
    folder: str | Path | None = None,
    *,
    stop_if_misused: bool = False,
) -> Evaluation:
    """Measure how robust the model of a subject is; see `evaluate`.

    What is done already is read, and what was interrupted goes on; another evaluation is never overwritten.

    Args:
        subject: the model and its images.
        settings: attacks and their strength.
        folder: where to write the evaluation; None: in the subject's home, if it has one.
        stop_if_misused: attack nothing if the model is not used as it was meant to be.

    Raises:
        RepulseError: as `evaluate` says; if the folder holds another evaluation; or because of misuse.
    """
    settings = settings or EvaluationSettings()
    started = time.perf_counter()
    if len(subject.images) == 0:
        raise RepulseError("there are no images to measure")
    subject = replace(subject, model=adapt_model(subject.model))
    threat = Threat(settings.norm, settings.eps)
    # All of them at once: an attack sees only images that are classified right, and would miss the others.
    check_inputs(subject.images, subject.labels, threat)
    subject = subject.at_work(
        settings,
        seed=settings.seed,
        batch_size=settings.batch_size,
        output=None if folder is None else Path(folder),
        kind=EVALUATIONS,
        name=threat_name(settings),
        more=f"{settings.attacks}-{len(subject.images)}",
    )
    place = subject.folder
    if subject.finished and place is not None:
        return Evaluation(*load_evaluation(place), place)
    try:
        used = _usage(subject)
        if stop_if_misused:
            refuse_misuse(used, "attacked")
        report_misuse(subject, used)
        runner = _runner(subject, settings)
    except RepulseError:
        subject.journal.abandon()
        raise
    # A model may have more outputs than the data has classes; fewer were refused above.
    known = subject.about.class_names
    names = (*known, *(str(label) for label in range(len(known), runner.classes)))

    findings = run_attacks(runner, settings, threat)
    curve = robustness_curve(runner, settings, findings)
    worst = findings.worst
    checks = (*used, *examine(runner, threat, findings.outcomes, findings.records))
    counts = subject.labels.bincount()
    verdict = judge(
        natural=_share(runner.right),
        attacks=findings.records,
        worst=_share(worst.robust),
        count=len(subject.images),
        checks=checks,
        claim=settings.claimed,
        own_loss=subject.training_loss is not None,
        # Of images of one class nobody can guess better or worse.
        chance=float(counts.max()) / len(subject.labels) if int((counts > 0).sum()) > 1 else 0.0,
    )
    record = Record(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=subject.model_record,
        data=subject.data_record.model_copy(update={"class_names": names}),
        norm=settings.norm,
        eps=settings.eps,
        seed=settings.seed,
        natural_accuracy=_share(runner.right),
        attacks=tuple(findings.records),
        worst_case_accuracy=_share(worst.robust),
        verdict=verdict,
        checks=checks,
        expectation=settings.expectation if runner.random else 1,
        curve_attack=curve_attack(settings),
        curve=curve,
        confusion_natural=_confusion(subject.labels, runner.natural, len(names)),
        confusion_attacked=_confusion(subject.labels, worst.prediction, len(names)),
        seconds=time.perf_counter() - started,
        environment={**environment(), "command": subject.about.command},
    )
    evaluation = Evaluation(record, _tensors(runner, findings, threat, settings), place)
    if place is not None and subject.journal.rank == 0:
        evaluation.save(place)
    subject.journal.close()
    return evaluation


def threat_name(settings: EvaluationSettings) -> str:
    """What a folder calls the norm and eps of an evaluation: 'linf-8_255'."""
    return f"{settings.norm}-{in_255ths(settings.eps).replace('/', '_')}"


def _usage(subject: Subject) -> tuple[CheckRecord, ...]:
    """How the model is used, asked once in an evaluation."""

    def ask() -> str:
        names = subject.about.class_names
        found = check_use(subject.model, subject.images, subject.labels, device=subject.device, class_names=names)
        return _CHECKS.dump_json(found).decode()

    return _CHECKS.validate_json(subject.journal.text("how the model is used", ask))


def _runner(subject: Subject, settings: EvaluationSettings) -> AttackRunner:
    """For the model as it can be attacked: in expectation if it is stochastic, without gradients if need be."""
    some = subject.images[:100].to(subject.device)
    random = is_random(subject.model, some)
    model = in_expectation(subject.model, settings.expectation) if random else subject.model
    if not has_gradient(model, some[:1]):
        model = GradientFree(model)
    return AttackRunner(replace(subject, model=model), random=random, pictures=settings.gallery)


def _tensors(
    runner: AttackRunner, findings: Findings, threat: Threat, settings: EvaluationSettings
) -> dict[str, Tensor]:
    """What was seen for each image, and what the pictures need; see `record`."""
    worst = findings.worst
    tensors = {
        "label": runner.labels.int(),
        "natural_prediction": runner.natural.int(),
        "smallest": runner.smallest,
        "robust/worst-case": worst.robust.to(torch.uint8),
        "fooled_by": findings.fooled_by(runner.right),
        **findings.cost(),
    }
    for name, outcome in findings.outcomes.items():
        tensors[f"robust/{name}"] = outcome.robust.to(torch.uint8)
        tensors[f"prediction/{name}"] = outcome.prediction.int()
    fooled = runner.right & ~worst.robust
    tensors |= gallery(runner, worst, settings.gallery)
    if settings.gallery and threat.eps:
        # The loss surface around a few images of each kind: fooled, and withstanding everything.
        rows = torch.cat([kind.nonzero().flatten()[: settings.gallery // 4] for kind in (fooled, worst.robust)])
        tensors |= loss_slices(runner, worst.pictures(rows, runner.images), rows, threat) if len(rows) else {}
    return tensors | output_space(runner)


def _confusion(labels: Tensor, predictions: Tensor, classes: int) -> tuple[tuple[int, ...], ...]:
    counts = torch.bincount(labels * classes + predictions, minlength=classes * classes)
    return tuple(tuple(row) for row in counts.reshape(classes, classes).tolist())


def _share(mask: Tensor) -> float:
    return mask.double().mean().item()
