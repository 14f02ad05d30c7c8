"""A progress bar for work in stages: how much of all of it is done, which stage runs, and what is known so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

Callback = Callable[[str, int, int], None]
"""What tells of progress: the stage that runs, how many images of it are done, and of how many."""


def expect(progress: Callback, costs: Mapping[str, float]) -> None:
    """Say what is still to come, to a display that asks for it: stages in their order, with costs in any one unit."""
    if isinstance(progress, Display):
        progress.expect(costs)


def found(progress: Callback, text: str) -> None:
    """Say what is known so far, such as 'robust so far 43.0 %', to a display that shows it."""
    if isinstance(progress, Display):
        progress.found(text)


@dataclass
class Work:
    """Which share of some work in stages is done, by what each stage is expected to cost.

    >>> work = Work()
    >>> work.expect({"first": 3.0, "second": 1.0})
    >>> work.tell("first", 50, 100)
    >>> work.share
    0.375
    """

    spent: float = 0.0
    coming: dict[str, float] = field(default_factory=dict)
    stage: str = ""
    share: float = 0.0
    """In [0, 1]; where something is expected it never falls, whatever is expected later."""

    def expect(self, costs: Mapping[str, float]) -> None:
        """What is still to come, in place of what was expected before."""
        self._finish()
        self.coming = dict(costs)

    def tell(self, stage: str, done: int, of: int) -> None:
        """So much of a stage is done; stages that were expected before it are passed over.

        A stage that nobody expected is a part of the one that runs, if others are to come.
        """
        if stage in self.coming and stage != self.stage:
            self._finish()
            names = list(self.coming)
            for skipped in names[: names.index(stage)]:
                del self.coming[skipped]
            self.stage = stage
        whole, part = self.spent + sum(self.coming.values()), done / of if of else 1.0
        if whole == 0:
            self.share = part
        elif stage == self.stage:
            self.share = max(self.share, min((self.spent + part * self.coming[stage]) / whole, 1.0))

    def _finish(self) -> None:
        self.spent += self.coming.pop(self.stage, 0.0)
        self.stage = ""


class Display:
    """What a progress bar shows, told by calls `(stage, done, of)`, by `expect` and by `found`.

    Work may be cut into parts, each with stages of its own: see `begin`.

    Args:
        title: of all the work.
        parts: what each part is expected to cost, in any one unit; none: there is one part only.
    """

    def __init__(self, title: str, parts: Mapping[str, float] | None = None) -> None:
        self.title, self.parts = title, dict(parts or {"": 1.0})
        self.work = Work()
        self._started = time.monotonic()
        self.begin(next(iter(self.parts)))

    def begin(self, part: str) -> None:
        """A part of the work starts; those before it are done."""
        names = list(self.parts)
        self._before = sum(self.parts[name] for name in names[: names.index(part)])
        self._cost = self.parts[part]
        self.title = part or self.title
        self.work, self._stage, self._told = Work(), "", ""
        self._images = self._of = self._earlier = 0
        self._since = time.monotonic()

    def __call__(self, stage: str, done: int, of: int) -> None:
        """So many images of a stage are done."""
        if stage != self._stage:
            self._earlier += self._images
        self.work.tell(stage, done, of)
        self._stage, self._images, self._of = stage, done, of

    def expect(self, costs: Mapping[str, float]) -> None:
        """What is still to come of this part."""
        self.work.expect(costs)

    def found(self, text: str) -> None:
        """What is known so far."""
        self._told = text

    @property
    def share(self) -> float:
        """Which share of all the work is done, in [0, 1]."""
        return (self._before + self._cost * self.work.share) / sum(self.parts.values())

    @property
    def times(self) -> str:
        """How long it takes so far, and about how much longer: '0:41, 0:45 left'."""
        gone, share = time.monotonic() - self._started, self.share
        left = f", about {_clock(gone * (1 - share) / share)} left" if share > 0.03 and gone > 1 else ""
        return _clock(gone) + left

    @property
    def line(self) -> str:
        """The stage that runs, its images, the speed of this part, and what is known so far."""
        seconds, images = time.monotonic() - self._since, self._earlier + self._images
        speed = images / seconds if seconds > 0.5 else 0.0
        of = f" {self._images:,} of {self._of:,}" if self._of else ""
        words = f"{self._stage}{of}"
        rate = "" if not speed else f"{speed:,.0f} images/s" if speed >= 1 else "<1 image/s"
        return " · ".join(part for part in (words, rate, self._told) if part)


class _Bar(Progress):
    """The bar, with the line about the stage under it."""

    def __init__(self, display: Display, console: Console, *, hidden: bool) -> None:
        self.display = display
        columns: tuple[Any, ...] = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[times]}"),
        )
        super().__init__(*columns, console=console, transient=True, disable=hidden)

    def get_renderable(self) -> RenderableType:
        for task in self.tasks:
            task.description, task.completed = self.display.title, self.display.share
            task.fields["times"] = self.display.times
        line = Text(f"  {self.display.line}", style="dim", no_wrap=True, overflow="ellipsis")
        return Group(self.make_tasks_table(self.tasks), line)


@contextmanager
def progress_bar(
    shown: bool, console: Console | None = None, *, title: str = "", parts: Mapping[str, float] | None = None
) -> Iterator[Display]:
    """A bar for all of some work, and a line for the stage that runs: call what it gives with `(stage, done, of)`.

    A stage starts at `done` 0. Nothing is drawn where standard error is no terminal: in a log, a bar is an empty line
    at best.

    Args:
        shown: whether to draw at all.
        console: where; none: on standard error.
        title: what stands before the bar.
        parts: of the work, with what each is expected to cost; see `Display`.
    """
    console = console or Console(stderr=True)
    display = Display(title, parts)
    with _Bar(display, console, hidden=not shown or not console.is_terminal) as bar:
        bar.add_task(title, total=1.0, times="")
        yield display


def _clock(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
