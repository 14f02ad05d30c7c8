"""What a reader of the comparison sees first: the paper's method, the best of its rivals, and no defence at all."""

from __future__ import annotations

from typing import Literal

from repulse.report.blocks import Card, Cards
from repulse.report.words import NORMS, percent, plain
from repulse.reproduce.claims import MISLEADING, papers_row
from repulse.reproduce.figures import PLAIN, Figures, Row


def cards(figures: Figures) -> Cards | None:
    """A card for each of the three; None if none of them was measured."""
    best = max(figures.rows, key=lambda row: row.mean(lambda r: r.worst), default=None)
    named = (("the paper's method", papers_row(figures)), ("most is left", best), ("no defence", figures.row(PLAIN)))
    shown: dict[str, Card] = {}
    for what, row in named:
        if row is not None and row.method not in shown:
            shown[row.method] = _card(row, what)
    return Cards(tuple(shown.values())) if shown else None


def _card(row: Row, what: str) -> Card:
    worst, natural = row.mean(lambda r: r.worst), row.mean(lambda r: r.natural)
    own = row.over(lambda r: r.protocol)
    seeds, record = len(row.results), row.results[0].record
    words = {result.verdict for result in row.results}
    tone: Literal["good", "bad", "open"] = "good"
    if words - {"measured"}:
        tone = "bad" if "overstated" in words else "open"
    each = [result.worst for result in row.results]
    why = "PGD on the training loss was not run."
    if own is not None:
        gap = own.mean - worst
        why = f"The paper's protocol says {percent(own.mean)}; {percent(worst)} is left."
        if gap <= MISLEADING:
            why = f"The paper's protocol says much the same: {percent(own.mean)}."
    return Card(
        title=f"{row.method}: {what}",
        link="accuracy",
        label="robust accuracy, mean of its seeds" if seeds > 1 else "robust accuracy, one seed",
        figure=percent(worst),
        phrase="of the images stay right under every attack",
        scale=(worst, min(each), max(each), natural, 1 / max(len(record.data.class_names), 1)),
        detail=(
            f"natural accuracy {percent(natural)}; {seeds} seed{'s' if seeds > 1 else ''}, from {percent(min(each))} "
            f"to {percent(max(each))}; {record.data.count:,} images each, {NORMS[record.norm]}"
        ),
        sure=plain(row.verdicts),
        tone=tone,
        why=(why,),
    )
