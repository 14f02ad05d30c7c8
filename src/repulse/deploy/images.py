"""Whatever somebody calls an image, as the tensors that a classifier was trained on."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.data.decode import Encoded, Format, decode, pillow

if TYPE_CHECKING:
    from PIL.Image import Image

Images = str | Path | Tensor | np.ndarray[Any, Any] | Sequence["str | Path | Image"]
"""A file, a folder of files (searched whole), a list of these or of Pillow images, or pixels (N, C, H, W)."""


class Batches:
    """Images in batches: their names, and pixels (B, C, H, W) in [0, 1].

    Files are turned upright, laid over white, made grey or coloured, and scaled and cut to the size of training, as
    training images are. Tensors and arrays must have that shape: whole numbers are grey levels 0 to 255, others lie in
    [0, 1].

    Args:
        images: see `Images`.
        image_shape: (C, H, W) of training.
        size: images in a batch.

    Raises:
        RepulseError: if a file or folder is missing, a folder has no images, pixels have another shape or are out of
            range; when iterated, if an image is broken.
    """

    def __init__(self, images: Images, image_shape: tuple[int, ...], size: int) -> None:
        if size < 1:
            raise RepulseError(f"the batch size must be at least 1, got {size}")
        self.image_shape, self.size = image_shape, size
        self.pixels: Tensor | None = None
        self.files: list[tuple[str, Encoded]] = []
        if isinstance(images, Tensor | np.ndarray):
            self.pixels = self._checked(
                torch.from_numpy(np.array(images)) if isinstance(images, np.ndarray) else images
            )
        else:
            self.files = _found([images] if isinstance(images, str | Path) else images)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.files) if self.pixels is None else len(self.pixels)

    def __iter__(self) -> Iterator[tuple[list[str], Tensor]]:
        channels, *sides = self.image_shape
        form = Format(cast(Literal[1, 3], channels), (sides[0], sides[1]))
        for start in range(0, len(self), self.size):
            if self.pixels is not None:
                some = self.pixels[start : start + self.size]
                yield [str(start + i) for i in range(len(some))], some
            else:
                part = self.files[start : start + self.size]
                yield [name for name, _ in part], decode(_Part(part), range(len(part)), form).float() / 255

    def _checked(self, pixels: Tensor) -> Tensor:
        if pixels.ndim == len(self.image_shape):
            pixels = pixels.unsqueeze(0)
        if tuple(pixels.shape[1:]) != tuple(self.image_shape):
            raise RepulseError(
                f"images must have shape (N, {', '.join(map(str, self.image_shape))}) as in training, got "
                f"{tuple(pixels.shape)}; give files or Pillow images to have them resized"
            )
        if not pixels.is_floating_point():
            pixels = pixels.float() / 255
        if len(pixels) and not (pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6):
            raise RepulseError(
                f"pixels must lie in [0, 1], got {float(pixels.min()):.4g} to {float(pixels.max()):.4g}; "
                "normalisation is inside the model"
            )
        return pixels.float()


class _Part:
    """A few images, as `decode` wants them."""

    where = "image"

    def __init__(self, part: Sequence[tuple[str, Encoded]]) -> None:
        self.part = part

    def __len__(self) -> int:
        return len(self.part)

    def read(self, rows: Sequence[int]) -> list[Encoded]:
        return [self.part[row][1] for row in rows]


def _found(images: Sequence[Any]) -> list[tuple[str, Encoded]]:
    found: list[tuple[str, Encoded]] = []
    for number, each in enumerate(images):
        if isinstance(each, str | Path):
            found += [(str(file), {"path": str(file)}) for file in _files(Path(each).expanduser())]
        elif isinstance(each, pillow().Image):
            buffer = io.BytesIO()
            each.save(buffer, format="PNG")
            found.append((str(number), {"bytes": buffer.getvalue()}))
        else:
            raise RepulseError(f"an image is a path, a Pillow image or pixels, got a {type(each).__name__}")
    if not found:
        raise RepulseError("there are no images; name files or folders that hold some")
    return found


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise RepulseError(f"no such image file or folder: {place}")
    # Made complete by `pillow()`, which loads every reader.
    endings = set(pillow().registered_extensions())
    files = sorted(file for file in place.rglob("*") if file.suffix.lower() in endings and file.is_file())
    if not files:
        raise RepulseError(f"folder {place} holds no image files")
    return files
