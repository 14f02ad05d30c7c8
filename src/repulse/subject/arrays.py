"""Images and labels as people hold them, as tensors: NumPy arrays, lists, whole numbers of any kind."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from repulse.common.errors import RepulseError

Arrays = Any
"""A tensor, a NumPy array, or a list of numbers; what it must hold is said where it is taken."""


def as_images(images: Arrays) -> Float[Tensor, "N *shape"]:
    """Images as a tensor on the CPU, without gradients.

    Raises:
        RepulseError: if they are no numbers with a place for each image, or whole numbers, such as grey levels to 255.
    """
    found = _as_tensor(images, "images")
    if not found.is_floating_point():
        raise RepulseError(f"images must hold pixels in [0, 1], got {_kind(found)}; divide grey levels by 255")
    return found


def as_labels(labels: Arrays) -> Int64[Tensor, "N"]:
    """Labels as a tensor of whole numbers on the CPU; a column of them, (N, 1), is taken for a row.

    Raises:
        RepulseError: if there is not one whole number for each image.
    """
    found = _as_tensor(labels, "labels")
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        hint = "; for one-hot rows give labels.argmax(1)" if found.ndim == 2 else ""
        raise RepulseError(f"labels must be one number per image, got shape {tuple(found.shape)}{hint}")
    whole = found.to(torch.int64)
    if found.is_complex() or not torch.equal(whole.to(found.dtype), found):
        raise RepulseError(f"labels must be whole numbers, got {_kind(found)} such as {_first_other(found, whole)}")
    return whole


def _as_tensor(values: Arrays, what: str) -> Tensor:
    try:
        found = values if isinstance(values, Tensor) else torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise RepulseError(f"{what} must be a tensor, an array or a list of numbers, got {_said(values)}") from error
    if found.ndim == 0:
        raise RepulseError(f"{what} must be a tensor, an array or a list of numbers, got {_said(values)}")
    return found.detach().cpu()


def _said(values: Arrays) -> str:
    dtype = getattr(values, "dtype", None)
    return f"{type(values).__name__}" + ("" if dtype is None else f" of {dtype}")


def _kind(found: Tensor) -> str:
    return str(found.dtype).removeprefix("torch.")


def _first_other(found: Tensor, whole: Tensor) -> object:
    return found[whole.to(found.dtype) != found][0].item()
