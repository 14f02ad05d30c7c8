"""The pictures of a comparison: robustness over eps, transfer between models, separation against robustness."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from repulse.report.matrices import rectangles
from repulse.report.svg import FAINT, INK, MARKERS, SERIES, Picture, canvas
from repulse.report.words import percent
from repulse.reproduce.figures import TRAINING_LOSS, WORST_CASE, Figures, Found, Row, spread
from repulse.reproduce.reading import decay, separation, transfer

_PAPER, _WORST = SERIES[1], SERIES[0]
_COLUMNS = 3
_LOOKS = dict(
    zip(
        ("no defence", "fixed prototypes", "learned prototypes", "adversarial training", "regulariser"),
        zip(SERIES, MARKERS, strict=False),
        strict=False,
    )
)


def curves_picture(figures: Figures) -> Picture | None:
    """A small picture for each method: robust accuracy over eps, the paper's protocol and the worst case."""
    rows = [row for row in figures.rows if row.found[0].record.curve]
    if not rows:
        return None
    caption = (
        "Robust accuracy as perturbations grow, a picture for each method, mean over seeds. Dashed: PGD-20 on the "
        "training loss, as in the paper. Solid: no attack found anything as near. The space between the two is what "
        f"the paper's protocol overstates. The dotted line marks the eps of the table. {decay(figures)}"
    )
    lines = -(-len(rows) // _COLUMNS)
    with canvas("curves", _said(rows), caption.strip(), height=0.6 + 1.25 * lines) as drawn:
        every = drawn.figure.subplots(lines, _COLUMNS, sharex=True, sharey=True, squeeze=False).flatten()
        for axes, row in zip(every, rows, strict=False):
            _curve(axes, row)
        for axes in every[len(rows) :]:
            axes.set_visible(False)
        drawn.figure.supxlabel("eps, in 1/255" if _levels(rows[0]) else "eps, pixels in [0, 1]", fontsize=9)
        drawn.figure.supylabel("accuracy, %", fontsize=9)
    return drawn.picture


def _curve(axes: Any, row: Row) -> None:
    scale = 255 if _levels(row) else 1
    radii = [point.eps for point in row.found[0].record.curve]
    shares = {}
    for line, look in ((TRAINING_LOSS, {"color": _PAPER, "linestyle": "--"}), (WORST_CASE, {"color": _WORST})):
        means = [spread(found.at(eps, line) for found in row.found) for eps in radii]
        shares[line] = [math.nan if mean is None else 100 * mean.mean for mean in means]
        axes.plot([scale * eps for eps in radii], shares[line], linewidth=1.5, **look)
    eps = [scale * each for each in radii]
    axes.fill_between(eps, shares[WORST_CASE], shares[TRAINING_LOSS], color=_PAPER, alpha=0.18, linewidth=0)
    axes.axvline(scale * row.found[0].record.eps, color=FAINT, linestyle=":", linewidth=1)
    axes.set(ylim=(-3, 103), yticks=(0, 50, 100))
    axes.set_title(row.method, fontsize=8)
    axes.tick_params(labelsize=7)


def transfer_picture(figures: Figures) -> Picture | None:
    """Rows: the model that images were crafted on; columns: the model that saw them; shades: what it got right."""
    names = [name for name in figures.transfer if all(other in figures.transfer[name] for other in figures.transfer)]
    if len(names) < 2:
        return None
    n = len(names)
    caption = (
        "Transfer: per cent of the images that a model (column) still classifies right when they were crafted on "
        "another (row), by 20 steps of PGD on the margin; on the diagonal, on its own. The darker, the more is left. "
        f"{transfer(figures)}"
    )
    with canvas("transfer", f"Matrix of transfer between {n} models.", caption, height=5.4) as drawn:
        axes: Any = drawn.figure.subplots()
        tiles = [
            (i, j, SERIES[0], figures.transfer[source][target])
            for i, source in enumerate(names)
            for j, target in enumerate(names)
        ]
        rectangles(axes, tiles, n)
        size = 8 if n <= 8 else 6.5 if n <= 14 else 5
        for i, j, _, share in tiles:
            weight = "bold" if i == j else "normal"
            axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=size, color=INK, fontweight=weight)
        axes.set_xticks(range(n), names, rotation=90, fontsize=max(size, 6))
        axes.set_yticks(range(n), names, fontsize=max(size, 6))
        axes.tick_params(length=0)
        axes.set(xlabel="shown to", ylabel="crafted on")
    return drawn.picture


