"""The answer for one image, and tables of answers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from repulse.attacks import Norm


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one image."""

    image: str
    """The file's path, or the place of the image among those that were given, from 0."""
    label: str
    """The name of the class."""
    index: int
    """The number of the class."""
    probability: float
    """Its share of the softmax of the logits, in [0, 1]: an order of confidence, not a calibrated chance."""
    top: tuple[tuple[str, float], ...] = ()
    """The most probable classes with their probabilities, as many as were asked for."""
    norm: Norm | None = None
    """Of the radius."""
    radius: float | None = None
    """Proved: no change of the image within it, in pixels of [0, 1], changes the answer."""
    proved: bool | None = None
    """Whether the radius is as large as was asked for."""


def to_json(predictions: Sequence[Prediction]) -> str:
    """A list of objects with the fields of `Prediction`; what was not asked for is left out."""
    rows = [{key: value for key, value in asdict(each).items() if value is not None} for each in predictions]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def to_csv(predictions: Sequence[Prediction]) -> str:
    """A row for each image: image, label, probability, then the next classes, and what is proved."""
    first = predictions[0]
    ranks = range(2, len(first.top) + 1)
    head = ["image", "label", "probability", *(f"{what}_{rank}" for rank in ranks for what in ("label", "probability"))]
    if first.norm is not None:
        head += [f"radius_{first.norm}", "proved"]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(head)
    for each in predictions:
        row = [each.image]
        for label, probability in each.top:
            row += [label, f"{probability:.6f}"]
        if each.radius is not None:
            row += [f"{each.radius:.6f}", "yes" if each.proved else "no"]
        writer.writerow(row)
    return table.getvalue()
