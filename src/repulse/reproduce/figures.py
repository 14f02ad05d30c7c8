"""The figures of a comparison, gathered from its cells: per cell, and per method as mean and spread over seeds."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from repulse.common.run_files import ENVIRONMENT_FILE
from repulse.evaluation.record import Record
from repulse.reproduce.grid import COST_FILE, EMBEDDING_FILE, TRANSFER_FILE, Grid, GridCell, read_json
from repulse.reproduce.methods import Method
from repulse.run_folder import read_test_accuracy

PLAIN = "softmax"
"""The method whose cost all others are held against."""

TRAINING_LOSS, WORST_CASE = "training loss", "worst case"
"""Names of a curve's two lines: the paper's protocol, and everything that was tried."""


@dataclass(frozen=True)
class Spread:
    """A figure over seeds.

    Args:
        mean: of the seeds.
        std: the sample standard deviation; None for one seed.
        count: how many seeds.
    """

    mean: float
    std: float | None
    count: int

    @property
    def share(self) -> str:
        """A share as a percentage: '63.9 ± 1.2 %'."""
        return f"{self.number(100, 1)}\N{NO-BREAK SPACE}%"

    def number(self, scale: float = 1.0, digits: int = 2) -> str:
        """A number with its spread: '1.96 ± 0.03'."""
        text = f"{scale * self.mean:.{digits}f}"
        return text if self.std is None else f"{text} ± {scale * self.std:.{digits}f}"


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and sample standard deviation of what was measured; None if nothing was."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


@dataclass(frozen=True, eq=False)
class Result:
    """What was measured of one cell; accuracies in [0, 1].

    Args:
        cell: which.
        natural: accuracy on all test images.
        record: of its evaluation.
        seconds: of training.
        passes: forward and backward passes of training, per training image, over all epochs.
        computer: processor, device and threads that it was trained on: seconds compare only where these are the same.
        angle: smallest angle between class means of the learned embedding, in degrees; see `learned_separation`.
        prototype_angle: the same of the prototypes.
        spread: of the embeddings about their class means, over the distance between these.
    """

    cell: GridCell
    natural: float
    record: Record
    seconds: float
    passes: float
    computer: tuple[str, ...]
    angle: float | None
    prototype_angle: float | None
    spread: float | None

    def paper(self, steps: int) -> float | None:
        """Robust accuracy under so many steps of PGD on the training loss, the paper's protocol."""
        of_steps = (a for a in self.record.attacks if a.group == "paper" and a.settings.get("steps") == steps)
        return next((attack.robust_accuracy for attack in of_steps), None)

    @property
    def protocol(self) -> float | None:
        """The lowest figure under the paper's protocol."""
        return min((attack.robust_accuracy for attack in self.record.attacks if attack.group == "paper"), default=None)

    @property
    def worst(self) -> float:
        """Robust accuracy under all attacks together: the number to quote."""
        return self.record.worst_case_accuracy

    @property
    def verdict(self) -> str:
        """Its verdict's word."""
        return "not judged" if self.record.verdict is None else self.record.verdict.word

    def at(self, eps: float, line: str) -> float | None:
        """A point of one of its curves."""
        near = (point.robust_accuracy.get(line) for point in self.record.curve if abs(point.eps - eps) < 1e-9)
        return next(near, None)


@dataclass(frozen=True, eq=False)
class Row:
    """A method with the results of its cells, as a table shows it."""

    method: str
    about: Method
    results: tuple[Result, ...]

    def over(self, figure: Callable[[Result], float | None]) -> Spread | None:
        """A figure over the seeds."""
        return spread(figure(each) for each in self.results)

    def mean(self, figure: Callable[[Result], float | None]) -> float:
        """Its mean over the seeds; not a number where it was not measured."""
        value = self.over(figure)
        return math.nan if value is None else value.mean

    @property
    def verdicts(self) -> str:
        """The verdicts and how many seeds have them: '2 measured, 1 overstated'; the word alone if all agree."""
        counts = Counter(each.verdict for each in self.results)
        if len(counts) == 1:
            return next(iter(counts))
        return ", ".join(f"{count} {word}" for word, count in counts.most_common())


@dataclass(frozen=True, eq=False)
class Figures:
    """Everything that a report shows.

    Args:
        grid: the comparison.
        results: what was measured, cell by cell.
        transfer: by source and target, the share that the target still classifies right.
    """

    grid: Grid
    results: tuple[Result, ...]
    transfer: dict[str, dict[str, float]]

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """One row per method that has figures, in the order of the table of methods."""
        by_method = {name: tuple(r for r in self.results if r.cell.method == name) for name in self.grid.methods}
        return tuple(Row(name, results[0].cell.about, results) for name, results in by_method.items() if results)

    def row(self, method: str) -> Row | None:
        """The row of a method; None if it has no figures."""
        return next((row for row in self.rows if row.method == method), None)

    def relative(self, result: Result, cost: Callable[[Result], float]) -> float | None:
        """A cost over that of plain training with the same seed on the same kind of machine; None without that."""
        for plain in self.results:
            same = plain.cell.seed == result.cell.seed and plain.computer == result.computer
            if plain.cell.method == PLAIN and same and cost(plain) > 0:
                return cost(result) / cost(plain)
        return None


def gather(grid: Grid) -> Figures:
    """Read what there is of a grid. Cells that are not measured under the grid's settings are left out.

    Raises:
        RepulseError: if a file is damaged.
    """
    results, transfer = [], {}
    for cell in grid.cells:
        record = cell.record()
        cost, separation = read_json(cell.folder / COST_FILE), read_json(cell.folder / EMBEDDING_FILE)
        if record is None or cost is None or separation is None:
            continue
        environment = read_json(cell.folder / ENVIRONMENT_FILE) or {}
        results.append(
            Result(
                cell,
                read_test_accuracy(cell.folder)[0],
                record,
                float(cost["seconds"]),
                float(cost["epochs"] * (cost["forward"] + cost["backward"])),
                tuple(str(environment.get(name, "")) for name in ("processor", "device", "threads")),
                separation["angle"],
                separation["prototype_angle"],
                separation["spread"],
            )
        )
        if cell.crafts:
            shown = (read_json(cell.folder / TRANSFER_FILE) or {}).get("robust", {})
            transfer[cell.method] = {name: float(shown[name]["share"]) for name in grid.methods if name in shown}
    return Figures(grid, tuple(results), transfer)
