"""The tables of a comparison: a row per method, mean and standard deviation over seeds."""

from __future__ import annotations

from repulse.common.units import in_255ths
from repulse.report.tables import ABSENT, Cell, Table
from repulse.reproduce.figures import PLAIN, TRAINING_LOSS, WORST_CASE, Figures, Found, Spread, spread


def accuracies(figures: Figures) -> Table:
    """Natural accuracy, the paper's protocol, the worst case and the verdicts."""
    rows = []
    for row in figures.rows:
        rows.append(
            (
                Cell(row.method, note=row.about.source),
                Cell(row.about.family),
                _share(row.over(lambda f: f.natural)),
                _share(row.over(lambda f: f.paper(20))),
                _share(row.over(lambda f: f.paper(100))),
                _share(row.over(lambda f: f.worst), strong=True),
                Cell(row.verdicts),
                Cell(str(len(row.found)), number=True),
            )
        )
    head = ("method", "kind", "natural", "PGD-20, training loss", "PGD-100, training loss", "worst case")
    return Table((*head, "verdict", "seeds"), tuple(rows))


def costs(figures: Figures) -> Table:
    """Seconds of training, passes per training image, and both over those of plain training."""
    rows = []
    for row in figures.rows:
        passes = row.over(lambda f: figures.relative(f, lambda each: each.passes))
        seconds = row.over(lambda f: figures.relative(f, lambda each: each.seconds))
        rows.append(
            (
                Cell(row.method, note=row.about.source),
                _number(row.over(lambda f: f.seconds), 0),
                _number(row.over(lambda f: f.passes), 0),
                _number(seconds, 2, strong=True),
                _number(passes, 2),
            )
        )
    head = ("method", "seconds of training", "passes per image", f"seconds / {PLAIN}", f"passes / {PLAIN}")
    return Table(head, tuple(rows))


def separations(figures: Figures) -> Table:
    """Smallest angle between class means against that of the prototypes, and the spread within classes."""
    rows = []
    for row in figures.rows:
        rows.append(
            (
                Cell(row.method, note=row.about.source),
                _number(row.over(lambda f: f.angle), 1),
                _number(row.over(lambda f: f.prototype_angle), 1),
                _share(row.over(_preserved)),
                _number(row.over(lambda f: f.spread), 2),
                _share(row.over(lambda f: f.worst), strong=True),
            )
        )
    head = ("method", "smallest angle, class means", "smallest angle, prototypes", "preserved", "spread within classes")
    return Table((*head, "worst case"), tuple(rows))


def curves(figures: Figures) -> Table:
    """Robust accuracy at each eps, under the paper's protocol and in the worst case."""
    radii = figures.grid.measurement.curve
    rows = []
    for row in figures.rows:
        for line, what in ((TRAINING_LOSS, "PGD-20, training loss"), (WORST_CASE, "worst case")):
            cells = [_share(spread(found.at(eps, line) for found in row.found)) for eps in radii]
            rows.append((Cell(row.method), Cell(what), *cells))
    return Table(("method", "under", *(f"eps {in_255ths(eps)}" for eps in radii)), tuple(rows))


def _preserved(found: Found) -> float | None:
    return found.angle / found.prototype_angle if found.angle is not None and found.prototype_angle else None


def _share(value: Spread | None, *, strong: bool = False) -> Cell:
    return ABSENT if value is None else Cell(value.share, strong=strong, number=True)


def _number(value: Spread | None, digits: int, *, strong: bool = False) -> Cell:
    return ABSENT if value is None else Cell(value.number(digits=digits), strong=strong, number=True)
