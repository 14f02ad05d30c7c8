"""The pictures of a comparison: robustness over eps, transfer between models, separation against robustness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from repulse.report.blocks import Picture
from repulse.report.svg import FAINT, INK, MARKERS, SERIES, canvas
from repulse.report.tiles import rectangles
from repulse.report.words import percent
from repulse.reproduce.figures import TRAINING_LOSS, WORST_CASE, Figures, Result, Row
from repulse.reproduce.sentences import decay, separation, transfer

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
    rows = [row for row in figures.rows if row.results[0].record.curve]
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
    radii = [point.eps for point in row.results[0].record.curve]
    shares = {}
    for line, look in ((TRAINING_LOSS, {"color": _PAPER, "linestyle": "--"}), (WORST_CASE, {"color": _WORST})):
        shares[line] = [100 * row.mean(lambda r, e=eps, n=line: r.at(e, n)) for eps in radii]  # type: ignore[misc]
        axes.plot([scale * eps for eps in radii], shares[line], linewidth=1.5, **look)
    eps = [scale * each for each in radii]
    axes.fill_between(eps, shares[WORST_CASE], shares[TRAINING_LOSS], color=_PAPER, alpha=0.18, linewidth=0)
    axes.axvline(scale * row.results[0].record.eps, color=FAINT, linestyle=":", linewidth=1)
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


def _point(axes: Any, row: Row, figure: Callable[[Result], float | None], label: str | None, **look: Any) -> None:
    across, up = row.over(figure), row.over(_worst)
    assert across is not None, "only methods with both figures are drawn"
    assert up is not None, "only methods with both figures are drawn"
    axes.errorbar(
        across.mean,
        100 * up.mean,
        xerr=across.std or 0,
        yerr=100 * (up.std or 0),
        linestyle="",
        elinewidth=0.8,
        markersize=5,
        label=label,
        **look,
    )


def _named(axes: Any, rows: Sequence[Row], figure: Callable[[Result], float | None]) -> None:
    """Name the most robust method, and the most and least separated: more names would cover each other."""
    chosen = {
        max(rows, key=lambda row: row.mean(_worst)).method,
        max(rows, key=lambda row: row.mean(figure)).method,
        min(rows, key=lambda row: row.mean(figure)).method,
    }
    left, right = min(row.mean(figure) for row in rows), max(row.mean(figure) for row in rows)
    for row in rows:
        if row.method in chosen:
            x, y = row.mean(figure), 100 * row.mean(_worst)
            side = "right" if x > (left + right) / 2 else "left"
            offset = (-6 if side == "right" else 6, 5)
            axes.annotate(row.method, (x, y), offset, textcoords="offset points", ha=side, fontsize=7.5, color=INK)


def _angle(result: Result) -> float | None:
    return result.angle


def _within(result: Result) -> float | None:
    return result.spread


def _worst(result: Result) -> float | None:
    return result.worst


def _levels(row: Row) -> bool:
    """Whether all radii are whole grey levels."""
    radii = [255 * point.eps for point in row.results[0].record.curve]
    return all(abs(radius - round(radius)) < 1e-6 for radius in radii)


def _said(rows: Sequence[Row]) -> str:
    parts = [f"{row.method} {percent(row.mean(_worst))}" for row in rows]
    return f"Line charts of accuracy against eps. Worst case at the eps of the table: {', '.join(parts)}."
