"""`repulse predict`: classify image files, and say what is proved."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from pydantic import Field

from repulse.cli.options import SettingsCommand
from repulse.common.errors import RepulseError
from repulse.common.settings import Settings
from repulse.common.units import Number


class PredictCommand(Settings):
    """Classify images: files, and folders of them, each brought to the size and colours of the training images.

    Examples:
      repulse predict runs/flowers photographs/ --output answers.csv
      repulse predict runs/flowers one.png two.jpg --top-k 3 --format json
      repulse predict runs/certified photographs/ --certify 36/255
    """

    run: str | None = Field(None, description="A run folder, zoo:NAME, or hub:ORG/NAME.")
    images: tuple[Path, ...] = Field((), description="Image files, and folders, which are searched whole.")
    output: Path | None = Field(None, description="File for the answers; none: standard output.")
    format: Literal["csv", "json"] | None = Field(None, description="none: as the output's name says, else csv.")
    top_k: int = Field(1, ge=1, description="How many classes to name for each image.")
    certify: Number | None = Field(
        None, ge=0, description="Say of each answer whether it is proved within this radius, in pixels of [0, 1]."
    )
    checkpoint: Literal["last", "best"] = Field("last", description="Weights of the last epoch, or of the best.")
    batch_size: int = Field(100, ge=1, description="Images at once.")
    device: str = Field("auto", description="cpu, cuda or auto.")
    progress: Literal["rich", "quiet"] = Field("rich", description="A progress bar, or nothing.")


def predict_command(settings: PredictCommand) -> None:
    """Print or write the answers."""
    from repulse.common.files import write_atomically
    from repulse.common.progress import progress_bar
    from repulse.deploy import Classifier
    from repulse.deploy.predictions import to_csv, to_json

    if settings.run is None or not settings.images:
        raise RepulseError("name a model and images: repulse predict RUN IMAGES...")
    classifier = Classifier.load(settings.run, settings.checkpoint, device=settings.device)
    with progress_bar(settings.progress == "rich") as progress:
        found = classifier.predict(
            list(settings.images),
            top_k=settings.top_k,
            certify=settings.certify,
            batch_size=settings.batch_size,
            progress=progress,
        )
    output = settings.output
    form = settings.format or ("json" if output is not None and output.suffix.lower() == ".json" else "csv")
    text = to_json(found) if form == "json" else to_csv(found)
    if output is None:
        click.echo(text, nl=False)
        return
    write_atomically(output, text)
    proved = "" if settings.certify is None else f", {sum(bool(each.proved) for each in found)} of them proved"
    click.echo(f"answers: {output} ({len(found)} images{proved})")


command = SettingsCommand(PredictCommand, "predict", predict_command, positional=("run", "images"))
