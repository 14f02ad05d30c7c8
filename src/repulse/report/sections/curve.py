"""Robust accuracy as perturbations grow: a picture, and a table of the same figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repulse.common.units import in_255ths
from repulse.report.blocks import ABSENT, Cell, Pair, Picture, Section, Table
from repulse.report.group import Entry
from repulse.report.pooled import radii
from repulse.report.section import SECTIONS
from repulse.report.svg import FAINT, MARKERS, SERIES, canvas
from repulse.report.words import NORMS, grey_levels, note, percent, plain

_TRAINING_LOSS, _WORST_CASE = "training loss", "worst case"

# More lines than colours cannot be told apart.
_MOST = len(SERIES)


@SECTIONS.register("curve")
def section(entry: Entry) -> Section | None:
    """All objectives of one model, and the worst case of everything tried; None if no curve was measured."""
    picture, table = curve_of_one(entry), curve(entry)
    return None if picture is None or table is None else Section("Robustness curve", (Pair((picture, table)),))


def has_curve(entry: Entry) -> bool:
    """Whether accuracy is known at more than one radius."""
    return bool(entry.record.curve) or entry.pool.smallest is not None


def curve(entry: Entry) -> Table | None:
    """Robust accuracy at each eps, by objective, and the worst case; None if no curve was measured."""
    record, points = entry.record, {point.eps: point.robust_accuracy for point in entry.record.curve}
    if not has_curve(entry):
        return None
    names = [name for name in _objectives(entry) if name != _WORST_CASE]
    rows = []
    for eps in radii(entry.measured):
        cells = [Cell(in_255ths(eps), value=eps, number=True)]
        for name in names:
            known = name in points.get(eps, {})
            cells.append(_share(points[eps][name], record.data.count) if known else ABSENT)
        cells.append(_share(entry.pool.worst_case(eps), record.data.count, strong=True))
        rows.append(tuple(cells))
    return Table(("eps", *names, _WORST_CASE), tuple(rows))


def curve_of_one(entry: Entry) -> Picture | None:
    """All objectives of one model dashed, and the worst case; None if no curve was measured."""
    if not has_curve(entry):
        return None
    parts = ["Accuracy as perturbations grow. Solid: nothing ever found at that eps or below it.", entry.pool.half]
    if entry.record.curve:
        parts += [_sentence(entry.record.curve_attack)]
        parts += ["Where one attack leaves far more than the worst case, that attack was misled, not withstood."]
    parts.append("The dotted line marks the eps of the table.")
    caption = " ".join(part for part in parts if part)
    with canvas(f"{entry.anchor}-curve", _description([entry]), caption) as drawn:
        axes = _axes(drawn.figure, [entry])
        for i, name in enumerate(name for name in _objectives(entry) if name != _WORST_CASE):
            look = {"color": SERIES[1 + i % 5], "marker": MARKERS[1 + i % 5], "linestyle": "--", "linewidth": 1.4}
            _points(axes, entry, name, label=plain(name, 24), **look)
        _worst(axes, entry, label=_WORST_CASE, color=SERIES[0], linewidth=2.4)
        drawn.figure.legend(loc="outside lower center", ncols=2)
    return drawn.picture


def curve_of_many(entries: Sequence[Entry], name: str) -> Picture | None:
    """Several models, the training loss dashed and the worst case solid; None if no curve was measured.

    Of more models than there are colours, the most robust are drawn.
    """
    entries = [entry for entry in entries if has_curve(entry)]
    if not entries:
        return None
    parts = ["Accuracy as perturbations grow. Solid: worst case, nothing ever found at that eps or below it."]
    if any(_TRAINING_LOSS in point.robust_accuracy for entry in entries for point in entry.record.curve):
        parts.append("Dashed, in the same colour: PGD on the training loss, as in the paper.")
    if len(entries) > _MOST:
        parts.append(f"The {_MOST} most robust of {len(entries)} models.")
        entries = sorted(entries, key=lambda entry: -entry.robust)[:_MOST]
    parts.append("The dotted line marks the eps of the table.")
    height = 3.0 + 0.2 * -(-len(entries) // 2)
    with canvas(name, _description(entries), " ".join(parts), height=height) as drawn:
        axes = _axes(drawn.figure, entries)
        for i, entry in enumerate(entries):
            look = {"color": SERIES[i % len(SERIES)]}
            label = plain(entry.label, 30)
            gid = f"{label}, training loss"
            marker = MARKERS[i % len(MARKERS)]
            _points(axes, entry, _TRAINING_LOSS, linestyle="--", linewidth=1.3, marker=marker, gid=gid, **look)
            _worst(axes, entry, label=label, marker=marker, markevery=32, **look)
        drawn.figure.legend(loc="outside lower center", ncols=2)
    return drawn.picture


def _axes(figure: Any, entries: Sequence[Entry]) -> Any:
    """Axes in per cent against eps, in grey levels where all radii are whole ones, as far as anything is left."""
    record = entries[0].record
    axes = figure.subplots()
    scale = _scale(entries)
    last = max(_last(entry) for entry in entries)
    unit = "in 1/255" if scale == 255 else "pixels in [0, 1]"
    axes.set(ylim=(-2, 102), xlim=(-0.02 * last * scale, last * scale), ylabel="accuracy, %")
    axes.set_xlabel(f"eps ({NORMS[record.norm]}), {unit}")
    axes.axvline(record.eps * scale, color=FAINT, linestyle=":", linewidth=1.2)
    return axes


def _last(entry: Entry) -> float:
    """The eps where nothing is left, with a little room; the furthest that is known if something is."""
    grid = entry.pool.grid()
    left = [eps for eps, share in zip(grid, entry.pool.curve(grid), strict=True) if share > 0]
    claimed = [p.eps for p in entry.record.curve if p.robust_accuracy.get(_TRAINING_LOSS, 0) > 0.01]
    return min(grid[-1], max([1.25 * entry.record.eps, *(1.1 * eps for eps in (*left[-1:], *claimed[-1:]))]))


def _scale(entries: Sequence[Entry]) -> int:
    radii = [eps for entry in entries for eps in (entry.record.eps, *(point.eps for point in entry.record.curve))]
    return grey_levels(entries[0].record.norm, radii)


def _points(axes: Any, entry: Entry, objective: str, **look: Any) -> None:
    scale = 255 if "1/255" in axes.get_xlabel() else 1
    points = [point for point in entry.record.curve if objective in point.robust_accuracy]
    axes.plot([p.eps * scale for p in points], [100 * p.robust_accuracy[objective] for p in points], **look)


def _worst(axes: Any, entry: Entry, **look: Any) -> None:
    scale = 255 if "1/255" in axes.get_xlabel() else 1
    smooth = entry.pool.smallest is not None
    grid = entry.pool.grid() if smooth else sorted({entry.record.eps, *radii(entry.measured)})
    shares = [100 * share for share in entry.pool.curve(grid)]
    style = {"drawstyle": "steps-post"} if smooth else {"marker": "o", "markevery": 1}
    axes.plot([eps * scale for eps in grid], shares, **(look | style if not smooth else style | look))


def _objectives(entry: Entry) -> list[str]:
    return list(dict.fromkeys(name for point in entry.record.curve for name in point.robust_accuracy))


def _share(share: float, count: int, *, strong: bool = False) -> Cell:
    return Cell(percent(share), note=note(share, count), value=share, strong=strong, number=True)


def _sentence(text: str) -> str:
    text = plain(text).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _description(entries: Sequence[Entry]) -> str:
    parts = []
    for entry in entries:
        natural, left = entry.pool.worst_case(0.0), entry.robust
        eps = in_255ths(entry.record.eps)
        parts.append(f"{entry.label}: worst case {percent(natural)} at eps 0 to {percent(left)} at eps {eps}")
    return f"Line chart of accuracy against the size of the perturbation. {'; '.join(parts)}."
