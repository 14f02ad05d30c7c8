"""Models side by side: the table that a report opens with, and the one of every attack."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from repulse.evaluation.record import AttackRecord, Group
from repulse.report.answers import WORDS, answer
from repulse.report.blocks import ABSENT, Cell, Table
from repulse.report.collect import Measured
from repulse.report.group import Entry
from repulse.report.words import interval, note, percent

_TOGETHER: dict[Group, str] = {
    "quick": "quick attacks",
    "standard": "standard attacks",
    "adaptive": "attacks beyond AutoAttack",
    "chosen": "chosen attacks",
}


def leaderboard(entries: Sequence[Entry]) -> Table:
    """A row for each model: the number to quote, natural accuracy, how sure it is, what was claimed, what is proved."""
    judged = any(entry.record.verdict is not None for entry in entries)
    proved = any(entry.measured.certified is not None for entry in entries)
    rows = []
    for entry in entries:
        found, count = answer(entry), entry.record.data.count
        claim = found.claim
        rows.append(
            (
                Cell(entry.label, note=entry.record.model.description, link=entry.anchor),
                quote_cell(entry, bar=True),
                Cell(interval(found.robust, count), value=found.robust, number=True),
                share_cell(found.natural, count),
                *([Cell("–" if found.sure is None else WORDS[found.sure], strong=True)] if judged else []),
                *([ABSENT if claim is None else Cell(percent(claim), found.claimant, claim, number=True)] * judged),
                *([certified_cell(entry.measured)] if proved else []),
            )
        )
    head = ("model", "number to quote" if judged else "worst case", "95 % interval", "natural")
    # Nobody claimed the figure that a paper would print.
    claimed = any(answer(entry).claimant == "claimed" for entry in entries)
    judgement = ("how sure", "claimed" if claimed else "paper-style") if judged else ()
    return Table((*head, *judgement, *(("certified",) if proved else ())), tuple(rows), filtered=len(rows) > 6)


def comparison(entries: Sequence[Entry]) -> Table:
    """Models against attacks: natural, the paper's protocol, attacks on the logits, ensembles, worst case.

    Of attacks on the logits that climb the same objective, the longest has a column; the quick, the standard
    and the other attacks have one column together each. Attacks of a single step and the paper's script as published
    are left to the model's own table. Where some model has a verdict, the last column is the number to quote; where
    some model has a certificate in the norm, what is proved at the eps stands beside it.
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
        record, sure = entry.record, answer(entry).sure
        count, found = record.data.count, {attack.name: attack for attack in record.attacks}
        cells = [Cell(entry.label, note=record.model.description, link=entry.anchor)]
        if judged:
            cells.append(Cell("–" if sure is None else WORDS[sure], strong=sure is not None))
        cells.append(share_cell(record.natural_accuracy, count))
        cells += [share_cell(found[n].robust_accuracy, count) if n in found else ABSENT for n in columns]
        for group in together:
            share = _group_share(entry.measured, group)
            cells.append(ABSENT if share is None else share_cell(share, count))
        cells.append(quote_cell(entry))
        rows.append((*cells, *([certified_cell(entry.measured)] if proved else [])))
    head = ("model", *(["how sure"] if judged else []), "natural", *columns.values())
    last = ("number to quote" if judged else "worst case", *(("certified",) if proved else ()))
    return Table((*head, *(_TOGETHER[g] for g in together), *last), tuple(rows))


def quote_cell(entry: Entry, *, bar: bool = False) -> Cell:
    """The number to quote; an upper bound, which is not to be quoted, is marked as one."""
    found, count = answer(entry), entry.record.data.count
    note_ = note(found.robust, count)
    if found.sure == "upper-bound":
        note_ = f"an upper bound: don't quote it yet; {note_}"
    elif found.robust < entry.record.worst_case_accuracy:
        note_ += "; another evaluation of the same model found more than this one"
    return Cell(found.figure, note=note_, value=found.robust, bar=bar, strong=True, number=True)


def share_cell(share: float, count: int, *, strong: bool = False) -> Cell:
    """A share of `count` images, with its interval as a note."""
    return Cell(percent(share), note=note(share, count), value=share, strong=strong, number=True)


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
    about = f"proved by {record.method}; {note(share, record.data.count)}"
    if record.data.sha256 != measured.record.data.sha256:
        about += f"; on other images, {record.data.count:,} of them"
    smoothed = " (smoothed)" if record.smoothing is not None else ""
    return Cell(percent(share) + smoothed, note=about, value=share, number=True)


def _group_share(measured: Measured, group: Group) -> float | None:
    """The share of images that no attack of a group fooled; None if none of them ran."""
    known = measured.outcomes
    names = [name for a in measured.record.attacks if a.group == group and (name := f"robust/{a.name}") in known]
    masks = [known[name].bool() for name in names]
    return torch.stack(masks).all(0).double().mean().item() if masks else None


def _longest(chosen: Sequence[AttackRecord]) -> list[AttackRecord]:
    """Of attacks on the same objective, the one with most steps; none of a single step."""
    best: dict[str, tuple[int, AttackRecord]] = {}
    for attack in chosen:
        steps = int(attack.settings.get("steps", 0))
        if steps != 1 and steps >= best.get(attack.objective, (0,))[0]:
            best[attack.objective] = (steps, attack)
    return [attack for _, attack in best.values()]
