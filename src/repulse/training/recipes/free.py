"""Free adversarial training: one backward pass moves the weights and the images."""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor

from repulse.attacks import Norm, Threat
from repulse.common.units import Number, check_radius
from repulse.training.loss import Labels
from repulse.training.recipe import RECIPES, Images, Recipe, RecipeResult, Task


@RECIPES.register("free")
class Free(Recipe):
    """The training loss of images under a perturbation that outlives its batch (Shafahi et al. 2019, algorithm 1).

    Every batch is passed `replays` times. Each pass gives, by one backward pass, the gradient of an optimiser step and
    that of a step of the perturbation: `step_size` along its sign, back into the ball. The next batch starts from the
    last one's perturbation. In the source that goes on for ever; here it starts from zero in every epoch, so that a run
    can be resumed at an epoch's end. Under DDP each process has its own.

    Cost: `replays` times (1 forward pass, 1 backward) per batch, so an epoch costs as much as `replays` plain ones, and
    takes as many optimiser steps: learning-rate schedule and weight average count each. The source divides the epochs
    by `replays` to train at no added cost. Training loss and accuracy are means over all passes.
    """

    eps: Number = Field(8 / 255, ge=0, description="Radius of the ball to be robust in, in pixels of [0, 1].")
    replays: int = Field(8, ge=1, description="Passes per batch; 8 in the source, on CIFAR-10.")
    step_size: Number | None = Field(None, gt=0, description="Length of an attack step; none: the source's.")
    norm: Norm = Field("linf", description="Norm of the ball.")

    @model_validator(mode="after")
    def _possible(self) -> Free:
        check_radius(self.norm, self.eps)
        if self.delay:
            raise ValueError("a recipe that replays its batches cannot begin later; leave out recipe.delay")
        return self

    def __call__(self, task: Task, x: Images, y: Labels) -> RecipeResult:
        """The loss of the images as the loop hands them over: moved already."""
        z = task.embed(x)
        return RecipeResult(task.loss(z, y), z)

    def drift(self) -> WarmPerturbation:
        """The perturbation at an epoch's start: zero."""
        return WarmPerturbation(self.norm, self.eps, self.eps if self.step_size is None else self.step_size)


class WarmPerturbation:
    """A perturbation for each place of a batch, which goes on from one batch to the next.

    Args:
        norm: `linf` or `l2`.
        eps: radius of the ball.
        step_size: length of a step in the norm.
    """

    def __init__(self, norm: Norm, eps: float, step_size: float) -> None:
        # The range of pixels belongs to images: a perturbation that leaves it for one may stay inside for the next.
        self._ball = Threat(norm, eps, -torch.inf, torch.inf)
        self._step_size = step_size
        self._kept: Tensor | None = None
        self._leaf: Tensor | None = None

    def moved(self, x: Images) -> Images:
        """The images under the perturbation, in [0, 1], with a graph to it."""
        if self._kept is None:
            self._kept = torch.zeros_like(x)
        elif len(self._kept) < len(x):
            self._kept = torch.cat((self._kept, torch.zeros_like(x[len(self._kept) :])))
        self._leaf = self._kept[: len(x)].clone().requires_grad_()
        return (x + self._leaf).clamp(0, 1)

    def climb(self) -> None:
        """Move the perturbation by the gradient that the last backward pass left on it."""
        assert self._kept is not None
        assert self._leaf is not None
        assert self._leaf.grad is not None
        leaf = self._leaf.detach()
        raised = leaf + self._ball.steepest_step(self._leaf.grad, self._step_size)
        self._kept[: len(leaf)] = self._ball.project(raised, torch.zeros_like(leaf))
        self._leaf = None
