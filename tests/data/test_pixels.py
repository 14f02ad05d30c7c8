"""From image files to pixels: what people's files hold, against arrays that NumPy made."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from repulse.common import notice
from repulse.common.errors import RepulseError
from repulse.data.decode import Format, decode
from repulse.data.headers import common_format


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(notice, "_said", set())


class Stored:
    """Encoded images, as a table would hold them."""

    where = "here"

    def __init__(self, *images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def read(self, rows):
        return [{"bytes": self.images[row]} for row in rows]


def stored(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "PPM", "TIFF"])
def test_sixteen_bits_become_eight_not_white(form):
    array = np.linspace(0, 65535, 36).round().astype(np.uint16).reshape(6, 6)
    file = io.BytesIO()
    Image.fromarray(array).save(file, form)
    found = decode(Stored(file.getvalue()), [0], Format(1, None))
    assert (found[0, 0].double() - torch.from_numpy(array.astype(float)) / 257).abs().max() <= 0.5
    assert common_format([Stored(file.getvalue())], None, None) == Format(1, (6, 6))


def test_thirty_two_bits_are_refused():
    file = io.BytesIO()
    Image.fromarray(np.ones((4, 4), np.float32)).save(file, "TIFF")
    message = "here row 0: the image has 32 bits per pixel, so what is white is not known; save it with 8 or 16 bits"
    with pytest.raises(RepulseError, match=f"^{message}$"):
        decode(Stored(file.getvalue()), [0], Format(1, None))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_damaged_files_raise_no_other_kind_of_error(form):
    random = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file, form)
    for _ in range(150):
        damaged = bytearray(file.getvalue())
        for place in random.integers(0, min(60, len(damaged)), 3):
            damaged[place] = random.integers(256)
        # Damage may also leave a readable image; what must not come is another kind of error.
        with contextlib.suppress(RepulseError):
            decode(Stored(bytes(damaged[: random.integers(1, 2 * len(damaged))])), [0], Format(3, (16, 16)))


LEFT_TO_RIGHT = np.repeat(np.linspace(0, 255, 8).astype(np.uint8)[None], 4, 0)
"""4x8, dark on the left."""


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_upright(orientation):
    upright = np.arange(32, dtype=np.uint8).reshape(4, 8) * 8
    # What EXIF 2.3 says of each number: where the first row and the first column of the file are to be seen.
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    images = Stored(stored(Image.fromarray(np.ascontiguousarray(turned)), "PNG", exif=exif.tobytes()))
    form = common_format([images], None, None)
    assert form.size == (4, 8)
    assert decode(images, [0], form)[0, 0].tolist() == upright.tolist()


def transparent(mode):
    """Black on the left and nothing, over black, on the right; in each way that a PNG says so."""
    if mode == "LA":
        return stored(Image.merge("LA", (Image.new("L", (4, 2), 0), alpha())))
    if mode == "RGBA":
        return stored(Image.merge("RGBA", (*(Image.new("L", (4, 2), 0) for _ in range(3)), alpha())))
    values = np.array([[0, 0, 7, 7]] * 2, np.uint8)
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette([0, 0, 0] * 256)
    return stored(image, transparency=7)


def alpha():
    return Image.fromarray(np.array([[255, 255, 0, 0]] * 2, np.uint8))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_is_white(mode, channels, capsys):
    found = decode(Stored(transparent(mode)), [0], Format(channels, None))
    assert (found == torch.tensor([0, 0, 255, 255])).all()
    assert capsys.readouterr().err == "repulse: note: here: what is transparent in an image is laid over white\n"


def test_half_transparent_is_mixed_with_white():
    image = Image.new("RGBA", (2, 2), (100, 0, 200, 51))
    # 51/255 is a fifth.
    assert decode(Stored(stored(image)), [0], Format(3, None))[0, :, 0, 0].tolist() == [224, 204, 244]


def test_an_alpha_channel_that_hides_nothing_changes_nothing(capsys):
    colours = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    image = Image.fromarray(colours)
    image.putalpha(255)
    found = decode(Stored(stored(image)), [0], Format(3, None))
    assert (found[0].permute(1, 2, 0).numpy() == colours).all()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_fewer_bits_in_sixteen_are_not_black(bits, form, capsys):
    top = 2**bits - 1
    bright, dark = (np.linspace(0, high, 16).round().astype(np.uint16).reshape(4, 4) for high in (top, top / 9))
    # One scale for all: dark images stay dark beside bright ones.
    images = Stored(*(stored(Image.fromarray(array), form) for array in (dark, bright)))
    form = common_format([images], None, None)
    found = decode(images, [0, 1], form)[:, 0].double()
    expected = torch.from_numpy(np.stack((dark, bright)).astype(float)) * 255 / top
    assert (found - expected).abs().max() <= 0.5
    note = f"here: 16-bit images hold nothing above {top}, so {top} is taken as white"
    assert capsys.readouterr().err == f"repulse: note: {note}\n"


def deep_png(array):
    """A PNG of 16 bits in each of 3 or 4 channels, (H, W, C), which Pillow does not write."""
    height, width, channels = array.shape
    rows = array.astype(">u2").reshape(height, -1).view(np.uint8)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    # Every row says by how much it differs from the one above, as encoders do.
    filtered = rows - np.vstack((np.zeros_like(rows[:1]), rows[:-1]))
    body = zlib.compress(b"".join(b"\x02" + row.tobytes() for row in filtered))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [3, 4])
def test_fewer_bits_in_sixteen_are_not_black_in_colour_either(bits, channels, capsys):
    top = 2**bits - 1
    bright = np.random.default_rng(0).integers(0, top + 1, (4, 5, 3))
    bright[0, 0] = top
    arrays = np.stack((bright // 9, bright))
    opaque = np.full((2, 4, 5, channels - 3), 65535)
    images = Stored(*(deep_png(each) for each in np.concatenate((arrays, opaque), 3)))
    form = common_format([images], None, None)
    assert form.channels == 3
    found = decode(images, [0, 1], form).permute(0, 2, 3, 1).double().numpy()
    expected = arrays * 255 / top
    # Of true 16 bits Pillow keeps the high byte.
    assert np.abs(found - expected).max() <= (0.5 if bits < 16 else 1)
    note = f"repulse: note: here: 16-bit images hold nothing above {top}, so {top} is taken as white\n"
    assert capsys.readouterr().err == (note if bits < 16 else "")


def test_a_grey_image_and_colours_of_twelve_bits_share_one_scale():
    grey = Image.fromarray(np.full((2, 2), 4095, np.uint16))
    images = Stored(stored(grey), deep_png(np.full((2, 2, 3), 2048)))
    found = decode(images, [0, 1], common_format([images], None, None))
    assert found.shape == (2, 3, 2, 2)
    assert found.flatten(1).unique(dim=1).flatten().tolist() == [255, 128]


def test_sixteen_bits_are_upright_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    array = np.array([[0, 4095], [2048, 1024], [512, 256]], np.uint16)
    images = Stored(stored(Image.fromarray(array), "TIFF", exif=exif))
    found = decode(images, [0], common_format([images], None, None))
    assert found.shape == (1, 1, 2, 3)
    assert (found[0, 0].double() - torch.from_numpy(np.rot90(array, -1).astype(float)) * 255 / 4095).abs().max() <= 0.5


COLOUR = stored(Image.new("RGB", (4, 4), (10, 20, 30)))
GREY = stored(Image.new("L", (4, 4), 40))
JPEGS = {mode: stored(Image.new(mode, (4, 4), 40), "JPEG") for mode in ("L", "RGB")}


@pytest.mark.parametrize("order", [(GREY, COLOUR), (COLOUR, GREY), (GREY, GREY, JPEGS["RGB"]), (JPEGS["L"], COLOUR)])
def test_one_image_in_colour_makes_the_set_coloured(order, capsys):
    assert common_format([Stored(*order)], None, None).channels == 3
    mixed = "here: grey and colour images are mixed, so all are read in colour; or give channels"
    assert capsys.readouterr().err == ("" if order[0] is COLOUR else f"repulse: note: {mixed}\n")


def test_colour_in_the_test_images_counts():
    assert common_format([Stored(GREY, GREY), Stored(GREY, COLOUR)], None, None).channels == 3


def test_a_grey_set_is_grey_and_channels_that_are_asked_for_win():
    assert common_format([Stored(GREY, JPEGS["L"])], None, None).channels == 1
    assert common_format([Stored(GREY, COLOUR)], None, 1).channels == 1
    assert common_format([Stored(GREY)], None, 3).channels == 3
