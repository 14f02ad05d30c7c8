import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from repulse.common.errors import RepulseError
from repulse.data import Augment, ImageSet, batches, steps_per_epoch


def images(count=50, size=6, channels=2):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 5, tuple("abcde"), "set", "train")


def joined(found):
    xs, ys = zip(*found, strict=True)
    return torch.cat(xs), torch.cat(ys)


def test_an_epoch_shows_every_image_once_in_unit_range():
    source = images()
    x, y = joined(batches(source, 8, epoch=0, seed=1, shuffle=True))
    assert x.dtype == torch.float32
    original = {
        tuple(row): int(label) for row, label in zip(source.images.flatten(1).tolist(), source.labels, strict=True)
    }
    seen = [tuple(row) for row in (x * 255).round().to(torch.uint8).flatten(1).tolist()]
    assert sorted(seen) == sorted(original)
    assert [original[row] for row in seen] == y.tolist()


def test_order_is_of_seed_and_epoch():
    source = images()
    first = joined(batches(source, 8, epoch=0, seed=1, shuffle=True))[0]
    assert torch.equal(first, joined(batches(source, 8, epoch=0, seed=1, shuffle=True))[0])
    for epoch, seed in ((1, 1), (0, 2)):
        assert not torch.equal(first, joined(batches(source, 8, epoch=epoch, seed=seed, shuffle=True))[0])
    plain = joined(batches(source, 8, epoch=3, seed=1, shuffle=False))[0]
    torch.testing.assert_close(plain, source.images / 255)


@given(count=st.integers(1, 200), size=st.integers(1, 64), drop=st.booleans())
def test_steps_are_the_batches_there_are(count, size, drop):
    found = list(torch.arange(count).split(size))
    full = [part for part in found if len(part) == size or not drop]
    assert steps_per_epoch(count, size, drop_last=drop) == len(full)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_what_one_would_see(world):
    source = images()
    options = {
        "epoch": 2,
        "seed": 4,
        "shuffle": True,
        "augment": Augment(crop_padding=2, padding_mode="reflect", flip="random", cutout=3),
    }
    whole = list(batches(source, 9, **options))
    parts = [list(batches(source, 9, **options, rank=rank, world_size=world)) for rank in range(world)]
    for step, (x, y) in enumerate(whole):
        for rank in range(world):
            assert torch.equal(parts[rank][step][0], x[rank::world])
            assert torch.equal(parts[rank][step][1], y[rank::world])


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_a_shift_is_a_window_of_the_padded_image(mode):
    source = images(40)
    augment = Augment(crop_padding=2, padding_mode=mode)
    x, _ = joined(batches(source, 40, epoch=0, seed=1, shuffle=False, augment=augment))
    pad = torch.nn.functional.pad
    padded = pad(source.images.float(), (2, 2, 2, 2), **({} if mode == "zeros" else {"mode": "reflect"})) / 255
    shifts = set()
    for index in range(40):
        found = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if torch.allclose(x[index], padded[index, :, row : row + 6, column : column + 6])
        ]
        assert len(found) == 1
        shifts |= set(found)
    assert len(shifts) > 12


def test_random_flips_mirror_about_half():
    source = images(400)
    x, _ = joined(batches(source, 400, epoch=0, seed=1, shuffle=False, augment=Augment(flip="random")))
    mirrored = (x == source.images.flip(3) / 255).flatten(1).all(1)
    kept = (x == source.images / 255).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 0.4 < mirrored.double().mean() < 0.6


def test_alternating_flips_mirror_every_image_every_other_epoch():
    source = images(400)
    mirrored = []
    for epoch in range(3):
        x, _ = joined(batches(source, 100, epoch=epoch, seed=1, shuffle=False, augment=Augment(flip="alternating")))
        mirrored.append((x == source.images.flip(3) / 255).flatten(1).all(1))
    assert torch.equal(mirrored[0], ~mirrored[1])
    assert torch.equal(mirrored[0], mirrored[2])
    assert 0.4 < mirrored[0].double().mean() < 0.6


def test_cutout_greys_one_square():
    source = ImageSet(torch.zeros(60, 1, 12, 12, dtype=torch.uint8), torch.zeros(60).long(), ("a",), "x", "train")
    x, _ = joined(batches(source, 60, epoch=0, seed=1, shuffle=False, augment=Augment(cutout=4)))
    for image in x[:, 0]:
        rows, columns = image.any(1).nonzero().flatten(), image.any(0).nonzero().flatten()
        # At the border a part of the square falls outside.
        assert 2 <= len(rows) <= 4
        assert 2 <= len(columns) <= 4
        assert image.count_nonzero() == len(rows) * len(columns)
        assert image.max() == 127 / 255


def test_no_augmentation_changes_nothing():
    source = images()
    x, _ = joined(batches(source, 50, epoch=0, seed=1, shuffle=False, augment=Augment()))
    torch.testing.assert_close(x, source.images / 255)


def test_reflection_wider_than_the_image_is_refused():
    found = batches(
        images(size=3), 8, epoch=0, seed=0, shuffle=False, augment=Augment(crop_padding=4, padding_mode="reflect")
    )
    with pytest.raises(
        RepulseError, match=r"^cannot reflect 4 pixels of images of 3x3; choose a smaller crop_padding$"
    ):
        next(found)


class Slow:
    """A source that is not in memory, and notes what it was asked for."""

    def __init__(self, inner):
        self.inner, self.asked = inner, []
        self.labels, self.class_names, self.name, self.split = inner.labels, inner.class_names, "slow", "train"
        self.image_shape = inner.image_shape

    def __len__(self):
        return len(self.inner)

    def fetch(self, indices):
        self.asked.append(indices.tolist())
        return self.inner.fetch(indices)

    def take(self, indices):
        return Slow(self.inner.take(indices))

    def sha256(self):
        return self.inner.sha256()


def test_streamed_batches_are_those_of_memory_and_come_a_few_steps_ahead():
    source = Slow(images())
    options = {"epoch": 1, "seed": 2, "shuffle": True, "augment": Augment(crop_padding=1, flip="random")}
    found = batches(source, 5, **options)
    first = next(found)
    assert 1 <= len(source.asked) <= 4
    streamed = joined([first, *found])
    held = joined(batches(images(), 5, **options))
    assert torch.equal(streamed[0], held[0])
    assert torch.equal(streamed[1], held[1])


def test_a_broken_image_ends_a_stream_with_its_error():
    source = Slow(images())

    def broken(indices):
        raise RepulseError("row 7: the image is broken")

    source.fetch = broken
    with pytest.raises(RepulseError, match=r"^row 7: the image is broken$"):
        list(batches(source, 5, epoch=0, seed=0, shuffle=False))


def test_layout_is_as_asked():
    x, _ = next(batches(images(), 8, epoch=0, seed=0, shuffle=False, channels_last=True))
    assert x.is_contiguous(memory_format=torch.channels_last)
