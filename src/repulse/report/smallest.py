"""The smallest perturbation found for each image, read as one whole robustness curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from repulse.attacks import Threat
from repulse.evaluation.record import Record
from repulse.report.collect import Measured
from repulse.report.words import distance

# Points of a curve: more than a screen can tell apart.
_POINTS = 256


@dataclass(frozen=True)
class Survival:
    """Robust accuracy against eps, from the smallest perturbation of each image.

    Args:
        eps: radii, ascending.
        accuracy: share of all images that nothing found within that radius fools, in [0, 1].
        half: within which radius half of the images that are classified right are fooled, in words; may be empty.
    """

    eps: tuple[float, ...]
    accuracy: tuple[float, ...]
    half: str


def surviving(smallest: Float[Tensor, "N"], eps: Sequence[float], threat: Threat) -> tuple[float, ...]:
    """The share of images whose smallest perturbation is larger than each eps.

    A perturbation that an attack put on the edge of a ball counts as inside, within the tolerance of the threat.
    """
    ordered = smallest.double().sort().values
    edges = torch.tensor([each + threat.tolerance if each > 0 else 0.0 for each in eps], dtype=torch.float64)
    fooled = torch.searchsorted(ordered, edges, right=True).double()
    return tuple(((len(ordered) - fooled) / len(ordered)).tolist())


def survival(measured: Measured, eps: Sequence[float] | None = None) -> Survival | None:
    """The curve of an evaluation; None if its outcomes hold no smallest perturbations.

    Args:
        measured: the evaluation.
        eps: radii; None: a fine grid to twice the eps of the record, or as far as its curve goes.
    """
    smallest, record = measured.outcomes.get("smallest"), measured.record
    if smallest is None:
        return None
    if eps is None:
        furthest = max([2 * record.eps, *(point.eps for point in record.curve)])
        eps = (torch.arange(_POINTS, dtype=torch.float64) * (furthest / (_POINTS - 1))).tolist()
    accuracy = surviving(smallest, eps, Threat(record.norm, record.eps))
    return Survival(tuple(eps), accuracy, _half(smallest, record))


def radii(measured: Measured) -> list[float]:
    """The radii that a table shows: those of the record's curve, or some about its eps."""
    record = measured.record
    return [point.eps for point in record.curve] or [record.eps * part for part in (0, 0.25, 0.5, 0.75, 1, 1.5, 2)]


def _half(smallest: Tensor, record: Record) -> str:
    found = smallest[smallest > 0].sort().values
    if len(found) == 0:
        return ""
    median = float(found[(len(found) - 1) // 2])
    if median == float("inf"):
        return "For more than half of the images that are classified right, none was found."
    return f"Half of the images that are classified right are fooled within {distance(median, record)}."
