"""What JSON holds for machines: every figure unrounded, and the records themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from repulse.report.answers import answer
from repulse.report.certified import Certified
from repulse.report.group import Entry, Group
from repulse.report.sections.checks import outcome
from repulse.report.tables import certified_share
from repulse.report.words import finding, is_overstated, overstatement, wilson


def figures(groups: Sequence[Group], certificates: Sequence[Certified]) -> dict[str, Any]:
    """All figures of a report: accuracies in [0, 1], their 95 % Wilson intervals, and the records."""
    return {
        "groups": [{"title": group.title, "evaluations": [_entry(e) for e in group.entries]} for group in groups],
        "certificates": [_certificate(each) for each in certificates],
    }


def _certificate(each: Certified) -> dict[str, Any]:
    count = each.record.data.count
    return {
        "place": each.place,
        "sound": each.record.sound,
        "intervals": [wilson(point.certified, count) for point in each.record.points],
        "record": each.record.model_dump(mode="json"),
    }


def _entry(entry: Entry) -> dict[str, Any]:
    record, measured = entry.record, entry.measured
    count, verdict, separation = record.data.count, record.verdict, measured.separation
    shares = {"natural": record.natural_accuracy, **{a.name: a.robust_accuracy for a in record.attacks}}
    smallest, grid = entry.pool.smallest, entry.pool.grid()
    return {
        "model": entry.label,
        "place": measured.place,
        "finding": finding(record),
        "verdict": None if verdict is None else verdict.word,
        "how_sure": answer(entry).sure,
        "number_to_quote": None if answer(entry).sure == "upper-bound" else entry.robust,
        "certified": certified_share(measured),
        "checks": {check.name: outcome(check) for check in record.checks},
        "overstatement": overstatement(record),
        "overstated": is_overstated(record),
        "intervals": {
            name: wilson(share, count) for name, share in (shares | {"worst-case": record.worst_case_accuracy}).items()
        },
        "worst_case_curve": None if smallest is None else {"eps": grid, "accuracy": entry.pool.curve(grid)},
        "separation": None if separation is None else [asdict(each) for each in separation.measures()],
        "training": measured.metrics,
        "training_environment": measured.environment,
        "record": record.model_dump(mode="json"),
    }
