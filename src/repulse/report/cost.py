"""What attacking and training cost, and what each attack added to those before it."""

from __future__ import annotations

from repulse.evaluation.record import Record
from repulse.report.collect import Measured
from repulse.report.tables import ABSENT, Cell, Table
from repulse.report.words import interval, percent


def ladder(measured: Measured) -> Table | None:
    """One row per attack, in the order of the record; None for a record that does not say whom each attacked.

    Robust accuracy is that of all attacks so far together, counted from the outcomes. Attacks that are not counted in
    the worst case add nothing.
    """
    record = measured.record
    if not _says_whom(record):
        return None
    left = measured.outcomes["label"] == measured.outcomes["natural_prediction"]
    rows = []
    for attack in record.attacks:
        counted = attack.group != "paper-as-published"
        so_far = ABSENT
        added = "" if attack.added is None else f"{attack.added:,}"
        if counted:
            after = left & measured.outcomes[f"robust/{attack.name}"].bool()
            added = added or f"{int((left & ~after).sum()):,}"
            left = after
            share = left.double().mean().item()
            note = f"95 % interval {interval(share, record.data.count)}"
            so_far = Cell(percent(share), note=note, share=share, number=True)
        per_image = [_per_image(passes, attack.attacked) for passes in (attack.forward_passes, attack.backward_passes)]
        rows.append(
            (
                Cell(attack.label),
                Cell("" if attack.attacked is None else f"{attack.attacked:,}", number=True),
                Cell(added, number=True) if counted else ABSENT,
                so_far,
                Cell(_seconds(attack.seconds), number=True),
                *per_image,
            )
        )
    head = ("attack", "images attacked", "fooled that none before had", "robust so far", "seconds")
    return Table((*head, "forward passes an image", "backward passes an image"), tuple(rows))


def cost(measured: Measured) -> Table:
    """What attacking and training cost; the attacks one by one where `ladder` does not show them."""
    record, metrics = measured.record, measured.metrics
    spent = [(a.label, a.seconds, a.forward_passes, a.backward_passes) for a in record.attacks]
    if _says_whom(record):
        columns = list(zip(*spent, strict=True))
        spent = [(f"{len(spent)} attacks", sum(columns[1]), sum(columns[2]), sum(columns[3]))]
    rows = [_row(what, seconds, f"{forward:,}", f"{backward:,}") for what, seconds, forward, backward in spent]
    # Its other passes, for checks and curves, are not counted in the record.
    rows.append(_row("whole evaluation", record.seconds))
    if metrics is not None:
        total = sum(value or 0.0 for value in metrics["seconds"])
        images = sum(
            (s or 0.0) * (r or 0.0) for s, r in zip(metrics["seconds"], metrics["images_per_second"], strict=True)
        )
        what = f"training, {len(metrics['epoch'])} epochs"
        what += f", {images / total:,.0f} images/s" if total > 0 else ""
        rows.append(_row(what, total))
    return Table(("what", "seconds", "images forward", "images backward"), tuple(rows))


def _row(what: str, seconds: float, forward: str = "", backward: str = "") -> tuple[Cell, ...]:
    return Cell(what), Cell(_seconds(seconds), number=True), Cell(forward, number=True), Cell(backward, number=True)


def _says_whom(record: Record) -> bool:
    """Whether the record says how many images each attack was run on; older ones don't."""
    return any(attack.attacked is not None for attack in record.attacks)


def _per_image(passes: int, attacked: int | None) -> Cell:
    return Cell(f"{passes / attacked:,.1f}" if attacked else "", note=f"{passes:,} in all", number=True)


def _seconds(value: float) -> str:
    return f"{value:,.2f}" if value < 10 else f"{value:,.0f}"
