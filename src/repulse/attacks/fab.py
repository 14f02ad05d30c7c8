"""FAB: walk along the decision boundary towards the clean image.

Source: Croce & Hein, *Minimally distorted adversarial examples with a fast adaptive boundary attack*, ICML 2020, in
the targeted form of their AutoAttack (2020), which needs one gradient per step whatever the number of classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from repulse.attacks.attack import ATTACKS
from repulse.attacks.minimum_norm import MinimumNorm, at_least
from repulse.attacks.standing import Standing
from repulse.attacks.targets import margin_targeted, nearest_wrong_classes
from repulse.attacks.threat import Threat, column

# Section 4 of the source: overshoot, most weight of the clean image, and how far to step back from a success.
OVERSHOOT, MOST_WEIGHT, STEP_BACK = 1.05, 0.1, 0.9


@ATTACKS.register("fab")
@dataclass(frozen=True)
class FAB(MinimumNorm):
    """Targeted FAB towards each of the likeliest wrong classes in turn, from the clean image.

    Each step projects the present point and the clean image onto the boundary as the gradient shows it, within the
    range of pixels, and goes to a point between. A success that lies too far away leads back towards the clean image,
    and the walk goes on; one inside the ball ends it.

    After a success the source asks for the gradient anew at the point stepped back to. Here the step back keeps the
    boundary found at the success, which lies near: two passes a step instead of three.

    Args:
        targets: how many classes to aim at, the likeliest on the clean image first; at most all wrong ones.
        steps: gradient steps per target.

    Raises:
        RepulseError: if steps or targets are below 1.
    """

    targets: int = 9
    steps: int = 100

    def __post_init__(self) -> None:
        at_least(steps=(self.steps, 1), targets=(self.targets, 1), bisections=(self.bisections, 0))

    def walk(self, standing: Standing) -> None:
        """Walk towards every target; stop at the first success near enough. Nothing here is random."""
        if len(standing.rows) == 0:
            return
        threat = standing.threat
        targets = nearest_wrong_classes(standing.clean_logits(), standing.labels, self.targets)
        for target in targets.unbind(1):
            rows = standing.rows
            images = standing.clean[rows]
            for taken in range(self.steps + 1):
                answer = standing.ask(images, rows, standing.towards(target, margin_targeted), gradient=True)
                if len(answer.stay) == 0 or taken == self.steps:
                    break
                # The boundary seen from here: gradient . z = level.
                gradient, clean = answer.gradient, standing.clean[rows]
                level = (gradient * images).flatten(1).sum(1) - answer.values
                images = torch.where(column(answer.fooled, images), clean + STEP_BACK * (images - clean), images)
                rows, images, clean, gradient, level = (
                    part[answer.stay] for part in (rows, images, clean, gradient, level)
                )
                images = _step(images, clean, gradient, level, threat)


def _step(images: Tensor, clean: Tensor, gradient: Tensor, level: Tensor, threat: Threat) -> Tensor:
    """Between the projections of the present point and of the clean image (eq. 8 to 10 of the source)."""
    both = to_hyperplane(torch.cat((images, clean)), torch.cat((gradient, gradient)), torch.cat((level, level)), threat)
    lengths = threat.distance(both, torch.zeros_like(both)).clamp_min(1e-8)
    from_image, from_clean = both.chunk(2)
    near, far = lengths.chunk(2)
    weight = column((near / (near + far)).clamp_max(MOST_WEIGHT), images)
    moved = (1 - weight) * (images + OVERSHOOT * from_image) + weight * (clean + OVERSHOOT * from_clean)
    return moved.clamp(threat.low, threat.high)


def to_hyperplane(
    points: Float[Tensor, "N *shape"], normal: Float[Tensor, "N *shape"], level: Float[Tensor, "N"], threat: Threat
) -> Float[Tensor, "N *shape"]:
    """The shortest move, in the norm and within the range of pixels, from each point to `normal . z = level`.

    Every pixel moves the way of the normal by `min(r u, cap)`: `cap` is the room that it has, and `u` is 1 in L-inf and
    the size of the normal's entry in L2. What that gains is concave and piecewise linear in `r`, so Newton's method
    from 0 climbs to the exact root in a few steps, without sorting. Where the range ends first, all of it is used.
    """
    flat, weights = points.flatten(1), normal.flatten(1)
    missing = level - (weights * flat).sum(1)
    # Turned so that the gain must be positive.
    weights = torch.where(missing.unsqueeze(1) < 0, -weights, weights)
    missing = missing.abs()
    cap = torch.where(weights > 0, threat.high - flat, flat - threat.low)
    size = weights.abs()
    cap = torch.where(size > 0, cap, torch.zeros_like(cap))
    rate = torch.ones_like(size) if threat.norm == "linf" else size
    reach = torch.zeros_like(missing)
    # 20 steps: each adds at least one kink, usually most of them; two to five are enough in practice.
    for _ in range(20):
        wanted = reach.unsqueeze(1) * rate
        gain = (size * torch.minimum(wanted, cap)).sum(1)
        slope = (size * rate * (wanted < cap)).sum(1)
        short = missing - gain
        more = (short > 1e-6 * missing) & (slope > 0)
        if not bool(more.any()):
            break
        reach = torch.where(more, reach + short / slope.clamp_min(1e-30), reach)
    return (weights.sign() * torch.minimum(reach.unsqueeze(1) * rate, cap)).reshape(points.shape)
