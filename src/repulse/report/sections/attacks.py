"""Every attack of an evaluation, with what it left."""

from __future__ import annotations

from repulse.evaluation.record import Group
from repulse.report.blocks import Block, Cell, Listing, Section, Table, Text
from repulse.report.group import Entry
from repulse.report.section import SECTIONS
from repulse.report.tables import certified_cell, certified_share
from repulse.report.words import attack_settings, finding, interval, note, percent, precision

GROUPS: dict[Group, str] = {
    "paper": "the paper's",
    "logits": "on the logits",
    "quick": "quick, as AutoAttack with small budgets",
    "standard": "standard, as AutoAttack",
    "adaptive": "beyond AutoAttack",
    "chosen": "chosen by name",
    "paper-as-published": "the paper's script, not counted",
}
"""What a table calls the groups of attacks, in the order in which it lists them."""


@SECTIONS.register("attacks")
def section(entry: Entry) -> Section:
    """What the figures say, why the verdict is what it is, and each attack."""
    verdict, record = entry.record.verdict, entry.record
    blocks: list[Block] = [Text(finding(record))]
    if verdict is not None:
        blocks.append(Text(verdict.summary))
        listed = (("Why", verdict.reasons), ("What to do next", verdict.next_steps))
        blocks += [Listing(title, items) for title, items in listed if items]
    return Section("Attacks", (*blocks, attacks(entry), Text(precision(record), "note")))


def attacks(entry: Entry) -> Table:
    """One row for natural accuracy, each attack, and the worst case over all that are counted."""
    record, measured = entry.record, entry.measured
    count = record.data.count

    def row(label: str, protocol: str, share: float, settings: str, *, strong: bool = False) -> tuple[Cell, ...]:
        return (
            Cell(label, strong=strong),
            Cell(percent(share), note=note(share, count), value=share, bar=True, strong=strong, number=True),
            Cell(interval(share, count), value=share, number=True),
            Cell(protocol),
            Cell(settings),
        )

    rows = [row("natural", "", record.natural_accuracy, "clean images")]
    ordered = sorted(record.attacks, key=lambda attack: list(GROUPS).index(attack.group))
    counted = [attack for attack in ordered if attack.group != "paper-as-published"]
    rows += [row(a.label, GROUPS[a.group], a.robust_accuracy, attack_settings(a, record)) for a in counted]
    rows.append(row("worst case", "", record.worst_case_accuracy, "no attack above succeeded", strong=True))
    rows += [
        row(a.label, GROUPS[a.group], a.robust_accuracy, attack_settings(a, record))
        for a in ordered
        if a.group == "paper-as-published"
    ]
    proof = measured.certified
    if proof is not None:
        images = "the same images" if proof.record.data.sha256 == record.data.sha256 else "other images"
        share = certified_share(measured)
        known = "" if share is None else interval(share, proof.record.data.count)
        how = f"{proof.record.method}, {images}, {proof.record.data.count:,} of them"
        rows.append((Cell("certified"), certified_cell(measured), Cell(known, number=True), Cell("proof"), Cell(how)))
    return Table(("attack", "accuracy", "95 % interval", "protocol", "settings"), tuple(rows))
