"""Recipes: how a batch becomes the value per example that training minimises.

A recipe is called with the task, images (N, C, H, W) in [0, 1] and labels (N,). It sees neither optimiser nor epoch, so
the loop stands once, in `fit`. Two rules keep it safe inside that loop:

- It differentiates with respect to images by `torch.autograd.grad` only, so no parameter gathers gradients on the way
  and DDP sees one backward pass.
- Its random numbers come from PyTorch's global generator, which `fit` seeds in every epoch, so resuming repeats them.

A recipe that passes a batch several times, moving the weights each time, is `Replaying`: the loop replays the batch,
and its drift takes in the gradient of the same backward pass. One that changes on the way is `Progressing`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from repulse.attacks import Norm, Threat
from repulse.common.errors import RepulseError
from repulse.common.evaluation_mode import evaluation_mode
from repulse.common.registry import Registry
from repulse.models import PrototypeClassifier
from repulse.training.losses import PerExample

Images = Float[Tensor, "N C H W"]
Labels = Int64[Tensor, "N"]
Values = Float[Tensor, "N"]


@dataclass(frozen=True)
class Task:
    """What is trained: the model (not wrapped by DDP), and its loss per example."""

    model: PrototypeClassifier
    per_example: PerExample

    def embed(self, x: Images) -> Float[Tensor, "N d"]:
        """The embeddings of images, in single precision under autocast too."""
        return self.model.embed(x).float()

    def loss(self, z: Float[Tensor, "N d"], y: Labels) -> Values:
        """The training loss of embeddings, one value per example."""
        return self.per_example(z, y, self.model)


class Outcome(NamedTuple):
    """What a recipe makes of a batch."""

    values: Values
    """What training minimises, one value per example."""
    z: Float[Tensor, "N d"]
    """Embeddings of the images that the training accuracy counts."""


@runtime_checkable
class Recipe(Protocol):
    """How a batch becomes values to minimise."""

    def __call__(self, task: Task, x: Images, y: Labels) -> Outcome:
        """The values of a batch, with gradients to the parameters."""


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
    """A recipe, or a backbone, that is told how far training has come."""

    def on_progress(self, share: float) -> None:
        """Before each step: which share of all steps is done, in [0, 1)."""


RECIPES: Registry[Callable[..., Recipe]] = Registry("recipe")


@RECIPES.register("standard")
@dataclass(frozen=True)
class Standard:
    """The training loss of the clean images. Cost: 1 forward pass, 1 backward."""

    def __call__(self, task: Task, x: Images, y: Labels) -> Outcome:
        """The loss as it is."""
        z = task.embed(x)
        return Outcome(task.loss(z, y), z)


@RECIPES.register("noise")
@dataclass(frozen=True)
class GaussianNoise:
    """The training loss of images with Gaussian noise added (Cohen et al. 2019, section 3.3).

    Pixels are not clamped: a smoothed classifier meets the same noise, and some of its pixels lie outside [0, 1] too.
    Cost: 1 forward pass, 1 backward.

    Args:
        sigma: standard deviation of the noise, in pixels of [0, 1]; not negative.

    Raises:
        RepulseError: if sigma is negative.
    """

    sigma: float = 0.25

    def __post_init__(self) -> None:
        not_negative("sigma", self.sigma)

    def __call__(self, task: Task, x: Images, y: Labels) -> Outcome:
        """The loss of noisy images."""
        z = task.embed(x + self.sigma * torch.randn_like(x))
        return Outcome(task.loss(z, y), z)


@RECIPES.register("fgsm-rs")
@dataclass(frozen=True)
class FGSMRS:
    """The training loss of images moved by one gradient step from a random start (Wong, Rice & Kolter 2020).

    Start uniform in the ball, one step of 1.25 eps along the gradient of the training loss itself, back into the ball
    and into [0, 1]. As in the source, batch norm is in training mode in both passes, and its running statistics see
    both. Cost: 2 forward passes, 2 backward.

    With an L2 ball the start lies on its surface: a point of the cube, brought into the ball.

    Args:
        eps: radius of the ball, in pixels of [0, 1].
        step_size: length of the step in the norm; None: 1.25 eps.
        norm: `linf`, as in the source, or `l2`.

    Raises:
        RepulseError: if a setting is out of range.
    """

    eps: float = 8 / 255
    step_size: float | None = None
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        attackable(self.norm, self.eps, 1, self.step_size)

    def __call__(self, task: Task, x: Images, y: Labels) -> Outcome:
        """The loss of adversarial images."""
        threat = Threat(self.norm, self.eps)
        images = one_step(lambda image: task.loss(task.embed(image), y), x, threat, self.step_size)
        z = task.embed(images)
        return Outcome(task.loss(z, y), z)


@RECIPES.register("pgd")
@dataclass(frozen=True)
class PGDTraining:
    """The training loss of images moved by projected gradient descent from a random start (Madry et al. 2018).

    As in the source, batch norm is in training mode in all passes. Cost: steps + 1 forward passes, as many backward.

    Args:
        eps: radius of the ball, in pixels of [0, 1].
        steps: gradient steps; 7 in the source, 10 is common.
        step_size: length of a step in the norm; None: a quarter of eps (2/255 for 8/255, as in the source).
        norm: `linf` or `l2`.

    Raises:
        RepulseError: if a setting is out of range.
    """

    eps: float = 8 / 255
    steps: int = 7
    step_size: float | None = None
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        attackable(self.norm, self.eps, self.steps, self.step_size)

    def __call__(self, task: Task, x: Images, y: Labels) -> Outcome:
        """The loss of adversarial images."""
        threat = Threat(self.norm, self.eps)
        step = self.eps / 4 if self.step_size is None else self.step_size
        start = random_start(x, threat)
        images = ascend(lambda image: task.loss(task.embed(image), y), start, x, threat, self.steps, step)
        z = task.embed(images)
        return Outcome(task.loss(z, y), z)


@RECIPES.register("trades")
@dataclass(frozen=True)
class TRADES:
    """The training loss of clean images, plus beta times how far the prediction moves in the ball (Zhang et al. 2019).

    `loss(x, y) + beta KL(p(x) || p(x'))`, where p is the softmax of the logits, and x' climbs the same divergence from
    a start 0.001 N(0, 1) off the clean image. As in the source, the model is in evaluation mode while x' is sought, and
    in training mode for the two passes that are minimised. The training accuracy counts the clean images.
    Cost: steps + 3 forward passes, steps + 2 backward (x and x' are two batches).

    Args:
        eps: radius of the ball, in pixels of [0, 1].
        steps: gradient steps.
        step_size: length of a step in the norm; None: a quarter of eps.
        beta: weight of the divergence; not negative; 6 in the source.
        norm: `linf` or `l2`.

    Raises:
        RepulseError: if a setting is out of range.
    """

    eps: float = 8 / 255
    steps: int = 10
    step_size: float | None = None
    beta: float = 6.0
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        attackable(self.norm, self.eps, self.steps, self.step_size)
        not_negative("beta", self.beta)

    def __call__(self, task: Task, x: Images, y: Labels) -> Outcome:
        """The loss of clean images plus the divergence at adversarial ones."""
        threat = Threat(self.norm, self.eps)
        step = self.eps / 4 if self.step_size is None else self.step_size
        classify = task.model.classify
        with evaluation_mode(task.model):
            # Detached rather than under no_grad: autocast would keep, and give to later passes, weights without graph.
            clean = classify(task.embed(x)).detach()
            start = threat.project(x + 0.001 * torch.randn_like(x), x)
            images = ascend(
                lambda image: divergence(clean, classify(task.embed(image))), start, x, threat, self.steps, step
            )
        z = task.embed(x)
        moved = divergence(classify(z), classify(task.embed(images)))
        return Outcome(task.loss(z, y) + self.beta * moved, z)


@RECIPES.register("input-gradient")
@dataclass(frozen=True)
class InputGradient:
    """The training loss, plus the squared dual norm of its gradient in the image (Finlay & Oberman 2021, eq. 5).

    `loss(x, y) + strength |grad_x loss(x, y)|^2`, with the L1 norm of the gradient against an L-inf threat, and L2
    against L2. The source differentiates by a finite difference; here it is exact, by a second backward pass through
    the first. Batch norm is in training mode. Cost: 1 forward pass, and 2 backward, the second about twice as long.

    Args:
        strength: weight of the penalty; not negative. The default is from a sweep on scikit-learn's digits, against
            L2; there 3 is too much to learn anything. The squared L1 norm of a gradient is larger than its squared L2
            norm by up to the number of pixels, so `linf` asks for a smaller strength (digits: 0.01 to 0.03).
        norm: of the threat: `linf` penalises the L1 norm of the gradient, `l2` its L2 norm.

    Raises:
        RepulseError: if a setting is out of range, or, when called, a part of the model has no second derivative.
    """

    strength: float = 0.3
    norm: Norm = "l2"

    def __post_init__(self) -> None:
        not_negative("strength", self.strength)
        Threat(self.norm, 0.0)

    # torch.compile has no second derivatives, so this recipe runs as it is even in a compiled step.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, task: Task, x: Images, y: Labels) -> Outcome:
        """The loss of clean images plus the penalty."""
        x = x.detach().requires_grad_()
        z = task.embed(x)
        values = task.loss(z, y)
        (gradient,) = torch.autograd.grad(values.sum(), x, create_graph=True)
        flat = gradient.flatten(1).float()
        square = flat.abs().sum(1).square() if self.norm == "linf" else flat.square().sum(1)
        return Outcome(values + self.strength * square, z)


@RECIPES.register("jacobian")
@dataclass(frozen=True)
class Jacobian:
    """The training loss, plus the squared Frobenius norm of the logits' Jacobian (Hoffman, Roberts & Yaida 2019).

    `loss(x, y) + strength / 2 |J(x)|_F^2`, with J (n, C H W) the derivative of the logits in the pixels. The norm is
    estimated without bias from one projection on a random unit vector v per image: `n |v J|^2` (the source's eq. 9).
    Batch norm is in training mode. Cost: 1 forward pass, and 2 backward, the second about twice as long.

    Args:
        strength: weight of the penalty; not negative; 0.01 in the source.

    Raises:
        RepulseError: if the strength is negative.
    """

    strength: float = 0.01

    def __post_init__(self) -> None:
        not_negative("strength", self.strength)

    # torch.compile has no second derivatives, so this recipe runs as it is even in a compiled step.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, task: Task, x: Images, y: Labels) -> Outcome:
        """The loss of clean images plus the penalty."""
        x = x.detach().requires_grad_()
        z = task.embed(x)
        logits = task.model.classify(z)
        v = F.normalize(torch.randn_like(logits), dim=1)
        (gradient,) = torch.autograd.grad((v * logits).sum(), x, create_graph=True)
        square = logits.shape[1] * gradient.flatten(1).float().square().sum(1)
        return Outcome(task.loss(z, y) + self.strength / 2 * square, z)


def random_start(x: Tensor, threat: Threat) -> Tensor:
    """A point of the ball for each image, drawn from PyTorch's global generator."""
    return threat.project(x + threat.eps * (2 * torch.rand_like(x) - 1), x)


def one_step(objective: Callable[[Tensor], Tensor], x: Images, threat: Threat, step_size: float | None) -> Images:
    """Images moved one step up an objective from a random start in the ball; None: 1.25 eps (Wong et al. 2020)."""
    step = 1.25 * threat.eps if step_size is None else step_size
    return ascend(objective, random_start(x, threat), x, threat, 1, step)


def ascend(
    objective: Callable[[Tensor], Tensor], images: Tensor, clean: Tensor, threat: Threat, steps: int, step_size: float
) -> Tensor:
    """Images after `steps` steepest steps up an objective that gives one value per image; without a graph."""
    for _ in range(steps):
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(images).sum(), images)
        images = threat.project(images.detach() + threat.steepest_step(gradient, step_size), clean)
    return images.detach()


def divergence(clean: Tensor, moved: Tensor) -> Tensor:
    """KL(softmax(clean) || softmax(moved)) for each row of logits."""
    p, q = F.log_softmax(clean.float(), 1), F.log_softmax(moved.float(), 1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)


def attackable(norm: Norm, eps: float, steps: int, step_size: float | None) -> None:
    """Refuse a ball or steps that no attack can take.

    Raises:
        RepulseError: if norm, eps, steps or step size is out of range.
    """
    Threat(norm, eps)
    if steps < 1:
        raise RepulseError(f"a recipe's steps must be at least 1, got {steps}")
    if step_size is not None and not step_size > 0:
        raise RepulseError(f"a recipe's step_size must be positive, got {step_size}")


def not_negative(name: str, value: float) -> None:
    """Refuse a setting that is not a finite number of at least 0.

    Raises:
        RepulseError: if so.
    """
    if not 0 <= value < float("inf"):
        raise RepulseError(f"a recipe's {name} must be a finite number, not negative, got {value}")
