"""All p-distances between two sets of points, in bounded memory, with a gradient: the kernel of L-inf-distance nets.

One layer of such a network has N x M x D differences, which a plain broadcast keeps in memory several times over.
`torch.cdist` keeps none, but it takes powers without scaling, so that distances overflow or vanish at p = 1000, and its
power is not vectorised. Here blocks of differences pass through a few vectorised operations in place, and the backward
pass makes the blocks anew. `benchmarks/linf_kernel.py` compares the three, and what `torch.compile` makes of the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK_NUMBERS = {"cpu": 1 << 17, "other": 1 << 25}
"""Numbers in one block of differences: what stays in a core's cache, or 128 MiB of float32 on another device.

The kernel holds at most four blocks at once, beside its arguments and results. One point against one point is the
smallest block, so a block has at least D numbers.
"""

# Powers are cut off at exp of this: far below the rounding of a sum that is at least 1, and above the denormal numbers,
# which slow a CPU down tenfold.
_FLOOR = {torch.float32: -40.0, torch.float64: -200.0}

# Parts of a gradient that are smaller than this part of its largest are 0.
_DUST = 1e-14

# Widest coordinates are looked for in groups: a largest value is found ten times as fast as its position.
_GROUP = 32


def pairwise_distance(
    x: Float[Tensor, "N D"], w: Float[Tensor, "M D"], p: float = math.inf, *, block_numbers: int | None = None
) -> Float[Tensor, "N M"]:
    """`|x_i - w_j|_p = (sum_k |x_ik - w_jk|^p)^(1/p)` for all pairs; at `p = inf` the largest difference.

    Differences are divided by the largest of their pair before powers are taken, so that nothing overflows at any p.
    The gradient of a distance that is 0 is 0; at `p = inf` it passes through one of the largest coordinates. There is
    no second derivative. Half precision is computed in float32, where a gradient's relative error is about p x 1e-7.

    Args:
        x: N points.
        w: M points.
        p: at least 2, or infinity.
        block_numbers: numbers in one block of differences, at least 1; None: `BLOCK_NUMBERS` of the device.

    Raises:
        ValueError: if p is less than 2.
    """
    if not p >= 2:
        raise ValueError(f"p must be at least 2, got {p}")
    if torch.float64 not in (x.dtype, w.dtype):
        x, w = x.float(), w.float()
    traced = torch.jit.is_tracing() or torch.compiler.is_exporting()  # type: ignore[attr-defined, no-untyped-call]
    if traced and math.isinf(p):
        # Blocks depend on the size of the batch, which an exported program leaves open.
        return (x.unsqueeze(1) - w).abs().amax(2)
    size = block_numbers or BLOCK_NUMBERS.get(x.device.type, BLOCK_NUMBERS["other"])
    distances: Tensor = _PairwiseDistance.apply(x.contiguous(), w.contiguous(), float(p), size)  # type: ignore[no-untyped-call]
    return distances


class _PairwiseDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, p: float, size: int) -> Tensor:
        ctx.p, ctx.size = p, size
        if not math.isinf(p):
            distances = _distances(x, w, p, size)
            ctx.save_for_backward(x, w, distances)
        elif any(ctx.needs_input_grad):
            distances, widest = _largest_differences_and_where(x, w, size)
            ctx.save_for_backward(x, w, widest)
        else:
            distances = _largest_differences(x, w, size)
        return distances

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, w, kept = ctx.saved_tensors
        if math.isinf(ctx.p):
            return *_through_the_widest(x, w, kept, gradient), None, None
        return *_through_the_powers(x, w, kept, gradient, ctx.p, ctx.size), None, None


def _blocks(x: Tensor, w: Tensor, size: int) -> Iterator[tuple[slice, slice]]:
    """Rows of x and rows of w whose differences are at most `size` numbers; together all pairs."""
    pairs = max(1, size // x.shape[1])
    columns = min(len(w), pairs)
    rows = max(1, pairs // columns)
    for row in range(0, len(x), rows):
        for column in range(0, len(w), columns):
            yield slice(row, row + rows), slice(column, column + columns)


def _distances(x: Tensor, w: Tensor, p: float, size: int) -> Tensor:
    result = x.new_empty(len(x), len(w))
    for rows, columns in _blocks(x, w, size):
        block = (x[rows].unsqueeze(1) - w[columns]).abs_()
        largest = block.amax(2)
        _scaled_power(block, largest, p)
        result[rows, columns] = largest * block.sum(2).pow_(1 / p)
    return result


def _scaled_power(block: Tensor, scale: Tensor, exponent: float) -> None:
    """`(block / scale)^exponent` in place, for a block that is not negative; nothing is scaled by 0."""
    # Logarithm and exponential are vectorised, and ten times as fast as PyTorch's power.
    shift = scale.clamp_min(torch.finfo(block.dtype).tiny).log_().mul_(-exponent).unsqueeze(2)
    torch.add(shift, block.log_(), alpha=exponent, out=block)
    block.clamp_min_(_FLOOR[block.dtype]).exp_()


def _through_the_powers(
    x: Tensor, w: Tensor, distances: Tensor, gradient: Tensor, p: float, size: int
) -> tuple[Tensor, Tensor]:
    """Gradients in x and w: `d |d|_p / d d_k = sign(d_k) (|d_k| / |d|_p)^(p-1)`, the sign and one power by d itself."""
    along_x, along_w = torch.zeros_like(x), torch.zeros_like(w)
    factor = torch.where(distances > 0, gradient / distances, 0.0)
    for rows, columns in _blocks(x, w, size):
        block = x[rows].unsqueeze(1) - w[columns]
        if p > 2:
            powers = block.abs()
            _scaled_power(powers, distances[rows, columns], p - 2)
            block.mul_(powers)
        block.mul_(factor[rows, columns].unsqueeze(2))
        along_x[rows] += block.sum(1)
        along_w[columns] -= block.sum(0)
    return _without_dust(along_x), _without_dust(along_w)


def _without_dust(gradient: Tensor) -> Tensor:
    # An optimiser squares gradients, and squares of what the floor left behind would be denormal numbers.
    return gradient * (gradient.abs() > _DUST * gradient.abs().amax())


def _largest_differences(x: Tensor, w: Tensor, size: int) -> Tensor:
    result = x.new_empty(len(x), len(w))
    for rows, columns in _blocks(x, w, size):
        result[rows, columns] = (x[rows].unsqueeze(1) - w[columns]).abs_().amax(2)
    return result


def _largest_differences_and_where(x: Tensor, w: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The largest differences, and the coordinate of each."""
    result = x.new_empty(len(x), len(w))
    widest = torch.empty(len(x), len(w), dtype=torch.int64, device=x.device)
    # Padding adds differences of 0, which are the largest only where all are 0: there any coordinate will do.
    padding = -x.shape[1] % _GROUP
    x_padded, w_padded = torch.nn.functional.pad(x, (0, padding)), torch.nn.functional.pad(w, (0, padding))
    for rows, columns in _blocks(x_padded, w_padded, size):
        block = (x_padded[rows].unsqueeze(1) - w_padded[columns]).abs_()
        block = block.view(*block.shape[:2], -1, _GROUP)
        largest, group = block.amax(3).max(2)
        index = group[..., None, None].expand(-1, -1, 1, _GROUP)
        result[rows, columns] = largest
        widest[rows, columns] = group * _GROUP + block.gather(2, index).squeeze(2).argmax(2)
    return result, widest.clamp_(max=x.shape[1] - 1)


def _through_the_widest(x: Tensor, w: Tensor, widest: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    difference = x.gather(1, widest) - w.T.gather(0, widest)
    pull = gradient * difference.sign_()
    along_x = torch.zeros_like(x).scatter_add_(1, widest, pull)
    along_w = torch.zeros_like(w).scatter_add_(1, widest.T, -pull.T)
    return along_x, along_w
