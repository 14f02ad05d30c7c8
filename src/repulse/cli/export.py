"""`repulse export`: write a model in a form that other programs take."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from pydantic import Field

from repulse.cli.options import SettingsCommand
from repulse.common.errors import RepulseError
from repulse.common.settings import Settings


class ExportCommand(Settings):
    """Write a model as a file that takes images in [0, 1] and gives logits; normalisation is inside.

    The file's answers are compared with the model's on test images first: a file that is there answers the same.

    Examples:
      repulse export runs/flowers --format onnx
      repulse export zoo:digits-pgd --format torchscript --output digits.ts
    """

    run: str | None = Field(None, description="A run folder, zoo:NAME, or hub:ORG/NAME.")
    format: str = Field("onnx", description="onnx, torchscript, pt2 or safetensors.")
    output: Path | None = Field(None, description="The file; none: the run's name, with the format's suffix.")
    checkpoint: Literal["last", "best"] = Field("last", description="Weights of the last epoch, or of the best.")
    source: str | None = Field(None, description="Where the data lies now; none: where the run found it.")


def export_command(settings: ExportCommand) -> None:
    """Write the file, and say how near its answers are."""
    from repulse.deploy import FORMATS, Classifier, export
    from repulse.deploy.formats import some_test_images

    if settings.run is None:
        raise RepulseError("name a model: repulse export RUN --format onnx")
    # A name that is unknown is said before images are read.
    FORMATS[settings.format]
    classifier = Classifier.load(settings.run, settings.checkpoint)
    images = some_test_images(classifier, settings.source)
    done = export(classifier, settings.output, settings.format, images=images)
    click.echo(
        f"{done.path}: the same answers on {done.compared} test images (logits differ by at most {done.difference:.1g} "
        "of their spread)"
    )


command = SettingsCommand(ExportCommand, "export", export_command, positional="run")
