"""Recipes without adversarial examples: penalties on how fast, or how unevenly, the loss changes near an image.

All of them look along the direction in which the loss climbs fastest, by a finite difference, so that they cost as much
as two or three plain passes and need no second derivatives where the docstring does not say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from repulse.attacks import Norm, Threat
from repulse.attacks.objectives import margin
from repulse.common.units import Number
from repulse.training.loss import Labels
from repulse.training.recipe import RECIPES, Images, Recipe, RecipeResult, Task


@RECIPES.register("slope")
class SlopePenalty(Recipe):
    """The training loss, plus the squared slope of a function along its own input gradient.

    `loss(x, y) + strength ((f(x + h d) - f(x)) / h)^2`, where d is the unit vector along the gradient of f at x, not
    differentiated: a finite difference of `|grad f|^2` that also sees curvature up to h (after Finlay & Oberman
    2021). f is the training loss, or the margin of the nearest wrong prototype over the own one, whose slope is
    what a radius is divided by. Cost: 3 forward passes, 3 backward.
    """

    strength: float = Field(0.5, ge=0, description="Weight of the penalty.")
    distance: Number = Field(0.1, gt=0, description="h: how far the penalty looks, in the norm, in pixels of [0, 1].")
    norm: Norm = Field("l2", description="Norm of the step; linf steps along the gradient's sign.")
    of: Literal["loss", "margin"] = Field("loss", description="What may not be steep.")

    def __call__(self, task: Task, x: Images, y: Labels) -> RecipeResult:
        """The loss of clean images plus the squared slope."""

        def value(z: Tensor) -> Tensor:
            return task.loss(z, y) if self.of == "loss" else margin(task.model.classify(z), y)

        moved = _uphill(lambda image: value(task.embed(image)), x, self.norm, self.distance)
        both = task.embed(torch.cat((x, moved)))
        z, ahead = both.chunk(2)
        slope = (value(ahead) - value(z)) / self.distance
        return RecipeResult(task.loss(z, y) + self.strength * slope.square(), z)


@RECIPES.register("margin-slope")
class MarginSlopePenalty(SlopePenalty):
    """`slope` of the margin between the nearest wrong prototype and the own one."""

    of: Literal["loss", "margin"] = Field("margin", description="What may not be steep.")


@RECIPES.register("curvature")
class CurvaturePenalty(Recipe):
    """The training loss, plus how much its input gradient changes along the gradient (Moosavi-Dezfooli et al. 2019).

    `loss(x, y) + strength |grad l(x + h d) - grad l(x)|^2`, with d the unit vector along the sign of the gradient
    (CURE). Cost: 2 forward passes, and 2 backward, each followed by one through it that takes about twice as long.

    Raises:
        RepulseError: when called, if a part of the model has no second derivative.
    """

    strength: float = Field(
        4.0,
        ge=0,
        description="Weight of the penalty; 4 in the source of curvature, for gradients of single images.",
    )
    distance: Number = Field(1.5, gt=0, description="h: how far the penalty looks, in L2, in pixels of [0, 1].")

    # torch.compile has no second derivatives, so this recipe runs as it is even in a compiled step.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, task: Task, x: Images, y: Labels) -> RecipeResult:
        """The loss of clean images plus the squared change of the gradient."""
        x = x.detach().requires_grad_()
        z = task.embed(x)
        values = task.loss(z, y)
        (gradient,) = torch.autograd.grad(values.sum(), x, create_graph=True)
        along = Threat("l2", self.distance).steepest_step(gradient.detach().sign(), self.distance)
        moved = (x.detach() + along).requires_grad_()
        (ahead,) = torch.autograd.grad(task.loss(task.embed(moved), y).sum(), moved, create_graph=True)
        change = (ahead - gradient).flatten(1).square().sum(1)
        return RecipeResult(values + self.strength * change, z)


def _uphill(value: Callable[[Tensor], Tensor], x: Images, norm: Norm, distance: float) -> Images:
    image = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(value(image).sum(), image)
    return x + Threat(norm, distance).steepest_step(gradient, distance)
