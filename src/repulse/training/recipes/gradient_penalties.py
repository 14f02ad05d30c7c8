"""Recipes that keep derivatives in the image small, by a second backward pass through the first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field

from repulse.attacks import Norm
from repulse.training.loss import Labels
from repulse.training.recipe import RECIPES, Images, Recipe, RecipeResult, Task


@RECIPES.register("input-gradient")
class InputGradient(Recipe):
    """The training loss, plus the squared dual norm of its gradient in the image (Finlay & Oberman 2021, eq. 5).

    `loss(x, y) + strength |grad_x loss(x, y)|^2`, with the L1 norm of the gradient against an L-inf threat, and L2
    against L2. The source differentiates by a finite difference; here it is exact, by a second backward pass through
    the first. Batch norm is in training mode. Cost: 1 forward pass, and 2 backward, the second about twice as long.

    The default strength is from a sweep on scikit-learn's digits, against L2; there 3 is too much to learn anything.
    The squared L1 norm of a gradient is larger than its squared L2 norm by up to the number of pixels, so `linf` asks
    for a smaller strength (digits: 0.01 to 0.03).

    Raises:
        RepulseError: when called, if a part of the model has no second derivative.
    """

    strength: float = Field(0.3, ge=0, description="Weight of the penalty.")
    norm: Norm = Field("l2", description="Norm of the threat: linf penalises the gradient's L1 norm, l2 its L2 norm.")

    # torch.compile has no second derivatives, so this recipe runs as it is even in a compiled step.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, task: Task, x: Images, y: Labels) -> RecipeResult:
        """The loss of clean images plus the penalty."""
        x = x.detach().requires_grad_()
        z = task.embed(x)
        values = task.loss(z, y)
        (gradient,) = torch.autograd.grad(values.sum(), x, create_graph=True)
        flat = gradient.flatten(1).float()
        square = flat.abs().sum(1).square() if self.norm == "linf" else flat.square().sum(1)
        return RecipeResult(values + self.strength * square, z)


@RECIPES.register("jacobian")
class Jacobian(Recipe):
    """The training loss, plus the squared Frobenius norm of the logits' Jacobian (Hoffman, Roberts & Yaida 2019).

    `loss(x, y) + strength / 2 |J(x)|_F^2`, with J (n, C H W) the derivative of the logits in the pixels. The norm is
    estimated without bias from one projection on a random unit vector v per image: `n |v J|^2` (the source's eq. 9).
    Batch norm is in training mode. Cost: 1 forward pass, and 2 backward, the second about twice as long.

    Raises:
        RepulseError: when called, if a part of the model has no second derivative.
    """

    strength: float = Field(0.01, ge=0, description="Weight of the penalty; 0.01 in the source of jacobian.")

    # torch.compile has no second derivatives, so this recipe runs as it is even in a compiled step.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, task: Task, x: Images, y: Labels) -> RecipeResult:
        """The loss of clean images plus the penalty."""
        x = x.detach().requires_grad_()
        z = task.embed(x)
        logits = task.model.classify(z)
        v = F.normalize(torch.randn_like(logits), dim=1)
        (gradient,) = torch.autograd.grad((v * logits).sum(), x, create_graph=True)
        square = logits.shape[1] * gradient.flatten(1).float().square().sum(1)
        return RecipeResult(task.loss(z, y) + self.strength / 2 * square, z)
