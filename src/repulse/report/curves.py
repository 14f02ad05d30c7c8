"""Robustness curves: accuracy against the size of the perturbation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repulse.evaluation.record import CurvePoint
from repulse.report.group import Entry
from repulse.report.smallest import Survival, survival
from repulse.report.svg import FAINT, INK, MARKERS, SERIES, Canvas, Picture, canvas
from repulse.report.words import percent, plain

# Points of a stepped line from one mark to the next.
_MARKED = 32

_TRAINING_LOSS, _WORST_CASE = "training loss", "worst case"


def curve_of_one(entry: Entry) -> Picture | None:
    """All objectives of one model, and its smallest perturbations; None if neither was measured."""
    record, whole = entry.record, survival(entry.measured)
    if not record.curve and whole is None:
        return None
    parts = ["Accuracy as perturbations grow."]
    if whole is not None:
        parts += ["Stepped: the share of images whose smallest perturbation found is larger than eps.", whole.half]
    parts += [_sentence(record.curve_attack)] if record.curve else []
    parts.append("The dotted line marks the eps of the table.")
    if record.curve:
        parts.append("Where one attack leaves far more than the worst case, that attack was misled, not withstood.")
    caption = " ".join(part for part in parts if part)
    with canvas(f"{entry.anchor}-curve", _description([entry]), caption) as drawn:
        plot = _Plot(drawn, [entry])
        objectives = dict.fromkeys(name for point in record.curve for name in point.robust_accuracy)
        for i, name in enumerate(sorted(objectives, key=lambda name: name == _WORST_CASE)):
            if name == _WORST_CASE:
                plot.line(entry, name, label=name, color=SERIES[0], marker=MARKERS[0], linewidth=2.4)
            else:
                look = {"color": SERIES[1 + i % 5], "marker": MARKERS[1 + i % 5]}
                plot.line(entry, name, label=plain(name, 24), linestyle="--", linewidth=1.4, **look)
        plot.steps(whole, label="smallest perturbation larger", color=INK, linewidth=1.6)
        drawn.figure.legend(loc="outside lower center", ncols=2)
    return drawn.picture


def curve_of_many(entries: Sequence[Entry], name: str) -> Picture | None:
    """Several models, the training loss dashed and the worst case solid; None if no curve was measured.

    Models whose smallest perturbations are known have these as a stepped line, and the worst case as marks.
    """
    entries = [entry for entry in entries if entry.record.curve or "smallest" in entry.measured.outcomes]
    if not entries:
        return None
    wholes = [survival(entry.measured) for entry in entries]
    parts = ["Accuracy as perturbations grow."]
    if any(whole is None for whole in wholes):
        parts.append("Solid: worst case.")
    if any(whole is not None for whole in wholes):
        parts.append("Stepped: images whose smallest perturbation found is larger than eps; marks on it: worst case.")
    if any(_TRAINING_LOSS in point.robust_accuracy for entry in entries for point in entry.record.curve):
        parts.append("Dashed, in the same colour: PGD on the training loss, as in the paper.")
    parts.append("The dotted line marks the eps of the table.")
    parts += dict.fromkeys(_sentence(entry.record.curve_attack) for entry in entries if entry.record.curve)
    caption = " ".join(part for part in parts if part)
    height = 3.0 + 0.2 * -(-len(entries) // 2)
    with canvas(name, _description(entries), caption, height=height) as drawn:
        plot = _Plot(drawn, entries)
        for i, (entry, whole) in enumerate(zip(entries, wholes, strict=True)):
            look = {"color": SERIES[i % len(SERIES)], "marker": MARKERS[i % len(MARKERS)]}
            plot.line(entry, _TRAINING_LOSS, linestyle="--", linewidth=1.3, **look)
            label = plain(entry.label, 30)
            if whole is None:
                plot.line(entry, _WORST_CASE, label=label, **look)
            else:
                plot.line(entry, _WORST_CASE, linestyle="", **look)
                # Where marks stand for the worst case, the line itself has none.
                plot.steps(whole, label=label, **look, markevery=[] if entry.record.curve else _MARKED)
        drawn.figure.legend(loc="outside lower center", ncols=2)
    return drawn.picture


class _Plot:
    """Axes in percent against eps, in grey levels where all radii are whole ones."""

    def __init__(self, drawn: Canvas, entries: Sequence[Entry]) -> None:
        record = entries[0].record
        radii = [record.eps * 255, *(point.eps * 255 for entry in entries for point in entry.record.curve)]
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

    def steps(self, whole: Survival | None, **look: Any) -> None:
        if whole is not None:
            eps = [each * self.scale for each in whole.eps]
            self.axes.plot(eps, [100 * share for share in whole.accuracy], drawstyle="steps-post", **look)


def _sentence(text: str) -> str:
    text = plain(text).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _description(entries: Sequence[Entry]) -> str:
    parts = []
    for entry in entries:
        whole = survival(entry.measured, [0.0, entry.record.eps])
        found = {point.eps: point.robust_accuracy[_WORST_CASE] for point in _ends(entry)}
        if whole is not None:
            found = dict(zip(whole.eps, whole.accuracy, strict=True))
        ends = [f"{percent(share)} at eps {eps:.3g}" for eps, share in found.items()]
        parts.append(f"{entry.label}: {'smallest perturbation' if whole else 'worst case'} {' to '.join(ends)}")
    return f"Line chart of accuracy against the size of the perturbation. {'; '.join(parts)}."


def _ends(entry: Entry) -> list[CurvePoint]:
    """The first and the last point of a curve that have a worst case."""
    return [
        point for point in (entry.record.curve[:1] + entry.record.curve[-1:]) if _WORST_CASE in point.robust_accuracy
    ]
