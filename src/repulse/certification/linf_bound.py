"""How far an L-inf-distance network can stretch L-inf distances, and how far rounding can move its embeddings."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repulse.certification.lipschitz_bound import LayerBound
from repulse.common.errors import RepulseError
from repulse.common.seeding import generator
from repulse.models.classifier import PrototypeClassifier
from repulse.models.linf_distance import LinfDistance, LinfDistanceNet, MeanShift

TOLERANCE = 1e-9
"""How much more than its kind allows a layer may be measured to stretch: rounding in float64, and no more."""

_PAIRS = 64


@dataclass(frozen=True)
class LinfBound:
    """What is proved of a network from the layers that it is made of."""

    layers: tuple[LayerBound, ...]
    constant: float
    """`|z(x) - z(x')|_inf <= constant |x - x'|_inf` in exact arithmetic; pixels in [0, 1]."""
    rounding: float
    """The embedding of any image in [0, 1], as computed, is no farther than this in L-inf from the exact one."""


@dataclass(frozen=True)
class _Range:
    """What is known of a tensor inside the network, without its batch axis, for all images in [0, 1]."""

    shape: tuple[int, ...]
    magnitude: float
    error: float


def linf_bound(model: nn.Module, image_shape: tuple[int, ...]) -> LinfBound:
    """The L-inf Lipschitz constant of a network, verified layer by layer in float64, and its rounding error.

    Every layer must be of a kind that is known to be 1-Lipschitz: `LinfDistance` with `p = inf`, `MeanShift`,
    `AdaptiveAvgPool2d`, `Flatten`, `Identity`, in a `Sequential` or `LinfDistanceNet`; normalisation adds a factor of
    one over the smallest deviation, and averages with the mirror image and with moved images none. Kinds are not
    trusted: each layer is also run, in float64 and as it is, on pairs of inputs that a layer of its kind stretches by
    its bound or nearly so.

    Rounding: a layer that is 1-Lipschitz passes the error of its inputs on and adds that of its own few operations,
    each at most an epsilon of the numeric type (twice the unit roundoff) of the largest number it can make from images
    in [0, 1]. So errors add up, and the sum holds for every image, order of summation and device with IEEE arithmetic.

    Args:
        model: a `PrototypeClassifier`, or a backbone of its own, which is then given pixels; in evaluation mode.
        image_shape: (C, H, W).

    Raises:
        RepulseError: if a module is of another kind, is in training mode (then `p < inf`), has hooks or another
            `forward` than its class, or stretches distances by more than its kind can; the module is named.
    """
    epsilon = max(torch.finfo(tensor.dtype).eps for tensor in _floating(model))
    backbone, constant, magnitude, averages, layers = model, 1.0, 1.0, 0, []
    if isinstance(model, PrototypeClassifier):
        _as_its_class(model, "model", PrototypeClassifier)
        backbone, averages = model.backbone, bool(model.mirror) + 2 * bool(model.shift)
        mean, std = model.mean.double(), model.std.double()
        constant = float((1 / std).amax())
        magnitude = float((torch.maximum(mean, 1 - mean) / std).amax())
        layers.append(LayerBound("normalisation", "(x - mean) / std", constant, constant))
    # Subtracting the mean and dividing by the deviation are one rounding each.
    now = _Range(tuple(image_shape), magnitude, 2 * epsilon * magnitude if layers else 0.0)
    for name, layer in _chain(backbone, "backbone"):
        lower = _stretch(layer, now)
        if not lower <= 1 + TOLERANCE:
            raise RepulseError(
                f"{name} ({type(layer).__name__}) stretches L-inf distances by {lower:.6g}, at most 1 is possible for "
                "its kind: it has been changed, so nothing is certified"
            )
        layers.append(LayerBound(name, type(layer).__name__, 1.0, lower))
        now = _KINDS[type(layer)](layer, now, epsilon)
    # An average is a sum and an exact halving: one with the mirror image, two with moved images.
    rounding = now.error + 2 * epsilon * now.magnitude * averages
    return LinfBound(tuple(layers), constant, rounding)


def _chain(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a network in their order, by name; containers are gone through."""
    if type(module) is LinfDistanceNet:
        _as_its_class(module, name, LinfDistanceNet)
        yield from _chain(module.layers, f"{name}.layers")
    elif type(module) is nn.Sequential:
        _as_its_class(module, name, nn.Sequential)
        for child, layer in module.named_children():
            yield from _chain(layer, f"{name}.{child}")
    elif type(module) in _KINDS:
        _as_its_class(module, name, type(module))
        yield name, module
    else:
        known = ", ".join(kind.__name__ for kind in _KINDS)
        raise RepulseError(
            f"{name} is a {type(module).__name__}, which is not known to be 1-Lipschitz in L-inf; known: {known}"
        )


