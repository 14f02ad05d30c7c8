"""Matrices as tiles: who is taken for whom, and the angles between prototypes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from repulse.prototypes import Separation
from repulse.report.svg import FAINT, INK, PAPER, SERIES, WIDTH, Picture, canvas
from repulse.report.words import percent, plain

# Beyond these, a tile is too small for its number, for its outline, and for being a tile at all.
_NUMBERED, _OUTLINED, _TILED = 12, 40, 100
# The densest colour that text in the page's own ink still stands out from, by day and by night.
_DENSEST = 0.6
_POSITIVE, _NEGATIVE = SERIES[0], SERIES[1]


def confusion(counts: Sequence[Sequence[int]], class_names: Sequence[str], name: str, *, attacked: bool) -> Picture:
    """Who is taken for whom: rows are true classes, columns predicted ones, shades shares of a row."""
    table = torch.tensor(counts, dtype=torch.float64)
    shares = table / table.sum(1, keepdim=True).clamp_min(1)
    right = float(table.diagonal().sum() / table.sum().clamp_min(1))
    off = shares - torch.diag(shares.diagonal())
    row, column = divmod(int(off.argmax()), len(off))
    what = "under the worst case" if attacked else "on clean images"
    caption = (
        f"Predicted classes {what}: {percent(right)} right. Each row is a true class; shades are shares of the row."
    )
    if off.max() > 0:
        true, taken = plain(class_names[row], 30), plain(class_names[column], 30)
        caption += f" Most often mistaken: {true} for {taken}, {percent(float(off.max()))} of its images."
    with canvas(name, f"Confusion matrix {what}: {percent(right)} right.", caption, height=_square(0.35)) as drawn:
        axes = drawn.figure.subplots()
        _tiles(axes, shares, SERIES[1] if attacked else SERIES[0])
        if len(table) <= _NUMBERED:
            for i, counted in enumerate(counts):
                for j, number in enumerate(counted):
                    if number:
                        axes.text(j, i, str(number), ha="center", va="center", fontsize=8, color=INK)
        _class_ticks(axes, class_names)
        axes.set(xlabel="predicted", ylabel="true")
    return drawn.picture


def gram(prototypes: Float[Tensor, "n d"], separation: Separation, class_names: Sequence[str], name: str) -> Picture:
    """The cosines between prototypes, with the best that is possible; a histogram where tiles would be too small."""
    n, d = prototypes.shape
    angle = separation.smallest_angle
    reached = math.cos(math.radians(angle.value))
    best = None if angle.bound is None else math.cos(math.radians(angle.bound))
    caption = (
        f"Cosines between the {n} prototypes in {d} dimensions. The largest is {_signed(reached)}: the two closest are "
        f"{angle.value:.1f}° apart"
    )
    caption += "." if best is None else f"; at best it is {_signed(best)} ({angle.bound:.1f}°, {angle.source})."
    about = f"Cosines between {n} prototypes; the largest is {_signed(reached)}."
    unit = torch.nn.functional.normalize(prototypes.double(), dim=1)
    if n > _TILED:
        return _histogram(unit, reached, best, name, about, caption)
    with canvas(name, about, caption, height=_square(0.5)) as drawn:
        axes, scale = drawn.figure.subplots(2, 1, height_ratios=(1, 0.035))
        _signed_tiles(axes, unit @ unit.T)
        _class_ticks(axes, class_names)
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


def _tiles(axes: Any, shares: Tensor, colour: str) -> None:
    # The square root lets rare mistakes be seen beside a full diagonal.
    rectangles(axes, [(i, j, colour, math.sqrt(share)) for i, j, share in _entries(shares)], len(shares))


def _signed_tiles(axes: Any, cosines: Tensor) -> None:
    tiles = [(i, j, _POSITIVE if c > 0 else _NEGATIVE, min(1.0, abs(c))) for i, j, c in _entries(cosines)]
    rectangles(axes, tiles, len(cosines))


def _entries(table: Tensor) -> list[tuple[int, int, float]]:
    return [(i, j, value) for i, row in enumerate(table.tolist()) for j, value in enumerate(row)]


def rectangles(axes: Any, tiles: Sequence[tuple[int, int, str, float]], n: int) -> None:
    """Draw the tiles `(row, column, colour, strength in [0, 1])` of a square matrix with n rows."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    # A tile too pale to be seen is left out: large matrices are mostly empty.
    seen = [tile for tile in tiles if tile[3] > 0.02]
    corners = [[(j - 0.5, i - 0.5), (j + 0.5, i - 0.5), (j + 0.5, i + 0.5), (j - 0.5, i + 0.5)] for i, j, _, _ in seen]
    colours = [to_rgba(colour, _DENSEST * strength) for _, _, colour, strength in seen]
    outline = {"edgecolors": PAPER, "linewidths": 0.6} if n <= _OUTLINED else {"linewidths": 0}
    axes.add_collection(PolyCollection(corners, facecolors=colours, **outline))
    axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), aspect="equal")
    axes.grid(False)
    axes.spines[:].set_visible(True)


def _class_ticks(axes: Any, class_names: Sequence[str]) -> None:
    n = len(class_names)
    if n > _OUTLINED:
        return
    labels = [plain(each, 12) for each in class_names]
    small = 8 if n <= 20 else 5
    axes.set_xticks(range(n), labels, rotation=90 if max(map(len, labels)) > 2 else 0, fontsize=small)
    axes.set_yticks(range(n), labels, fontsize=small)
    axes.tick_params(length=0)


def _scale(axes: Any, reached: float, best: float | None) -> None:
    """A colour scale from -1 to 1, with the largest cosine and the best possible marked on it."""
    from matplotlib.colors import to_rgba

    steps = 40
    for i in range(steps):
        low = -1 + 2 * i / steps
        middle = low + 1 / steps
        colour = _POSITIVE if middle > 0 else _NEGATIVE
        axes.axvspan(low, low + 2 / steps, facecolor=to_rgba(colour, _DENSEST * abs(middle)), linewidth=0)
    axes.set(xlim=(-1, 1), ylim=(0, 1), yticks=[], xticks=[-1, -0.5, 0, 0.5, 1])
    axes.set_xlabel("cosine;  | largest measured" + ("" if best is None else ";  ┆ at best"))
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(color=FAINT)
    axes.axvline(reached, color=INK, linewidth=1.6)
    if best is not None:
        axes.axvline(best, color=INK, linewidth=1.6, linestyle=(0, (1, 1)))


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _square(extra: float) -> float:
    return WIDTH - 0.6 + extra
