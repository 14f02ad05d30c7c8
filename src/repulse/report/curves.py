"""Robustness curves: accuracy against the size of the perturbation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repulse.report.group import Entry
from repulse.report.svg import FAINT, MARKERS, SERIES, Canvas, Picture, canvas
from repulse.report.words import percent, plain

_TRAINING_LOSS, _WORST_CASE = "training loss", "worst case"


def curve_of_one(entry: Entry) -> Picture | None:
    """All objectives of one model; None if no curve was measured."""
    record = entry.record
    if not record.curve:
        return None
    caption = (
        f"Accuracy as perturbations grow. {_sentence(record.curve_attack)} The dotted line marks the eps of the table. "
        "Where one attack leaves far more than the worst case, that attack was misled, not withstood."
    )
    with canvas(f"{entry.anchor}-curve", _description([entry]), caption) as drawn:
        plot = _Plot(drawn, [entry])
        objectives = dict.fromkeys(name for point in record.curve for name in point.robust_accuracy)
        for i, name in enumerate(sorted(objectives, key=lambda name: name == _WORST_CASE)):
            if name == _WORST_CASE:
                plot.line(entry, name, label=name, color=SERIES[0], marker=MARKERS[0], linewidth=2.4)
            else:
                look = {"color": SERIES[1 + i % 5], "marker": MARKERS[1 + i % 5]}
                plot.line(entry, name, label=plain(name, 24), linestyle="--", linewidth=1.4, **look)
        drawn.figure.legend(loc="outside lower center", ncols=2)
    return drawn.picture


def curve_of_many(entries: Sequence[Entry], name: str) -> Picture | None:
    """Several models, the training loss dashed and the worst case solid; None if no curve was measured."""
    entries = [entry for entry in entries if entry.record.curve]
    if not entries:
        return None
    how = dict.fromkeys(_sentence(entry.record.curve_attack) for entry in entries)
    caption = (
        "Accuracy as perturbations grow. Solid: worst case. Dashed, in the same colour: PGD on the training loss, as "
        f"in the paper. The dotted line marks the eps of the table. {' '.join(how)}"
    )
    height = 3.0 + 0.2 * -(-len(entries) // 2)
    with canvas(name, _description(entries), caption, height=height) as drawn:
        plot = _Plot(drawn, entries)
        for i, entry in enumerate(entries):
            look = {"color": SERIES[i % len(SERIES)], "marker": MARKERS[i % len(MARKERS)]}
            plot.line(entry, _TRAINING_LOSS, linestyle="--", linewidth=1.3, **look)
            plot.line(entry, _WORST_CASE, label=plain(entry.label, 30), **look)
        drawn.figure.legend(loc="outside lower center", ncols=2)
    return drawn.picture


class _Plot:
    """Axes in percent against eps, in grey levels where all radii are whole ones."""

    def __init__(self, drawn: Canvas, entries: Sequence[Entry]) -> None:
        record = entries[0].record
        radii = [point.eps * 255 for entry in entries for point in entry.record.curve]
        levels = record.norm == "linf" and all(abs(radius - round(radius)) < 1e-6 for radius in radii)
        norm = "L-inf" if record.norm == "linf" else "L2"
        self.scale = 255 if levels else 1
        self.axes: Any = drawn.figure.subplots()
        self.axes.set(
            ylim=(-2, 102),
            ylabel="accuracy, %",
            xlabel=f"eps ({norm}), {'in 1/255' if levels else 'pixels in [0, 1]'}",
        )
        self.axes.axvline(record.eps * self.scale, color=FAINT, linestyle=":", linewidth=1.2)

    def line(self, entry: Entry, objective: str, **look: Any) -> None:
        points = [point for point in entry.record.curve if objective in point.robust_accuracy]
        eps = [point.eps * self.scale for point in points]
        self.axes.plot(eps, [100 * point.robust_accuracy[objective] for point in points], **look)


def _sentence(text: str) -> str:
    text = plain(text).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _description(entries: Sequence[Entry]) -> str:
    parts = []
    for entry in entries:
        ends = [
            f"{percent(point.robust_accuracy[_WORST_CASE])} at eps {point.eps:.3g}"
            for point in (entry.record.curve[0], entry.record.curve[-1])
            if _WORST_CASE in point.robust_accuracy
        ]
        parts.append(f"{entry.label}: worst case {' to '.join(ends)}")
    return f"Line chart of accuracy against the size of the perturbation. {'; '.join(parts)}."
