"""Recipes that take one gradient step in the image, beside FGSM-RS: other starts, other things to climb."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F

from repulse.attacks import Norm, Threat
from repulse.attacks.objectives import margin
from repulse.training.recipes import (
    RECIPES,
    Images,
    Labels,
    Outcome,
    Task,
    ascend,
    attackable,
    divergence,
    not_negative,
    one_step,
    random_start,
)


@RECIPES.register("repulse")
@RECIPES.register("n-fgsm")
@dataclass(frozen=True)
class NFGSM:
    """The training loss of images moved by one gradient step from far outside the ball (de Jorge et al. 2022).

    Start uniform within `noise` times eps, one step of eps along the sign of the gradient, and no way back into the
    ball: only into [0, 1] (algorithm 1 of the source). Larger noise keeps single-step training from overfitting to
    single steps. Cost: 2 forward passes, 2 backward.

    As `repulse` it is what `repulse train` does by default; what else was tried stands in the documentation.

    Args:
        eps: radius of the ball to be robust in, in pixels of [0, 1].
        noise: how far the start may lie from the image, in eps; 2 in the source.
        step_size: length of the step; None: eps, as in the source.
        norm: `linf`, as in the source, or `l2`.

    Raises:
        RepulseError: if a setting is out of range.
    """

    eps: float = 8 / 255
    noise: float = 2.0
    step_size: float | None = None
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        attackable(self.norm, self.eps, 1, self.step_size)
        not_negative("noise", self.noise)

    def __call__(self, task: Task, x: Images, y: Labels) -> Outcome:
        """The loss of noisy adversarial images."""
        wide = Threat(self.norm, self.noise * self.eps)
        step = self.eps if self.step_size is None else self.step_size
        # A ball that holds every end of a step from every start: projecting into it moves nothing but pixels out of
        # range.
        reach = Threat(self.norm, wide.eps + step)
        images = ascend(lambda image: task.loss(task.embed(image), y), random_start(x, wide), x, reach, 1, step)
        z = task.embed(images)
        return Outcome(task.loss(z, y), z)


@RECIPES.register("margin-step")
@dataclass(frozen=True)
class MarginStep:
    """The training loss of images moved one step towards the nearest wrong prototype.

    As FGSM-RS, but the step climbs the margin `max_{j != y} logit_j - logit_y`, the distance to the nearest wrong
    prototype minus that to the own one in the readout's metric, whatever the training loss is. Ours: the paper's losses
    give an attack little to climb, and it is the margin that decides. Cost: 2 forward passes, 2 backward.

    Args:
        eps: radius of the ball, in pixels of [0, 1].
        step_size: length of the step in the norm; None: 1.25 eps.
        norm: `linf` or `l2`.

    Raises:
        RepulseError: if a setting is out of range.
    """

    eps: float = 8 / 255
    step_size: float | None = None
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        attackable(self.norm, self.eps, 1, self.step_size)

    def __call__(self, task: Task, x: Images, y: Labels) -> Outcome:
        """The loss of images moved towards the nearest wrong prototype."""
        threat = Threat(self.norm, self.eps)
        images = one_step(lambda image: margin(task.model.classify(task.embed(image)), y), x, threat, self.step_size)
        z = task.embed(images)
        return Outcome(task.loss(z, y), z)


@RECIPES.register("fast-trades")
@dataclass(frozen=True)
class FastTRADES:
    """The training loss of clean images, plus beta times how far the prediction moves in one step.

    TRADES (Zhang et al. 2019) with a single step of 1.25 eps from a random start in the ball, along the gradient of the
    training loss, so that two passes serve three purposes: the clean images are not passed again to find the step.
    `of` says what may not move: the softmax of the logits (Kullback-Leibler, as in TRADES), or the direction of the
    embedding (`1 - cosine` of clean and moved embedding), which is separation itself. Cost: 3 forward passes, 3
    backward (clean and moved images are two batches).

    Args:
        eps: radius of the ball, in pixels of [0, 1].
        beta: weight of what moves; not negative.
        step_size: length of the step in the norm; None: 1.25 eps.
        norm: `linf` or `l2`.
        of: `prediction` or `embedding`.

    Raises:
        RepulseError: if a setting is out of range.
    """

    eps: float = 8 / 255
    beta: float = 6.0
    step_size: float | None = None
    norm: Norm = "linf"
    of: Literal["prediction", "embedding"] = "prediction"

    def __post_init__(self) -> None:
        attackable(self.norm, self.eps, 1, self.step_size)
        not_negative("beta", self.beta)

    def __call__(self, task: Task, x: Images, y: Labels) -> Outcome:
        """The loss of clean images plus what moved."""
        threat = Threat(self.norm, self.eps)
        images = one_step(lambda image: task.loss(task.embed(image), y), x, threat, self.step_size)
        z, moved = task.embed(x), task.embed(images)
        if self.of == "embedding":
            change = 1 - F.cosine_similarity(z, moved, dim=1)
        else:
            change = divergence(task.model.classify(z), task.model.classify(moved))
        return Outcome(task.loss(z, y) + self.beta * change, z)


@RECIPES.register("embedding-trades")
def embedding_trades(
    eps: float = 8 / 255, beta: float = 20.0, step_size: float | None = None, norm: Norm = "linf"
) -> FastTRADES:
    """`fast-trades` on the direction of the embedding instead of the prediction."""
    return FastTRADES(eps, beta, step_size, norm, "embedding")
