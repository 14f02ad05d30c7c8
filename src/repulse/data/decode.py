"""Image files to tensors, by many threads, with errors that name the file or the row."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import UInt8
from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.common.notice import notice

if TYPE_CHECKING:
    from PIL.Image import Image

Encoded = Mapping[str, Any]
"""An image as Hugging Face datasets stores it undecoded: `bytes`, or the `path` of a file."""

_CHUNK = 4096


@runtime_checkable
class EncodedImages(Protocol):
    """The images of one split, not decoded."""

    @property
    def where(self) -> str:
        """What messages call the split: 'flowers train'."""

    def __len__(self) -> int:
        """The number of images."""

    def read(self, rows: Sequence[int]) -> list[Encoded]:
        """The images of these rows, as they are stored."""


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Images that are files of their own."""

    paths: Sequence[str]
    where: str

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, rows: Sequence[int]) -> list[Encoded]:
        """The images of these rows, as they are stored."""
        return [{"path": self.paths[row]} for row in rows]


@dataclass(frozen=True)
class Format:
    """What every decoded image looks like.

    Args:
        channels: 1 for grey, 3 for colour.
        size: (H, W) in pixels; None: as in the file.
        white: the value that is white in images of 16 bits.
    """

    channels: Literal[1, 3]
    size: tuple[int, int] | None
    white: int = 65535


def decode(images: EncodedImages, rows: Sequence[int], form: Format) -> UInt8[Tensor, "B C H W"]:
    """Decode some rows, all to one format.

    Photographs are turned upright as their EXIF orientation says, and what is transparent is laid over white. With a
    size, each image is scaled until it covers that size, and its centre is cut out.

    Raises:
        RepulseError: if an image is broken, or has another size than the first and the format gives none.
    """
    chunks: list[Tensor] = []
    first = ""
    for start in range(0, len(rows), _CHUNK):
        some = rows[start : start + _CHUNK]
        encoded = images.read(some)
        places = [place(image, images.where, row) for image, row in zip(encoded, some, strict=True)]
        decoded = list(_pool().map(_decode_one, encoded, [form] * len(some), places))
        first = first or places[0]
        shape = tuple(chunks[0].shape[1:]) if chunks else decoded[0][0].shape
        for (array, _), where in zip(decoded, places, strict=True):
            if array.shape != shape:
                raise RepulseError(
                    f"{where}: the image has {array.shape[1]}x{array.shape[2]} pixels, but {first} has "
                    f"{shape[1]}x{shape[2]}; give image_size to bring all to one size"
                )
        if any(transparent for _, transparent in decoded):
            notice(f"{images.where}: what is transparent in an image is laid over white")
        chunks.append(torch.from_numpy(np.stack([array for array, _ in decoded])))
    # A process's share of a short last batch may be empty.
    return torch.cat(chunks) if chunks else torch.empty((0, form.channels, *(form.size or (0, 0))), dtype=torch.uint8)


def place(image: Encoded, where: str, row: int) -> str:
    """What messages call one image: a file's path; images inside tables have only a row."""
    path = image.get("path")
    return str(path) if path and image.get("bytes") is None else f"{where} row {row}"


def open_image(image: Encoded, where: str) -> Image:
    """The image, of which only the header has been read.

    Raises:
        RepulseError: if there is none, or it is broken.
    """
    data = image.get("bytes")
    source = image.get("path") if data is None else io.BytesIO(data)
    if not source:
        raise RepulseError(f"{where}: there is no image")
    try:
        opened: Image = pillow().open(source)
        return opened
    except Exception as error:  # Pillow's readers raise many kinds, without a common base
        raise RepulseError(f"{where}: the image is broken (not an image file); replace or remove it") from error


@cache
def pillow() -> Any:
    """Pillow's `Image` module; it reads HEIC too where `pillow-heif` is installed."""
    from PIL import Image as module  # noqa: N813

    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        pass
    else:
        register_heif_opener()
    module.init()
    return module


