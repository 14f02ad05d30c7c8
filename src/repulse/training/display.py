"""What a person, or a log, sees while training goes on."""

from __future__ import annotations

import json
import sys
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from repulse.common.progress import Callback, found
from repulse.training import EpochMetrics
from repulse.training.state import TrainingState

Output = Literal["rich", "bar", "json", "quiet"]


class TrainingDisplay:
    """Shows training as a progress bar and a line per epoch (`rich`), or as the bar alone (`bar`).

    Otherwise as one JSON object a line and epoch (`json`), or not at all (`quiet`).

    Whatever is shown, `progress` is called after each step with `("training", images done, images in all epochs)`.

    Use it as a context, so that the terminal is left in order whatever happens.
    """

    def __init__(
        self, output: Output, epochs: int, console: Console | None = None, progress: Callback | None = None
    ) -> None:
        self.output = output
        self.progress = progress
        self.epochs = epochs
        self.console = console or Console(stderr=True)
        self._natural = ""
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> TrainingDisplay:
        if self.output in ("rich", "bar") and self.console.is_terminal:
            self._progress = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[speed]} images/s"),
                TextColumn("natural {task.fields[natural]}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._progress.start()
            self._task = self._progress.add_task("train", total=None, epoch="-", speed="-", natural="-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def on_step(self, epoch: int, step: int, steps: int, images: int) -> None:
        """Move the bar; `images` is the number of images of the step."""
        if self.progress is not None:
            self.progress("training", (epoch * steps + step) * images, self.epochs * steps * images)
            natural = f", natural {self._natural}" if self._natural else ""
            found(self.progress, f"epoch {epoch + 1} of {self.epochs}{natural}")
        if self._progress is None:
            return
        task = self._progress.tasks[0]
        speed = f"{task.speed * images:,.0f}" if task.speed else "-"
        self._progress.update(
            self._task,
            completed=epoch * steps + step,
            total=self.epochs * steps,
            epoch=f"{epoch + 1}/{self.epochs}",
            speed=speed,
            natural=self._natural or "-",
        )

    def on_epoch(self, metrics: EpochMetrics, state: TrainingState, weights: dict[str, Tensor]) -> None:  # noqa: ARG002
        """Print one line for the epoch."""
        if metrics.validation_accuracy is not None:
            self._natural = f"{100 * metrics.validation_accuracy:.1f} %"
        if self.output == "json":
            sys.stdout.write(json.dumps(vars(metrics)) + "\n")
            sys.stdout.flush()
        elif self.output == "rich":
            natural = f", natural {self._natural}" if self._natural else ""
            self.console.print(
                f"epoch {metrics.epoch}/{self.epochs}: loss {metrics.loss:.4f}, "
                f"train {100 * metrics.train_accuracy:.1f} %{natural}, "
                f"{metrics.images_per_second:,.0f} images/s, {metrics.seconds:.0f} s",
                highlight=False,
            )
