"""What is certified, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from repulse.attacks.ensemble import known_attacks
from repulse.common.settings import Names, Settings
from repulse.common.units import Number


class CertificationSettings(Settings):
    """Which proof of robustness, at which radii, and whether it is attacked."""

    method: Literal["auto", "lipschitz", "linf-distance", "smoothing"] = Field(
        "auto", description="What is proved by; auto: what the network was built for. Smoothing takes any model."
    )
    radii: tuple[Number, ...] = Field((), description="Radii of the table, in pixels of [0, 1]; empty: usual ones.")
    sigma: Number | None = Field(
        None, gt=0, description="Smoothing: deviation of the noise; none: the training's, else 0.25."
    )
    n: int = Field(10_000, ge=1, description="Smoothing: noisy draws per image that estimate; each is a pass.")
    n0: int = Field(100, ge=1, description="Smoothing: noisy draws per image that choose the class.")
    alpha: float = Field(0.001, gt=0, lt=1, description="Smoothing: probability that a certificate is wrong.")
    attack: bool = Field(False, description="Attack every image at its own certified radius, and beyond.")
    ensemble: Annotated[str, Names("ensemble", known_attacks)] = Field(
        "adaptive", description="Attacks of --attack: an ensemble, or one attack."
    )
    draws: int = Field(20, ge=1, description="Smoothing: draws of the smoothed classifier that attacks see.")
    batch_size: int | None = Field(None, ge=1, description="Images at once; none: 100 (CPU) or 500 (GPU).")
    seed: int = Field(0, ge=0, description="Seed of noise and of random starts.")