def _as_its_class(module: nn.Module, name: str, kind: type[nn.Module]) -> None:
    """Refuse a module that computes something else than its class does."""
    if type(module) is not kind:
        raise RepulseError(f"{name} is a {type(module).__name__}, a changed {kind.__name__}: nothing is known of it")
    if module.training:
        p = f" with p = {module.p:g}" if isinstance(module, LinfDistance | LinfDistanceNet) else ""
        raise RepulseError(f"{name} ({kind.__name__}) is in training mode{p}, so it is not 1-Lipschitz: call eval()")
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        raise RepulseError(f"{name} ({kind.__name__}) has a hook or a forward of its own: nothing is known of it")


@torch.no_grad()
def _stretch(layer: nn.Module, inputs: _Range) -> float:
    """The largest `|f(x) - f(y)|_inf / |x - y|_inf` over pairs of inputs that differ equally in every coordinate."""
    exact = copy.deepcopy(layer).double()
    device = next(iter(_floating(layer)), torch.empty(0)).device
    random = generator(0, "linf-stretch")

    def draw() -> Tensor:
        return 2 * torch.rand(_PAIRS, *inputs.shape, dtype=torch.float64, generator=random) - 1

    x = inputs.magnitude * draw()
    # The same step everywhere is what averages stretch most; a random one is what distances do.
    signs = draw().sign()
    signs[: _PAIRS // 2] = 1.0
    size = 2.0**-10
    y = x + size * signs
    steps = (y - x).abs().flatten(1).amax(1)
    moved = (exact(x.to(device)) - exact(y.to(device))).abs().flatten(1).amax(1).cpu()
    return float((moved / steps).amax())


def _distance(layer: nn.Module, inputs: _Range, epsilon: float) -> _Range:
    assert isinstance(layer, LinfDistance)
    magnitude = inputs.magnitude + float(layer.weight.detach().abs().amax())
    return _Range((layer.weight.shape[0],), magnitude, inputs.error + epsilon * magnitude)


def _shift(layer: nn.Module, inputs: _Range, epsilon: float) -> _Range:
    assert isinstance(layer, MeanShift)
    magnitude = inputs.magnitude + float(layer.mean.abs().amax())
    error = inputs.error + epsilon * magnitude
    if layer.bias is not None:
        magnitude += float(layer.bias.detach().abs().amax())
        error += epsilon * magnitude
    return _Range(inputs.shape, magnitude, error)


def _pooled(layer: nn.Module, inputs: _Range, epsilon: float) -> _Range:
    assert isinstance(layer, nn.AdaptiveAvgPool2d)
    sides = layer.output_size if isinstance(layer.output_size, tuple) else (layer.output_size, layer.output_size)
    channels, *size = inputs.shape
    grid = tuple(old if new is None else new for old, new in zip(size, sides, strict=True))
    # A window is at most one wider than the quotient, rounded up; summing and dividing round once per pixel.
    window = math.prod(math.ceil(old / new) + 1 for old, new in zip(size, grid, strict=True))
    return _Range((channels, *grid), inputs.magnitude, inputs.error + window * epsilon * inputs.magnitude)


def _flattened(layer: nn.Module, inputs: _Range, epsilon: float) -> _Range:  # noqa: ARG001
    return _Range((math.prod(inputs.shape),), inputs.magnitude, inputs.error)


def _same(layer: nn.Module, inputs: _Range, epsilon: float) -> _Range:  # noqa: ARG001
    return inputs


_KINDS: dict[type[nn.Module], Callable[[nn.Module, _Range, float], _Range]] = {
    LinfDistance: _distance,
    MeanShift: _shift,
    nn.AdaptiveAvgPool2d: _pooled,
    nn.Flatten: _flattened,
    nn.Identity: _same,
}


def _floating(module: nn.Module) -> list[Tensor]:
    return [tensor for tensor in module.state_dict().values() if tensor.is_floating_point()]
