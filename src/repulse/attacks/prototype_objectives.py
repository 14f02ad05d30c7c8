"""Objectives for models whose logits mislead: distances to prototypes, and cross-entropy at a scale of its own.

A readout such as the cosine bounds the logits, and a temperature may push them anywhere; an attack on their
cross-entropy then climbs a plateau or rounding errors. What decides the class is which prototype is nearest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from repulse.attacks.objectives import OBJECTIVES, Objective, cross_entropy
from repulse.common.errors import RepulseError
from repulse.common.registry import unknown_name

Metric = Literal["cosine", "l2", "linf", "dot"]
Distances = Callable[[Tensor, Tensor], Tensor]


def _cosine(z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
    return 1 - F.normalize(z, dim=1) @ F.normalize(prototypes, dim=1).T


def _l2(z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
    # The term |z|^2 is the same for all prototypes; without it the difference is linear in z.
    return prototypes.square().sum(1) - 2 * z @ prototypes.T


def _linf(z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
    return torch.cdist(z, prototypes, p=float("inf"))


def _dot(z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
    return -z @ prototypes.T


_DISTANCES: dict[str, Distances] = {"cosine": _cosine, "l2": _l2, "linf": _linf, "dot": _dot}


def nearest_wrong(metric: Metric) -> Objective:
    """Distance to the own prototype minus distance to the nearest wrong one: positive when a wrong one is nearer.

    Args:
        metric: `cosine`: 1 - cos; `l2`: squared L2 distances, whose difference is linear in the embedding; `linf`:
            L-inf distances; `dot`: minus the inner products.

    Raises:
        RepulseError: if the metric is unknown; when called, if the model lacks `embed`, `classify` or `prototypes`, or
            there is a label without prototype.
    """
    if metric not in _DISTANCES:
        raise unknown_name("metric", metric, _DISTANCES)
    distances = _DISTANCES[metric]

    def objective(model: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        prototypes = getattr(model, "prototypes", None)
        able = callable(getattr(model, "embed", None)) and callable(getattr(model, "classify", None))
        if not (able and isinstance(prototypes, Tensor)):
            raise RepulseError(
                "distances to prototypes are attacked through the model's `embed`, `classify` and `prototypes`, which "
                "it lacks"
            )
        if len(y) and int(y.max()) >= len(prototypes):
            raise RepulseError(f"the model has {len(prototypes)} prototypes, but there is a label {int(y.max())}")
        z = model.embed(x)
        return _own_minus_nearest_wrong(distances(z, prototypes.to(z)), y), model.classify(z)

    return objective


def _own_minus_nearest_wrong(distances: Float[Tensor, "N n"], y: Int64[Tensor, "N"]) -> Float[Tensor, "N"]:
    own = distances.gather(1, y.unsqueeze(1)).squeeze(1)
    return own - distances.scatter(1, y.unsqueeze(1), torch.inf).amin(1)


for _metric in ("cosine", "l2", "linf", "dot"):
    OBJECTIVES.register(f"prototype-{_metric}")(nearest_wrong(_metric))


@OBJECTIVES.register("cross-entropy-rescaled")
def rescaled_cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of logits divided, image by image, by their own spread: it neither saturates nor vanishes.

    The spread is that of DLR, largest minus third-largest logit (Croce & Hein 2020, eq. 7), taken as a constant; with
    two classes, or where the first three are as good as equal, largest minus smallest.
    """
    logits: Tensor = model(x)
    return cross_entropy(logits / _spread(logits.detach()), y), logits


def _spread(logits: Float[Tensor, "N n"]) -> Float[Tensor, "N 1"]:
    top = logits.topk(min(3, logits.shape[1]), dim=1).values
    near, whole = top[:, 0] - top[:, -1], top[:, 0] - logits.amin(1)
    # A spread of rounding errors only would blow the other logits up.
    spread = torch.where(near > 1e-4 * whole, near, whole)
    return torch.where(spread > 0, spread, torch.ones_like(spread)).unsqueeze(1)
