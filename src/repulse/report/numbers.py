"""The report as JSON: every figure of the page, unrounded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from repulse.report.certified import Certified
from repulse.report.checks import outcome
from repulse.report.group import Entry, Group
from repulse.report.smallest import survival
from repulse.report.tables import certified_share
from repulse.report.words import finding, is_overstated, overstatement, wilson


def report_as_json(groups: Sequence[Group], title: str, certificates: Sequence[Certified] = ()) -> str:
    """All figures of a report: accuracies in [0, 1], their 95 % Wilson intervals, and the records themselves."""
    content = {
        "title": title,
        "groups": [
            {"title": group.title, "evaluations": [_entry(entry) for entry in group.entries]} for group in groups
        ],
        "certificates": [_certificate(each) for each in certificates],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


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
    count = record.data.count
    separation = measured.separation
    verdict, whole = record.verdict, survival(measured)
    intervals = {attack.name: wilson(attack.robust_accuracy, count) for attack in record.attacks}
    return {
        "model": entry.label,
        "place": measured.place,
        "finding": finding(record),
        "verdict": None if verdict is None else verdict.word,
        "number_to_quote": record.worst_case_accuracy if verdict is None else verdict.quote,
        "certified": certified_share(measured),
        "checks": {check.name: outcome(check) for check in record.checks},
        "overstatement": overstatement(record),
        "overstated": is_overstated(record),
        "intervals": {
            "natural": wilson(record.natural_accuracy, count),
            **intervals,
            "worst-case": wilson(record.worst_case_accuracy, count),
        },
        "smallest_perturbation_curve": None if whole is None else {"eps": whole.eps, "accuracy": whole.accuracy},
        "separation": None if separation is None else [asdict(each) for each in separation.measures()],
        "training": measured.metrics,
        "training_environment": measured.environment,
        "record": record.model_dump(mode="json"),
    }
