"""A copy of a model that computes the same with less: batch norm folded into the convolution before it."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

# Folding multiplies weights by batch-norm scales once instead of images each time, so results differ by rounding.
TOLERANCE = 1e-3


def folded(model: nn.Module, x: Float[Tensor, "N *shape"]) -> nn.Module:
    """A copy of the model, in evaluation mode and frozen, with batch norm folded where that can be done.

    Every part that PyTorch can trace is folded on its own. If the copy's logits on `x` are not the model's up to
    rounding, or nothing could be folded, the model itself is returned: this makes attacks faster, never different.

    Args:
        model: any module; it must be in evaluation mode.
        x: some images to compare the two on.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return model
    try:
        twin = _fold(copy.deepcopy(model)).eval().requires_grad_(False)
        with torch.inference_mode():
            ours, theirs = twin(x), model(x)
        scale = theirs.abs().amax().clamp_min(1e-12)
        same = ours.shape == theirs.shape and bool(((ours - theirs).abs() <= TOLERANCE * scale).all())
    except Exception:  # A model may refuse to be copied or traced in any way it likes.
        return model
    return twin if same else model


def _fold(module: nn.Module) -> nn.Module:
    try:
        whole = fx.symbolic_trace(module)
        if _plain(module):
            return fuse(whole, inplace=True, no_trace=True)
    except Exception:  # Not traceable as a whole: control flow, or an interface of its own. Its parts may be.
        pass
    for name, child in module.named_children():
        setattr(module, name, _fold(child))
    return module


def _plain(module: nn.Module) -> bool:
    """Whether a module is only its forward: one with further methods, such as `embed`, must keep its class."""
    own = {name for name in vars(type(module)) if not name.startswith("_")}
    return type(module).__module__.startswith("torch.") or own <= {"forward", "extra_repr", "initialise"}
