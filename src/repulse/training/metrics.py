"""What an epoch measured, as a row of a table on disk."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from repulse.common.run_files import METRICS_FILE


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch measured; accuracies in [0, 1]."""

    epoch: int
    loss: float
    train_accuracy: float
    validation_accuracy: float | None
    learning_rate: float
    seconds: float
    images_per_second: float


def read_metrics(folder: Path) -> list[EpochMetrics]:
    """The rows of a run's metrics.csv; none if there is no such file yet."""
    path = folder / METRICS_FILE
    if not path.is_file():
        return []
    rows = []
    for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))):
        values: dict[str, Any] = {name: float(value) if value else None for name, value in row.items()}
        rows.append(EpochMetrics(**{**values, "epoch": int(row["epoch"])}))
    return rows


def metrics_csv(rows: Sequence[EpochMetrics]) -> str:
    """The rows as CSV, with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(EpochMetrics)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in asdict(row).items()} for row in rows)
    return text.getvalue()
