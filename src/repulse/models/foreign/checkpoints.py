"""Checkpoints: read without running anything, and searched for everything in them that may be a state dict."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import pickle
import re
import shlex
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repulse.common.errors import RepulseError, one_line, with_article
from repulse.common.files import load_tensors
from repulse.models.foreign.files import kind_of_file

# How deep in a checkpoint weights are looked for.
_DEPTH = 4


def read_checkpoint(path: Path) -> Any:
    """What `torch.save` or safetensors wrote, without running anything of it.

    Raises:
        RepulseError: if the file is absent, is something else, or holds what only running code could read.
    """
    kind = kind_of_file(path)
    if kind in ("torchscript", "exported", "onnx"):
        name = "an ONNX model" if kind == "onnx" else "a program"
        raise RepulseError(f"{path} is {name}, not weights: give it as the model, --model {path}")
    if path.suffix == ".safetensors":
        return load_tensors(path)[0]
    allowed: Any = getattr(torch.serialization, "safe_globals", contextlib.nullcontext)
    try:
        with warnings.catch_warnings(), allowed(_harmless()):
            # That a pickle has another protocol than PyTorch's own is no business of whoever reads it.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"pickled objects ({refused[1]})" if refused else "pickled objects"
        if "Unsupported operand" in str(error):
            what = "a pickle of another protocol than PyTorch's own"
        raise RepulseError(
            f"{path} holds {what}, which could run code when read; have its author save model.state_dict(), best as "
            f"safetensors; or convert it, which runs its code, at your own risk: {conversion(path)}"
        ) from error
    except Exception as error:
        raise RepulseError(f"{path} is not a file of weights: {one_line(error)}") from error


def conversion(path: Path) -> str:
    """The command that reads a file of pickled objects in a process of its own, and keeps their weights alone."""
    target = path.with_suffix(".safetensors")
    return f"python -m repulse.models.foreign.convert {shlex.quote(str(path))} {shlex.quote(str(target))}"


def _harmless() -> list[Any]:
    """Types that stand beside weights in many checkpoints, and run nothing when they are read: numbers, settings."""
    import numpy as np

    scalar, array = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
    numbers = {type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdgFD"}
    # Where NumPy 1 had them; PyTorch takes such aliases since 2.6.
    aliases = hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint")
    names = {scalar: "numpy.core.multiarray.scalar", array: "numpy.core.multiarray._reconstruct"}
    older = list(names.items()) if aliases else []
    return [scalar, array, np.ndarray, np.dtype, *numbers, *older, argparse.Namespace, pathlib.PosixPath]


def weight_sets(saved: object, path: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """Everything in a checkpoint that may be a state dict, by where it stands: 'model.ema'; '': the whole file."""
    if isinstance(saved, list | tuple):
        saved = {str(place): part for place, part in enumerate(saved)}
    if not isinstance(saved, Mapping) or depth > _DEPTH:
        return
    entries = {str(name): value for name, value in saved.items()}
    if any(_is_tensor(value) for value in entries.values()):
        # What is neither a tensor nor a container may belong to a layer, as packed weights do.
        yield path, {name: _as_tensor(value) for name, value in entries.items() if not isinstance(value, Mapping)}
    for name, value in entries.items():
        if not _is_tensor(value):
            yield from weight_sets(value, f"{path}.{name}" if path else name, depth + 1)


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor) or type(value).__name__ == "ndarray"


def _as_tensor(value: object) -> Any:
    return torch.as_tensor(value) if _is_tensor(value) else value


def described(saved: object) -> str:
    """What a file holds that holds no weights, in words."""
    if not isinstance(saved, Mapping):
        return f"{with_article(saved)}, not a state dict"
    keys = [str(key) for key in saved]
    some = f"it has {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}" if keys else "it is empty"
    return f"no state dict; {some}"
