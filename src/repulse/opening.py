"""Open what is to be measured, a run or a model of somebody else's; and measure a run in one call."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repulse.certification.certify import Certification, certify_subject
from repulse.certification.settings import CertificationSettings
from repulse.common.errors import RepulseError
from repulse.common.files import sha256_of
from repulse.common.settings import merge
from repulse.data import ImageSource, load_test, subset
from repulse.evaluation import Evaluation, evaluate_subject
from repulse.evaluation.settings import EvaluationSettings
from repulse.models.foreign import load_foreign
from repulse.models.foreign.load import is_named
from repulse.places import is_local
from repulse.run_folder import Checkpoint, load_run, load_test_split
from repulse.subject import About, Progress, Subject
from repulse.subject.subject import silent


def evaluate_run(
    folder: str | Path, settings: EvaluationSettings, *, output: str | Path | None = None, **how: Any
) -> Evaluation:
    """Measure the model of a run folder on its test images; the evaluation says in which folder it is kept.

    Args:
        folder: the run folder, or `zoo:NAME`, or `hub:ORG/NAME`.
        settings: attacks and their strength.
        output: where to keep the evaluation; None: under `evaluations/` in the run folder, named by norm and eps.
        how: which checkpoint and images, on what device; see `open_run`.

    Raises:
        RepulseError: see `open_run` and `repulse.evaluate`.
    """
    return evaluate_subject(open_run(folder, seed=settings.seed, **how), settings, output)


def certify_run(
    folder: str | Path,
    settings: CertificationSettings | None = None,
    *,
    output: str | Path | None = None,
    **how: Any,
) -> Certification:
    """Certify the model of a run folder on its test images; the certification says in which folder it is kept.

    Args:
        folder: the run folder, or `zoo:NAME`, or `hub:ORG/NAME`.
        settings: method, radii, and attack. Without a sigma, smoothing takes that of the training, if it had noise.
        output: where to keep it; None: under `certificates/` in the run folder, named by the method.
        how: which checkpoint and images, on what device; see `open_run`.

    Raises:
        RepulseError: see `open_run` and `repulse.certify`.
    """
    settings = settings or CertificationSettings()
    return certify_subject(open_run(folder, seed=settings.seed, **how), settings, output)


def open_run(
    folder: str | Path,
    *,
    checkpoint: Checkpoint = "last",
    images: int | None = None,
    seed: int = 0,
    source: str | None = None,
    device: str = "auto",
    command: str = "",
    progress: Progress | None = None,
) -> Subject:
    """Open a run folder to measure its model on its test images.

    Args:
        folder: the run folder, or `zoo:NAME`, or `hub:ORG/NAME`, whose results are kept in the working directory.
        checkpoint: weights of the last epoch, or of the best in validation accuracy.
        images: how many test images, a balanced subset; None: all.
        seed: of the subset.
        source: where the data lies now; None: where the run found it.
        device: `cpu`, `cuda`, or `auto`.
        command: the command line, for the record.
        progress: called after each batch.

    Raises:
        RepulseError: if the run, its checkpoint or its data cannot be read, or the data has other classes or shapes.
    """
    model, config, classes = load_run(folder, checkpoint)
    if source is not None:
        config = merge(config, {"data": {"source": source, "name": config.data.name or classes.data_name}}, "source")
    some = _some(load_test_split(config, classes), images, seed)
    try:
        model.to(_device(device))
    except (RuntimeError, AssertionError) as error:
        raise RepulseError(f"cannot use device {device!r}: {str(error).splitlines()[0]}") from error
    # Convolutions, and so attacks, are 1.4 times as fast on a CPU in this layout.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss, recipe = config.loss, config.recipe
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
    return Subject(
        model,
        _pixels(some),
        some.labels,
        about,
        # Cross-entropy on logits is what the default attacks; only other losses need the way through the embedding.
        training_loss=None if config.loss.name == "cross-entropy" else lambda z, y: loss.per_example(z, y, model),
        training_noise=recipe.gaussian_noise,
        home=Path(folder) if is_local(folder) else Path(),
        prefix="" if is_local(folder) else f"{_slug(str(folder))}-",
        progress=progress or silent,
    )


def open_foreign(
    spec: str,
    source: str,
    *,
    weights: Path | None = None,
    weights_key: str | None = None,
    data: Mapping[str, Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    images: int | None = None,
    seed: int = 0,
    device: str = "auto",
    command: str = "",
    progress: Progress | None = None,
) -> Subject:
    """Open a model that was not trained here to measure it on images that are named.

    Args:
        spec: the model, see `repulse.models.foreign.load.load_foreign`.
        source: the images, as `repulse.data.load_data` reads them.
        weights: file of weights; None: the model has its own.
        weights_key: which set of weights to take where the file holds several.
        data: further arguments of `load_data`.
        mean: per-channel mean that the model wants subtracted from pixels in [0, 1]; None: it takes pixels.
        std: per-channel standard deviation that it wants them divided by; None: 1.
        images: how many test images, a balanced subset; None: all.
        seed: of the subset.
        device: `cpu`, `cuda`, or `auto`.
        command: the command line, for the record.
        progress: called after each batch.

    Raises:
        RepulseError: if the model, its weights or its data cannot be read, or don't fit each other.
    """
    test = load_test(source, divide=False, **(data or {}))
    some = _some(test, images, seed)
    model = load_foreign(
        spec,
        weights,
        weights_key=weights_key,
        classes=len(test.class_names),
        mean=mean,
        std=std,
        device=_device(device),
    )
    about = About(
        model=Path(weights).stem if weights is not None else spec.rsplit(":", 1)[-1].rsplit("/", 1)[-1],
        description=f"{spec}, {_weights(spec, weights)}",
        data=test.name,
        split=test.split,
        class_names=test.class_names,
        command=command,
    )
    return Subject(
        model,
        _pixels(some),
        some.labels,
        about,
        foreign=True,
        program=_program_text(spec),
        caution=_about_weights(spec, weights),
        home=Path(),
        prefix=f"{_slug(spec)}-",
        progress=progress or silent,
    )


def _weights(spec: str, weights: Path | None) -> str:
    """Which weights a model has, in words."""
    if weights is not None:
        return f"weights {weights.name}"
    return "no weights named" if _about_weights(spec, weights) else "weights of its own"


def _about_weights(spec: str, weights: Path | None) -> str:
    """What to say of a model whose weights nobody named; empty where they are known."""
    if weights is not None or is_named(spec) or ":" not in spec:
        return ""
    return f"no --weights: {spec} is measured with the weights that its code makes"


def _program_text(spec: str) -> str:
    """A digest of the file that a factory stands in; empty for a model that has none."""
    module, _, attribute = spec.rpartition(":")
    if not (module and attribute) or is_named(spec):
        return ""
    path = Path(module)
    if path.suffix != ".py":
        found = importlib.util.find_spec(module)
        path = Path(found.origin) if found is not None and found.origin else path
    return sha256_of(path.read_bytes()) if path.is_file() else ""


def _some(test: ImageSource, images: int | None, seed: int) -> ImageSource:
    return test if images is None else subset(test, min(images, len(test)), seed)


def _pixels(images: ImageSource) -> Tensor:
    """All images, in [0, 1]."""
    return images.fetch(torch.arange(len(images))).float() / 255


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")
