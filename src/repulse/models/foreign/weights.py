"""Weights from files, read without running what is in them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from repulse.common.errors import RepulseError, one_line, with_article
from repulse.common.files import load_tensors
from repulse.models.foreign.programs import kind_of_file

# Where training scripts put the weights in what they save, and what wrappers put before every name.
_PLACES = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.")


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict, wherever in the file it is, and whatever wrappers put before its names.

    Raises:
        RepulseError: if the file is absent or cannot be read without running code, or nothing in it fits.
    """
    own = model.state_dict()
    best: _Misfit | None = None
    for state in _states(path):
        for version in _peeled(state):
            misfit = _Misfit(own, version)
            if not misfit:
                model.load_state_dict(version, strict=False)
                return
            best = misfit if best is None or len(misfit) < len(best) else best
    raise RepulseError(f"{path} does not fit the model: {best}")


def _states(path: Path) -> list[Mapping[str, Tensor]]:
    """Everything in a file that may be a state dict."""
    if not path.is_file():
        raise RepulseError(f"no such file: {path}")
    if path.suffix == ".safetensors":
        return [load_tensors(path)[0]]
    kind = kind_of_file(path)
    if kind in ("torchscript", "exported"):
        raise RepulseError(f"{path} is a program, not weights: give it as the model")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RepulseError(
            f"{path} holds pickled objects, which could run code when read; "
            "have its author save model.state_dict(), best as safetensors"
        ) from error
    except Exception as error:
        raise RepulseError(f"{path} is not a file of weights: {one_line(error)}") from error
    if not isinstance(saved, Mapping):
        raise RepulseError(f"{path} holds {with_article(saved)}, not a state dict")
    states = [state for state in (saved, *map(saved.get, _PLACES)) if _is_state(state)]
    if not states:
        raise RepulseError(
            f"{path} holds no state dict, neither itself nor under {', '.join(_PLACES)}; {_keys_of(saved)}"
        )
    return states


def _is_state(found: object) -> TypeGuard[Mapping[str, Tensor]]:
    return isinstance(found, Mapping) and bool(found) and all(isinstance(value, Tensor) for value in found.values())


def _keys_of(saved: Mapping[Any, Any]) -> str:
    keys = [str(key) for key in saved]
    return f"it has {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}" if keys else "it is empty"


def _peeled(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The state dict as it is, then without the prefix that all its names share, and so on."""
    while True:
        yield dict(state)
        shared = [prefix for prefix in _PREFIXES if state and all(name.startswith(prefix) for name in state)]
        if not shared:
            return
        state = {name.removeprefix(shared[0]): value for name, value in state.items()}


class _Misfit:
    """Where a state dict differs from the model's own; empty, and so false, where it fits."""

    def __init__(self, own: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        # Counters of batches came with PyTorch 0.4.1, and evaluation doesn't use them.
        self.missing = [
            f"{name} {_shape(own[name])}"
            for name in own
            if name not in state and not name.endswith("num_batches_tracked")
        ]
        self.unexpected = [f"{name} {_shape(state[name])}" for name in state if name not in own]
        self.reshaped = [
            f"{name} {_shape(state[name])}, the model's is {_shape(own[name])}"
            for name in own
            if name in state and _shape(own[name]) != _shape(state[name])
        ]

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)

    def __str__(self) -> str:
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.reshaped))
        return "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names)


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
