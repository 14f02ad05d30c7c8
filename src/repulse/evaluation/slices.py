"""Slices of the loss surface: the margin around an image, along its attack and along a random direction."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from repulse.attacks import OBJECTIVES, Threat
from repulse.attacks.attack import attackable
from repulse.attacks.noise import Noise
from repulse.attacks.objectives import usable
from repulse.attacks.threat import column
from repulse.common.errors import RepulseError
from repulse.common.seeding import derive_seed
from repulse.evaluation.attack_runner import AttackRunner


def loss_slices(
    runner: AttackRunner,
    adversarial: Float[Tensor, "K *shape"],
    rows: Int64[Tensor, "K"],
    threat: Threat,
    *,
    size: int = 21,
    reach: float = 2.0,
) -> dict[str, Tensor]:
    """The margin on a plane through each image, as Li et al. 2018 and Qin et al. 2019 look for masked gradients.

    The first axis runs along the adversarial perturbation; for an image that no attack changed, along the steepest
    step of the margin. The second runs along a random sign pattern (L-inf), or a random direction at right angles to
    the first (L2), drawn from the seed and the image. Both directions have length 1 in the norm, so coordinates are
    distances. Images are clamped to the threat's range; the plane may leave the ball.

    Args:
        runner: the model and its clean images.
        adversarial: what the attacks found for these images; where they found nothing, the clean image.
        rows: which images.
        threat: the ball that the coordinates are measured by.
        size: S, points along each axis; odd, so that the clean image is one of them.
        reach: the largest coordinate, in multiples of eps.

    Returns:
        `slice/index` (K,) int32; `slice/eps` (S,) float32, coordinates from -reach * eps to reach * eps; `slice/margin`
        (K, S, S) float32, largest wrong logit minus the true one (positive: fooled), entry [k, i, j] at coordinate j
        along the attack and i along the random direction. Empty if there are no rows, or eps is zero.

    Raises:
        RepulseError: if size is even or below 3, or reach is not positive.
    """
    if size < 3 or size % 2 == 0:
        raise RepulseError(f"a slice needs an odd number of points, at least 3, got {size}")
    if not reach > 0:
        raise RepulseError(f"the reach of a slice must be positive, got {reach}")
    if len(rows) == 0 or threat.eps == 0:
        return {}
    axis = torch.linspace(-reach * threat.eps, reach * threat.eps, size)
    # Rounding must not move the clean image off the plane.
    axis[size // 2] = 0
    with attackable(runner.model), torch.random.fork_rng([runner.device] if runner.device.type == "cuda" else []):
        torch.manual_seed(derive_seed(runner.seed, "slices"))
        margins = [_plane(runner, found, row, threat, axis) for found, row in zip(adversarial, rows, strict=True)]
    return {"slice/index": rows.int(), "slice/eps": axis, "slice/margin": torch.stack(margins)}


def _plane(runner: AttackRunner, adversarial: Tensor, row: Tensor, threat: Threat, axis: Tensor) -> Tensor:
    """The margin of one image on its plane, (S, S)."""
    clean = runner.images[row][None]
    along, across = _directions(runner, clean, adversarial[None], row, threat)
    coordinates = torch.cartesian_prod(axis, axis)
    found = []
    for part in torch.split(coordinates, runner.batch_size):
        y, x = (column(along, clean).to(clean.dtype) for along in part.T)
        points = (clean + x * along + y * across).clamp(threat.low, threat.high).to(runner.device)
        with torch.no_grad():
            values, _ = OBJECTIVES["margin"](
                runner.model, points, runner.labels[row].expand(len(part)).to(runner.device)
            )
        found.append(values.float().cpu())
    return torch.cat(found).reshape(len(axis), len(axis))


def _directions(
    runner: AttackRunner, clean: Tensor, adversarial: Tensor, row: Tensor, threat: Threat
) -> tuple[Tensor, Tensor]:
    """The two directions (1, *shape), each of length 1 in the norm."""
    noise = Noise(runner.seed, runner.ids[row][None])
    along = adversarial - clean
    if not along.any():
        along = threat.steepest_step(_gradient(runner, clean, row), 1.0)
    if not along.any():
        # A model without a gradient has no steepest step: any direction is as good as another.
        along = threat.steepest_step(noise.normal(clean, "slice", "along"), 1.0)
    along = along / threat.distance(along, torch.zeros_like(along))
    across = noise.normal(clean, "slice", "across")
    if threat.norm == "l2":
        across = across - (across * along).sum() * along
    return along, threat.steepest_step(across, 1.0)


def _gradient(runner: AttackRunner, clean: Tensor, row: Tensor) -> Tensor:
    """The gradient of the margin at one clean image; zero where it is not a number or there is none."""
    x = clean.to(runner.device).requires_grad_()
    values, _ = OBJECTIVES["margin"](runner.model, x, runner.labels[row][None].to(runner.device))
    if not values.requires_grad:
        return torch.zeros_like(clean)
    (gradient,) = torch.autograd.grad(values.sum(), x, allow_unused=True)
    return torch.zeros_like(clean) if gradient is None else usable(gradient).cpu()
