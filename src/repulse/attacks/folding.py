"""A copy of a model that computes the same with less: weights computed once, batch norm folded, ReLU moved."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.utils import parametrize

from repulse.common.fixed_weights import fix_weights

# Folding multiplies weights by batch-norm scales once instead of images each time, so results differ by rounding.
TOLERANCE = 1e-3


def folded(model: nn.Module, x: Float[Tensor, "N *shape"]) -> nn.Module:
    """A copy of the model, in evaluation mode and frozen, that computes the same with less.

    Parametrised weights are computed once (see `repulse.common.fixed_weights`). Batch norm is
    folded in every part that PyTorch can trace. A ReLU before a max-pooling goes behind it, which gives the same
    numbers and gradients with fewer of them to look at, and a ReLU that follows a convolution or a pooling overwrites
    what it gets.

    A step after which the copy's logits on `x` are not the model's up to rounding is left out, and the model itself is
    returned if none is left or there is nothing to do: this makes attacks faster, never different.

    Args:
        model: any module; it must be in evaluation mode.
        x: some images to compare the two on.
    """
    twin = model
    if any(map(parametrize.is_parametrized, model.modules())):
        twin = _checked(fix_weights, twin, model, x)
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        twin = _checked(_fold, twin, model, x)
    return twin


def _checked(change: Callable[[nn.Module], nn.Module], twin: nn.Module, model: nn.Module, x: Tensor) -> nn.Module:
    """A copy of `twin` with the change, or `twin` itself if the change fails or takes logits away from the model's."""
    try:
        changed = change(copy.deepcopy(twin)).eval().requires_grad_(False)
        # Each gets images of its own, for a model may work in place; and what it keeps must not be an inference tensor.
        with torch.no_grad():
            ours, theirs = changed(x.clone()), model(x.clone())
        scale = theirs.abs().amax().clamp_min(1e-12)
        same = ours.shape == theirs.shape and bool(((ours - theirs).abs() <= TOLERANCE * scale).all())
    except Exception:  # A model may refuse to be copied or traced in any way it likes.
        return twin
    return changed if same else twin


def _fold(module: nn.Module) -> nn.Module:
    try:
        whole = fx.symbolic_trace(module)
        if _plain(module):
            return _lighter(fuse(whole, inplace=True, no_trace=True))
    except Exception:  # Not traceable as a whole: control flow, or an interface of its own. Its parts may be.
        pass
    for name, child in module.named_children():
        setattr(module, name, _fold(child))
    return module


def _lighter(module: nn.Module) -> nn.Module:
    """ReLU behind max-pooling, and in place where nobody else looks at what it overwrites."""
    if not isinstance(module, fx.GraphModule):
        return module
    kinds = dict(module.named_modules())

    def kind(node: Any) -> nn.Module | None:
        return kinds[str(node.target)] if isinstance(node, fx.Node) and node.op == "call_module" else None

    for pool in list(module.graph.nodes):
        if not isinstance(pooling := kind(pool), nn.MaxPool2d) or pooling.return_indices:
            continue
        relu: Any = pool.args[0]
        # max(relu(a), relu(b)) = relu(max(a, b)), and the gradient goes to the same place or nowhere.
        if isinstance(kind(relu), nn.ReLU) and len(relu.users) == 1:
            pool.replace_all_uses_with(relu)
            pool.args, relu.args = relu.args, (pool,)
            pool.append(relu)
    calls: dict[str, list[Any]] = {}
    for node in module.graph.nodes:
        if isinstance(kind(node), nn.ReLU):
            calls.setdefault(str(node.target), []).append(node.args[0])
    for name, inputs in calls.items():
        # One module may be called in several places, and all of them must allow it.
        safe = all(isinstance(kind(made), nn.Conv2d | nn.MaxPool2d) and len(made.users) == 1 for made in inputs)
        cast(nn.ReLU, kinds[name]).inplace = safe
    module.graph.lint()
    module.recompile()
    return module


def _plain(module: nn.Module) -> bool:
    """Whether a module is only its forward: one with further methods, such as `embed`, must keep its class."""
    own = {name for name in vars(type(module)) if not name.startswith("_")}
    return type(module).__module__.startswith("torch.") or own <= {"forward", "extra_repr", "initialise"}
