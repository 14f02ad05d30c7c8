"""What is known of the checkpoints of the zoo, as a table."""

from __future__ import annotations

from repulse.deploy.card import evaluations
from repulse.places.zoo import zoo
from repulse.report.words import percent, threat
from repulse.run_folder import read_test_accuracy


def zoo_table() -> str:
    """A Markdown table: name, natural accuracy on all test images, robust accuracy with its threat, and what it is."""
    rows = [("zoo:NAME", "natural", "robust, at most", "what it is")]
    for name, model in zoo().items():
        records = evaluations(model.folder)
        share = percent(records[0].worst_case_accuracy) if records else "not measured"
        robust = f"{share} ({threat(records[0])}, {records[0].data.count:,} images)" if records else share
        rows.append((name, percent(read_test_accuracy(model.folder)[0]), robust, model.about))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
