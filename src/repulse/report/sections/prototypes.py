"""The prototypes: the angles between them, and their separation beside the best that is possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from repulse.prototypes import Separation
from repulse.report.blocks import Cell, Pair, Picture, Section, Table
from repulse.report.group import Entry
from repulse.report.section import SECTIONS
from repulse.report.svg import FAINT, INK, SERIES, canvas
from repulse.report.tiles import DENSEST, HEIGHT, class_ticks, entries, rectangles
from repulse.report.words import percent, signed

# Beyond these, a tile is too small for being a tile at all.
_TILED = 100
_POSITIVE, _NEGATIVE = SERIES[0], SERIES[1]


@SECTIONS.register("prototypes")
def section(entry: Entry) -> Section | None:
    """The Gram matrix beside the measures; None without prototypes, or where the model is shown elsewhere."""
    prototypes, separation = entry.measured.outcomes.get("prototypes"), entry.measured.separation
    if entry.same_model is not None or prototypes is None or separation is None:
        return None
    picture = gram(prototypes, separation, entry.record.data.class_names, f"{entry.anchor}-gram")
    return Section("Prototypes", (Pair((picture, table(separation))),))


def table(measured: Separation) -> Table:
    """Each measure of separation beside the best that is possible, or the best bound that is known."""
    rows = [
        (
            Cell(name),
            Cell(signed(value, 4), value=value, number=True),
            Cell("" if bound is None else signed(bound, 4), value=bound, number=True),
            Cell("" if ratio is None else percent(ratio), value=ratio, number=True),
            Cell(source),
        )
        for name, value, bound, ratio, source in measured.rows()
    ]
    return Table(("measure", "measured", "best possible, or bound", "reached", "source of the bound"), tuple(rows))


def gram(prototypes: Float[Tensor, "n d"], separation: Separation, class_names: Sequence[str], name: str) -> Picture:
    """The cosines between prototypes, with the best that is possible; a histogram where tiles would be too small."""
    n, d = prototypes.shape
    angle = separation.smallest_angle
    reached = math.cos(math.radians(angle.value))
    best = None if angle.bound is None else math.cos(math.radians(angle.bound))
    caption = (
        f"Cosines between the {n} prototypes in {d} dimensions. The largest is {signed(reached, 3)}: the two "
        f"closest are {angle.value:.1f}° apart"
    )
    caption += "." if best is None else f"; at best it is {signed(best, 3)} ({angle.bound:.1f}°, {angle.source})."
    about = f"Cosines between {n} prototypes; the largest is {signed(reached, 3)}."
    unit = torch.nn.functional.normalize(prototypes.double(), dim=1)
    if n > _TILED:
        return _histogram(unit, reached, best, name, about, caption)
    with canvas(name, about, caption, height=HEIGHT + 0.5) as drawn:
        axes, scale = drawn.figure.subplots(2, 1, height_ratios=(1, 0.035))
        cosines = [(i, j, _POSITIVE if c > 0 else _NEGATIVE, min(1.0, abs(c))) for i, j, c in entries(unit @ unit.T)]
        rectangles(axes, cosines, n)
        class_ticks(axes, class_names)
        _scale(scale, reached, best)
    return drawn.picture


def _histogram(unit: Tensor, reached: float, best: float | None, name: str, about: str, caption: str) -> Picture:
    bins = 80
    counts = torch.zeros(bins, dtype=torch.float64)
    for rows in torch.split(torch.arange(len(unit)), 1000):
        # Each pair twice, the diagonal once; the diagonal is taken off below.
        counts += torch.histc((unit[rows] @ unit.T).clamp(-1, 1), bins, -1, 1)
    counts[-1] -= len(unit)
    edges = torch.linspace(-1, 1, bins + 1).tolist()
    with canvas(name, about, caption + " The count of pairs is drawn on a logarithmic scale.", height=2.6) as drawn:
        axes = drawn.figure.subplots()
        axes.stairs((counts / 2).tolist(), edges, fill=True, color=_POSITIVE)
        axes.set(xlim=(-1, 1), yscale="log", xlabel="cosine", ylabel="pairs of classes", ylim=(0.5, None))
        axes.axvline(reached, color=INK, linewidth=1.2, label="largest measured")
        if best is not None:
            axes.axvline(best, color=_NEGATIVE, linewidth=1.6, linestyle="--", label="smallest possible largest")
        drawn.figure.legend(loc="outside lower center", ncols=2)
    return drawn.picture


def _scale(axes: Any, reached: float, best: float | None) -> None:
    """A colour scale from -1 to 1, with the largest cosine and the best possible marked on it."""
    from matplotlib.colors import to_rgba

    steps = 40
    for i in range(steps):
        low = -1 + 2 * i / steps
        middle = low + 1 / steps
        colour = _POSITIVE if middle > 0 else _NEGATIVE
        axes.axvspan(low, low + 2 / steps, facecolor=to_rgba(colour, DENSEST * abs(middle)), linewidth=0)
    axes.set(xlim=(-1, 1), ylim=(0, 1), yticks=[], xticks=[-1, -0.5, 0, 0.5, 1])
    axes.set_xlabel("cosine;  | largest measured" + ("" if best is None else ";  ┆ at best"))
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(color=FAINT)
    axes.axvline(reached, color=INK, linewidth=1.6)
    if best is not None:
        axes.axvline(best, color=INK, linewidth=1.6, linestyle=(0, (1, 1)))
