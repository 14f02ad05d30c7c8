"""How much a network can stretch a distance in L2: a bound from the operators themselves, in double precision.

Nothing here knows how a layer came to its weights. A copy with plain weights is taken apart, each linear layer becomes
the operator that it is at the image size it meets, and its spectral norm is computed, not estimated:

- a dense layer: the largest singular value of its matrix;
- a convolution with circular padding: the operator falls apart into one matrix for each frequency (Sedghi, Gupta &
  Long 2019, section 2), and the largest of their norms is exact;
- a convolution with zero padding: what it does is cut out of a circular convolution on a torus so large that nothing
  wraps around, and cutting out cannot raise a norm, so the norm on that torus is an upper bound (for large images it
  is nearly the norm itself).

A stride is undone first: a convolution with stride s on C channels is one without stride on the C s^2 channels that
every s-th pixel gives. Beside each bound stands what power iteration finds on the layer itself, a lower bound, so that
the gap is in sight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Inexact
from torch import Tensor, nn

from repulse.common.errors import RepulseError
from repulse.common.fixed_weights import frozen
from repulse.common.seeding import generator
from repulse.models.classifier import PrototypeClassifier
from repulse.models.lipschitz import HalfAbs, Halve, Shift, SumPool

ROUNDING = 1e-12
"""What is added, as a share, to a norm that is computed in double precision: far more than its rounding."""

TOLERANCE = 1e-6
"""How far above its promise a bound may lie by the rounding of weights to single precision."""

POWER_STEPS = 50

Shape = tuple[int, ...]
Bound = Callable[[Any, Shape, Shape], float]
"""`(layer, shape in, shape out) -> upper bound`; shapes are those of one image, without the batch."""


@dataclass(frozen=True)
class LayerBound:
    """How much one layer can stretch a distance."""

    name: str
    """Where the layer is in the model, as in its state dict."""
    kind: str
    upper: float
    """Certain: the layer stretches no distance by more."""
    lower: float
    """Found: in L2 by power iteration (for layers that are not linear the upper bound again), in L-inf on pairs of
    inputs; the truth lies between."""


@dataclass(frozen=True)
class LipschitzBound:
    """How much a model can stretch a distance, from image to embedding, in L2."""

    layers: tuple[LayerBound, ...]

    @property
    def constant(self) -> float:
        """The product over the layers: no two images have embeddings further apart than this times their distance."""
        return math.prod(layer.upper for layer in self.layers)

    def verify(self, at_most: float = 1.0) -> None:
        """Check that no layer stretches a distance by more than `at_most`, up to rounding of the weights (1e-6).

        Raises:
            RepulseError: if one does; the worst is named.
        """
        worst = max(self.layers, key=lambda layer: layer.upper)
        if not worst.upper <= at_most + TOLERANCE:
            raise RepulseError(
                f"layer {worst.name} ({worst.kind}) has spectral norm {worst.upper:.6f} (power iteration finds "
                f"{worst.lower:.6f}), expected at most {at_most:g}: its weights are not those that training made"
            )


def lipschitz_bound(model: nn.Module, image_shape: Shape) -> LipschitzBound:
    """An upper bound of the L2 Lipschitz constant of a model, layer by layer.

    Args:
        model: a `PrototypeClassifier` (from images in [0, 1] to embeddings: division by the deviations is a layer, and
            mirroring and shifting cost nothing, for a mean of maps stretches no more than they do), or a backbone. It
            must be a chain: `nn.Sequential` of layers with a known bound.
        image_shape: (C, H, W).

    Raises:
        RepulseError: if a part has no known bound; it is named.
    """
    layers = []
    backbone = model
    if isinstance(model, PrototypeClassifier):
        backbone = model.backbone
        factor = 1 / float(model.std.double().min())
        layers.append(LayerBound("std", "division by the deviations", factor, factor))
    prefix = "backbone." if isinstance(model, PrototypeClassifier) else ""
    plain = frozen(backbone).cpu().double()
    x = torch.zeros(1, *image_shape, dtype=torch.float64)
    with torch.no_grad():
        for name, layer in _chain(plain, prefix):
            y = layer(x)
            layers.append(_bound(name, layer, tuple(x.shape[1:]), tuple(y.shape[1:])))
            x = torch.zeros_like(y)
    return LipschitzBound(tuple(layers))


def _chain(module: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
    if type(module).forward is not nn.Sequential.forward:
        return [(prefix.rstrip(".") or "model", module)]
    return [part for name, child in module.named_children() for part in _chain(child, f"{prefix}{name}.")]


def _bound(name: str, layer: nn.Module, inputs: Shape, outputs: Shape) -> LayerBound:
    # Only the very class: one that inherits from it may compute something else.
    kind = type(layer)
    if kind not in _BOUNDS or _has_hooks(layer):
        raise RepulseError(
            f"part {name} ({type(layer).__name__}) has no known Lipschitz bound, so nothing can be certified in L2; "
            "use a chain of layers such as backbone lipschitz-cnn"
        )
    try:
        upper = _BOUNDS[kind](layer, inputs, outputs)
    except RepulseError as error:
        raise RepulseError(f"part {name} ({type(layer).__name__}): {error}") from error
    if not math.isfinite(upper):
        raise RepulseError(f"part {name} ({type(layer).__name__}) has weights that are not finite numbers")
    lower = power_iteration(layer, inputs) if isinstance(layer, nn.Linear | nn.Conv2d) else upper
    return LayerBound(name, kind.__name__, upper, lower)


def _has_hooks(layer: nn.Module) -> bool:
    # A hook may change what comes out, and so the constant.
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def power_iteration(layer: nn.Module, image_shape: Shape, steps: int = POWER_STEPS) -> float:
    """A lower bound of the spectral norm of an affine layer: how much it stretches a direction that was sought.

    Args:
        layer: the layer, in double precision.
        image_shape: what comes in, without the batch.
        steps: multiplications by the operator and its transpose.
    """
    direction = torch.randn(1, *image_shape, generator=generator(0, "power iteration"), dtype=torch.float64)
    with torch.enable_grad():
        offset = layer(torch.zeros_like(direction)).detach()
        for _ in range(steps):
            direction = (direction / direction.norm().clamp_min(1e-300)).requires_grad_()
            image = layer(direction) - offset
            (direction,) = torch.autograd.grad(image, direction, image.detach())
    direction = direction.detach() / direction.detach().norm().clamp_min(1e-300)
    return float((layer(direction) - offset).norm().detach())


def matrix_norm(matrix: Inexact[Tensor, "*batch o i"]) -> float:
    """The largest spectral norm of a batch of matrices, not less than the true one."""
    if not torch.isfinite(matrix).all():
        return math.inf
    return float(torch.linalg.matrix_norm(matrix, 2).max()) * (1 + ROUNDING)


def convolution_norm(kernel: Float[Tensor, "o i Kh Kw"], torus: tuple[int, int]) -> float:
    """The spectral norm of a circular convolution without stride on a torus of `(height, width)` positions.

    It is the largest over all frequencies of the norm of the (o, i) matrix of the kernel's Fourier coefficients
    (Sedghi, Gupta & Long 2019, theorem 6); real kernels need half of them.
    """
    # A torus smaller than the kernel would cut it: fft2 must see the kernel wrapped around.
    rows = -(-kernel.shape[2] // torus[0]) * torus[0]
    columns = -(-kernel.shape[3] // torus[1]) * torus[1]
    kernel = F.pad(kernel, (0, columns - kernel.shape[3], 0, rows - kernel.shape[2]))
    o, i, height, width = kernel.shape
    kernel = kernel.reshape(o, i, height // torus[0], torus[0], width // torus[1], torus[1]).sum((2, 4))
    coefficients = torch.fft.rfft2(kernel).permute(2, 3, 0, 1)
    return max(matrix_norm(row) for row in coefficients)


def _conv2d(layer: nn.Conv2d, inputs: Shape, outputs: Shape) -> float:
    if layer.padding_mode not in ("zeros", "circular"):
        raise RepulseError(f"padding mode {layer.padding_mode!r} has no known bound; use 'zeros' or 'circular'")
    kernel = _without_stride(_without_dilation(layer.weight.detach(), layer.dilation), layer.stride)
    if layer.padding_mode == "zeros":
        # On so large a torus no output meets the far side of the image.
        torus = (outputs[1] + kernel.shape[2] - 1, outputs[2] + kernel.shape[3] - 1)
    else:
        torus = (inputs[1] // layer.stride[0], inputs[2] // layer.stride[1])
        if any(n % s for n, s in zip(inputs[1:], layer.stride, strict=True)) or torus != outputs[1:]:
            raise RepulseError(
                f"circular padding that turns {inputs[1]}x{inputs[2]} pixels into {outputs[1]}x{outputs[2]} at stride "
                f"{layer.stride[0]}x{layer.stride[1]} has no known bound; pad so that nothing is repeated or lost"
            )
    return max(convolution_norm(part, torus) for part in kernel.chunk(layer.groups))


def _without_dilation(kernel: Tensor, dilation: tuple[int, ...]) -> Tensor:
    o, i, height, width = kernel.shape
    spread = kernel.new_zeros(o, i, (height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1)
    spread[:, :, :: dilation[0], :: dilation[1]] = kernel
    return spread


def _without_stride(kernel: Tensor, stride: tuple[int, ...]) -> Tensor:
    kernel = F.pad(kernel, (0, -kernel.shape[3] % stride[1], 0, -kernel.shape[2] % stride[0]))
    o, i, height, width = kernel.shape
    parts = kernel.reshape(o, i, height // stride[0], stride[0], width // stride[1], stride[1])
    return parts.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def _linear(layer: nn.Linear, _inputs: Shape, _outputs: Shape) -> float:
    return matrix_norm(layer.weight.detach())


def _one(_layer: nn.Module, _inputs: Shape, _outputs: Shape) -> float:
    return 1.0


def _leaky_relu(layer: nn.LeakyReLU, _inputs: Shape, _outputs: Shape) -> float:
    return max(1.0, abs(layer.negative_slope))


def _max_pool(layer: nn.MaxPool2d, _inputs: Shape, _outputs: Shape) -> float:
    # A pixel is in this many windows at most, and each passes on its whole change.
    size, stride, dilation = (_pair(value) for value in (layer.kernel_size, layer.stride, layer.dilation))
    if dilation != (1, 1):
        raise RepulseError("dilated pooling has no known bound")
    return math.sqrt(math.prod(-(-k // s) for k, s in zip(size, stride, strict=True)))


def _average_pool(layer: nn.AvgPool2d, _inputs: Shape, outputs: Shape) -> float:
    # A convolution with the mean of the window on each channel; counting less at the rim would raise it.
    size, stride = _pair(layer.kernel_size), _pair(layer.stride)
    rim = _pair(layer.padding) != (0, 0) and not layer.count_include_pad
    if rim or layer.ceil_mode or layer.divisor_override is not None:
        raise RepulseError("average pooling that counts windows at the rim in another way has no known bound")
    window = _without_stride(torch.full((1, 1, *size), 1 / math.prod(size), dtype=torch.float64), stride)
    return convolution_norm(window, (outputs[1] + window.shape[2] - 1, outputs[2] + window.shape[3] - 1))


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


_BOUNDS: dict[type[nn.Module], Bound] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.LeakyReLU: _leaky_relu,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    # Orthogonal, or a loss of coordinates, or a map whose slopes lie in [-1, 1].
    nn.Identity: _one,
    nn.Flatten: _one,
    nn.PixelUnshuffle: _one,
    nn.PixelShuffle: _one,
    nn.ZeroPad2d: _one,
    nn.Dropout: _one,
    nn.ReLU: _one,
    nn.Tanh: _one,
    HalfAbs: _one,
    Halve: _one,
    Shift: _one,
    SumPool: _one,
}
