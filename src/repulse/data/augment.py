"""Random changes to whole batches of training images, on the device they are on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int64, UInt8
from pydantic import Field
from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.common.settings import Settings


class Augment(Settings):
    """Random changes to training images: shift, mirror, cut out a square."""

    crop_padding: int = Field(0, ge=0, description="Shift by up to this many pixels in each direction; usually 4.")
    padding_mode: Literal["zeros", "reflect"] = Field(
        "zeros", description="What moves in from outside: black, or the image itself, mirrored."
    )
    flip: Literal["none", "random", "alternating"] = Field(
        "none", description="Mirror at random, or each image in every other epoch (Jordan 2024, section 3.6)."
    )
    cutout: int = Field(0, ge=0, description="Side of a square that is greyed out (DeVries & Taylor 2017); 0: none.")

    def __call__(self, images: UInt8[Tensor, "B C H W"], choices: Choices) -> UInt8[Tensor, "B C H W"]:
        """The images, changed as the `choices` say.

        Raises:
            RepulseError: if the images are too small for the padding.
        """
        if self.flip != "none":
            images = torch.where(choices.mirrored.view(-1, 1, 1, 1), images.flip(3), images)
        if self.crop_padding:
            images = _shift(images, choices.shifts, self.crop_padding, self.padding_mode)
        if self.cutout:
            images = _cut_out(images, choices.cuts, self.cutout)
        return images

    def choose(
        self,
        indices: Int64[Tensor, "B"],
        image_shape: tuple[int, int, int],
        epoch: int,
        random: torch.Generator,
    ) -> Choices:
        """Draw what happens to the images at these places of the data set in this epoch."""
        count = len(indices)
        _, height, width = image_shape
        shifts = torch.randint(0, 2 * self.crop_padding + 1, (count, 2), generator=random)
        if self.flip == "alternating":
            # Any fixed pseudo-random bit of the place will do: the first epoch mirrors half of the images, the next
            # one the other half.
            mirrored = ((indices * 0x9E3779B1) >> 15 & 1) == epoch % 2
        else:
            mirrored = torch.rand(count, generator=random) < 0.5
        cuts = torch.stack(
            (
                torch.randint(0, height, (count,), generator=random),
                torch.randint(0, width, (count,), generator=random),
            ),
            1,
        )
        return Choices(shifts, mirrored, cuts)


@dataclass(frozen=True)
class Choices:
    """What was drawn for each image of a batch: its shift (from 0), whether it is mirrored, the centre of its cut."""

    shifts: Int64[Tensor, "B 2"]
    mirrored: Bool[Tensor, "B"]
    cuts: Int64[Tensor, "B 2"]

    def rows(self, rows: slice, device: torch.device) -> Choices:
        """The choices of some of the images."""
        return Choices(self.shifts[rows].to(device), self.mirrored[rows].to(device), self.cuts[rows].to(device))


def _shift(images: Tensor, shifts: Tensor, padding: int, mode: str) -> Tensor:
    _, _, height, width = images.shape
    if mode == "reflect" and padding >= min(height, width):
        raise RepulseError(
            f"cannot reflect {padding} pixels of images of {height}x{width}; choose a smaller crop_padding"
        )
    pad = (padding,) * 4
    # uint8 has no reflection padding on every device; float16 holds 0 to 255 exactly, as float32 does.
    padded = F.pad(images.float(), pad, mode="reflect").to(torch.uint8) if mode == "reflect" else F.pad(images, pad)
    # One copy per shift and axis, of all images that share it, is far faster than gathering pixel by pixel.
    rows = padded.new_empty((*images.shape[:3], padded.shape[3]))
    for shift in range(2 * padding + 1):
        group = (shifts[:, 0] == shift).nonzero().flatten()
        rows.index_copy_(0, group, padded.index_select(0, group)[:, :, shift : shift + height])
    shifted = torch.empty_like(images)
    for shift in range(2 * padding + 1):
        group = (shifts[:, 1] == shift).nonzero().flatten()
        shifted.index_copy_(0, group, rows.index_select(0, group)[:, :, :, shift : shift + width])
    return shifted


def _cut_out(images: Tensor, centres: Tensor, side: int) -> Tensor:
    _, _, height, width = images.shape
    low = -(side // 2)

    def inside(length: int, centre: Tensor) -> Tensor:
        offset = torch.arange(length, device=images.device) - centre.unsqueeze(1)
        return (offset >= low) & (offset < low + side)

    square = inside(height, centres[:, 0]).unsqueeze(2) & inside(width, centres[:, 1]).unsqueeze(1)
    return images.masked_fill(square.unsqueeze(1), 127)
