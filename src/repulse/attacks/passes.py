"""What an attack cost, image by image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Passes:
    """How often each image of a batch went through the model: counts that an attack adds to as it goes.

    >>> passes = Passes.none(torch.zeros(3, 1, 8, 8))
    >>> passes.add(torch.tensor([0, 2]), forward=5)
    >>> passes.total
    (10, 0)
    """

    forward: Int64[Tensor, "N"]
    """Forward passes spent on each image."""
    backward: Int64[Tensor, "N"]
    """Backward passes spent on each image."""

    @classmethod
    def none(cls, x: Tensor) -> Passes:
        """Nothing spent yet on the images of a batch `x` (N, *shape)."""
        return cls(*(torch.zeros(len(x), dtype=torch.int64, device=x.device) for _ in range(2)))

    def add(self, rows: Int64[Tensor, "M"], *, forward: int = 0, backward: int = 0) -> None:
        """Count so many passes for each of some images, every one of which is named once."""
        if forward:
            self.forward[rows] += forward
        if backward:
            self.backward[rows] += backward

    def put(self, rows: Int64[Tensor, "M"], other: Passes) -> None:
        """Count what another attack spent on some of the images."""
        self.forward[rows] += other.forward
        self.backward[rows] += other.backward

    @property
    def total(self) -> tuple[int, int]:
        """Images sent forward and backward, one by one."""
        return int(self.forward.sum()), int(self.backward.sum())


class Counted:
    """What cost passes: a result with `passes`."""

    passes: Passes
    """What the attack spent on each image; the check at the end is not counted."""

    @property
    def forward_passes(self) -> int:
        """Images sent forward by the attack, one by one."""
        return self.passes.total[0]

    @property
    def backward_passes(self) -> int:
        """Images sent backward by the attack, one by one."""
        return self.passes.total[1]
