"""What is left to do of a grid, and about what it costs, before anything is done."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from repulse.common.settings import merge
from repulse.data.load import data_kept
from repulse.opening import evaluate_run
from repulse.reproduce.figures import PLAIN
from repulse.reproduce.grid import COST_FILE, Grid, GridCell, Stage, read_json
from repulse.run_folder import load_splits
from repulse.runs import train_run
from repulse.training import read_metrics

# Images of the pilot: a few seconds of training, and of attacks.
_PILOT_IMAGES = 512
_PILOT_ATTACKED = 8


@dataclass(frozen=True)
class CellPlan:
    """What is left of one cell; seconds are None where nothing is known to reckon with.

    Args:
        cell: which.
        state: `done`, `to measure`, `to go on with` or `to train`, and whether another process is at it.
        passes: forward and backward passes of training that are left, over all images and epochs.
        training: about how many seconds of training are left.
        attacks: about how many seconds of attacks are left.
    """

    cell: GridCell
    state: str
    passes: float
    training: float | None
    attacks: float | None


def show_plan(grid: Grid, stages: Sequence[Stage], console: Console) -> None:
    """Print what is left to do, and about what it costs on this machine."""
    with data_kept():
        plan, source = make_plan(grid, stages)
    table = Table(title=f"{sum(each.state == 'done' for each in plan)} of {len(plan)} cells done")
    for heading in ("method", "seed", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("passes", "training", "attacks"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in plan:
        table.add_row(each.cell.method, str(each.cell.seed), each.state, *_costs([each]))
    table.add_section()
    table.add_row("all", "", "", *_costs(plan))
    console.print(table)
    console.print(source, highlight=False)


def make_plan(grid: Grid, stages: Sequence[Stage]) -> tuple[list[CellPlan], str]:
    """The plan, cell by cell, and a line on where its seconds come from.

    Training is reckoned from passes: twice the method's `passes` (forward and backward) times images times epochs. A
    pass takes as long as in the finished cells of the grid, or else as in a pilot of a few seconds. Attacks take as
    long as on the finished cells of the same method, on all finished cells, or else on a few images of the pilot.
    """
    left = [cell for cell in grid.cells if cell.to_do(stages)]
    untrained = [cell for cell in left if not cell.trained()]
    spent = {cell: record.seconds for cell in grid.cells if (record := cell.record()) is not None}
    attacked = "measure" in stages and any(cell not in spent for cell in left)
    known = bool(spent) or any(cell.trained() for cell in grid.cells)
    pilot = _Pilot() if not left or (known and (spent or not attacked)) else _pilot(grid, attacked and not spent)
    rate, source = _rate(grid, pilot) if untrained else (0.0, "nothing has to be trained")
    plan = []
    for cell in grid.cells:
        passes = _passes(cell, grid) if cell in untrained else 0.0
        alike = [s for other, s in spent.items() if other.method == cell.method] or list(spent.values())
        attacks: float | None = 0.0
        if "measure" in stages and cell in left and cell not in spent:
            attacks = statistics.fmean(alike) if alike else pilot.attack * grid.images
        plan.append(CellPlan(cell, _state(cell, stages), passes, passes * rate, attacks))
    where = f"as on {len(spent)} finished cells" if spent else f"as on {_PILOT_ATTACKED} images just now"
    return plan, f"{source}; attacks: {where}" if attacked else source


def _costs(plan: Sequence[CellPlan]) -> tuple[str, str, str]:
    passes = sum(each.passes for each in plan)
    training, attacks = ([getattr(each, name) for each in plan] for name in ("training", "attacks"))
    return f"{passes:,.0f}" if passes else "", _duration(training), _duration(attacks)


def _duration(parts: Sequence[float | None]) -> str:
    known = sum(part for part in parts if part is not None)
    unknown = None in parts
    if known == 0:
        return "?" if unknown else ""
    text = f"{known:,.0f} s" if known < 120 else f"{known / 60:,.0f} min" if known < 7200 else f"{known / 3600:,.1f} h"
    return f"> {text}" if unknown else text


def _state(cell: GridCell, stages: Sequence[Stage]) -> str:
    if not cell.to_do(stages):
        return "done" if cell.trained() else "not trained"
    state = "to measure" if cell.trained() else "to go on with" if cell.begun() else "to train"
    if cell.changed():
        state = "to train anew"
    return f"{state}, in work" if cell.held() else state


def _passes(cell: GridCell, grid: Grid) -> float:
    """Passes left: of epochs that are done already, none."""
    config = cell.config
    epochs = config.fit.epochs - (len(read_metrics(cell.folder)) if cell.begun() else 0)
    return 2 * cell.about.passes * (config.data.train_images or _images(grid)) * epochs


def _images(grid: Grid) -> int:
    """Training images of a set that is used whole: as a finished cell says, or counted."""
    for cell in grid.cells:
        if cell.trained() and (cost := read_json(cell.folder / COST_FILE)) is not None:
            return int(cost["images"])
    return len(load_splits(grid.cells[0].config).train)


@dataclass(frozen=True)
class _Pilot:
    """A short run on this machine: seconds of a pass in training, and of the attacks on one image."""

    rate: float = 0.0
    attack: float = 0.0


def _pilot(grid: Grid, attacked: bool) -> _Pilot:
    """Train plainly on a few images; if asked to, attack some of those that the model gets right.

    Training counts in its second epoch: the first warms up. A model that has barely learnt falls sooner than others.
    """
    plain = next((cell for cell in grid.cells if cell.method == PLAIN), grid.cells[0])
    config = merge(plain.config, {"data": {"train_images": _PILOT_IMAGES}, "fit": {"epochs": 2}}, "pilot")
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "pilot"
        train_run(config, folder)
        rate = 1 / read_metrics(folder)[1].images_per_second / (2 * plain.about.passes)
        if not attacked:
            return _Pilot(rate)
        record = evaluate_run(folder, grid.measurement, images=_PILOT_ATTACKED).record
    return _Pilot(rate, record.seconds / max(1, round(record.natural_accuracy * record.data.count)))


def _rate(grid: Grid, pilot: _Pilot) -> tuple[float, str]:
    """Seconds of a pass, and where they are known from.

    From the finished cells it is the median, so that a cell that was disturbed decides nothing; without any, the pilot.
    """
    rates = []
    for cell in grid.cells:
        cost = read_json(cell.folder / COST_FILE) if cell.trained() else None
        if cost is not None and cost["epochs"] * cost["images"]:
            rates.append(cost["seconds"] / (cost["epochs"] * cost["images"] * (cost["forward"] + cost["backward"])))
    if rates:
        return statistics.median(rates), f"training: as fast as {len(rates)} finished cells"
    return pilot.rate, f"training: as fast as on {_PILOT_IMAGES} images just now"
