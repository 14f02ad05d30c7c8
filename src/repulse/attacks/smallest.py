"""What a minimum-norm attack finds."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Float32
from torch import Tensor

from repulse.attacks.passes import Passes


@dataclass(frozen=True, eq=False)
class Smallest:
    """The smallest perturbation found for each image: the whole robustness curve at once."""

    images: Float[Tensor, "N *shape"]
    """The nearest adversarial image found; the clean image where it is wrong already, or where none was found."""
    distance: Float32[Tensor, "N"]
    """Its distance to the clean image, in units of pixels; 0: wrong already; inf: none found."""
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
