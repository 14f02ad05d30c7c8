"""Which wrong class to aim at, and objectives that aim."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor

if TYPE_CHECKING:
    from repulse.attacks.standing import Standing

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


def classes_by_distance(standing: Standing, count: int, candidates: int = 30) -> Int64[Tensor, "N k"]:
    """The `count` wrong classes whose boundary is nearest if the model is linear around the clean image, nearest first.

    The distance is the gap between the two logits over the dual norm of its gradient (Melamed et al. 2024, MALT). Costs
    a forward pass, and a backward pass for each candidate. Rows that have fallen get their likeliest classes.

    Args:
        standing: the batch.
        count: how many.
        candidates: so many of the likeliest wrong classes are looked at.
    """
    likeliest = nearest_wrong_classes(standing.clean_logits(), standing.labels, max(candidates, count))
    rows = standing.rows
    found = likeliest[:, :count].clone()
    if len(rows) == 0 or likeliest.shape[1] == 1:
        return found
    y = standing.labels[rows]
    with torch.enable_grad():
        images = standing.clean[rows].detach().requires_grad_()
        standing.asking(rows)
        logits: Tensor = standing.model(images)
        distances = []
        for target in likeliest[rows].unbind(1):
            gap = margin_targeted(logits, y, target)
            (slope,) = torch.autograd.grad(gap.sum(), images, retain_graph=True)
            dual = standing.threat.dual_norm(torch.nan_to_num(slope, 0.0, 0.0, 0.0))
            distances.append(torch.where(dual > 0, -gap.detach() / dual.clamp_min(1e-38), torch.inf))
    standing.passes.add(rows, forward=1, backward=likeliest.shape[1])
    # Where there is no gradient all are equally far, and stay in the order of their logits.
    order = torch.stack(distances, 1).argsort(dim=1, stable=True)
    found[rows] = likeliest[rows].gather(1, order)[:, : found.shape[1]]
    return found
