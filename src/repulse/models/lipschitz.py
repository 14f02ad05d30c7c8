"""A network that cannot move an embedding further than the image has moved: 1-Lipschitz in L2.

Every part keeps norms or lets them shrink: orthogonal mixing of channels, shifts of channels by a pixel, absolute
values, and halvings of the image that only move pixels into channels. The spectral norm of such a part is that of one
small matrix, so the bound is not estimated but read off (`repulse.certification.lipschitz_bound`), and nothing is
lost to a loose one.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from repulse.common.errors import RepulseError


def orthonormal(weight: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
    """The rows (or, of a tall matrix, the columns) of `weight` made orthonormal: the Gram-Schmidt process.

    `L^-1 W` with the Cholesky factor `L L^T = W W^T`. In double precision whatever comes in: then the spectral norm
    differs from 1 by what rounding the result to single precision does to it, some 1e-8.

    Raises:
        RepulseError: if the rows are linearly dependent, or not finite.
    """
    wide = weight.double() if len(weight) <= weight.shape[1] else weight.double().T
    try:
        rows = torch.linalg.solve_triangular(torch.linalg.cholesky(wide @ wide.T), wide, upper=False)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise RepulseError(
            "the weights of an orthogonal layer have become linearly dependent or are no longer numbers; try a smaller "
            "learning rate"
        ) from error
    result: Tensor = (rows if rows.shape == weight.shape else rows.T).to(weight.dtype)
    return result


L = TypeVar("L", nn.Conv2d, nn.Linear)


class OrthogonalConv2d(nn.Module):
    """A 1x1 convolution whose matrix of channels has orthonormal rows or columns, with an offset.

    It keeps the norm of every pixel if `outputs >= inputs`, and never raises it.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(outputs, inputs)))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Float[Tensor, "N i H W"]) -> Float[Tensor, "N o H W"]:
        """Mix the channels of every pixel."""
        return F.conv2d(x, orthonormal(self.weight)[:, :, None, None].to(x.dtype), self.bias.to(x.dtype))

    def plain(self) -> nn.Conv2d:
        """The same map as an ordinary convolution."""
        conv = nn.Conv2d(self.weight.shape[1], self.weight.shape[0], 1)
        return _filled(conv, orthonormal(self.weight)[:, :, None, None], self.bias)


class OrthogonalLinear(nn.Module):
    """A dense layer whose matrix has orthonormal rows or columns, with an offset.

    Args:
        inputs: features that come in.
        outputs: features that go out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(outputs, inputs)))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Float[Tensor, "N i"]) -> Float[Tensor, "N o"]:
        """Mix the features."""
        return F.linear(x, orthonormal(self.weight).to(x.dtype), self.bias.to(x.dtype))

    def plain(self) -> nn.Linear:
        """The same map as an ordinary dense layer."""
        return _filled(nn.Linear(self.weight.shape[1], self.weight.shape[0]), orthonormal(self.weight), self.bias)


class HalfAbs(nn.Module):
    """The absolute value of the first half of the channels; the others pass.

    Between orthogonal layers it is as expressive as MaxMin (Anil et al. 2019), for `(max, min)` of `(a, b)` is
    `(s + |d|, s - |d|) / 2` with `s = a + b`, `d = a - b`: a rotation before, and one after. Its gradient is cheaper.
    """

    def forward(self, x: Float[Tensor, "N C *rest"]) -> Float[Tensor, "N C *rest"]:
        """Fold half of the channels."""
        half = x.shape[1] // 2
        if self.training:
            folded: Tensor = _ScaledHalf.apply(x, x.detach()[:, :half].sign())  # type: ignore[no-untyped-call]
            return folded
        return torch.cat((x[:, :half].abs(), x[:, half:]), 1)


class _ScaledHalf(torch.autograd.Function):
    """The first channels times a constant, in one copy; the gradient of slices and `cat` takes five."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        scaled = x.clone()
        scaled[:, : factor.shape[1]] *= factor
        return scaled

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _ScaledHalf.apply(grad, *ctx.saved_tensors), None  # type: ignore[no-untyped-call]


