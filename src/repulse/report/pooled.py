"""What was ever found for a model: the worst case at any radius, from all evaluations of it on the same images.

An evaluation at one eps says nothing of attacks that ran at another, so the worst case at a radius is that of every
evaluation of these weights on these images together: an image counts as robust there only if none of them found a
perturbation of that size or smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from repulse.attacks import Threat
from repulse.common.units import in_255ths
from repulse.report.collect import Measured

# Points of a curve: more than a screen can tell apart.
_POINTS = 256


@dataclass(frozen=True, eq=False)
class Pool:
    """All evaluations of the same weights, on the same images, in the same norm.

    Args:
        members: the evaluations, at least one.
    """

    members: tuple[Measured, ...]

    @cached_property
    def smallest(self) -> Float[Tensor, "N"] | None:
        """The smallest perturbation that any member found for each image; None if one of them does not say."""
        known = [member.outcomes["smallest"].double() for member in self.members if "smallest" in member.outcomes]
        return torch.stack(known).amin(0) if len(known) == len(self.members) else None

    def worst_case(self, eps: float) -> float:
        """The share of images that nothing found at or inside a radius fools, in [0, 1].

        Where a member does not know its smallest perturbations, the evaluations and curves at this radius and inside
        it take their place: the least that any of them left.
        """
        return self.curve([eps])[0]

    def curve(self, eps: Sequence[float]) -> tuple[float, ...]:
        """`worst_case` at each radius."""
        record = self.members[0].record
        threat = Threat(record.norm, record.eps)
        shares = [1.0] * len(eps)
        if self.smallest is not None:
            shares = list(surviving(self.smallest, eps, threat))
        known = {0.0: min(member.record.natural_accuracy for member in self.members)}
        for member in self.members:
            for at, share in _stated(member):
                known[at] = min(share, known.get(at, 1.0))
        edges = [each + threat.tolerance for each in eps]
        return tuple(
            min([share, *(left for at, left in known.items() if at <= edge)])
            for share, edge in zip(shares, edges, strict=True)
        )

    def grid(self) -> list[float]:
        """Radii fine enough for a picture: to twice the eps of the records, or as far as their curves go."""
        furthest = max(max(2 * m.record.eps, *(point.eps for point in m.record.curve), 0.0) for m in self.members)
        return (torch.arange(_POINTS, dtype=torch.float64) * (furthest / (_POINTS - 1))).tolist()

    @property
    def half(self) -> str:
        """Within which radius half of the images that are classified right are fooled, in words; may be empty."""
        if self.smallest is None:
            return ""
        found = self.smallest[self.smallest > 0].sort().values
        if len(found) == 0:
            return ""
        median = float(found[(len(found) - 1) // 2])
        if median == float("inf"):
            return "For more than half of the images that are classified right, none was found."
        return f"Half of the images that are classified right are fooled within {in_255ths(float(f'{median:.3g}'))}."


def pool(measured: Measured, evaluations: Sequence[Measured]) -> Pool:
    """The evaluations of the same weights, on the same images, in the same norm as one of them, itself included."""

    def key(each: Measured) -> tuple[str, str, str]:
        return each.record.model.weights_sha256, each.record.data.sha256, each.record.norm

    others = [each for each in evaluations if each is not measured and key(each) == key(measured)]
    return Pool((measured, *others))


def radii(measured: Measured) -> list[float]:
    """The radii that a table shows: those of the record's curve, or some about its eps."""
    record = measured.record
    return [point.eps for point in record.curve] or [record.eps * part for part in (0, 0.25, 0.5, 0.75, 1, 1.5, 2)]


def surviving(smallest: Float[Tensor, "N"], eps: Sequence[float], threat: Threat) -> tuple[float, ...]:
    """The share of images whose smallest perturbation is larger than each eps.

    A perturbation that an attack put on the edge of a ball counts as inside, within the tolerance of the threat.
    """
    ordered = smallest.double().sort().values
    edges = torch.tensor([each + threat.tolerance if each > 0 else 0.0 for each in eps], dtype=torch.float64)
    fooled = torch.searchsorted(ordered, edges, right=True).double()
    return tuple(((len(ordered) - fooled) / len(ordered)).tolist())


def _stated(member: Measured) -> list[tuple[float, float]]:
    """What an evaluation left at its own eps, and on its curve."""
    record = member.record
    told = [(point.eps, point.robust_accuracy.get("worst case")) for point in record.curve if point.eps > 0]
    points = [(eps, share) for eps, share in told if share is not None]
    return [(record.eps, record.worst_case_accuracy), *points]
