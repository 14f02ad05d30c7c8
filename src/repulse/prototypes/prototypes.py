"""Class prototypes: one point of the output space for each class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.common.files import load_tensors, save_tensors

Metric = Literal["cosine", "l2", "linf"]

_FORMAT = "repulse-prototypes-1"


@dataclass(frozen=True, eq=False)
class Prototypes:
    """One point of the output space for each class, with how they were made.

    Args:
        points: one row per class.
        metric: what they were separated in: `cosine` (angles), `l2` or `linf` (distances).
        method: name of the method; `make_prototypes` enters it.
        seed: of the method's random start; 0 for a closed form.
        steps: that an iterative method took; 0 for a closed form.
        provenance: anything else worth knowing, as text.

    Raises:
        RepulseError: if the points are not n >= 2 distinct, finite rows.
    """

    points: Float[Tensor, "n d"]
    metric: Metric
    method: str = ""
    seed: int = 0
    steps: int = 0
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.n < 2 or self.d < 1:
            raise RepulseError(
                f"prototypes must have shape (n, d) with n >= 2 and d >= 1, got {tuple(self.points.shape)}"
            )
        if not torch.isfinite(self.points).all():
            row = int((~torch.isfinite(self.points)).any(1).nonzero()[0])
            raise RepulseError(f"prototype {row} has a coordinate that is not a finite number")
        # Adding zero turns -0.0 into 0.0, which have different bytes.
        rows = [row.tobytes() for row in (self.points.detach().cpu() + 0.0).numpy()]
        if len(set(rows)) < self.n:
            seen: dict[bytes, int] = {}
            first, second = next((seen[row], i) for i, row in enumerate(rows) if seen.setdefault(row, i) != i)
            raise RepulseError(
                f"prototypes {first} and {second} are the same point: their classes could not be told apart"
            )

    @property
    def n(self) -> int:
        """The number of classes."""
        return self.points.shape[0]

    @property
    def d(self) -> int:
        """The dimension of the output space."""
        return self.points.shape[1]

    def scaled(self, factor: float) -> Prototypes:
        """The same prototypes times a factor > 0: all distances grow by it, and no angle changes."""
        return replace(self, points=self.points * factor)

    def save(self, path: str | Path) -> None:
        """Write points and provenance to a safetensors file.

        Raises:
            RepulseError: if the file cannot be written.
        """
        about = {
            "format": _FORMAT,
            "metric": self.metric,
            "method": self.method,
            "seed": str(self.seed),
            "steps": str(self.steps),
            "provenance": json.dumps(dict(self.provenance)),
        }
        save_tensors(path, {"points": self.points}, about)

    @classmethod
    def load(cls, path: str | Path) -> Prototypes:
        """Read what `save` wrote.

        Raises:
            RepulseError: if the file is absent, or holds no prototypes.
        """
        tensors, about = load_tensors(path)
        if about.get("format") != _FORMAT or "points" not in tensors or about.get("metric") not in get_args(Metric):
            raise RepulseError(f"{path} holds no prototypes; make some with `repulse prototypes --output {path}`")
        try:
            made = about["method"], int(about["seed"]), int(about["steps"])
            provenance = dict(json.loads(about["provenance"]))
        except (KeyError, ValueError, TypeError) as error:
            raise RepulseError(f"{path} is damaged: how its prototypes were made cannot be read") from error
        return cls(tensors["points"].float(), about["metric"], *made, provenance)  # type: ignore[arg-type]
