"""What attacking and training cost."""

from __future__ import annotations

from repulse.report.blocks import Cell, Section, Table, Text
from repulse.report.group import Entry
from repulse.report.section import SECTIONS
from repulse.report.sections.ladder import says_whom, seconds

_NOTE = "Images are counted each time they pass through the model, forward or backward."


@SECTIONS.register("cost")
def section(entry: Entry) -> Section:
    """Seconds and passes."""
    return Section("Cost", (cost(entry), Text(_NOTE, "note")))


def cost(entry: Entry) -> Table:
    """What attacking and training cost; the attacks one by one where the ladder does not show them."""
    record, metrics = entry.record, entry.measured.metrics
    spent = [(a.label, a.seconds, a.forward_passes, a.backward_passes) for a in record.attacks]
    if says_whom(record):
        columns = list(zip(*spent, strict=True))
        spent = [(f"{len(spent)} attacks", sum(columns[1]), sum(columns[2]), sum(columns[3]))]
    rows = [_row(what, took, f"{forward:,}", f"{backward:,}") for what, took, forward, backward in spent]
    # Its other passes, for checks and curves, are not counted in the record.
    rows.append(_row("whole evaluation", record.seconds))
    if metrics is not None:
        total = sum(value or 0.0 for value in metrics["seconds"])
        rates = zip(metrics["seconds"], metrics["images_per_second"], strict=True)
        images = sum((s or 0.0) * (r or 0.0) for s, r in rates)
        what = f"training, {len(metrics['epoch'])} epochs"
        rows.append(_row(what + (f", {images / total:,.0f} images/s" if total > 0 else ""), total))
    return Table(("what", "seconds", "images forward", "images backward"), tuple(rows))


def _row(what: str, took: float, forward: str = "", backward: str = "") -> tuple[Cell, ...]:
    time = Cell(seconds(took), value=took, number=True)
    return Cell(what), time, Cell(forward, number=True), Cell(backward, number=True)
