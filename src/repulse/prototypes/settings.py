"""Which prototypes."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from repulse.common.settings import Settings


class PrototypeSettings(Settings):
    """Where the classes have their places in the output space."""

    method: str = Field("auto", description="Name of a method; `repulse prototypes --help` lists them.")
    dimension: int | None = Field(None, ge=1, description="d; none: the number of classes.")
    seed: int | None = Field(None, description="Seed of the method; none: the run's seed.")
    steps: int | None = Field(None, ge=1, description="Steps of an iterative method; none: its default.")
    scale: float = Field(1.0, gt=0, description="Factor on the prototypes, once they are made or read.")
    file: Path | None = Field(None, description="Take prototypes from this safetensors file instead.")
