"""The tables of a report, made once and shown as HTML, Markdown and JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from repulse.common.units import in_255ths
from repulse.evaluation.record import AttackRecord, CurvePoint, Group
from repulse.prototypes import Separation
from repulse.report.collect import Measured
from repulse.report.group import Entry
from repulse.report.smallest import radii, survival
from repulse.report.words import attack_settings, interval, percent, plain


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
    """Models against attacks: natural, the paper's protocol, attacks on the logits, ensembles, worst case.

    Of attacks on the logits that differ in the number of steps only, the longest has a column; the quick, the standard
    and the adaptive attacks have one column together each. Attacks of a single step and the paper's script as published
    are left to `attacks`. Where some model has a verdict, the last column is the number to quote; where some model has
    a certificate in the norm, what is proved at the eps stands beside it.
    """
    columns: dict[str, str] = {}
    for group in ("paper", "logits"):
        for entry in entries:
            chosen = [a for a in entry.record.attacks if a.group == group]
            columns |= {a.name: a.label for a in (chosen if group == "paper" else _longest(chosen))}
    judged = any(entry.record.verdict is not None for entry in entries)
    proved = any(entry.measured.certified is not None for entry in entries)
    together = [g for g in _TOGETHER if any(a.group == g for entry in entries for a in entry.record.attacks)]
    rows = []
    for entry in entries:
        record = entry.record
        found = {attack.name: attack for attack in record.attacks}
        cells = [Cell(entry.label, note=record.model.description, link=entry.anchor)]
        if judged:
            cells.append(
                Cell("–" if record.verdict is None else record.verdict.word, strong=record.verdict is not None)
            )
        cells.append(_share(record.natural_accuracy, record.data.count))
        for name in columns:
            known = name in found
            cells.append(_share(found[name].robust_accuracy, record.data.count) if known else ABSENT)
        for group in together:
            share = _group_share(entry.measured, group)
            cells.append(ABSENT if share is None else _share(share, record.data.count))
        last = record.worst_case_accuracy if record.verdict is None else record.verdict.quote
        cells.append(_share(last, record.data.count, strong=True))
        if proved:
            cells.append(certified_cell(entry.measured))
        rows.append(tuple(cells))
    head = ("model", *(["verdict"] if judged else []), "natural", *columns.values())
    last_columns = ("number to quote" if judged else "worst case", *(("certified",) if proved else ()))
    return Table((*head, *(_TOGETHER[g] for g in together), *last_columns), tuple(rows))


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
    ordered = sorted(record.attacks, key=lambda attack: list(_GROUPS).index(attack.group))
    worst = row("worst case", "", record.worst_case_accuracy, "no attack above succeeded", strong=True)
    for attack in ordered:
        if attack.group == "paper-as-published" and worst not in rows:
            rows.append(worst)
        settings = attack_settings(attack, record)
        rows.append(row(attack.label, _GROUPS[attack.group], attack.robust_accuracy, settings))
    if worst not in rows:
        rows.append(worst)
    if measured.certified is not None:
        cell, proof = certified_cell(measured), measured.certified.record
        images = f"{proof.data.count:,} images" if proof.data.sha256 != record.data.sha256 else "the same images"
        share = certified_share(measured)
        known = "" if share is None else interval(share, proof.data.count)
        how = Cell(f"{proof.method}, {images}")
        rows.append((Cell("certified"), Cell("proof"), cell, Cell(known, number=True), how))
    return Table(("attack", "protocol", "accuracy", "95 % interval", "settings"), tuple(rows))


def certified_share(measured: Measured) -> float | None:
    """The share of images that is proved right within the eps of an evaluation; None without a sound certificate."""
    proof = measured.certified
    return None if proof is None or proof.record.sound is False else proof.accuracy(measured.record.eps)


def certified_cell(measured: Measured) -> Cell:
    """What is proved at the eps of an evaluation, and on which images; attacks cannot leave less of the same images."""
    proof, share = measured.certified, certified_share(measured)
    if proof is None:
        return Cell("–", note="not certified", number=True)
    record = proof.record
    if share is None:
        return Cell("unsound", note="attacks broke certificates of this model", strong=True, number=True)
    note = f"proved by {record.method}; {_note(share, record.data.count)}"
    if record.data.sha256 != measured.record.data.sha256:
        note += f"; on other images, {record.data.count:,} of them"
    smoothed = " (smoothed)" if record.smoothing is not None else ""
    return Cell(percent(share) + smoothed, note=note, number=True)


def curve(measured: Measured) -> Table | None:
    """Robust accuracy at each eps, by objective and from the smallest perturbations; None if neither was measured."""
    record = measured.record
    whole = survival(measured, radii(measured))
    if not record.curve and whole is None:
        return None
    names = list(dict.fromkeys(name for point in record.curve for name in point.robust_accuracy))
    rows = []
    points = record.curve or tuple(CurvePoint(eps=eps, robust_accuracy={}) for eps in radii(measured))
    for i, point in enumerate(points):
        eps = in_255ths(point.eps) if record.norm == "linf" else f"{point.eps:.4g}"
        cells = [Cell(eps, number=True)]
        for name in names:
            known = name in point.robust_accuracy
            strong = name == "worst case"
            cells.append(_share(point.robust_accuracy[name], record.data.count, strong=strong) if known else ABSENT)
        if whole is not None:
            cells.append(_share(whole.accuracy[i], record.data.count))
        rows.append(tuple(cells))
    return Table(("eps", *names, *(["smallest perturbation larger"] if whole else [])), tuple(rows))


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
    "quick": "quick, as AutoAttack with small budgets",
    "standard": "standard, as AutoAttack",
    "adaptive": "adaptive",
    "paper-as-published": "the paper's script, not counted",
}

_TOGETHER: dict[Group, str] = {"quick": "quick attacks", "standard": "standard attacks", "adaptive": "adaptive attacks"}

ABSENT = Cell("–", note="not run", number=True)
"""What was not measured."""


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(escaped(text) for text in texts) + " |"


def escaped(text: str) -> str:
    """Text from outside as Markdown shows it: no pipes, tags, emphasis, links or code."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", plain(text)).replace("&", "&amp;").replace("<", "&lt;")


def _group_share(measured: Measured, group: Group) -> float | None:
    """The share of images that no attack of a group fooled; None if none of them ran."""
    masks = [measured.outcomes[f"robust/{a.name}"].bool() for a in measured.record.attacks if a.group == group]
    return torch.stack(masks).all(0).double().mean().item() if masks else None


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
