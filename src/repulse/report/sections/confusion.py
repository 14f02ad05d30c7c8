"""Who is taken for whom, on clean images and under the worst case."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from repulse.report.blocks import Pair, Picture, Section
from repulse.report.group import Entry
from repulse.report.section import SECTIONS
from repulse.report.svg import INK, SERIES, canvas
from repulse.report.tiles import HEIGHT, class_ticks, entries, rectangles
from repulse.report.words import percent, plain

# Beyond these, a tile is too small for its number.
_NUMBERED = 12


@SECTIONS.register("confusion")
def section(entry: Entry) -> Section:
    """Both matrices side by side."""
    record, names = entry.record, entry.record.data.class_names
    clean = confusion(record.confusion_natural, names, f"{entry.anchor}-natural", attacked=False)
    fooled = confusion(record.confusion_attacked, names, f"{entry.anchor}-attacked", attacked=True)
    return Section("Who is taken for whom", (Pair((clean, fooled)),))


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
    with canvas(name, f"Confusion matrix {what}: {percent(right)} right.", caption, height=HEIGHT + 0.35) as drawn:
        axes = drawn.figure.subplots()
        colour = SERIES[1] if attacked else SERIES[0]
        # The square root lets rare mistakes be seen beside a full diagonal.
        rectangles(axes, [(i, j, colour, math.sqrt(share)) for i, j, share in entries(shares)], len(shares))
        if len(table) <= _NUMBERED:
            for i, counted in enumerate(counts):
                for j, number in enumerate(counted):
                    if number:
                        axes.text(j, i, str(number), ha="center", va="center", fontsize=8, color=INK)
        class_ticks(axes, class_names)
        axes.set(xlabel="predicted", ylabel="true")
    return drawn.picture
