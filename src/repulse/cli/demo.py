"""`repulse demo`: the whole story on the embedded digits: train classifiers, attack them, report."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from pydantic import Field
from rich.console import Console

from repulse.cli.options import SettingsCommand
from repulse.common.settings import Settings, merge
from repulse.config.presets import preset
from repulse.evaluation.settings import EvaluationSettings
from repulse.opening import evaluate_run
from repulse.report import markdown_table, write_report
from repulse.runs import train_run
from repulse.training.display import Output

# Digits are 8x8 and almost black and white, so a radius of 0.1 is for them what 8/255 is for photographs.
EPS = 0.1
METHODS = ("softmax", "paper", "simplex")


class DemoCommand(Settings):
    """Train, attack and report on the embedded handwritten digits: the whole story in about a minute.

    Examples:
      repulse demo
      repulse demo --output runs/demo
    """

    output: Path = Field(Path("runs/demo"), description="Folder for the runs and the report.")
    images: int = Field(200, ge=10, description="How many test images to attack.")
    progress: Literal["rich", "json", "quiet"] = Field("rich", description="How much to print.")


def demo_command(settings: DemoCommand) -> None:
    """Run the demo, and print its table and the path of its report."""
    click.echo(run_demo(settings.output, images=settings.images, progress=settings.progress))


def run_demo(output: Path, *, images: int, progress: Output) -> str:
    """Train, attack and report; returns a short table and the path of the report.

    Runs that are there already are taken up where they stand.

    Args:
        output: folder for the runs and the report.
        images: how many test images to attack.
        progress: how much to print on the way.

    Raises:
        RepulseError: if the folder cannot be written, or holds runs of another kind.
    """
    console = Console(stderr=True, quiet=progress != "rich")
    folders = []
    for method in METHODS:
        console.print(f"[bold]{method}[/bold]: training", highlight=False)
        settings = {"epochs": 30, "batch_size": 64, "accelerator": "cpu", "devices": "1"}
        config = merge(preset(method), {"fit": settings}, "demo")
        folder = output / method
        train_run(config, folder, resume=True, output="quiet" if progress == "rich" else progress)
        console.print(f"[bold]{method}[/bold]: attacking {images} images", highlight=False)
        evaluate_run(
            folder,
            EvaluationSettings(eps=EPS, curve=tuple(level * EPS / 4 for level in (0, 1, 2, 3, 4, 6, 8))),
            images=images,
            command="repulse demo",
        )
        folders.append(folder)
    files = write_report(folders, output / "report.html", title="Demo on handwritten digits")
    return f"{markdown_table(folders)}\n\nreport: {files.html}"


command = SettingsCommand(DemoCommand, "demo", demo_command)
