"""The tables of a comparison: what holds, what it costs, how far apart embeddings are, and the paper's claims."""

from __future__ import annotations

from collections.abc import Callable

from repulse.common.units import in_255ths
from repulse.report.blocks import ABSENT, Cell, Table
from repulse.reproduce.claims import NOT_MEASURED, claims
from repulse.reproduce.figures import PLAIN, TRAINING_LOSS, WORST_CASE, Figures, Result, Row, Spread

Column = Callable[[Row], Cell]


def accuracies(figures: Figures) -> Table:
    """Natural accuracy, the paper's protocol, the worst case and the verdicts."""
    return _by_method(
        figures,
        {
            "worst case": _share(lambda r: r.worst, strong=True, bar=True),
            "natural": _share(lambda r: r.natural),
            "PGD-20": _share(lambda r: r.paper(20)),
            "PGD-100": _share(lambda r: r.paper(100)),
            "how sure": lambda row: Cell(row.verdicts),
            "kind": lambda row: Cell(row.about.family),
            "seeds": lambda row: Cell(str(len(row.results)), number=True),
        },
    )


def costs(figures: Figures) -> Table:
    """Seconds of training, passes per training image, and both over those of plain training."""
    return _by_method(
        figures,
        {
            "seconds of training": _number(lambda r: r.seconds, 0),
            "passes per image": _number(lambda r: r.passes, 0),
            f"seconds / {PLAIN}": _number(lambda r: figures.relative(r, lambda o: o.seconds), 2, strong=True),
            f"passes / {PLAIN}": _number(lambda r: figures.relative(r, lambda o: o.passes), 2),
        },
    )


def separations(figures: Figures) -> Table:
    """Smallest angle between class means against that of the prototypes, and the spread within classes."""

    def preserved(r: Result) -> float | None:
        return r.angle / r.prototype_angle if r.angle is not None and r.prototype_angle else None

    return _by_method(
        figures,
        {
            "smallest angle, class means": _number(lambda r: r.angle, 1),
            "smallest angle, prototypes": _number(lambda r: r.prototype_angle, 1),
            "preserved": _share(preserved),
            "spread within classes": _number(lambda r: r.spread, 2),
            "worst case": _share(lambda r: r.worst, strong=True),
        },
    )


def curves(figures: Figures) -> Table:
    """Robust accuracy at each eps, under the paper's protocol and in the worst case."""
    radii = figures.grid.measurement.radii
    rows = []
    for row in figures.rows:
        for line, what in ((TRAINING_LOSS, "PGD-20, training loss"), (WORST_CASE, "worst case")):
            cells = [_share(lambda r, e=eps, n=line: r.at(e, n))(row) for eps in radii]  # type: ignore[misc]
            rows.append((Cell(row.method), Cell(what), *cells))
    return Table(("method", "under", *(f"eps {in_255ths(eps)}" for eps in radii)), tuple(rows))


def claim_table(figures: Figures) -> Table:
    """One row per claim of the paper."""
    rows = tuple(
        (Cell(c.text), Cell(c.verdict, strong=True), Cell(c.protocol), Cell(c.worst), Cell(c.network))
        for c in sorted(claims(figures), key=lambda c: c.verdict == NOT_MEASURED)
    )
    return Table(
        ("the paper's claim", "does it hold?", "under its protocol", "worst case", "network, and its cost"), rows
    )


def _by_method(figures: Figures, columns: dict[str, Column]) -> Table:
    rows = [
        (Cell(row.method, note=row.about.source), *(column(row) for column in columns.values())) for row in figures.rows
    ]
    return Table(("method", *columns), tuple(rows))


def _share(figure: Callable[[Result], float | None], *, strong: bool = False, bar: bool = False) -> Column:
    return _column(figure, lambda value: value.share, strong, bar)


def _number(figure: Callable[[Result], float | None], digits: int, *, strong: bool = False) -> Column:
    return _column(figure, lambda value: value.number(digits=digits), strong)


def _column(
    figure: Callable[[Result], float | None], words: Callable[[Spread], str], strong: bool, bar: bool = False
) -> Column:
    def cell(row: Row) -> Cell:
        value = row.over(figure)
        if value is None:
            return ABSENT
        return Cell(words(value), value=value.mean, strong=strong, number=True, bar=bar)

    return cell
