"""Images and labels as people hold them, as tensors: NumPy arrays, lists, whole numbers of any kind."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.common.notice import notice

Arrays = Any
"""A tensor, a NumPy array, or a list of numbers; what it must hold is said where it is taken."""


def as_images(images: Arrays) -> Float[Tensor, "N *shape"]:
    """Images as a tensor, without gradients.

    Floats are pixels as they are. Whole numbers of which some lie above 1 are grey levels, and are divided by 255,
    which is said; truth values are pixels of 0 and 1.

    Raises:
        RepulseError: if they are no numbers with a place for each image; or whole numbers that may be either grey
            levels or pixels, since none lies above 1, or that are neither.
    """
    found = as_tensor(images, "images")
    if found.dtype == torch.bool:
        return found.float()
    if found.is_complex():
        raise RepulseError(f"images must hold pixels in [0, 1], got {_kind(found)}")
    if found.is_floating_point():
        return found
    least, most = (int(end) for end in found.to(torch.int64).aminmax()) if found.numel() else (0, 0)
    if most <= 1 and least >= 0 and found.numel():
        raise RepulseError(
            f"images of {_kind(found)} hold nothing above 1, so they may be grey levels or pixels: give pixels in "
            "[0, 1] as floats"
        )
    if least < 0 or most > 255:
        raise RepulseError(
            f"images must hold pixels in [0, 1], or grey levels from 0 to 255, got {_kind(found)} from {least} to "
            f"{most}"
        )
    notice(f"images of {_kind(found)} are taken for grey levels from 0 to 255, and divided by 255")
    return found.float() / 255


def as_labels(labels: Arrays) -> Int64[Tensor, "N"]:
    """Labels as a tensor of whole numbers.

    A column of them, (N, 1), is taken for a row; one-hot rows (N, n), of zeros and exactly one 1, for their classes.

    Raises:
        RepulseError: if there is not one whole number for each image.
    """
    found = as_tensor(labels, "labels")
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim == 2 and _is_one_hot(found):
        return found.to(torch.float64).argmax(1)
    if found.ndim != 1:
        several = "; where several classes are right, or rows are probabilities, give one class for each"
        hint = several if found.ndim == 2 else ""
        raise RepulseError(f"labels must be one number per image, got shape {tuple(found.shape)}{hint}")
    whole = found.to(torch.int64)
    if found.is_complex() or not torch.equal(whole.to(found.dtype), found):
        raise RepulseError(f"labels must be whole numbers, got {_kind(found)} such as {_first_other(found, whole)}")
    return whole


def _is_one_hot(rows: Tensor) -> bool:
    ones = rows == 1
    return bool(((ones | (rows == 0)).all(1) & (ones.sum(1) == 1)).all())


def as_tensor(values: Arrays, what: str) -> Tensor:
    """Numbers with a place for each image as a tensor, without gradients.

    Args:
        values: a tensor, an array or a list.
        what: they are, for the message.

    Raises:
        RepulseError: if they are something else.
    """
    try:
        found = values if isinstance(values, Tensor) else torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise RepulseError(f"{what} must be a tensor, an array or a list of numbers, got {_said(values)}") from error
    if found.ndim == 0:
        raise RepulseError(f"{what} must be a tensor, an array or a list of numbers, got {_said(values)}")
    return found.detach()


def _said(values: Arrays) -> str:
    dtype = getattr(values, "dtype", None)
    return f"{type(values).__name__}" + ("" if dtype is None else f" of {dtype}")


def _kind(found: Tensor) -> str:
    return str(found.dtype).removeprefix("torch.")


def _first_other(found: Tensor, whole: Tensor) -> object:
    return found[whole.to(found.dtype) != found][0].item()
