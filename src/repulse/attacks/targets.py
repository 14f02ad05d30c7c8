"""Which wrong class to aim at, and objectives that aim."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

TargetedObjective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(logits (N, n), y (N,), target (N,)) -> (N,)`: a value that rises as the model moves from `y` to `target`."""


def nearest_wrong_classes(logits: Float[Tensor, "N n"], y: Int64[Tensor, "N"], count: int) -> Int64[Tensor, "N k"]:
    """The `count` wrong classes with the largest logits, the largest first; all wrong ones if there are fewer."""
    wrong = logits.scatter(1, y.unsqueeze(1), -torch.inf)
    return wrong.topk(min(count, logits.shape[1] - 1), dim=1).indices


def margin_targeted(
    logits: Float[Tensor, "N n"], y: Int64[Tensor, "N"], target: Int64[Tensor, "N"]
) -> Float[Tensor, "N"]:
    """The target's logit minus the true one."""
    return (logits.gather(1, target.unsqueeze(1)) - logits.gather(1, y.unsqueeze(1))).squeeze(1)


def dlr_targeted(logits: Float[Tensor, "N n"], y: Int64[Tensor, "N"], target: Int64[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Targeted difference of logits ratio (Croce & Hein 2020, eq. 8); below four classes, the targeted margin.

    The ratio divides by the largest logit minus the mean of the third and fourth; with fewer classes it is not
    defined. Steps of fixed length don't see the scale of an objective, so the margin alone serves as well there.
    """
    rise = margin_targeted(logits, y, target)
    if logits.shape[1] < 4:
        return rise
    top = logits.topk(4, dim=1).values
    return rise / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)
