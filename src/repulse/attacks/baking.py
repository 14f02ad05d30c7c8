"""Weights that a layer computes anew at every call, computed once: attacks call a model thousands of times."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize


def is_recomputed(module: nn.Module) -> bool:
    """Whether a module computes its weights from others at every call, and `bake` knows how to keep them.

    Two kinds are known: tensors under `torch.nn.utils.parametrize`, and layers with a method `plain()` that returns the
    same map as an ordinary layer, such as the orthogonal ones of `repulse.models.lipschitz`.
    """
    return parametrize.is_parametrized(module) or _has_plain(module)


def bake(module: nn.Module) -> nn.Module:
    """The same map with the weights of now, in itself and in all its parts.

    Args:
        module: in evaluation mode; it is changed, so give a copy.
    """
    if _has_plain(module):
        with torch.no_grad():
            plain: nn.Module = module.plain()  # type: ignore[operator]
        return plain
    if parametrize.is_parametrized(module):
        _settle(module)
    for name, child in list(module.named_children()):
        if (baked := bake(child)) is not child:
            setattr(module, name, baked)
    return module


def _settle(module: nn.Module) -> None:
    """Put what parametrised tensors are now in their places.

    `remove_parametrizations` would do it to the original as well: a copy shares the class that it changes.
    """
    names = list(module.parametrizations)  # type: ignore[arg-type]
    with torch.no_grad():
        values = {name: getattr(module, name).detach().clone() for name in names}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def _has_plain(module: nn.Module) -> bool:
    # Asked of the class: a part may be called so as well.
    return callable(getattr(type(module), "plain", None))
