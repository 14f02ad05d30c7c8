"""HopSkipJump: an attack that sees decisions only, no logits and no gradients."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from repulse.attacks.attack import ATTACKS, Attack
from repulse.attacks.noise import Noise
from repulse.attacks.standing import Standing
from repulse.attacks.threat import Norm, column
from repulse.common.errors import RepulseError

_STARTS_AT_ONCE = 50


@ATTACKS.register("hop-skip-jump")
@dataclass(frozen=True, eq=False)
class HopSkipJump(Attack):
    """HopSkipJump (Chen, Jordan & Wainwright 2020), foolbox's, one image after the other.

    It starts from an adversarial image far away and walks along the boundary towards the clean image, until it is
    inside the ball. Foolbox scales the gradient that it estimates by the length of the whole batch, so images go alone;
    the points that estimate a gradient are asked for at once instead of one by one. An image for which no start is
    found counts as robust.

    Args:
        steps: steps along the boundary.
        initial_gradient_eval_steps: points that estimate the first gradient; later ones take more, by the root of the
            step's number.
        max_gradient_eval_steps: the most points that estimate one gradient.
        starts: random images, at most, black-and-white and uniform by turns and blended with the clean one more and
            more; 50 are asked at a time, until one is adversarial. The nearest such is the start.
        start: a batch of images that may serve as start too, such as images of other classes.
        queries: forward passes per image, at most.

    Raises:
        RepulseError: if a count is below 1; when called, if foolbox is not installed.
    """

    black_box: ClassVar[bool] = True

    steps: int = 10
    initial_gradient_eval_steps: int = 50
    max_gradient_eval_steps: int = 100
    starts: int = 500
    start: Tensor | None = None
    queries: int = 5000

    def __post_init__(self) -> None:
        for name in ("steps", "initial_gradient_eval_steps", "max_gradient_eval_steps", "starts", "queries"):
            if getattr(self, name) < 1:
                raise RepulseError(f"{name} must be at least 1, got {getattr(self, name)}")

    def search(self, standing: Standing) -> None:
        """Walk until inside the ball or out of steps or queries; the nearest adversarial image seen is kept."""
        try:
            import foolbox  # noqa: F401
        except ImportError as error:
            raise RepulseError("HopSkipJump needs foolbox: pip install 'repulse[blackbox]'") from error
        for row in standing.rows:
            with contextlib.suppress(_EnoughError):
                self._walk(_Oracle(standing, int(row), self.queries), standing.noise.take(row[None]))

    def _walk(self, oracle: _Oracle, noise: Noise) -> None:
        oracle(oracle.unit)
        if self.start is not None:
            oracle(oracle.to_unit(self.start.to(oracle.unit)))
        for drawn in range(0, self.starts, _STARTS_AT_ONCE):
            if oracle.succeeded:
                break
            oracle(_blends(oracle.unit, min(_STARTS_AT_ONCE, self.starts - drawn), noise, drawn))
        if not oracle.succeeded:
            return
        attack = _batched(self, oracle.standing.threat.norm, noise)
        from foolbox.models.pytorch import PyTorchModel

        try:
            attack.run(
                PyTorchModel(oracle, bounds=(0, 1), device=oracle.unit.device),
                oracle.unit,
                _wrong(),
                starting_points=oracle.to_unit(oracle.nearest),
            )
        except AssertionError:
            # Foolbox asserts that what was adversarial still is; a model that changes its mind ends the walk here.
            return


def _blends(clean: Float[Tensor, "1 *shape"], count: int, noise: Noise, drawn: int) -> Float[Tensor, "M *shape"]:
    """The clean image, blended with random ones from a little to wholly."""
    random = noise.uniform(clean.unsqueeze(1).expand(-1, count, *clean.shape[1:]), "hop-skip-jump", "start", drawn)[0]
    random[::2] = random[::2].round()
    share = torch.linspace(1 / count, 1, count).to(random)
    return clean + column(share, random) * (random - clean)


class _EnoughError(Exception):
    """Nothing is left to ask for."""


class _Oracle(nn.Module):
    """One image's model: foolbox asks it in pixels from 0 to 1, and learns what it decides (N, 2): right, or wrong."""

    def __init__(self, standing: Standing, row: int, queries: int) -> None:
        super().__init__()
        self.standing, self.row, self.queries, self.asked = standing, row, queries, 0
        self.unit = self.to_unit(standing.clean[row, None]).clamp(0, 1)
        self.eval()

    @property
    def nearest(self) -> Float[Tensor, "1 *shape"]:
        """The nearest adversarial image so far."""
        return self.standing.nearest[self.row, None]

    @property
    def succeeded(self) -> bool:
        """Whether any image fooled."""
        return bool(self.standing.distance[self.row].isfinite())

    def to_unit(self, images: Float[Tensor, "N *shape"]) -> Float[Tensor, "N *shape"]:
        """Pixels from the threat's range to 0 to 1."""
        threat = self.standing.threat
        return (images - threat.low) / (threat.high - threat.low)

    def forward(self, unit: Float[Tensor, "N *shape"]) -> Float[Tensor, "N 2"]:
        """Decisions; ends the walk inside the ball or when there are no queries left."""
        threat = self.standing.threat
        images = threat.low + (threat.high - threat.low) * unit
        images = images[: self.queries - self.asked]
        if len(images) == 0:
            raise _EnoughError
        fooled = self.standing.ask_around(images, self.row)
        self.asked += len(images)
        if self.standing.distance[self.row] <= self.standing.enough or len(images) < len(unit):
            raise _EnoughError
        return torch.stack((~fooled, fooled), 1).to(unit)


