"""Objectives for models whose logits mislead: distances to prototypes, and cross-entropy at a scale of its own.

A readout such as the cosine bounds the logits, and a temperature may push them anywhere; an attack on their
cross-entropy then climbs a plateau or rounding errors. What decides the class is which prototype is nearest.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from repulse.attacks.objectives import OBJECTIVES, cross_entropy
from repulse.common.errors import RepulseError


def has_distances(model: nn.Module) -> bool:
    """Whether a model tells its distances to class prototypes, by methods `embed`, `distances` and `classify`."""
    return all(callable(getattr(model, name, None)) for name in ("embed", "distances", "classify"))


@OBJECTIVES.register("prototype-distance")
def nearest_wrong(model: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the own prototype minus distance to the nearest wrong one: positive when a wrong one is nearer.

    Args:
        model: with methods `embed` (images to embeddings), `distances` (embeddings to distances (N, n), in whatever
            sense; the class is the smallest) and `classify` (embeddings to logits).
        x: images.
        y: labels.

    Raises:
        RepulseError: if the model lacks one of them, or there is a label without prototype.
    """
    if not has_distances(model):
        raise RepulseError(
            "distances to prototypes are attacked through the model's `embed`, `distances` and `classify`, which "
            "it lacks"
        )
    z = model.embed(x)
    distances = model.distances(z)
    if len(y) and int(y.max()) >= distances.shape[1]:
        raise RepulseError(f"the model has {distances.shape[1]} prototypes, but there is a label {int(y.max())}")
    return _own_minus_nearest_wrong(distances, y), model.classify(z)


def _own_minus_nearest_wrong(distances: Float[Tensor, "N n"], y: Int64[Tensor, "N"]) -> Float[Tensor, "N"]:
    own = distances.gather(1, y.unsqueeze(1)).squeeze(1)
    return own - distances.scatter(1, y.unsqueeze(1), torch.inf).amin(1)


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
