"""L-inf-distance networks: 1-Lipschitz in L-inf by construction.

Sources: Zhang et al., *Towards Certifying L-infinity Robustness using Neural Networks with L-inf-dist Neurons*, ICML
2021; training as in Zhang et al., *Boosting the Certified Robustness of L-infinity Distance Nets*, ICLR 2022.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from repulse.models.pairwise_distance import pairwise_distance

FIRST_P, LAST_P = 8.0, 1000.0
"""p at the start of training, and at the end of its rise; then it is infinite (both sources)."""

RISE_BEGINS, RISE_ENDS = 0.08, 0.92
"""Shares of training: between them p rises. The second source has 100 to 1250 epochs of 1300."""


def p_at(share: float) -> float:
    """The p when a share in [0, 1] of training is done: 8, rising exponentially to 1000, then infinity."""
    if share >= RISE_ENDS:
        return math.inf
    risen = max(0.0, share - RISE_BEGINS) / (RISE_ENDS - RISE_BEGINS)
    return float(FIRST_P * (LAST_P / FIRST_P) ** risen)


class LinfDistance(nn.Module):
    """Distances to learned points, `z_j = |x - w_j|_p`; in evaluation mode always with `p = inf`.

    At `p = inf` it is 1-Lipschitz in L-inf; at a smaller p it is not, but trains better. So the network that is
    evaluated, saved and certified is the one with `p = inf`, also in the middle of training.

    Args:
        inputs: D, dimension of the inputs.
        outputs: M, number of points.
        scale: deviation of the points at the start: about that of the inputs.
    """

    p: float
    """What training uses; `LinfDistanceNet.on_progress` sets it."""

    def __init__(self, inputs: int, outputs: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.p = FIRST_P
        self.weight = nn.Parameter(scale * torch.randn(outputs, inputs))
        if inputs <= outputs:
            # With |x_i + 10 scale| the largest difference, a layer starts by passing its inputs on (the sources' code).
            with torch.no_grad():
                unit = torch.arange(outputs)
                self.weight[unit, unit % inputs] = -10.0 * scale

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N M"]:
        """The distances."""
        return pairwise_distance(x, self.weight, self.p if self.training else math.inf)

    def extra_repr(self) -> str:
        """Inputs, outputs and p."""
        outputs, inputs = self.weight.shape
        return f"inputs={inputs}, outputs={outputs}, p={self.p if self.training else math.inf:g}"


class MeanShift(nn.Module):
    """Subtract the mean of each coordinate, of the batch in training, a running one in evaluation mode; add a bias.

    What is left of batch norm when nothing may be scaled (first source). In evaluation mode it adds
    a constant, so it is 1-Lipschitz.

    Args:
        size: D, number of coordinates.
        momentum: share of a new mean in the running one.
        bias: whether to add a learned number to each coordinate.
    """

    mean: Tensor

    def __init__(self, size: int, momentum: float = 0.1, *, bias: bool = False) -> None:
        super().__init__()
        self.momentum = momentum
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None
        self.register_buffer("mean", torch.zeros(size))

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """The inputs, shifted."""
        mean = self.mean
        if self.training:
            mean = x.mean(0)
            with torch.no_grad():
                self.mean.lerp_(mean.to(self.mean.dtype), self.momentum)
        z = x - mean
        return z if self.bias is None else z + self.bias


class LinfDistanceNet(nn.Module):
    """Average pooling to a small grid, then layers of L-inf distances, each with mean shift; the sign is turned.

    An embedding says how near the last layer's points are, so its coordinates can be logits. In evaluation mode the
    network is 1-Lipschitz from L-inf to L-inf: averages, distances and shifts all are.

    Args:
        channels: C of the images.
        dimension: d of the embeddings.
        width: points in each layer but the last.
        depth: layers, at least 1.
        grid: side of the pooled image; images of any size come down, or up, to it.
        scale: deviation of all points at the start; 0.35 is about that of pixels in [0, 1].
    """

    def __init__(
        self, channels: int, dimension: int, width: int, *, depth: int = 3, grid: int = 14, scale: float = 0.35
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(grid), nn.Flatten()]
        inputs = channels * grid * grid
        for _ in range(depth - 1):
            layers += [LinfDistance(inputs, width, scale=scale), MeanShift(width)]
            inputs = width
        # The source's last layer has a bias and no shift; here prototypes around the origin want both.
        layers += [LinfDistance(inputs, dimension, scale=scale), MeanShift(dimension, bias=True)]
        self.layers = nn.Sequential(*layers)
        self.on_progress(0.0)

    def on_progress(self, share: float) -> None:
        """Set p for training, from the share of training that is done, in [0, 1]."""
        self.p = p_at(share)
        for layer in self.layers:
            if isinstance(layer, LinfDistance):
                layer.p = self.p

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N d"]:
        """Normalised images to embeddings."""
        z: Tensor = -self.layers(x)
        return z
