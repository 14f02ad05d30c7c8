"""What is left to do of a grid, and about what it costs, before anything is done."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.table import Table

from repulse.config.run import merge
from repulse.reproduce.figures import PLAIN
from repulse.reproduce.grid import COST_FILE, Cell, Grid, read_json
from repulse.reproduce.work import Stage, held, to_do
from repulse.runs import load_splits, train_run
from repulse.training import read_metrics

# Images of the pilot: a few seconds of training.
PILOT_IMAGES = 512


@dataclass(frozen=True)
class Estimate:
    """What one pass of one image through the network costs, in seconds, in training; and where that is known from."""

    seconds: float
    source: str


@dataclass(frozen=True)
class Planned:
    """One cell of the plan; seconds are None where nothing is known to reckon with.

    Args:
        cell: which.
        state: `done`, `to measure`, `to go on with` or `to train`, and whether another process is at it.
        passes: forward and backward passes of training that are left, over all images and epochs.
        training: about how many seconds of training are left.
        measuring: about how many seconds of attacks are left.
    """

    cell: Cell
    state: str
    passes: float
    training: float | None
    measuring: float | None


def make_plan(grid: Grid, stages: tuple[Stage, ...]) -> tuple[list[Planned], str]:
    """The plan, cell by cell, and a line on where its seconds come from.

    Training is reckoned from passes: twice the method's `passes` (forward and backward) times images times epochs. A
    pass takes as long as in the finished cells of the grid, or else as in a pilot of a few seconds. Attacks take as
    long as on the finished cells of the same method, or else on all finished cells.
    """
    todo = [cell for cell in grid.cells if to_do(cell, grid, stages)]
    training = [cell for cell in todo if not cell.trained()]
    rate = _rate(grid) or (_pilot(grid) if training else None)
    spent = {cell.label: record.seconds for cell in grid.cells if (record := cell.record()) is not None}
    of_method = {cell.label: cell.method for cell in grid.cells}
    planned = []
    for cell in grid.cells:
        passes = _passes(cell, grid) if cell in training else 0.0
        wanted = "measure" in stages and cell in todo and cell.label not in spent
        alike = [seconds for label, seconds in spent.items() if of_method[label] == cell.method] or list(spent.values())
        measuring = (statistics.fmean(alike) if alike else None) if wanted else 0.0
        seconds = 0.0 if cell not in training else None if rate is None else passes * rate.seconds
        planned.append(Planned(cell, _state(cell, cell in todo), passes, seconds, measuring))
    known = "nothing has to be trained" if not training else "" if rate is None else f"training: {rate.source}"
    attacks = f"attacks: as on {len(spent)} finished cells" if spent else "attacks: unknown until a cell is finished"
    return planned, "; ".join(part for part in (known, attacks) if part)


def plan_table(planned: Sequence[Planned]) -> Table:
    """The plan as a table for the console, with a last row for all of it."""
    table = Table(title=f"{sum(each.state == 'done' for each in planned)} of {len(planned)} cells done")
    for heading in ("method", "seed", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("passes", "training", "attacks"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in planned:
        table.add_row(each.cell.method, str(each.cell.seed), each.state, *_costs([each]))
    table.add_section()
    table.add_row("all", "", "", *_costs(planned))
    return table


def _costs(planned: Sequence[Planned]) -> tuple[str, str, str]:
    passes = sum(each.passes for each in planned)
    return (
        f"{passes:,.0f}" if passes else "",
        _duration([each.training for each in planned]),
        _duration([each.measuring for each in planned]),
    )


def _duration(parts: Sequence[float | None]) -> str:
    known = sum(part for part in parts if part is not None)
    unknown = any(part is None for part in parts)
    if known == 0:
        return "?" if unknown else ""
    text = f"{known:,.0f} s" if known < 120 else f"{known / 60:,.0f} min" if known < 7200 else f"{known / 3600:,.1f} h"
    return f"> {text}" if unknown else text


def _state(cell: Cell, left: bool) -> str:
    if not left:
        return "done" if cell.trained() else "not trained"
    state = "to measure" if cell.trained() else "to go on with" if cell.begun() else "to train"
    if cell.changed():
        state = "to train anew"
    return f"{state}, in work" if held(cell) else state


def _passes(cell: Cell, grid: Grid) -> float:
    """Passes left: of epochs that are done already, none."""
    fit_settings = cell.config.fit
    epochs = fit_settings.epochs - (len(read_metrics(cell.folder)) if cell.begun() else 0)
    images = cell.config.data.train_images or _images(grid)
    return 2 * cell.about.passes * images * epochs


def _images(grid: Grid) -> int:
    """Training images of a set that is used whole: as a finished cell says, or counted."""
    for cell in grid.cells:
        if cell.trained() and (cost := read_json(cell.folder / COST_FILE)) is not None:
            return int(cost["images"])
    return len(load_splits(grid.cells[0].config).train)


def _rate(grid: Grid) -> Estimate | None:
    """Seconds of a pass in the finished cells: the median, so that a cell that was disturbed decides nothing."""
    found = []
    for cell in grid.cells:
        cost = read_json(cell.folder / COST_FILE) if cell.trained() else None
        if cost is not None and cost["epochs"] * cost["images"]:
            passes = cost["epochs"] * cost["images"] * (cost["forward"] + cost["backward"])
            found.append(cost["seconds"] / passes)
    return Estimate(statistics.median(found), f"as fast as {len(found)} finished cells") if found else None


def _pilot(grid: Grid) -> Estimate:
    """Seconds of a pass in a short run of plain training, in its second epoch: the first warms up."""
    plain = next((cell for cell in grid.cells if cell.method == PLAIN), grid.cells[0])
    config = merge(plain.config, {"data": {"train_images": PILOT_IMAGES}, "fit": {"epochs": 2}}, "pilot")
    with TemporaryDirectory() as folder:
        train_run(config, Path(folder) / "pilot")
        second = read_metrics(Path(folder) / "pilot")[1]
    seconds = 1 / second.images_per_second / (2 * plain.about.passes)
    return Estimate(seconds, f"as fast as {plain.method} on {PILOT_IMAGES} images just now")