def _wrong() -> Any:
    """Foolbox's predicate of success on the oracle's decisions."""
    from eagerpy.astensor import astensor
    from foolbox.criteria import Criterion

    class Wrong(Criterion):
        def __repr__(self) -> str:
            return "Wrong()"

        def __call__(self, perturbed: Any, outputs: Any) -> Any:  # noqa: ARG002
            return astensor(outputs.raw.argmax(1) == 1)

    return Wrong()


def _batched(settings: HopSkipJump, norm: Norm, noise: Noise) -> Any:
    """Foolbox's attack on one image, its gradients estimated from one batch of the image's own noise."""
    from eagerpy.astensor import astensor
    from foolbox.attacks.hop_skip_jump import HopSkipJumpAttack

    class Batched(HopSkipJumpAttack):
        estimates = 0

        def approximate_gradients(self, is_adversarial: Any, x_advs: Any, steps: int, delta: Any) -> Any:
            """Chen et al. 2020, eq. 16: directions, weighted by whether a small step along them stays adversarial."""
            self.estimates += 1
            image, length = x_advs.raw, delta.raw.item()
            draw, key = image.unsqueeze(1).expand(-1, steps, *image.shape[1:]), ("hop-skip-jump", self.estimates)
            rays = (noise.normal(draw, *key) if norm == "l2" else 2 * noise.uniform(draw, *key) - 1)[0]
            rays = rays / column(rays.flatten(1).norm(dim=1), rays)
            points = (image + length * rays).clamp(0, 1)
            rays = (points - image) / (length + 1e-8)
            signs = 2 * is_adversarial(astensor(points)).raw.to(rays) - 1
            mean = signs.mean()
            # Where all points agree their mean would leave nothing.
            weights = signs if mean.abs() == 1 else signs - mean
            gradient = (column(weights, rays) * rays).mean(0, keepdim=True)
            return astensor(gradient / (gradient.norm() + 1e-12))

    return Batched(
        steps=settings.steps,
        initial_gradient_eval_steps=settings.initial_gradient_eval_steps,
        max_gradient_eval_steps=settings.max_gradient_eval_steps,
        constraint=norm,
    )
