"""`repulse train`: train a classifier on class prototypes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import click
from pydantic import Field

from repulse.cli.options import SettingsCommand
from repulse.common.notice import notice
from repulse.common.run_files import CONFIG_FILE
from repulse.config.presets import PRESETS, preset
from repulse.config.run import RunConfig, read_config


class TrainCommand(RunConfig):
    """Train a classifier on class prototypes, and keep everything needed to repeat it in one folder.

    Settings come in layers: the defaults below, a preset, the YAML file, the flags. The preset `repulse` is taken if
    none is named: simplex prototypes, and adversarial training with one step in the L-inf ball of 8/255. The folder
    holds the resolved configuration, the environment, the prototypes, one row of metrics per epoch, and checkpoints.

    Examples:
      repulse train --output runs/digits
      repulse train --preset paper --data.source PATH/fashion-mnist --output runs/fashion-paper
      repulse train --config my.yaml --fit.epochs 20 --output runs/mine
      repulse train --output runs/mine --resume
      repulse train --output runs/mine --resume --fit.epochs 40
      repulse train --preset small --data.source PHOTOS --output runs/photos
    """

    output: Path = Field(description="The run folder.")
    preset: str = Field("repulse", description=f"Start from a named configuration: {', '.join(PRESETS)}.")
    resume: bool = Field(False, description="Go on with the run in the folder, with its own settings.")
    progress: Literal["rich", "json", "quiet"] = Field(
        "rich", description="A progress bar, a JSON line per epoch, or nothing."
    )


def train_command(settings: TrainCommand) -> None:
    """Train, and say where the run is."""
    from repulse.common.environment import is_first_process
    from repulse.run_folder import read_classes, read_test_accuracy
    from repulse.runs import train_run

    own = {name: getattr(settings, name) for name in RunConfig.model_fields}
    train_run(RunConfig(**own), settings.output, resume=settings.resume, output=settings.progress)
    if is_first_process():
        accuracy, images = read_test_accuracy(settings.output)
        apart = settings.progress == "json"
        click.echo(f"natural accuracy: {100 * accuracy:.2f} % of {images:,} test images", err=apart)
        click.echo(f"run: {settings.output}", err=apart)
        classes = len(read_classes(settings.output).names)
        # Three standard errors above chance is what luck makes of one run in a thousand.
        if accuracy <= 1 / classes + 3 * math.sqrt((1 - 1 / classes) / classes / images):
            notice(
                f"natural accuracy is near chance, 1 in {classes}: train for longer (--resume --fit.epochs N), try "
                "--preset softmax or --preset small, and look at the labels"
            )


def _under_training(changes: dict[str, Any]) -> dict[str, Any]:
    """What lies under the file and the flags of `train`: the settings of the run to resume, or a preset."""
    output = changes.get("output")
    resumes = str(changes.get("resume", False)).lower() in ("true", "1", "yes", "on")
    if resumes and isinstance(output, (str, Path)) and (Path(output) / CONFIG_FILE).is_file():
        return read_config(Path(output)).model_dump()
    return preset(str(changes.get("preset", TrainCommand.model_fields["preset"].default))).model_dump()


command = SettingsCommand(TrainCommand, "train", train_command, base=_under_training)
