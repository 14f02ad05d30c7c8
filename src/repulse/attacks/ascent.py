"""Gradient ascent inside a ball: PGD, probes, transfer and adversarial training all climb by it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from repulse.attacks.objectives import uphill
from repulse.attacks.threat import Threat, column

Height = Callable[[Tensor], Tensor]
"""`images (N, *shape) -> (N,)`: one value per image, to be raised."""


def ascend(
    objective: Height,
    images: Float[Tensor, "N *shape"],
    clean: Float[Tensor, "N *shape"],
    threat: Threat,
    steps: int,
    step_size: float,
    *,
    momentum: float = 0.0,
    keep: Callable[[], Int64[Tensor, "M"]] | None = None,
) -> Float[Tensor, "M *shape"]:
    """Images after steepest steps of fixed length up an objective, projected after each (Madry et al. 2018).

    Args:
        objective: what to climb; asked once per step, at the images before the step.
        images: where to start.
        clean: the centres of the balls.
        threat: norm, radius and range of pixels.
        steps: how many steps; fewer if no image is left.
        step_size: length of a step in the threat's norm.
        momentum: weight of the gathered past gradients, each of unit L1 norm (Dong et al. 2018, eq. 6).
        keep: asked after the objective, which of its images go on; the others leave the batch. None: all.

    Returns:
        The images that went on to the end, without a graph.
    """
    gathered = torch.zeros_like(images) if momentum else None
    for _ in range(steps):
        if len(images) == 0:
            break
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            direction = uphill(objective(images), images)
        images = images.detach()
        if gathered is not None:
            direction = gathered = momentum * gathered + _unit(direction)
        if keep is not None:
            index = keep()
            images, clean, direction = images[index], clean[index], direction[index]
            gathered = None if gathered is None else gathered[index]
        images = threat.project(images + threat.steepest_step(direction, step_size), clean)
    return images.detach()


def _unit(gradient: Tensor) -> Tensor:
    """Of unit L1 norm, or zero."""
    return gradient / column(gradient.flatten(1).abs().sum(1).clamp_min(1e-38), gradient)
