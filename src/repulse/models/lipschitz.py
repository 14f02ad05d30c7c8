"""A network that cannot move an embedding further than the image has moved: 1-Lipschitz in L2.

Every part keeps norms or lets them shrink: orthogonal mixing of channels, shifts of channels by a pixel, absolute
values, and halvings of the image that only move pixels into channels. The spectral norm of such a part is that of one
small matrix, so the bound is not estimated but read off (`repulse.certification.lipschitz_bound`), and nothing is
lost to a loose one.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.utils import parametrize, skip_init

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


class Orthonormal(nn.Module):
    """The parametrisation of an orthogonal layer: its weight is always `orthonormal` of what is trained."""

    def forward(self, weight: Float[Tensor, "o i *ones"]) -> Float[Tensor, "o i *ones"]:
        """The weight that the layer uses."""
        return orthonormal(weight.flatten(1)).view(weight.shape)


def orthogonal_conv2d(inputs: int, outputs: int) -> nn.Conv2d:
    """A 1x1 convolution whose matrix of channels has orthonormal rows or columns, with an offset.

    It keeps the norm of every pixel if `outputs >= inputs`, and never raises it.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
    """
    return _orthogonal(nn.Conv2d, inputs, outputs, 1)


def orthogonal_linear(inputs: int, outputs: int) -> nn.Linear:
    """A dense layer whose matrix has orthonormal rows or columns, with an offset.

    Args:
        inputs: features that come in.
        outputs: features that go out.
    """
    return _orthogonal(nn.Linear, inputs, outputs)


L = TypeVar("L", nn.Conv2d, nn.Linear)


def _orthogonal(kind: type[L], *shape: int) -> L:
    layer: L = skip_init(kind, *shape)  # type: ignore[no-untyped-call]
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    parametrize.register_parametrization(layer, "weight", Orthonormal())
    # PyTorch 2.4 has it under this name only.
    layer._register_load_state_dict_pre_hook(_take_older_names, with_module=True)  # type: ignore[no-untyped-call]
    return layer


def _take_older_names(layer: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Older checkpoints call the weight of an orthogonal layer `weight`, and it is always a matrix."""
    # A copy with fixed weights keeps the hook.
    if f"{prefix}weight" in state and parametrize.is_parametrized(layer, "weight"):
        weight = state.pop(f"{prefix}weight")
        ones = (1, 1) if isinstance(layer, nn.Conv2d) else ()
        state[f"{prefix}parametrizations.weight.original"] = weight.reshape(*weight.shape, *ones)


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
            layers += [Halve(), orthogonal_conv2d(4 * inputs, outputs), HalfAbs()]
            for _ in range(shifts):
                layers += [Shift(), orthogonal_conv2d(outputs, outputs), HalfAbs()]
            inputs = outputs
        super().__init__(*layers, SumPool(), orthogonal_linear(inputs, dimension))
