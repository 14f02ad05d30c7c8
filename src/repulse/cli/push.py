"""`repulse push`: share a model on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from pydantic import Field

from repulse.cli.options import SettingsCommand
from repulse.common.errors import RepulseError
from repulse.common.settings import Settings


class PushCommand(Settings):
    """Share a model on the Hugging Face Hub: weights, configuration, records, and a card of what was measured.

    Others load it by `Classifier.load("hub:ORG/NAME")`. Log in first: `hf auth login`.

    Examples:
      repulse push runs/flowers myself/flowers
      repulse push runs/flowers --folder shared/flowers
    """

    run: str | None = Field(None, description="The run folder.")
    name: str | None = Field(None, description="ORG/NAME on the Hub.")
    folder: Path | None = Field(None, description="Write what would be sent to this folder, and send nothing.")
    checkpoint: Literal["last", "best"] = Field("last", description="Weights of the last epoch, or of the best.")
    private: bool = Field(False, description="Only for those who have access.")


def push_command(settings: PushCommand) -> None:
    """Send the model, or write it to a folder."""
    from repulse.deploy import Classifier
    from repulse.deploy.push import push

    if settings.run is None or (settings.name is None) == (settings.folder is None):
        raise RepulseError(
            "name a run, and where it goes: repulse push RUN ORG/NAME, or repulse push RUN --folder FOLDER"
        )
    classifier = Classifier.load(settings.run, settings.checkpoint)
    if settings.folder is not None:
        classifier.save_pretrained(settings.folder)
        click.echo(f"nothing was sent; the model and its card are in {settings.folder}")
    elif settings.name is not None:
        click.echo(f"pushed: {push(classifier, settings.name, private=settings.private)}")


command = SettingsCommand(PushCommand, "push", push_command, positional=("run", "name"))
