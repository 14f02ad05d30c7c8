"""The report as JSON: every figure of the page, unrounded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from repulse.report.group import Entry, Group
from repulse.report.words import OVERSTATED, finding, overstatement, wilson


def report_as_json(groups: Sequence[Group], title: str) -> str:
    """All figures of a report: accuracies in [0, 1], their 95 % Wilson intervals, and the records themselves."""
    content = {
        "title": title,
        "groups": [
            {"title": group.title, "evaluations": [_entry(entry) for entry in group.entries]} for group in groups
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _entry(entry: Entry) -> dict[str, Any]:
    record, measured = entry.record, entry.measured
    count = record.data.count
    separation = measured.separation
    gap = overstatement(record)
    intervals = {attack.name: wilson(attack.robust_accuracy, count) for attack in record.attacks}
    return {
        "model": entry.label,
        "place": measured.place,
        "finding": finding(record),
        "overstatement": gap,
        "overstated": gap is not None and gap > OVERSTATED,
        "intervals": {
            "natural": wilson(record.natural_accuracy, count),
            **intervals,
            "worst-case": wilson(record.worst_case_accuracy, count),
        },
        "separation": None if separation is None else [asdict(each) for each in separation.measures()],
        "training": measured.metrics,
        "training_environment": measured.environment,
        "record": record.model_dump(mode="json"),
    }
