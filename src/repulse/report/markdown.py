"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from repulse.report import tables
from repulse.report.group import Entry, Group
from repulse.report.tables import escaped, to_markdown
from repulse.report.words import finding, precision


def report_as_markdown(groups: Sequence[Group], title: str) -> str:
    """All tables and findings of a report."""
    parts = [f"# {escaped(title)}"]
    for group in groups:
        parts += [f"## {escaped(group.title)}"]
        if len(group.entries) > 1:
            parts += [to_markdown(tables.comparison(group.entries)), precision(group.entries[0].record)]
        for entry in group.entries:
            parts += _entry(entry)
    return "\n\n".join(parts) + "\n"


def table_as_markdown(groups: Sequence[Group]) -> str:
    """One evaluation: a row for each attack. Several: a row for each model, and a table for each group."""
    parts = []
    for group in groups:
        alone = len(groups) == 1 and len(group.entries) == 1
        table = tables.attacks(group.entries[0].measured) if alone else tables.comparison(group.entries)
        head = f"{group.entries[0].label}: {group.title}" if alone else group.title
        parts += [f"**{escaped(head)}**", to_markdown(table)]
    return "\n\n".join(parts)


def _entry(entry: Entry) -> list[str]:
    measured, record = entry.measured, entry.record
    parts = [f"### {escaped(entry.label)}"]
    if record.model.description:
        parts.append(escaped(record.model.description))
    parts += [escaped(finding(record)), to_markdown(tables.attacks(measured)), precision(record)]
    curve = tables.curve(measured)
    if curve is not None:
        parts += ["Robustness curve", escaped(record.curve_attack), to_markdown(curve)]
    if measured.separation is not None:
        parts += ["Separation of the prototypes", to_markdown(tables.separation(measured.separation))]
    parts += ["Cost", to_markdown(tables.cost(measured))]
    return [part for part in parts if part]
