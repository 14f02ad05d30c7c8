"""Certify the model of a run on its test images, and keep the record."""

from __future__ import annotations

from pathlib import Path

from repulse.evaluation.bench import Progress
from repulse.evaluation.certify import Certification, begin, carry_out
from repulse.evaluation.smoothing import Smoothing
from repulse.measuring import open_run
from repulse.runs import Checkpoint
from repulse.settings import CertificationSettings
from repulse.training.recipes import GaussianNoise, make_recipe


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
    run = open_run(folder, checkpoint, images, settings.seed, source=source, device=device)
    method, prove = begin(run.model, run.classes.image_shape, settings)
    name = method
    if method == "smoothing":
        recipe = make_recipe(run.config.recipe)
        trained = recipe.sigma if isinstance(recipe, GaussianNoise) else Smoothing().sigma
        sigma = trained if settings.sigma is None else settings.sigma
        settings, name = settings.model_copy(update={"sigma": sigma}), f"smoothing-{sigma:.4g}"
    place = output or folder / "certificates" / name
    certification = carry_out(
        method,
        prove,
        run.model,
        run.pixels(),
        run.images.labels,
        settings,
        about=run.about(command),
        progress=progress,
        folder=place,
    )
    return certification, place
