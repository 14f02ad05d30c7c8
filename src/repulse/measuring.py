"""Measure a run, with its test images and its training loss, or a model from outside; and keep the record."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repulse.common.errors import RepulseError
from repulse.common.files import sha256_of
from repulse.common.settings import merge
from repulse.common.units import in_255ths
from repulse.config.run import RunConfig
from repulse.data import ImageSource, load_test, subset
from repulse.evaluation import About, Evaluation, EvaluationSettings, evaluate
from repulse.evaluation.bench import Progress
from repulse.models import PrototypeClassifier
from repulse.models.foreign import load_foreign
from repulse.runs import Checkpoint, load_run, load_splits


def evaluate_run(
    folder: Path,
    settings: EvaluationSettings,
    *,
    checkpoint: Checkpoint = "last",
    images: int | None = None,
    source: str | None = None,
    output: Path | None = None,
    device: str = "auto",
    command: str = "",
    progress: Progress | None = None,
) -> tuple[Evaluation, Path]:
    """Measure the model of a run folder on its test images; returns the evaluation and the folder it is kept in.

    Args:
        folder: the run folder.
        settings: attacks and their strength.
        checkpoint: weights of the last epoch, or of the best in validation accuracy.
        images: how many test images, a balanced subset drawn from the settings' seed; None: all.
        source: where the data lies now; None: where the run found it.
        output: where to keep the evaluation; None: under `evaluations/` in the run folder, named by norm and eps.
        device: `cpu`, `cuda`, or `auto`.
        command: the command line, for the record.
        progress: told after each batch.

    Raises:
        RepulseError: if the run, its checkpoint or its data cannot be read, or the data has other classes or shapes.
    """
    run = open_run(folder, checkpoint, images, settings.seed, source=source, device=device, command=command)
    model, config = run.model, run.config
    loss = config.loss
    place = output or folder / "evaluations" / threat_name(settings)
    evaluation = evaluate(
        model,
        run.pixels(),
        run.images.labels,
        settings,
        # Cross-entropy on logits is what the default attacks; only other losses need the way through the embedding.
        training_loss=None if config.loss.name == "cross-entropy" else lambda z, y: loss.per_example(z, y, model),
        about=run.about,
        progress=progress,
        folder=place,
    )
    return evaluation, place


@dataclass(frozen=True)
class Foreign:
    """A model that was not trained here, and the images that it is to be measured on.

    Args:
        spec: the model, see `repulse.models.foreign.load_foreign`.
        source: the images, as `repulse.data.load_data` reads them.
        weights: file of weights; None: the model has its own.
        data: further arguments of `load_data`.
        mean: per-channel mean that the model wants subtracted from pixels in [0, 1]; None: it takes pixels.
        std: per-channel deviation that it wants them divided by; None: 1.
        images: how many test images, a balanced subset; None: all.
        device: `cpu`, `cuda`, or `auto`.
    """

    spec: str
    source: str
    weights: Path | None = None
    data: Mapping[str, Any] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    images: int | None = None
    device: str = "auto"

    @property
    def name(self) -> str:
        """What a folder calls the model: 'net.py-make'."""
        return re.sub(r"[^A-Za-z0-9.-]+", "-", self.spec).strip("-.")


def evaluate_foreign(
    foreign: Foreign,
    settings: EvaluationSettings,
    *,
    output: Path,
    command: str = "",
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model that was not trained here.

    Args:
        foreign: the model and its images; a subset of them is drawn from the settings' seed.
        settings: attacks and their strength.
        output: folder for the record; an evaluation that was killed goes on there.
        command: the command line, for the record.
        progress: told after each batch.

    Raises:
        RepulseError: if the model, its weights or its data cannot be read, or don't fit each other.
    """
    opened = open_foreign(foreign, settings.seed, command)
    return evaluate(
        opened.model,
        opened.pixels(),
        opened.images.labels,
        settings,
        about=opened.about,
        progress=progress,
        folder=output,
    )


@dataclass(frozen=True, eq=False)
class Opened:
    """A model that is to be measured, on its device, the images that it is measured on, and what records call both."""

    model: nn.Module
    images: ImageSource
    about: About

    def pixels(self) -> Tensor:
        """All images, in [0, 1]."""
        return self.images.fetch(torch.arange(len(self.images))).float() / 255


