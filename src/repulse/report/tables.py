"""The tables of a report, made once and shown as HTML, Markdown and JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from repulse.evaluation.record import AttackRecord
from repulse.prototypes import Separation
from repulse.report.collect import Measured
from repulse.report.group import Entry
from repulse.report.words import attack_settings, interval, percent, plain
from repulse.units import in_255ths


@dataclass(frozen=True)
class Cell:
    """One cell: its text, and what a page may add to it.

    Args:
        text: what it says.
        note: shown when the pointer rests on it.
        share: drawn as a bar, in [0, 1].
        strong: whether it stands out.
        number: whether it is a figure, set flush right.
        link: anchor of a section of the page.
    """

    text: str
    note: str = ""
    share: float | None = None
    strong: bool = False
    number: bool = False
    link: str = ""


@dataclass(frozen=True)
class Table:
    """A table; all rows have as many cells as the head."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def comparison(entries: Sequence[Entry]) -> Table:
    """Models against attacks: natural, the paper's protocol, attacks on the logits, worst case.

    Of attacks on the logits that differ in the number of steps only, the longest has a column. Attacks of a single step
    and the paper's script as published are left to `attacks`.
    """
    columns: dict[str, str] = {}
    for group in ("paper", "logits"):
        for entry in entries:
            chosen = [a for a in entry.record.attacks if a.group == group]
            columns |= {a.name: a.label for a in (chosen if group == "paper" else _longest(chosen))}
    rows = []
    for entry in entries:
        record = entry.record
        found = {attack.name: attack for attack in record.attacks}
        cells = [Cell(entry.label, note=record.model.description, link=entry.anchor)]
        cells.append(_share(record.natural_accuracy, record.data.count))
        for name in columns:
            known = name in found
            cells.append(_share(found[name].robust_accuracy, record.data.count) if known else _ABSENT)
        cells.append(_share(record.worst_case_accuracy, record.data.count, strong=True))
        rows.append(tuple(cells))
    return Table(("model", "natural", *columns.values(), "worst case"), tuple(rows))


def attacks(measured: Measured) -> Table:
    """One row for natural accuracy, each attack, and the worst case over all that are counted."""
    record = measured.record
    count = record.data.count

    def row(label: str, protocol: str, share: float, settings: str, *, strong: bool = False) -> tuple[Cell, ...]:
        return (
            Cell(label, strong=strong),
            Cell(protocol),
            Cell(percent(share), note=_note(share, count), share=share, strong=strong, number=True),
            Cell(interval(share, count), number=True),
            Cell(settings),
        )

    rows = [row("natural", "", record.natural_accuracy, "clean images")]
    order = {"paper": 0, "logits": 1, "paper-as-published": 2}
    ordered = sorted(record.attacks, key=lambda attack: order[attack.group])
    worst = row("worst case", "", record.worst_case_accuracy, "no attack above succeeded", strong=True)
    for attack in ordered:
        if attack.group == "paper-as-published" and worst not in rows:
            rows.append(worst)
        settings = attack_settings(attack, record)
        rows.append(row(attack.label, _GROUPS[attack.group], attack.robust_accuracy, settings))
    if worst not in rows:
        rows.append(worst)
    return Table(("attack", "protocol", "accuracy", "95 % interval", "settings"), tuple(rows))


def curve(measured: Measured) -> Table | None:
    """Robust accuracy at each eps, by objective; None if no curve was measured."""
    record = measured.record
    if not record.curve:
        return None
    names = list(dict.fromkeys(name for point in record.curve for name in point.robust_accuracy))
    rows = []
    for point in record.curve:
        eps = in_255ths(point.eps) if record.norm == "linf" else f"{point.eps:.4g}"
        cells = [Cell(eps, number=True)]
        for name in names:
            known = name in point.robust_accuracy
            strong = name == "worst case"
            cells.append(_share(point.robust_accuracy[name], record.data.count, strong=strong) if known else _ABSENT)
        rows.append(tuple(cells))
    return Table(("eps", *names), tuple(rows))


def separation(measured: Separation) -> Table:
    """Each measure of separation beside the best that is possible, or the best bound that is known."""
    rows = [
        (
            Cell(name),
            Cell(_four(value), number=True),
            Cell(_four(bound), number=True),
            Cell("" if ratio is None else percent(ratio), number=True),
            Cell(source),
        )
        for name, value, bound, ratio, source in measured.rows()
    ]
    return Table(("measure", "measured", "best possible, or bound", "reached", "source of the bound"), tuple(rows))


def cost(measured: Measured) -> Table:
    """What attacking and training cost."""
    record, metrics = measured.record, measured.metrics
    rows = [
        (
            Cell(attack.label),
            Cell(_seconds(attack.seconds), number=True),
            Cell(f"{attack.forward_passes:,}", number=True),
            Cell(f"{attack.backward_passes:,}", number=True),
        )
        for attack in record.attacks
    ]
    empty = Cell("", number=True)
    rows.append((Cell("whole evaluation"), Cell(_seconds(record.seconds), number=True), empty, empty))
    if metrics is not None:
        total = sum(value or 0.0 for value in metrics["seconds"])
        images = sum(
            (s or 0.0) * (r or 0.0) for s, r in zip(metrics["seconds"], metrics["images_per_second"], strict=True)
        )
        what = f"training, {len(metrics['epoch'])} epochs"
        what += f", {images / total:,.0f} images/s" if total > 0 else ""
        rows.append((Cell(what), Cell(_seconds(total), number=True), empty, empty))
    return Table(("what", "seconds", "images forward", "images backward"), tuple(rows))


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown; text from outside is escaped."""
    align = ["---:" if all(row[i].number for row in table.rows) else "---" for i in range(len(table.head))]
    lines = [_line(table.head), f"|{'|'.join(align)}|"]
    for row in table.rows:
        texts = [escaped(cell.text) for cell in row]
        lines.append(
            "| " + " | ".join(f"**{t}**" if c.strong and t else t for t, c in zip(texts, row, strict=True)) + " |"
        )
    return "\n".join(lines)


_GROUPS = {
    "paper": "the paper's",
    "logits": "on the logits",
    "paper-as-published": "the paper's script, not counted",
}

_ABSENT = Cell("–", note="not run", number=True)


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(escaped(text) for text in texts) + " |"


def escaped(text: str) -> str:
    """Text from outside as Markdown shows it: no pipes, tags, emphasis, links or code."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", plain(text)).replace("&", "&amp;").replace("<", "&lt;")


def _longest(chosen: Sequence[AttackRecord]) -> list[AttackRecord]:
    """Of attacks whose names differ in the number of steps only, the one with most; none of a single step."""
    best: dict[str, AttackRecord] = {}
    for attack in chosen:
        steps = attack.settings.get("steps", 0)
        family = attack.name.replace(f"-{steps}-", "-")
        if steps != 1 and (family not in best or steps >= best[family].settings.get("steps", 0)):  # type: ignore[operator]
            best[family] = attack
    return list(best.values())


def _share(share: float, count: int, *, strong: bool = False) -> Cell:
    return Cell(percent(share), note=_note(share, count), strong=strong, number=True)


def _note(share: float, count: int) -> str:
    return f"95 % interval {interval(share, count)}"


def _four(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _seconds(value: float) -> str:
    return f"{value:,.2f}" if value < 10 else f"{value:,.0f}"
