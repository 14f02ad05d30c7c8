"""Matrices as tiles, which stay sharp at any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from repulse.report.svg import PAPER, WIDTH
from repulse.report.words import plain

HEIGHT = WIDTH - 0.6
"""Height of a picture, in inches, in which a square matrix takes the whole width; names of classes come on top."""

DENSEST = 0.6
"""The densest colour that text in the page's own ink still stands out from, by day and by night."""

# Beyond these a tile is too small for its outline.
_OUTLINED = 40


def entries(table: torch.Tensor) -> list[tuple[int, int, float]]:
    """`(row, column, value)` of all entries of a matrix."""
    return [(i, j, value) for i, row in enumerate(table.tolist()) for j, value in enumerate(row)]


def rectangles(axes: Any, tiles: Sequence[tuple[int, int, str, float]], n: int) -> None:
    """Draw the tiles `(row, column, colour, strength in [0, 1])` of a square matrix with n rows."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    # A tile too pale to be seen is left out: large matrices are mostly empty.
    seen = [tile for tile in tiles if tile[3] > 0.02]
    corners = [[(j - 0.5, i - 0.5), (j + 0.5, i - 0.5), (j + 0.5, i + 0.5), (j - 0.5, i + 0.5)] for i, j, _, _ in seen]
    colours = [to_rgba(colour, DENSEST * strength) for _, _, colour, strength in seen]
    outline = {"edgecolors": PAPER, "linewidths": 0.6} if n <= _OUTLINED else {"linewidths": 0}
    axes.add_collection(PolyCollection(corners, facecolors=colours, **outline))
    axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), aspect="equal")
    axes.grid(False)
    axes.spines[:].set_visible(True)


def class_ticks(axes: Any, class_names: Sequence[str]) -> None:
    """Name rows and columns, where there is room."""
    n = len(class_names)
    if n > _OUTLINED:
        return
    labels = [plain(each, 12) for each in class_names]
    small = 8 if n <= 20 else 5
    axes.set_xticks(range(n), labels, rotation=90 if max(map(len, labels)) > 2 else 0, fontsize=small)
    axes.set_yticks(range(n), labels, fontsize=small)
    axes.tick_params(length=0)