@dataclass(frozen=True, eq=False)
class OpenedRun(Opened):
    """The same of a run, with how it was trained."""

    model: PrototypeClassifier
    config: RunConfig


def open_run(
    folder: Path,
    checkpoint: Checkpoint,
    images: int | None,
    seed: int,
    *,
    source: str | None = None,
    device: str = "auto",
    command: str = "",
) -> OpenedRun:
    """Open a run folder to measure its model on its test images.

    Args: as for `evaluate_run`; `seed` draws the subset.

    Raises:
        RepulseError: if the run, its checkpoint or its data cannot be read, or the data has other classes or shapes.
    """
    model, config, classes = load_run(folder, checkpoint)
    if source is not None:
        config = merge(config, {"data": {"source": source, "name": config.data.name or classes.data_name}}, "source")
    test = load_splits(merge(config, {"data": {"validation": 0.0}}, "evaluate")).test
    _check_same_kind(test, classes.names, classes.image_shape)
    some = _some(test, images, seed)
    try:
        model.to(_device(device))
    except (RuntimeError, AssertionError) as error:
        raise RepulseError(f"cannot use device {device!r}: {str(error).splitlines()[0]}") from error
    # Convolutions, and so attacks, are 1.4 times as fast on a CPU in this layout.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    about = About(
        model=config.name,
        description=(
            f"{config.model.backbone}, {config.prototypes.method} prototypes in {model.prototypes.shape[1]}-d, "
            f"{config.model.readout} readout, {config.loss.name} loss, {config.fit.epochs} epochs, "
            f"{checkpoint} checkpoint"
        ),
        data=classes.data_name,
        split=some.split,
        class_names=classes.names,
        command=command,
    )
    return OpenedRun(model, some, about, config)


def open_foreign(foreign: Foreign, seed: int, command: str = "") -> Opened:
    """Open a model that was not trained here to measure it.

    Args:
        foreign: the model and its images.
        seed: of the subset of images.
        command: the command line, for the record.

    Raises:
        RepulseError: if the model, its weights or its data cannot be read, or don't fit each other.
    """
    spec, weights = foreign.spec, foreign.weights
    test = load_test(foreign.source, divide=False, **(foreign.data or {}))
    some = _some(test, foreign.images, seed)
    model = load_foreign(
        spec,
        weights,
        classes=len(test.class_names),
        mean=foreign.mean,
        std=foreign.std,
        device=_device(foreign.device),
    )
    about = About(
        model=Path(weights).stem if weights is not None else spec.rsplit(":", 1)[-1].rsplit("/", 1)[-1],
        description=f"{spec}, weights {weights.name if weights is not None else 'of its own'}",
        data=test.name,
        split=test.split,
        class_names=test.class_names,
        command=command,
        code=_program_text(spec),
    )
    return Opened(model, some, about)


def _program_text(spec: str) -> str:
    """A digest of the file that a factory stands in; empty for a model that has none."""
    module, _, attribute = spec.rpartition(":")
    if not (module and attribute):
        return ""
    path = Path(module)
    if path.suffix != ".py":
        found = importlib.util.find_spec(module)
        path = Path(found.origin) if found is not None and found.origin else path
    return sha256_of(path.read_bytes()) if path.is_file() else ""


def threat_name(settings: EvaluationSettings) -> str:
    """What a folder calls the norm and eps of an evaluation: 'linf-8_255'."""
    return f"{settings.norm}-{in_255ths(settings.eps).replace('/', '_')}"


def _some(test: ImageSource, images: int | None, seed: int) -> ImageSource:
    return test if images is None else subset(test, min(images, len(test)), seed)


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _check_same_kind(test: ImageSource, names: Sequence[str], shape: Sequence[int]) -> None:
    if tuple(test.image_shape) != tuple(shape):
        raise RepulseError(f"the run was trained on images of shape {tuple(shape)}, but these are {test.image_shape}")
    if len(test.class_names) != len(names):
        raise RepulseError(f"the run was trained on {len(names)} classes, but this data has {len(test.class_names)}")
