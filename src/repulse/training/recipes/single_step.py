"""Recipes that take one gradient step in the image, beside FGSM-RS: other starts, other things to climb."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field

from repulse.attacks import Threat
from repulse.attacks.ascent import ascend
from repulse.attacks.objectives import margin
from repulse.training.loss import Labels
from repulse.training.recipe import (
    RECIPES,
    AdversarialRecipe,
    Images,
    RecipeResult,
    Task,
    divergence,
    one_step,
    random_start,
)


@RECIPES.register("n-fgsm")
class NFGSM(AdversarialRecipe):
    """The training loss of images moved by one gradient step from far outside the ball (de Jorge et al. 2022).

    Start uniform within `noise` times eps, one step of eps along the sign of the gradient, and no way back into the
    ball: only into [0, 1] (algorithm 1 of the source). Larger noise keeps single-step training from overfitting to
    single steps. Cost: 2 forward passes, 2 backward.
    """

    noise: float = Field(2.0, ge=0, description="How far the start may lie from the image, in eps.")

    def perturb(self, task: Task, x: Images, y: Labels) -> Images:
        """The noisy images after one step."""
        wide = Threat(self.norm, self.noise * self.eps)
        step = self.eps if self.step_size is None else self.step_size
        # A ball that holds every end of a step from every start: projecting into it moves nothing but pixels out of
        # range.
        reach = Threat(self.norm, wide.eps + step)
        return ascend(task.loss_at(y), random_start(x, wide), x, reach, 1, step)


@RECIPES.register("repulse")
class Default(NFGSM):
    """What `repulse train` does by default: `n-fgsm`. What else was tried stands in the documentation."""


@RECIPES.register("margin-step")
class MarginStep(AdversarialRecipe):
    """The training loss of images moved one step towards the nearest wrong prototype.

    As FGSM-RS, but the step climbs the margin `max_{j != y} logit_j - logit_y`, the distance to the nearest wrong
    prototype minus that to the own one in the readout's metric, whatever the training loss is. Ours: the paper's losses
    give an attack little to climb, and it is the margin that decides. Cost: 2 forward passes, 2 backward.
    """

    def perturb(self, task: Task, x: Images, y: Labels) -> Images:
        """The images moved towards the nearest wrong prototype."""
        return one_step(lambda image: margin(task.model.classify(task.embed(image)), y), x, self.threat, self.step_size)


@RECIPES.register("fast-trades")
class FastTRADES(AdversarialRecipe):
    """The training loss of clean images, plus beta times how far the prediction moves in one step.

    TRADES (Zhang et al. 2019) with a single step of 1.25 eps from a random start in the ball, along the gradient of the
    training loss, so that two passes serve three purposes: the clean images are not passed again to find the step.
    `of` says what may not move: the softmax of the logits (Kullback-Leibler, as in TRADES), or the direction of the
    embedding (`1 - cosine` of clean and moved embedding), which is separation itself. Cost: 3 forward passes, 3
    backward (clean and moved images are two batches).
    """

    beta: float = Field(6.0, ge=0, description="Weight of what moves.")
    of: Literal["prediction", "embedding"] = Field("prediction", description="What may not move.")

    def perturb(self, task: Task, x: Images, y: Labels) -> Images:
        """The images after one step up the training loss."""
        return one_step(task.loss_at(y), x, self.threat, self.step_size)

    def __call__(self, task: Task, x: Images, y: Labels) -> RecipeResult:
        """The loss of clean images plus what moved."""
        images = self.perturb(task, x, y)
        z, moved = task.embed(x), task.embed(images)
        if self.of == "embedding":
            change = 1 - F.cosine_similarity(z, moved, dim=1)
        else:
            change = divergence(task.model.classify(z), task.model.classify(moved))
        return RecipeResult(task.loss(z, y) + self.beta * change, z)


@RECIPES.register("embedding-trades")
class EmbeddingTRADES(FastTRADES):
    """`fast-trades` on the direction of the embedding instead of the prediction."""

    beta: float = Field(20.0, ge=0, description="Weight of what moves.")
    of: Literal["prediction", "embedding"] = Field("embedding", description="What may not move.")
