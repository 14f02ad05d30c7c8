"""What a recipe is: it makes, of a batch, the value per example that training minimises.

A recipe is called with the task, images (N, C, H, W) in [0, 1] and labels (N,). It sees neither optimiser nor epoch, so
the loop stands once, in `fit`. Two rules keep it safe inside that loop:

- It differentiates with respect to images by `torch.autograd.grad` only, so no parameter gathers gradients on the way
  and DDP sees one backward pass.
- Its random numbers come from PyTorch's global generator, which `fit` seeds in every epoch, so resuming repeats them.

A recipe that passes a batch several times, moving the weights each time, is `Replaying`: the loop replays the batch,
and its drift takes in the gradient of the same backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from repulse.attacks import Norm, Threat
from repulse.attacks.ascent import ascend
from repulse.common.settings import Choice, Choices
from repulse.common.units import Number, check_radius
from repulse.models import PrototypeClassifier
from repulse.training.loss import Labels, PerExample, Values

Images = Float[Tensor, "N C H W"]


class ModelInTraining(nn.Module):
    """Somebody's model, as recipes ask it: its outputs, which losses take, and the logits of these.

    Args:
        model: images to embeddings, or to logits.
        classify: from its outputs to logits; None: they are logits.
    """

    # What losses look at is held by the criterion.
    prototypes = torch.empty(0)

    def __init__(self, model: nn.Module, classify: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.model = model
        self._classify = classify

    def embed(self, x: Images) -> Tensor:
        """What the model makes of images."""
        z: Tensor = self.model(x)
        return z

    def classify(self, z: Tensor) -> Tensor:
        """The logits of its outputs."""
        return z if self._classify is None else self._classify(z)


@dataclass(frozen=True)
class Task:
    """What is trained: the model (not wrapped by DDP), and its loss per example."""

    model: PrototypeClassifier | ModelInTraining
    per_example: PerExample

    def embed(self, x: Images) -> Float[Tensor, "N d"]:
        """The embeddings of images, in single precision under autocast too."""
        return self.model.embed(x).float()

    def loss(self, z: Float[Tensor, "N d"], y: Labels) -> Values:
        """The training loss of embeddings, one value per example."""
        return self.per_example(z, y, self.model)

    def loss_at(self, y: Labels) -> Callable[[Tensor], Tensor]:
        """The training loss as a function of the images."""
        return lambda images: self.loss(self.embed(images), y)


class RecipeResult(NamedTuple):
    """What a recipe makes of a batch."""

    values: Values
    """What training minimises, one value per example."""
    z: Float[Tensor, "N d"]
    """Embeddings of the images that the training accuracy counts."""


class Recipe(Choice):
    """A recipe with its settings: a subclass has a field for each of them, and writes `__call__`."""

    delay: float = Field(
        0.0, ge=0, lt=1, description="Share of the steps that pass before the recipe begins; until then clean images."
    )

    @property
    def gaussian_noise(self) -> float | None:
        """Standard deviation of the Gaussian noise that it adds to images, which smoothing repeats; None: none."""
        return None

    def __call__(self, task: Task, x: Images, y: Labels) -> RecipeResult:
        """The values of a batch, with gradients to the parameters."""
        raise NotImplementedError


RECIPES: Choices[Recipe] = Choices("recipe")


class AdversarialRecipe(Recipe):
    """A recipe that moves images in a ball: a subclass writes `perturb`, or `__call__` too."""

    eps: Number = Field(8 / 255, ge=0, description="Radius of the ball to be robust in, in pixels of [0, 1].")
    step_size: Number | None = Field(None, gt=0, description="Length of an attack step; none: the source's.")
    norm: Norm = Field("linf", description="Norm of the ball.")
    warmup: float = Field(
        0.0, ge=0, le=1, description="Share of the steps over which eps grows from zero, once the recipe has begun."
    )

    @model_validator(mode="after")
    def _possible(self) -> AdversarialRecipe:
        check_radius(self.norm, self.eps)
        if self.delay + self.warmup > 1:
            raise ValueError(f"delay {self.delay:g} and warmup {self.warmup:g} leave no steps for the whole eps")
        return self

    def perturb(self, task: Task, x: Images, y: Labels) -> Images:
        """The images as the recipe moves them, in [0, 1], without a graph."""
        raise NotImplementedError

    def __call__(self, task: Task, x: Images, y: Labels) -> RecipeResult:
        """The loss of the moved images."""
        z = task.embed(self.perturb(task, x, y))
        return RecipeResult(task.loss(z, y), z)

    @property
    def threat(self) -> Threat:
        """The ball."""
        return Threat(self.norm, self.eps)

    def grown(self, share: float) -> AdversarialRecipe:
        """The same recipe with a share of its radius, and of its step."""
        step = None if self.step_size is None else self.step_size * share
        return self.model_copy(update={"eps": self.eps * share, "step_size": step})


@runtime_checkable
class Drift(Protocol):
    """Moves images from one pass to the next, by the gradient of the pass that trains."""

    def moved(self, x: Images) -> Images:
        """The images of the next pass, with a graph to what moves them."""

    def climb(self) -> None:
        """Take in the gradient that the backward pass left."""


@runtime_checkable
class Replaying(Protocol):
    """A recipe whose batches are passed several times, with an optimiser step each."""

    @property
    def replays(self) -> int:
        """Passes per batch."""

    def drift(self) -> Drift:
        """What moves the images, as at the start of every epoch."""


@runtime_checkable
class Progressing(Protocol):
    """What changes on the way: a recipe in its phases, or a backbone."""

    def on_progress(self, share: float) -> None:
        """Before each step: which share of all steps is done, in [0, 1)."""


def random_start(x: Tensor, threat: Threat) -> Tensor:
    """A point of the ball for each image, drawn from PyTorch's global generator."""
    return threat.project(x + threat.eps * (2 * torch.rand_like(x) - 1), x)


def one_step(objective: Callable[[Tensor], Tensor], x: Images, threat: Threat, step_size: float | None) -> Images:
    """Images moved one step up an objective from a random start in the ball; None: 1.25 eps (Wong et al. 2020)."""
    step = 1.25 * threat.eps if step_size is None else step_size
    return ascend(objective, random_start(x, threat), x, threat, 1, step)


def divergence(clean: Tensor, moved: Tensor) -> Tensor:
    """KL(softmax(clean) || softmax(moved)) for each row of logits."""
    p, q = F.log_softmax(clean.float(), 1), F.log_softmax(moved.float(), 1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)
