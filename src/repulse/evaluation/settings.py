"""Which attacks an evaluation makes, and how strong."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from repulse.attacks.ensemble import known_attacks
from repulse.common.settings import Names, Settings
from repulse.common.units import Number, check_radius, refuse_radius

# The grid of the paper's figures: eps 0 to 32 of 255.
PAPER_GRID = tuple(level / 255 for level in (0, 2, 4, 8, 12, 16, 24, 32))


# Of eps, where the grid above means nothing: in L2, and beyond it.
MULTIPLES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)


# Nothing beside the paper's protocol and PGD on the logits, which always run.
PAPER_ONLY = "paper"

AttackNames = Annotated[str, Names("attack", lambda: (PAPER_ONLY, *known_attacks()), many=True)]
"""Ensembles and registered attacks, one or several."""


class EvaluationSettings(Settings):
    """Which attacks, how strong, on how many images."""

    norm: Literal["linf", "l2"] = Field("linf", description="Norm of the ball.")
    eps: Number = Field(8 / 255, ge=0, description="Radius of the ball, in pixels of [0, 1].")
    step_size: Number | None = Field(None, gt=0, description="Step of PGD; none: a quarter of eps (2/255 for 8/255).")
    attacks: AttackNames = Field(
        "standard",
        description="What runs beside PGD: nothing (paper), AutoAttack's with small budgets (quick), AutoAttack's "
        "(standard), everything there is (adaptive), or attacks by their names.",
    )
    steps: tuple[int, ...] = Field((20, 100), description="Steps of PGD; each is an attack of its own.")
    restarts: int = Field(1, ge=1, description="Random starts of PGD on the logits.")
    curve: tuple[Number, ...] | None = Field(
        None, description="Radii of the robustness curve; none: usual ones, from 0 to beyond eps; empty: no curve."
    )
    curve_steps: int = Field(20, ge=1, description="Steps of PGD at each point of the curve.")
    claimed: float | None = Field(None, ge=0, le=1, description="The robust accuracy that is claimed, in [0, 1].")
    expectation: int = Field(20, ge=1, description="Draws that a random model's answers are averaged over.")
    batch_size: int | None = Field(None, ge=1, description="Images attacked at once; none: 100 (CPU) or 500 (GPU).")
    gallery: int = Field(8, ge=0, description="Fooled images kept for the report.")
    seed: int = Field(0, ge=0, description="Seed of random starts.")

    @model_validator(mode="after")
    def _possible(self) -> EvaluationSettings:
        check_radius(self.norm, self.eps)
        for radius in self.curve or ():
            refuse_radius(self.norm, radius)
        return self

    @property
    def chosen(self) -> tuple[str, ...]:
        """The ensembles and attacks that run beside PGD, in this order."""
        return tuple(name for name in self.attacks.split(",") if name != PAPER_ONLY)

    @property
    def radii(self) -> tuple[float, ...]:
        """The radii of the curve: as given, or the paper's, or multiples of eps where those don't reach beyond it."""
        if self.curve is not None:
            return tuple(sorted(set(self.curve)))
        if self.norm == "linf" and self.eps < max(PAPER_GRID):
            return PAPER_GRID
        # Beyond 1 an L-inf ball holds no more than every image.
        widest = 1.0 if self.norm == "linf" else float("inf")
        return tuple(sorted({min(multiple * self.eps, widest) for multiple in MULTIPLES}))
