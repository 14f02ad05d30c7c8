"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from repulse.certification.record import CertificateRecord
from repulse.report import tables
from repulse.report.certificates import finding as proved
from repulse.report.certificates import labels, overview
from repulse.report.certificates import table as certificate_table
from repulse.report.certified import Certified
from repulse.report.checks import checks, matrix, tally
from repulse.report.cost import cost, ladder
from repulse.report.group import Entry, Group
from repulse.report.smallest import survival
from repulse.report.tables import escaped, to_markdown
from repulse.report.verdict import Card, card
from repulse.report.words import finding, precision


def report_as_markdown(groups: Sequence[Group], title: str, certificates: Sequence[Certified] = ()) -> str:
    """All tables and findings of a report."""
    parts = [f"# {escaped(title)}"]
    for group in groups:
        parts += [f"## {escaped(group.title)}"]
        if len(group.entries) > 1:
            parts += [to_markdown(tables.comparison(group.entries)), precision(group.entries[0].record)]
            asked = matrix(group.entries)
            parts += [] if asked is None else ["Checks", to_markdown(asked)]
        for entry in group.entries:
            parts += _entry(entry)
    if certificates:
        parts += ["## Certificates"]
        parts += [to_markdown(each) for each in overview(certificates)] if len(certificates) > 1 else []
        for label, each in zip(labels(certificates), certificates, strict=True):
            parts += [f"### {escaped(label)}", escaped(each.record.model.description)]
            parts += [escaped(proved(each.record)), to_markdown(certificate_table(each.record))]
        parts = [part for part in parts if part]
    return "\n\n".join(parts) + "\n"


def table_as_markdown(groups: Sequence[Group]) -> str:
    """One evaluation: a row for each attack. Several: a row for each model, and a table for each group."""
    parts = []
    for group in groups:
        alone = len(groups) == 1 and len(group.entries) == 1
        table = tables.attacks(group.entries[0].measured) if alone else tables.comparison(group.entries)
        head = f"{group.entries[0].label}: {group.title}" if alone else group.title
        parts += [f"**{escaped(head)}**", to_markdown(table)]
        verdict = card(group.entries[0]) if alone else None
        parts += [] if verdict is None else [_headline(verdict)]
    return "\n\n".join(parts)


def certificate_summary(record: CertificateRecord) -> str:
    """The table of one certificate and what it says, as `repulse certify` prints it."""
    return f"{to_markdown(certificate_table(record))}\n\n{escaped(proved(record))}"


def _entry(entry: Entry) -> list[str]:
    measured, record = entry.measured, entry.record
    parts = [f"### {escaped(entry.label)}"]
    if record.model.description:
        parts.append(escaped(record.model.description))
    verdict = card(entry)
    if verdict is not None:
        parts += [_headline(verdict), escaped(verdict.summary)]
        parts += _listed("Reasons", verdict.reasons) + _listed("Next steps", verdict.next_steps)
    parts += [escaped(finding(record)), to_markdown(tables.attacks(measured)), precision(record)]
    asked, added = checks(record), ladder(measured)
    if asked is not None:
        parts += [f"Checks: {tally(record)}", to_markdown(asked)]
    if added is not None:
        parts += ["What each attack added and cost", to_markdown(added)]
    curve = tables.curve(measured)
    if curve is not None:
        whole = survival(measured)
        half = "" if whole is None else whole.half
        parts += ["Robustness curve", escaped(record.curve_attack), half, to_markdown(curve)]
    if measured.separation is not None:
        parts += ["Separation of the prototypes", to_markdown(tables.separation(measured.separation))]
    parts += ["Cost", to_markdown(cost(measured))]
    return [part for part in parts if part]


def _headline(verdict: Card) -> str:
    """The word and the number to quote, beside the one that was claimed."""
    text = f"Verdict: **{verdict.word}**. Number to quote: **{verdict.quote}** ({escaped(verdict.quote_detail)})."
    if verdict.claim:
        text += f" {verdict.claim_what.capitalize()}: {verdict.claim}"
        text += f" ({escaped(verdict.claim_detail)})." if verdict.claim_detail else "."
    return text


def _listed(title: str, items: Sequence[str]) -> list[str]:
    return [title, "\n".join(f"- {escaped(each)}" for each in items)] if items else []
