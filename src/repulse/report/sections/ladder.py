"""What each attack added to those before it, and what it cost."""

from __future__ import annotations

from repulse.evaluation.record import Record
from repulse.report.blocks import ABSENT, Cell, Section, Table, Text
from repulse.report.group import Entry
from repulse.report.section import SECTIONS
from repulse.report.words import note, percent

_NOTE = (
    "In the order in which they ran. Passes are per image that the attack was run on; robust so far is the share that "
    "no attack up to this one fooled."
)


@SECTIONS.register("ladder")
def section(entry: Entry) -> Section | None:
    """One row for each attack, in the order of the record; None where it is not known whom each attacked and fooled."""
    if not says_whom(entry.record) or "label" not in entry.measured.outcomes:
        return None
    return Section("What each attack added and cost", (ladder(entry), Text(_NOTE, "note")))


def ladder(entry: Entry) -> Table:
    """Robust accuracy is that of all attacks so far together, counted from the outcomes.

    Attacks that are not counted in the worst case add nothing.
    """
    record, outcomes = entry.record, entry.measured.outcomes
    left = outcomes["label"] == outcomes["natural_prediction"]
    rows = []
    for attack in record.attacks:
        added, so_far = ABSENT, ABSENT
        if attack.group != "paper-as-published":
            after = left & outcomes[f"robust/{attack.name}"].bool()
            fooled = int((left & ~after).sum()) if attack.added is None else attack.added
            added = Cell(f"{fooled:,}", value=fooled, number=True)
            left = after
            share = left.double().mean().item()
            so_far = Cell(percent(share), note=note(share, record.data.count), value=share, bar=True, number=True)
        whom = "" if attack.attacked is None else f"{attack.attacked:,}"
        rows.append(
            (
                Cell(attack.label),
                Cell(whom, value=attack.attacked, number=True),
                added,
                so_far,
                Cell(seconds(attack.seconds), value=attack.seconds, number=True),
                _per_image(attack.forward_passes, attack.attacked),
                _per_image(attack.backward_passes, attack.attacked),
            )
        )
    head = ("attack", "images attacked", "fooled that none before had", "robust so far", "seconds")
    return Table((*head, "forward passes an image", "backward passes an image"), tuple(rows))


def says_whom(record: Record) -> bool:
    """Whether the record says how many images each attack was run on; older ones don't."""
    return any(attack.attacked is not None for attack in record.attacks)


def seconds(value: float) -> str:
    """Seconds as a table shows them."""
    return f"{value:,.2f}" if value < 10 else f"{value:,.0f}"


def _per_image(passes: int, attacked: int | None) -> Cell:
    return Cell(f"{passes / attacked:,.1f}" if attacked else "", note=f"{passes:,} in all", number=True)