def levels(image: Image, encoded: Encoded, where: str) -> npt.NDArray[Any] | None:
    """The values of an image of 16 bits, (H, W) or (H, W, C); None for any other image.

    Args:
        image: opened, and not loaded yet if it has colour.
        encoded: what it was opened from.
        where: what messages call it.
    """
    # Pillow before 11 opens a PNG of 16 bits as 32, and every version does so with a PGM.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return np.asarray(image)
    if not is_deep_colour(image):
        return None
    # Pillow keeps the high bytes of colours alone; told that the bytes are the other way round, it keeps the low ones.
    other: Any = open_image(encoded, where)
    with other:
        other.tile = [_other_way_round(part) for part in other.tile]
        both: npt.NDArray[np.uint16] = np.asarray(image).astype(np.uint16) << 8 | np.asarray(other)
    return both


def is_deep_colour(image: Image) -> bool:
    """Whether an image that was opened, and not loaded yet, has 16 bits in each of several channels."""
    parts = getattr(image, "tile", None) or []
    return image.mode in ("RGB", "RGBA") and bool(parts) and all(_raw_mode(part)[-3:-1] == "16" for part in parts)


def _raw_mode(tile: Any) -> str:
    """How the bytes of a tile are laid out, in Pillow's words: 'RGB;16B'."""
    arguments = tile[3]
    raw = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return raw if isinstance(raw, str) else ""


def _other_way_round(tile: Any) -> Any:
    raw = _raw_mode(tile)
    # N: as this machine has them.
    turned = raw[:-1] + {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}[raw[-1]]
    arguments = turned if isinstance(tile[3], str) else (turned, *tile[3][1:])
    # Tiles have names since Pillow 11.
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)


def pool_map(function: Any, *arguments: Any) -> list[Any]:
    """What `map` gives, by many threads: Pillow works outside the interpreter's lock."""
    return list(_pool().map(function, *arguments))


def _decode_one(image: Encoded, form: Format, where: str) -> tuple[npt.NDArray[np.uint8], bool]:
    """The pixels (C, H, W), and whether some were transparent."""
    from PIL import ImageOps

    with open_image(image, where) as opened:
        try:
            eight = _eight_bits(opened, image, form.white, where)
            converted, transparent = _over_white(_upright(eight))
            converted = converted.convert("L" if form.channels == 1 else "RGB")
        except RepulseError:
            raise
        except Exception as error:  # as above
            reason = " ".join(str(error).split())
            raise RepulseError(f"{where}: the image is broken ({reason}); replace or remove it") from error
    if form.size is not None and (converted.height, converted.width) != form.size:
        converted = ImageOps.fit(converted, (form.size[1], form.size[0]))
    array = np.asarray(converted)
    return (array[None] if form.channels == 1 else array.transpose(2, 0, 1)), transparent


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    try:
        turned = ImageOps.exif_transpose(image) if image.getexif().get(0x0112, 1) != 1 else image
    except Exception:  # what is wrong in a photograph's notes does not make its pixels wrong
        return image
    turned.format = image.format
    return turned


def _eight_bits(image: Image, encoded: Encoded, white: int, where: str) -> Image:
    """The image itself, or its 8-bit version if it has 16 bits, which Pillow would clip to white if it is grey.

    Of colours Pillow keeps the high bytes, which are right where white is the highest value there is.
    """
    values = levels(image, encoded, where) if white < 65535 or not is_deep_colour(image) else None
    image.load()
    if values is not None:
        scaled = (values.astype(np.float32) * (255 / white)).round().clip(0, 255)
        if values.shape[2:] == (4,):
            scaled[..., 3] = values[..., 3] >> 8
        small: Image = pillow().fromarray(scaled.astype(np.uint8))
        small.info = dict(image.info)
        # A TIFF has its orientation among its own tags.
        small.info["exif"] = image.getexif().tobytes()
        return small
    if image.mode in ("I", "F"):
        raise RepulseError(
            f"{where}: the image has 32 bits per pixel, so what is white is not known; save it with 8 or 16 bits"
        )
    return image


def _over_white(image: Image) -> tuple[Image, bool]:
    """The image laid over white, and whether that showed anywhere."""
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return image, False
    seen = image.convert("RGBA")
    lowest: Any = seen.getchannel("A").getextrema()[0]
    under = pillow().new("RGBA", seen.size, "white")
    under.alpha_composite(seen)
    return under, lowest < 255


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="decode")