def separation_picture(figures: Figures) -> Picture | None:
    """Learned separation, and spread within classes, against the worst case: one point for each method."""
    panels = (("smallest angle between class means, degrees", _angle), ("spread within classes", _within))
    rows = [row for row in figures.rows if row.over(_angle) is not None and row.over(_within) is not None]
    if len(rows) < 2:
        return None
    caption = (
        "Does separation buy robustness? Each point is a method, mean over seeds; bars are standard deviations. "
        f"{separation(figures)}"
    )
    with canvas("separation", caption, caption, height=6.0) as drawn:
        for axes, (what, figure) in zip(drawn.figure.subplots(2, 1), panels, strict=True):
            for family, (colour, marker) in _LOOKS.items():
                mine = [row for row in rows if row.about.family == family]
                label = family if figure is _angle and mine else None
                for row in mine:
                    _point(axes, row, figure, label, color=colour, marker=marker)
                    label = None
            axes.set(xlabel=what, ylabel="worst case, %")
            _named(axes, rows, figure)
        drawn.figure.legend(loc="outside lower center", ncols=2)
    return drawn.picture


def _point(axes: Any, row: Row, figure: Callable[[Found], float | None], label: str | None, **look: Any) -> None:
    across, up = row.over(figure), row.over(_worst)
    assert across is not None, "only methods with both figures are drawn"
    assert up is not None, "only methods with both figures are drawn"
    axes.errorbar(
        across.mean,
        100 * up.mean,
        xerr=across.deviation or 0,
        yerr=100 * (up.deviation or 0),
        linestyle="",
        elinewidth=0.8,
        markersize=5,
        label=label,
        **look,
    )


def _named(axes: Any, rows: Sequence[Row], figure: Callable[[Found], float | None]) -> None:
    """Name the most robust method, and the most and least separated: more names would cover each other."""

    def mean(row: Row, of: Callable[[Found], float | None]) -> float:
        found = row.over(of)
        return math.nan if found is None else found.mean

    chosen = {
        max(rows, key=lambda row: mean(row, _worst)).method,
        max(rows, key=lambda row: mean(row, figure)).method,
        min(rows, key=lambda row: mean(row, figure)).method,
    }
    left, right = min(mean(row, figure) for row in rows), max(mean(row, figure) for row in rows)
    for row in rows:
        if row.method in chosen:
            x, y = mean(row, figure), 100 * mean(row, _worst)
            side = "right" if x > (left + right) / 2 else "left"
            offset = (-6 if side == "right" else 6, 5)
            axes.annotate(row.method, (x, y), offset, textcoords="offset points", ha=side, fontsize=7.5, color=INK)


def _angle(found: Found) -> float | None:
    return found.angle


def _within(found: Found) -> float | None:
    return found.spread


def _worst(found: Found) -> float | None:
    return found.worst


def _levels(row: Row) -> bool:
    """Whether all radii are whole grey levels."""
    radii = [255 * point.eps for point in row.found[0].record.curve]
    return all(abs(radius - round(radius)) < 1e-6 for radius in radii)


def _said(rows: Sequence[Row]) -> str:
    parts = []
    for row in rows:
        worst = row.over(_worst)
        parts.append(f"{row.method} {percent(worst.mean)}" if worst is not None else row.method)
    return f"Line charts of accuracy against eps. Worst case at the eps of the table: {', '.join(parts)}."
