"""Certify a run on its test images, or a model from outside; and keep the record."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from repulse.certification.certify import Certification, begin, carry_out
from repulse.certification.proofs import Proof
from repulse.certification.settings import CertificationSettings
from repulse.certification.smoothing import Smoothing
from repulse.common.errors import RepulseError
from repulse.evaluation.bench import Progress, device_of
from repulse.evaluation.checks import check_use
from repulse.measuring import Foreign, Opened, open_foreign, open_run
from repulse.runs import Checkpoint
from repulse.training.recipes import GaussianNoise


def certify_run(
    folder: Path,
    settings: CertificationSettings | None = None,
    *,
    checkpoint: Checkpoint = "last",
    images: int | None = None,
    source: str | None = None,
    output: Path | None = None,
    device: str = "auto",
    command: str = "",
    progress: Progress | None = None,
) -> tuple[Certification, Path]:
    """Certify the model of a run folder on its test images; returns the certification and the folder it is kept in.

    Args:
        folder: the run folder.
        settings: method, radii, and attack. Without a sigma, smoothing takes that of the training, if it had noise.
        checkpoint: weights of the last epoch, or of the best in validation accuracy.
        images: how many test images, a balanced subset drawn from the settings' seed; None: all.
        source: where the data lies now; None: where the run found it.
        output: where to keep it; None: under `certificates/` in the run folder, named by the method.
        device: `cpu`, `cuda`, or `auto`.
        command: the command line, for the record.
        progress: told after each batch.

    Raises:
        RepulseError: if the run, its checkpoint or its data cannot be read or don't fit, or as `certify` says.
    """
    settings = settings or CertificationSettings()
    run = open_run(folder, checkpoint, images, settings.seed, source=source, device=device, command=command)
    method, prove = begin(run.model, run.images.image_shape, settings)
    if method == "smoothing":
        # Whenever in training the noise began.
        recipe = run.config.recipe
        settings = _with_sigma(settings, recipe.sigma if isinstance(recipe, GaussianNoise) else Smoothing().sigma)
    place = output or folder / "certificates" / _name(method, settings)
    return _carried_out(run, run.pixels(), method, prove, settings, progress, place), place


def certify_foreign(
    foreign: Foreign,
    settings: CertificationSettings | None = None,
    *,
    output: Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> tuple[Certification, Path]:
    """Certify a model that was not trained here; returns the certification and the folder it is kept in.

    Method `auto` smooths a model that was not built to prove anything; a `PrototypeClassifier` with a backbone of known
    constants is certified as such. The model must be used as it was meant to be: what would be a serious failure of an
    evaluation (see `repulse.evaluation.checks.usage`) is an error here, for a certificate has no verdict to say so.

    Args:
        foreign: the model and its images; a subset of them is drawn from the settings' seed.
        settings: method, radii, and attack. Without a sigma, smoothing takes 0.25.
        output: where to keep it; a certification that was killed goes on there. None: under `certificates/` in the
            current folder, named by the model and the method.
        command: the command line, for the record.
        progress: told after each batch.

    Raises:
        RepulseError: if the model, its weights or its data cannot be read, or don't fit each other, or as `certify`
            says.
    """
    settings = settings or CertificationSettings()
    opened = open_foreign(foreign, settings.seed, command)
    pixels = opened.pixels()
    _check_use(opened, pixels)
    method, prove = begin(opened.model, opened.images.image_shape, settings, smooth_others=True)
    # What `auto` found is written down: asking for it by name goes on with the same certification.
    settings = settings.model_copy(update={"method": method})
    if method == "smoothing":
        settings = _with_sigma(settings, Smoothing().sigma)
    place = output or Path("certificates") / f"{foreign.name}-{_name(method, settings)}"
    return _carried_out(opened, pixels, method, prove, settings, progress, place), place


def _with_sigma(settings: CertificationSettings, usual: float) -> CertificationSettings:
    return settings.model_copy(update={"sigma": usual if settings.sigma is None else settings.sigma})


def _name(method: str, settings: CertificationSettings) -> str:
    """What a folder calls a certification: by its method, and the noise if there is some."""
    return f"smoothing-{settings.sigma:.4g}" if method == "smoothing" else method


def _carried_out(
    opened: Opened,
    pixels: Tensor,
    method: str,
    prove: Proof,
    settings: CertificationSettings,
    progress: Progress | None,
    place: Path,
) -> Certification:
    return carry_out(
        method,
        prove,
        opened.model,
        pixels,
        opened.images.labels,
        settings,
        about=opened.about,
        progress=progress,
        folder=place,
    )


def _check_use(opened: Opened, pixels: Tensor) -> None:
    """Refuse a model that is not used as it was meant to be: no radius would mean anything."""
    model, labels = opened.model, opened.images.labels
    classes = len(opened.about.class_names) or None
    checks = check_use(model, pixels, labels, device=device_of(model, pixels), classes=classes)
    failed = [check.sentence for check in checks if check.serious and check.passed is False]
    if failed:
        raise RepulseError(f"the model is not used as it was meant to be, so no radius was sought. {' '.join(failed)}")
