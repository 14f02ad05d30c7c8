"""The whole story on the embedded digits: train two classifiers, attack both, report."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from repulse.config.presets import preset
from repulse.config.run import merge
from repulse.evaluation import EvaluationSettings
from repulse.measuring import evaluate_run
from repulse.report import markdown_table, write_report
from repulse.runs import train_run
from repulse.training.console import Output

# Digits are 8x8 and almost black and white, so a radius of 0.1 is for them what 8/255 is for photographs.
EPS = 0.1
METHODS = ("softmax", "paper", "simplex")


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
