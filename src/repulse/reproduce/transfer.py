"""Transfer between models: images that were made to fool one, shown to another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from repulse.attacks import OBJECTIVES, Threat
from repulse.attacks.attack import attackable
from repulse.attacks.noise import Noise
from repulse.evaluation.bench import device_of, image_ids
from repulse.training.recipes import ascend

STEPS = 20
_AT_ONCE = 100


def craft(
    model: nn.Module,
    images: Float[Tensor, "N C H W"],
    labels: Int64[Tensor, "N"],
    threat: Threat,
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> Float[Tensor, "N C H W"]:
    """Images after PGD on the margin of a model, from random points of the ball, steps of a quarter of eps.

    All steps are taken even where the model is fooled on the way: images that barely fool one model seldom fool
    another. Images that the model gets wrong by nature are moved too.

    Args:
        model: the source.
        images: clean images, in [0, 1].
        labels: true classes.
        threat: the ball.
        steps: gradient steps.
        seed: of the random points.
    """
    made = []
    ids, device = image_ids(images), device_of(model, images)
    with attackable(model):
        for rows in torch.split(torch.arange(len(images)), _AT_ONCE):
            x, y = images[rows].to(device), labels[rows].to(device)
            start = threat.random_point(x, Noise(seed, ids[rows]), 0)
            made.append(ascend(_margin(model, y), start, x, threat, steps, threat.eps / 4).cpu())
    return torch.cat(made)


def _margin(model: nn.Module, labels: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda images: OBJECTIVES["margin"](model, images, labels)[0]


def right(model: nn.Module, images: Float[Tensor, "N C H W"], labels: Int64[Tensor, "N"]) -> Bool[Tensor, "N"]:
    """Where a model answers right."""
    device = device_of(model, images)
    with attackable(model), torch.inference_mode():
        answers = [model(part.to(device)).argmax(1).cpu() for part in torch.split(images, 500)]
    return torch.cat(answers).clone() == labels
