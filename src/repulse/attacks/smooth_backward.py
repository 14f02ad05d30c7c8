"""A model with a backward pass made smooth, for attacks through what hides a gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def _both(*names: str) -> dict[Any, str]:
    """A function of PyTorch and the method of tensors, by its name."""
    places = [(place, name) for name in names for place in (torch, Tensor, F) if hasattr(place, name)]
    return {getattr(place, name): name for place, name in places}


_DETACH = _both("detach")
_LEAVING = _both("numpy", "tolist", "item", "__array__")
_STEPS = _both("round", "floor", "ceil", "trunc", "sign")
_JAGGED = _both("sin", "cos", "frac", "remainder", "fmod", "sigmoid", "tanh", "erf")
_CLAMPS = _both("clamp", "clip", "hardtanh")
_ABOVE = _both("gt", "ge", "greater", "greater_equal", "__gt__", "__ge__")
_BELOW = _both("lt", "le", "less", "less_equal", "__lt__", "__le__")
_ARGMAX = _both("argmax")
_SOFTMAX = _both("softmax")
_ONE_HOT = _both("one_hot")
_WHERE = _both("where")
_NOT = _both("logical_not", "bitwise_not", "__invert__")
_NUMBERS = _both(
    "float", "double", "half", "bfloat16", "to", "type", "type_as", "mul", "__mul__", "__rmul__", "add", "__add__",
    "__radd__", "sub", "__sub__", "__rsub__", "div", "true_divide", "__truediv__", "sum", "mean", "stack", "cat",
)  # fmt: skip

# How much of a gradient passes where a clamp lets nothing through.
_LEAK = 0.1
# From one class to the next, in standard deviations of the scores.
_SOFT = 0.5


class SmoothBackward(nn.Module):
    """A model with a backward pass that is smooth where the model's own is flat, cut off or jagged.

    Backward pass differentiable approximation (Athalye et al. 2018), found by itself from what the model calls:

    - rounding and `detach`: straight through (Bengio et al. 2013); `sign`: a steep tanh;
    - ripples and saturation (`sin`, `frac`, `tanh`, ...): the secant to a neighbour, if there are any, so that
      what goes up and down within a small part of the ball counts as the flat thing that it is;
    - clamps let a tenth of the gradient through where they let nothing through;
    - comparisons, where they choose or are reckoned with, are sigmoids as wide as the neighbour is away;
    - of logits, `argmax`, where it becomes `one_hot`, is a softmax, and a saturated `softmax` a softer one.

    Functions inside TorchScript, and a backward pass that the model wrote itself, are not seen.

    Args:
        model: maps images to logits.
        stand_in: give values that follow the slopes, too, where a function rounds, clamps, compares or chooses, so
            that what the model makes equal can be told apart. The logits are then not the model's.
    """

    def __init__(self, model: nn.Module, *, stand_in: bool = False) -> None:
        super().__init__()
        self.model, self.stand_in = model, stand_in

    def forward(self, x: Tensor, neighbours: Tensor | None = None) -> Tensor:
        """The model's logits.

        Args:
            x: images (N, *shape).
            neighbours: as many others, each near to its image; None: no secants.

        Returns:
            Logits (N, n); with neighbours (2 N, n), theirs after those of the images.
        """
        with _Smooth(0 if neighbours is None else len(x), self.stand_in):
            logits: Tensor = self.model(x if neighbours is None else torch.cat([x, neighbours]))
        return logits


class _Soft:
    """Of tensors of whole numbers and of truth values: numbers with a slope that stand for them."""

    def __init__(self) -> None:
        # Tensors don't compare as keys; kept here, none of them gives its place to another.
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def __contains__(self, value: Any) -> bool:
        return id(value) in self._kept

    def __getitem__(self, value: Tensor) -> Tensor:
        return self._kept[id(value)][1]

    def remember(self, value: Tensor, soft: Tensor) -> Tensor:
        """Note what stands for a value, and give the value back."""
        self._kept[id(value)] = value, soft
        return value


class _Smooth(TorchFunctionMode):
    """Within this mode, functions get the slopes that `SmoothBackward` says.

    Args:
        half: how many images are followed by as many neighbours; 0: none.
        stand_in: whether values follow the slopes, too.
    """

    def __init__(self, half: int, stand_in: bool) -> None:
        super().__init__()
        self.half, self.stand_in = half, stand_in
        self.soft = _Soft()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _LEAVING:
            return func(args[0].detach(), *args[1:], **kwargs)
        try:
            smooth = self._smooth(func, args, kwargs)
        except (TypeError, RuntimeError, IndexError):
            # An overload that is not foreseen here keeps the backward pass that it has.
            smooth = None
        return func(*args, **kwargs) if smooth is None else smooth

    def _smooth(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The function's value with another slope; None: it is left as it is."""
        x = args[0] if args else None
        if func in _WHERE and len(args) == 3 and x in self.soft:
            return self._chosen(*args)
        if func in _NUMBERS and any(each in self.soft for each in _tensors(args)):
            return func(*self._numbers(args), **kwargs)
        if not isinstance(x, Tensor):
            return None
        if func in _NOT and x in self.soft:
            return self.soft.remember(func(*args, **kwargs), 1 - self.soft[x])
        if func in _ONE_HOT and x in self.soft:
            return self.soft.remember(func(*args, **kwargs), self.soft[x])
        if func in _ABOVE or func in _BELOW:
            return self._compared(func, args, kwargs)
        if not x.requires_grad or not x.is_floating_point():
            return None
        if func in _DETACH:
            return x
        if func in _STEPS:
            return self._sloped(torch.tanh(4 * x) if _STEPS[func] == "sign" else x, func(*args, **kwargs))
        if func in _CLAMPS:
            value = func(*args, **kwargs)
            return self._sloped(_LEAK * x + (1 - _LEAK) * value, value)
        if func in _JAGGED and self._paired(x):
            return self._secant(x, func(*args, **kwargs))
        # Of logits, not of attention.
        if (func in _ARGMAX or func in _SOFTMAX) and x.ndim == 2 and _axis(args, kwargs) in (-1, 1):
            wide = (_SOFT * x.detach().std(1, keepdim=True)).clamp_min(1e-30)
            if func in _ARGMAX:
                return self.soft.remember(func(*args, **kwargs), (x / wide).softmax(1))
            return self._sloped((x / wide.clamp_min(1.0)).softmax(1), func(*args, **kwargs))
        return None

    def _numbers(self, args: Any) -> Any:
        """The arguments, with numbers in place of whole numbers and truth values that have a slope."""

        def number(each: Any) -> Any:
            if isinstance(each, Tensor) and each in self.soft:
                return self._sloped(self.soft[each], each.to(self.soft[each].dtype))
            return each

        if isinstance(args[0], (list, tuple)):
            return (type(args[0])(number(each) for each in args[0]), *args[1:])
        return tuple(number(each) for each in args)

    def _sloped(self, slope: Tensor, value: Tensor) -> Tensor:
        """The value with another slope; of a stand-in, the slope's own value."""
        return slope if self.stand_in else _with_slope_of(slope, value)

    def _paired(self, x: Tensor) -> bool:
        return bool(self.half) and x.ndim > 0 and len(x) == 2 * self.half

    def _secant(self, x: Tensor, value: Tensor) -> Tensor:
        """A value whose slope is the secant's between each image and its neighbour."""
        across, up = ((part[self.half :] - part[: self.half]).detach() for part in (x, value))
        slope = torch.where(across.abs() > 1e-12, up / across, torch.zeros_like(up))
        return _with_slope_of(torch.cat([slope, slope]) * x, value)

    def _compared(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A comparison, which is remembered with a sigmoid."""
        left, right = args[:2]
        floats = [each for each in (left, right) if isinstance(each, Tensor) and each.is_floating_point()]
        if not any(each.requires_grad for each in floats):
            return None
        above = left - right if func in _ABOVE else right - left
        spread = above.detach()
        wide = (spread[self.half :] - spread[: self.half]).abs() if self._paired(spread) else spread.abs()
        return self.soft.remember(func(*args, **kwargs), torch.sigmoid(above / wide.mean().clamp_min(1e-30)))

    def _chosen(self, condition: Tensor, yes: Any, no: Any) -> Tensor:
        """`where`, whose choice has a slope, too."""
        soft, better = self.soft[condition], torch.as_tensor(yes - no)
        value: Tensor
        if self.stand_in:
            value = no + better * soft
        else:
            value = torch.where(condition, yes, no) + better.detach() * (soft - soft.detach())
        return value


def _axis(args: Any, kwargs: Any) -> Any:
    return args[1] if len(args) > 1 else kwargs.get("dim")


def _with_slope_of(slope: Tensor, value: Tensor) -> Tensor:
    """The value, with the gradient of the slope."""
    return slope + (value.detach() - slope.detach())


def _tensors(args: Any) -> list[Tensor]:
    """Tensors among arguments, or in a list that is the first of them."""
    first = args[0] if args and isinstance(args[0], (list, tuple)) else args
    return [each for each in first if isinstance(each, Tensor)]
