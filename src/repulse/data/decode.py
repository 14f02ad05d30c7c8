"""Image files to tensors, by many threads, with errors that name the row."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import UInt8
from torch import Tensor

from repulse.common.errors import RepulseError

if TYPE_CHECKING:
    from PIL.Image import Image

Encoded = Mapping[str, Any]
"""An image as Hugging Face datasets stores it undecoded: `bytes`, or the `path` of a file."""


@dataclass(frozen=True)
class Format:
    """What every decoded image looks like: grey or colour, and its size (H, W); None: as in the file."""

    channels: Literal[1, 3]
    size: tuple[int, int] | None


def decode(images: Sequence[Encoded], form: Format, where: Sequence[str]) -> UInt8[Tensor, "B C H W"]:
    """Decode images, all to one format.

    Args:
        images: encoded images.
        form: the format. With a size, each image is scaled until it covers that size, and its centre is cut out.
        where: for each image, what an error message calls it.

    Raises:
        RepulseError: if an image is broken, or has another size than the first and the format gives none.
    """
    if not images:
        # A process's share of a short last batch may be empty.
        return torch.empty((0, form.channels, *(form.size or (0, 0))), dtype=torch.uint8)
    arrays = list(_pool().map(lambda pair: _decode_one(pair[0], form, pair[1]), zip(images, where, strict=True)))
    for array, place in zip(arrays, where, strict=True):
        if array.shape != arrays[0].shape:
            raise RepulseError(
                f"{place}: the image has {array.shape[1]}x{array.shape[2]} pixels, but {where[0]} has "
                f"{arrays[0].shape[1]}x{arrays[0].shape[2]}; give image_size to bring all to one size"
            )
    return torch.from_numpy(np.stack(arrays))


def native_format(image: Encoded, where: str) -> Format:
    """The format of one image as it is in its file."""
    with _open(image, where) as opened:
        grey = opened.mode in ("1", "L", "LA", "F") or opened.mode.startswith("I")
        return Format(1 if grey else 3, (opened.height, opened.width))


def _decode_one(image: Encoded, form: Format, where: str) -> npt.NDArray[np.uint8]:
    with _open(image, where) as opened:
        try:
            converted = _eight_bits(opened, where).convert("L" if form.channels == 1 else "RGB")
        except RepulseError:
            raise
        except Exception as error:  # Pillow's decoders raise many kinds, without a common base
            reason = " ".join(str(error).split())
            raise RepulseError(f"{where}: the image is broken ({reason}); replace or remove it") from error
    if form.size is not None and (converted.height, converted.width) != form.size:
        from PIL import ImageOps

        converted = ImageOps.fit(converted, (form.size[1], form.size[0]))
    array = np.asarray(converted)
    return array[None] if form.channels == 1 else array.transpose(2, 0, 1)


def _eight_bits(image: Image, where: str) -> Image:
    """The image itself, or its 8-bit version if it is grey with 16 bits, which Pillow would clip to white."""
    from PIL import Image as PILImage

    # Pillow before 11 opens a PNG of 16 bits as 32, and every version does so with a PGM.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return PILImage.fromarray((np.asarray(image).astype(np.float32) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise RepulseError(
            f"{where}: the image has 32 bits per pixel, so what is white is not known; save it with 8 or 16 bits"
        )
    return image


def _open(image: Encoded, where: str) -> Image:
    from PIL import Image as PILImage

    data = image.get("bytes")
    source = image.get("path") if data is None else io.BytesIO(data)
    if not source:
        raise RepulseError(f"{where}: there is no image")
    try:
        return PILImage.open(source)
    except Exception as error:  # as above; a header with nonsense in it is a plain ValueError
        raise RepulseError(f"{where}: the image is broken (not an image file); replace or remove it") from error


@cache
def _pool() -> ThreadPoolExecutor:
    # Pillow decodes outside the interpreter's lock, so threads are enough.
    return ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="decode")
