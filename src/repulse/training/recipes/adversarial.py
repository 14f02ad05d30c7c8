"""Adversarial training as its sources describe it: FGSM from a random start, PGD, TRADES."""

from __future__ import annotations

import torch
from pydantic import Field

from repulse.attacks.ascent import ascend
from repulse.common.evaluation_mode import evaluation_mode
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


@RECIPES.register("fgsm-rs")
class FGSMRS(AdversarialRecipe):
    """The training loss of images moved by one gradient step from a random start (Wong, Rice & Kolter 2020).

    Start uniform in the ball, one step of 1.25 eps along the gradient of the training loss itself, back into the ball
    and into [0, 1]. As in the source, batch norm is in training mode in both passes, and its running statistics see
    both. Cost: 2 forward passes, 2 backward.

    With an L2 ball the start lies on its surface: a point of the cube, brought into the ball.
    """

    def perturb(self, task: Task, x: Images, y: Labels) -> Images:
        """The images after one step."""
        return one_step(task.loss_at(y), x, self.threat, self.step_size)


@RECIPES.register("pgd")
class PGDTraining(AdversarialRecipe):
    """The training loss of images moved by projected gradient descent from a random start (Madry et al. 2018).

    As in the source, batch norm is in training mode in all passes. A step is a quarter of eps where none is given
    (2/255 for 8/255, as in the source). Cost: steps + 1 forward passes, as many backward.
    """

    steps: int = Field(7, ge=1, description="Attack steps; 7 in the source of pgd, 10 is common.")

    def perturb(self, task: Task, x: Images, y: Labels) -> Images:
        """The images after all steps."""
        step = self.eps / 4 if self.step_size is None else self.step_size
        return ascend(task.loss_at(y), random_start(x, self.threat), x, self.threat, self.steps, step)


@RECIPES.register("trades")
class TRADES(AdversarialRecipe):
    """The training loss of clean images, plus beta times how far the prediction moves in the ball (Zhang et al. 2019).

    `loss(x, y) + beta KL(p(x) || p(x'))`, where p is the softmax of the logits, and x' climbs the same divergence from
    a start 0.001 N(0, 1) off the clean image, by steps of a quarter of eps where none is given. As in the source, the
    model is in evaluation mode while x' is sought, and in training mode for the two passes that are minimised. The
    training accuracy counts the clean images. Cost: steps + 3 forward passes, steps + 2 backward (x and x' are two
    batches).
    """

    steps: int = Field(10, ge=1, description="Attack steps.")
    beta: float = Field(6.0, ge=0, description="Weight of what moves.")

    def perturb(self, task: Task, x: Images, y: Labels) -> Images:  # noqa: ARG002
        """The images where the prediction has moved; labels have no say."""
        threat, classify = self.threat, task.model.classify
        step = self.eps / 4 if self.step_size is None else self.step_size
        with evaluation_mode(task.model):
            # Detached rather than under no_grad: autocast would keep, and give to later passes, weights without graph.
            clean = classify(task.embed(x)).detach()
            start = threat.project(x + 0.001 * torch.randn_like(x), x)
            return ascend(
                lambda image: divergence(clean, classify(task.embed(image))), start, x, threat, self.steps, step
            )

    def __call__(self, task: Task, x: Images, y: Labels) -> RecipeResult:
        """The loss of clean images plus the divergence at adversarial ones."""
        images, classify = self.perturb(task, x, y), task.model.classify
        z = task.embed(x)
        moved = divergence(classify(z), classify(task.embed(images)))
        return RecipeResult(task.loss(z, y) + self.beta * moved, z)
