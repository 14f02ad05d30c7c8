"""Slices of the loss surface: the margin around an image, drawn as a map with the border where the answer changes."""

from __future__ import annotations

import math
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from repulse.common.units import in_255ths
from repulse.report.blocks import Pair, Picture, Section, Text
from repulse.report.group import Entry
from repulse.report.section import SECTIONS
from repulse.report.svg import FAINT, INK, SERIES, WIDTH, canvas
from repulse.report.words import plain

_RIGHT, _FOOLED = SERIES[0], SERIES[1]
# Shades on either side of the border; the densest is one that ink still stands out from.
_SHADES, _DENSEST = 8, 0.6

_NOTE = (
    "Each map shows the margin, the largest wrong logit minus the true one, on a plane through an image: the plus is "
    "the clean image, the solid line where the answer changes, the dotted line the edge of the ball. The stronger the "
    "shade, the larger the margin on that side, each map on its own scale. An honest surface is smooth and rises "
    "towards the attack; a flat or jagged one hides the way from gradients."
)


@SECTIONS.register("slices")
def section(entry: Entry) -> Section | None:
    """All maps of a model; None if the record keeps none."""
    pictures = slice_pictures(entry)
    return Section("Loss-surface slices", (Pair(pictures), Text(_NOTE, "note"))) if pictures else None


def slice_pictures(entry: Entry) -> tuple[Picture, ...]:
    """One map for each image whose slice the record keeps."""
    kept = entry.measured.outcomes
    if not {"slice/index", "slice/eps", "slice/margin"} <= set(kept) or len(kept["slice/eps"]) < 5:
        return ()
    axis = kept["slice/eps"]
    return tuple(
        _picture(entry, place, int(row), axis, kept["slice/margin"][place])
        for place, row in enumerate(kept["slice/index"].tolist())
    )


def first_fooled(axis: Tensor, margin: Tensor) -> float | None:
    """The smallest coordinate along the attack, from the clean image on, where the margin is positive; None if none."""
    along = margin[_centre(axis)]
    fooled = axis[(axis >= 0) & (along > 0)]
    return float(fooled[0]) if len(fooled) else None


def _picture(entry: Entry, place: int, row: int, axis: Tensor, margin: Tensor) -> Picture:
    record = entry.record
    true = plain(record.data.class_names[int(entry.measured.outcomes["label"][row])], 30)
    margin = margin.nan_to_num(0.0)
    title = f"Image {row}, {true}: {_finding(axis, margin)}"
    shown = f"{title} {_flatness(margin)}".strip()
    about = f"Map of the margin around image {row} along its attack and along a random direction. {shown}"
    with canvas(f"{entry.anchor}-slice-{place}", about, shown, height=WIDTH - 0.5) as drawn:
        axes = drawn.figure.subplots()
        levels = record.norm == "linf"
        scale, unit = (255.0, "1/255") if levels else (1.0, "L2 distance")
        coordinates = axis.double() * scale
        _map(axes, coordinates, margin)
        _edge(axes, record.eps * scale, levels)
        axes.plot([0], [0], marker="+", markersize=9, color=INK, linestyle="")
        axes.set(aspect="equal", xlabel=f"along the attack, {unit}", ylabel=f"along a random direction, {unit}")
        axes.grid(False)
    return drawn.picture


def _map(axes: Any, coordinates: Tensor, margin: Tensor) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    step = float(coordinates[1] - coordinates[0])
    low = float(coordinates[0]) - step / 2
    strength = margin.abs() / margin.abs().max().clamp_min(torch.finfo(margin.dtype).tiny)
    shades = (strength * _SHADES).ceil() * margin.sign()
    corners, colours = [], []
    for i, line in enumerate(shades.tolist()):
        bottom = low + i * step
        start = 0
        # Equal neighbours are one tile: a page of maps stays small.
        for shade, run in groupby(line):
            end = start + len(list(run))
            left, right = low + start * step, low + end * step
            corners.append([(left, bottom), (right, bottom), (right, bottom + step), (left, bottom + step)])
            colours.append(to_rgba(_FOOLED if shade > 0 else _RIGHT, _DENSEST * abs(shade) / _SHADES))
            start = end
    axes.add_collection(PolyCollection(corners, facecolors=colours, linewidths=0))
    points = coordinates.tolist()
    if margin.min() < 0 < margin.max():
        axes.contour(points, points, margin.tolist(), levels=[0.0], colors=[INK], linewidths=1.6)
    limits = (low, low + len(points) * step)
    axes.set(xlim=limits, ylim=limits)
    for sign, word in ((-1, "right"), (1, "fooled")):
        spot = _inside(margin, sign)
        if spot is not None:
            axes.text(points[spot[1]], points[spot[0]], word, ha="center", va="center", color=INK)


def _edge(axes: Any, eps: float, linf: bool) -> None:
    """The ball: for L2 a circle; for L-inf a diamond, since both steps add up in some pixel."""
    if linf:
        axes.plot([eps, 0, -eps, 0, eps], [0, eps, 0, -eps, 0], color=INK, linestyle=":", linewidth=1.3)
    else:
        turn = torch.linspace(0, 2 * torch.pi, 97)
        axes.plot((eps * turn.cos()).tolist(), (eps * turn.sin()).tolist(), color=INK, linestyle=":", linewidth=1.3)
    axes.tick_params(color=FAINT)


def _inside(margin: Tensor, sign: int) -> tuple[int, int] | None:
    """Where a word fits wholly on one side of the border, away from the clean image; None where there is no room."""
    side = (sign * margin > 0).float()[None, None]
    # A word takes about a tenth of the width, and a third of that in height.
    high, wide = math.ceil(0.03 * len(margin)), math.ceil(0.06 * len(margin))
    room = (F.avg_pool2d(side, (2 * high + 1, 2 * wide + 1), stride=1)[0, 0] == 1).nonzero()
    if len(room) == 0:
        return None
    spots = room + torch.tensor([high, wide])
    i, j = spots[(spots - len(margin) // 2).square().sum(1).argmax()].tolist()
    return i, j


def _finding(axis: Tensor, margin: Tensor) -> str:
    if margin[_centre(axis), _centre(axis)] > 0:
        return "misclassified without any attack."
    first = first_fooled(axis, margin)
    return (
        f"right along the attack up to {_distance(float(axis[-1]))}."
        if first is None
        else f"fooled along the attack from {_distance(first)} on."
    )


def _distance(value: float) -> str:
    return in_255ths(round(255 * value, 3) / 255)


def _flatness(margin: Tensor) -> str:
    """A warning where the map shows nothing."""
    return "The margin is the same everywhere: the model does not see these steps." if margin.std() == 0 else ""


def _centre(axis: Tensor) -> int:
    return int(axis.abs().argmin())
