"""What all images of a data set have in common, from their headers: grey or colour, size, bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from repulse.common.errors import RepulseError
from repulse.common.notice import notice
from repulse.data.decode import Encoded, EncodedImages, Format, is_deep_colour, levels, open_image, place, pool_map

_CHUNK = 4096
_PNG = b"\x89PNG\r\n\x1a\n"

# Bits that cameras, scanners and tools put into 16.
_BITS = (8, 10, 12, 14, 16)

# EXIF orientations that lie on their side.
_ON_SIDE = (5, 6, 7, 8)


class Header(NamedTuple):
    """Of one image: whether it is grey, and whether its pixels have 16 bits in each channel."""

    grey: bool
    deep: bool


def common_format(parts: Sequence[EncodedImages], image_size: int | None, channels: Literal[1, 3] | None) -> Format:
    """The format that images are decoded to: the size of the first, in colour if any has colour.

    Args:
        parts: the splits that are used; a test set in colour makes grey training images colour too.
        image_size: bring all to this many pixels square.
        channels: grey or colour, if it is given.

    Raises:
        RepulseError: if an image is broken.
    """
    first = parts[0]
    images = first.read([0])
    where = place(images[0] or {}, first.where, 0)
    size = (image_size, image_size) if image_size is not None else _size(images[0] or {}, where)
    head = _header(images[0] or {}, where)
    if not head.grey and not head.deep:
        return Format(channels or 3, size)
    deep: list[tuple[EncodedImages, int]] = []
    mixed = False
    for part, row, header in _headers(parts):
        if head.grey and not header.grey and channels is None and not mixed:
            notice(f"{part.where}: grey and colour images are mixed, so all are read in colour; or give channels")
            mixed = True
        if header.deep:
            deep.append((part, row))
    return Format(channels or (1 if head.grey and not mixed else 3), size, _white(deep))


def _headers(parts: Sequence[EncodedImages]) -> Iterator[tuple[EncodedImages, int, Header]]:
    for part in parts:
        for start in range(0, len(part), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(part)))
            images = [image or {} for image in part.read(rows)]
            places = [place(image, part.where, row) for image, row in zip(images, rows, strict=True)]
            for row, header in zip(rows, pool_map(_header, images, places), strict=True):
                yield part, row, header


def _header(image: Encoded, where: str) -> Header:
    data = image.get("bytes")
    if data is not None and data[:8] == _PNG and data[12:16] == b"IHDR" and len(data) > 25:
        # Bit depth and colour type stand in fixed places, so that tables of many small images are looked through fast.
        return Header(data[25] in (0, 4), data[24] == 16)
    with open_image(image, where) as opened:
        grey = opened.mode in ("1", "L", "LA", "F") or opened.mode.startswith("I")
        return Header(grey, (grey and opened.mode.startswith("I")) or is_deep_colour(opened))


def _size(image: Encoded, where: str) -> tuple[int, int]:
    with open_image(image, where) as opened:
        try:
            notes = opened.getexif()
            # Pillow gives the size of a TIFF as it is upright, since 11.
            upright = opened.format == "TIFF" and notes.get(0x0100) != opened.width
            on_side = notes.get(0x0112) in _ON_SIDE and not upright
        except Exception:  # a damaged note; decoding passes over it too
            on_side = False
        return (opened.width, opened.height) if on_side else (opened.height, opened.width)


def _white(deep: Sequence[tuple[EncodedImages, int]]) -> int:
    """What is white in images of 16 bits: the highest value of as many bits as the brightest of them all needs."""
    if not deep:
        return 65535
    brightest: int = max(pool_map(_brightest, *zip(*deep, strict=True)))
    # 32 bits, or black throughout: decoding has its own say.
    if not brightest:
        return 65535
    bits = next(bits for bits in _BITS if brightest < 2**bits)
    if bits < 16:
        notice(f"{deep[0][0].where}: 16-bit images hold nothing above {brightest}, so {2**bits - 1} is taken as white")
    return int(2**bits) - 1


def _brightest(part: EncodedImages, row: int) -> int:
    image = part.read([row])[0]
    where = place(image, part.where, row)
    with open_image(image, where) as opened:
        try:
            values = levels(opened, image or {}, where)
        except Exception as error:  # as in decoding
            reason = " ".join(str(error).split())
            raise RepulseError(f"{where}: the image is broken ({reason}); replace or remove it") from error
    if values is None:
        return 0
    return int(np.max(values[..., :3] if values.ndim == 3 else values))
