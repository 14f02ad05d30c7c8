"""A progress bar for work in stages: which stage runs, how far it is, how long it takes and how fast it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Callback = Callable[[str, int, int], None]
"""What tells of progress: the stage that runs, how many images of it are done, and of how many."""


class _Speed(TextColumn):
    """Images a second; nothing until that is known."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else f"{task.speed:,.0f} images/s" if task.speed >= 1 else "<1 image/s")


@contextmanager
def progress_bar(shown: bool, console: Console | None = None) -> Iterator[Callback]:
    """A bar for the stage that runs: call what it gives with `(stage, done, of)`; a stage starts at `done` 0.

    Nothing is drawn where standard error is no terminal: in a log, a bar is an empty line at best.
    """
    console = console or Console(stderr=True)
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        _Speed(),
    )
    hidden = not shown or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("starting", total=None)
        running = ""

        def tell(stage: str, done: int, of: int) -> None:
            nonlocal running
            if stage != running:
                running = stage
                progress.reset(task, total=of, description=stage)
            progress.update(task, completed=done, total=of)

        yield tell