class Shift(nn.Module):
    """An eighth of the channels moves by one pixel in each of the four directions; zeros come in, the rest stays.

    This is how pixels meet between 1x1 convolutions (Wu et al. 2018, *Shift: a zero FLOP, zero parameter alternative
    to spatial convolutions*). What leaves the image is lost, so the norm shrinks or stays.
    """

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Move half of the channels."""
        part = x.shape[1] // 8
        if self.training and x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last):
            return _shifted_by_convolution(x, part)
        down, up, right, left, rest = torch.split(x, [part, part, part, part, x.shape[1] - 4 * part], 1)
        return torch.cat(
            (
                F.pad(down[:, :, :-1], (0, 0, 1, 0)),
                F.pad(up[:, :, 1:], (0, 0, 0, 1)),
                F.pad(right[:, :, :, :-1], (1, 0)),
                F.pad(left[:, :, :, 1:], (0, 1)),
                rest,
            ),
            1,
        )


def _shifted_by_convolution(x: Tensor, part: int) -> Tensor:
    """`Shift` as a convolution per channel, with a single one in each kernel: faster where pixels lie together.

    In training only: some settings and devices round what a convolution is given.
    """
    channels = x.shape[1]
    kernels = x.new_zeros(channels, 1, 3, 3)
    for i, (row, column) in enumerate(((0, 1), (2, 1), (1, 0), (1, 2))):
        kernels[i * part : (i + 1) * part, 0, row, column] = 1
    kernels[4 * part :, 0, 1, 1] = 1
    return F.conv2d(x, kernels, padding=1, groups=channels)


class Halve(nn.Module):
    """Each 2x2 block of pixels becomes one pixel of four times the channels; an odd side gets a row of zeros first."""

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C4 H2 W2"]:
        """Move pixels into channels."""
        return F.pixel_unshuffle(F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)), 2)


class SumPool(nn.Module):
    """The sum over all positions over the root of their number: the mean, scaled so that its norm is 1."""

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C"]:
        """One value per channel."""
        pooled: Tensor = x.sum((2, 3)) / float(x.shape[2] * x.shape[3]) ** 0.5
        return pooled


class LipschitzCNN(nn.Sequential):
    """Five halvings of the image with orthogonal mixing of channels between them, then an orthogonal dense layer.

    Widths are w, 4w, 8w, 8w, 8w. After a halving, channels are mixed and folded (`HalfAbs`); `depth` times more they
    are shifted, mixed and folded at the first two sizes. Up to 32x32 pixels the last map has one position, so nothing
    is pooled; what is left of larger images is summed. The layers are those of LipNeXt (Hu, Hu & Fredrikson, ICLR
    2026: orthogonal mixing, spatial shift, absolute values), without its optimiser on the orthogonal group.

    Args:
        channels: C of the images.
        dimension: d of the embeddings.
        width: w, channels after the first halving; at least 8, and even.
        depth: shifts at each of the first two sizes.

    Raises:
        RepulseError: if the width is too small or odd.
    """

    def __init__(self, channels: int, dimension: int, width: int = 16, depth: int = 3) -> None:
        if width < 8 or width % 2:
            raise RepulseError(f"lipschitz-cnn needs an even number of at least 8 channels, got {width}: raise width")
        layers: list[nn.Module] = []
        inputs = channels
        for factor, shifts in ((1, depth), (4, depth), (8, 0), (8, 0), (8, 0)):
            outputs = factor * width
            layers += [Halve(), OrthogonalConv2d(4 * inputs, outputs), HalfAbs()]
            for _ in range(shifts):
                layers += [Shift(), OrthogonalConv2d(outputs, outputs), HalfAbs()]
            inputs = outputs
        super().__init__(*layers, SumPool(), OrthogonalLinear(inputs, dimension))


def frozen(model: nn.Module) -> nn.Module:
    """A copy whose orthogonal layers are ordinary ones with the weights they have now, in evaluation mode.

    The copy computes the same, faster, and any exporter takes it; training it would leave the orthogonal matrices.
    """
    copied = copy.deepcopy(model).eval()
    if isinstance(copied, OrthogonalConv2d | OrthogonalLinear):
        return copied.plain()
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, OrthogonalConv2d | OrthogonalLinear):
                setattr(parent, name, child.plain())
    return copied.eval()


def _filled(layer: L, weight: Tensor, bias: Tensor) -> L:
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)  # type: ignore[union-attr]
    return layer.to(weight).requires_grad_(False)
