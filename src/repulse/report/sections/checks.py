"""The checks behind a verdict."""

from __future__ import annotations

from collections.abc import Sequence

from repulse.evaluation.record import CheckRecord, Record
from repulse.report.blocks import Block, Cell, Section, Table
from repulse.report.group import Entry
from repulse.report.section import SECTIONS
from repulse.report.words import percent, plain

_FAILED = ("failed, serious", "failed, advice")
_ORDER = (*_FAILED, "passed", "not asked")


@SECTIONS.register("checks")
def section(entry: Entry) -> Section | None:
    """What failed, in the open; what passed and what could not be asked, folded."""
    record = entry.record
    failed = [check for check in record.checks if outcome(check) in _FAILED]
    others = [check for check in record.checks if check not in failed]
    blocks: list[Block] = [table(failed)] if failed else []
    if others:
        blocks.append(Section("Checks that gave no reason to doubt", (table(others),), folded=True))
    return Section("Checks", tuple(blocks), about=tally(record)) if blocks else None


def outcome(check: CheckRecord) -> str:
    """'failed, serious', 'failed, advice', 'passed' or 'not asked'."""
    if check.passed is None:
        return "not asked"
    return "passed" if check.passed else _FAILED[0 if check.serious else 1]


def tally(record: Record) -> str:
    """How many checks came out how: '9 passed; 1 failed, serious; 2 not asked'."""
    outcomes = [outcome(check) for check in record.checks]
    counts = ((outcomes.count(each), each) for each in _ORDER)
    return "; ".join(f"{count} {each}" for count, each in counts if count)


def table(checks: Sequence[CheckRecord]) -> Table:
    """Checks with their figures, the most serious first."""
    rows = [
        (
            Cell(plain(check.question)),
            _outcome_cell(check, note=""),
            Cell(_figure(check.measured, check), value=check.measured, number=True),
            Cell(_figure(check.threshold, check), value=check.threshold, number=True),
            Cell(plain(check.sentence)),
            Cell(plain(check.source)),
        )
        for check in sorted(checks, key=lambda check: _ORDER.index(outcome(check)))
    ]
    return Table(("what is asked", "outcome", "measured", "threshold", "what it means", "source"), tuple(rows))


def matrix(entries: Sequence[Entry]) -> Table | None:
    """The same questions of several models: those that some model fails first; None if no record has checks."""
    asked = {check.name: check for entry in entries for check in entry.record.checks}
    if not asked:
        return None
    found = [{check.name: check for check in entry.record.checks} for entry in entries]

    def worst(name: str) -> int:
        # Places in the ranking of a single table: the least of any model.
        return min(_ORDER.index(outcome(each[name])) for each in found if name in each)

    rows = []
    for name in sorted(asked, key=worst):
        cells = [
            _outcome_cell(each[name], note=plain(each[name].sentence))
            if name in each
            else Cell("–", note="not in the record")
            for each in found
        ]
        rows.append((Cell(plain(asked[name].question)), *cells))
    return Table(("what is asked", *(entry.label for entry in entries)), tuple(rows))


def _outcome_cell(check: CheckRecord, note: str) -> Cell:
    text = outcome(check)
    return Cell(text, note=note, strong=text == _FAILED[0])


def _figure(value: float | None, check: CheckRecord) -> str:
    if value is None:
        return ""
    if check.unit == "share":
        return percent(value)
    return (f"{value:,.0f}" if check.unit == "count" else f"{value:.4g}").replace("-", "−")
