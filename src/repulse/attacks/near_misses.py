"""Spend long searches only where a short one came near."""

from __future__ import annotations

from dataclasses import dataclass

from repulse.attacks.apgd import APGD
from repulse.attacks.attack import ATTACKS, Attack
from repulse.attacks.objectives import OBJECTIVES
from repulse.attacks.standing import Standing
from repulse.common.errors import RepulseError


@ATTACKS.register("near-misses")
@dataclass(frozen=True)
class NearMisses(Attack):
    """An attack, on the images that are estimated to fall within a multiple of eps.

    The estimate is the line through the margin of the clean image and the largest margin met inside the ball. An image
    whose margin never rose is not near: what hides its gradient is for attacks without gradients.

    Args:
        attack: what to run.
        within: the largest estimate that is near, in multiples of eps, at least 1.
        scout: steps of Auto-PGD on the margin where no attack has met a margin yet.

    Raises:
        RepulseError: if within or scout is below 1.
    """

    attack: Attack
    within: float = 1.5
    scout: int = 20

    def __post_init__(self) -> None:
        if not self.within >= 1 or self.scout < 1:
            raise RepulseError(f"within and scout must be at least 1, got {self.within:g} and {self.scout}")

    def search(self, standing: Standing) -> None:
        """Look from where earlier attacks came, or have a first look; then go on where it is near."""
        if len(standing.rows) and not bool(standing.margin[standing.rows].isfinite().all()):
            APGD(OBJECTIVES["margin"], steps=self.scout).search(standing)
        if len(standing.rows) == 0:
            return
        with standing.only(standing.radius() <= self.within):
            self.attack.search(standing)
