"""One way to all images: embedded digits, a folder, a Hub id, or a source of a third party."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from repulse.common.errors import RepulseError

# Of the sources that take a folder, the one that is imported first reads it.
from repulse.data import digits, folder, hub, parquet  # noqa: F401
from repulse.data.headers import common_format
from repulse.data.images import DataSplits, ImageSet, ImageSource, check_classes, stratified_indices
from repulse.data.labels import named, numbered, own_names
from repulse.data.sources import Auto, Columns, Source, Split
from repulse.data.splits import choose_splits, unlabelled
from repulse.data.stream import StreamedImages

# Where a data set has no test split, this share of its images becomes one.
TEST_SHARE = 0.2

# A split of at most this many bytes, decoded, is held in memory.
IN_MEMORY_BYTES = 2 * 1024**3

_kept: dict[str, _Data] | None = None


@contextmanager
def data_kept() -> Iterator[None]:
    """Within this context, what was read from a source is not read again: for many runs in one process."""
    global _kept
    before, _kept = _kept, {} if _kept is None else _kept
    try:
        yield
    finally:
        _kept = before


def load_data(
    source: str,
    *,
    train_split: str | None = None,
    test_split: str | None = None,
    validation: float = 0.0,
    image_size: int | None = None,
    channels: Literal[1, 3] | None = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    in_memory: bool | None = None,
    reader: Source | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    seed: int = 0,
) -> DataSplits:
    """The training, validation and test images of a data set.

    Args:
        source: `digits` (8x8 handwritten digits, embedded); a folder with a folder of images per class, as it is or
            under `train/` and `test/`; a folder of parquet files in the Hugging Face layout; an id on the Hub; or the
            name of a registered source.
        train_split: name of the split to train on; `train` by default.
        test_split: name of the split to measure on; `test`, or else `validation`, by default. A set with one split only
            is divided, the same way every time.
        validation: share of the training images, and of each class, to hold out, in [0, 1); drawn from `seed`.
        image_size: bring all images to this many pixels square; needed if their sizes differ or they are streamed.
        channels: 1 for grey, 3 for colour; by default colour if any image has colour.
        class_names: names of the classes in the order of their numbers, or one text file with a name a line. Names that
            the data has too are found by name; others are new names for the data's classes. By default the data's own.
        name: what tables call the set; the source's own name by default.
        in_memory: hold decoded images in memory or decode them as they are needed; by default, by size.
        reader: how to read the source, with its settings; by default the registered source of that name, or the one
            that takes such a folder or id.
        image_column: column of the images in tables; found by itself if there is only one.
        label_column: column of the labels; found by itself if it is plain.
        seed: of the validation split.

    Raises:
        RepulseError: in one line that names what is wrong: a broken image, a missing column or split, one class only,
            a class without images, labels out of range, images of different sizes, an option that the source lacks.
    """
    if not 0 <= validation < 1:
        raise RepulseError(f"validation must be a share in [0, 1), got {validation}")
    columns, splits = Columns(image_column, label_column), (train_split, test_split)
    data = _opened(_Wanted(source, reader, columns, splits, image_size, channels, class_names, name, in_memory))
    train, test = data.divided()
    if test.image_shape != train.image_shape:
        raise RepulseError(
            f"{data.name}: training images are {_shape(train)}, test images {_shape(test)}; "
            "give image_size and channels"
        )
    if validation == 0:
        return DataSplits(train, None, test)
    train, held = _divide(train, validation, seed, "validation")
    return DataSplits(train, held, test)


def load_test(
    source: str,
    *,
    divide: bool = True,
    test_split: str | None = None,
    image_size: int | None = None,
    channels: Literal[1, 3] | None = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    in_memory: bool | None = None,
    train_split: str | None = None,
    reader: Source | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> ImageSource:
    """Only the images to measure on: the test images that `load_data` gives for the same arguments.

    Training images are not decoded where there is a test split, and classes may have no images.

    Args:
        source: as for `load_data`, and so are all arguments but the next.
        divide: divide a set with one split only; if not, all of it is measured on, which suits a model that was trained
            on something else.

    Raises:
        RepulseError: as `load_data`.
    """
    columns, splits = Columns(image_column, label_column), (train_split, test_split)
    data = _opened(_Wanted(source, reader, columns, splits, image_size, channels, class_names, name, in_memory))
    if data.splits[1] is not None or not divide:
        return data.test
    return data.divided()[1]


@dataclass(frozen=True)
class _Wanted:
    """What is asked of a source: the arguments of `load_data` and `load_test`."""

    source: str
    reader: Source | None
    columns: Columns
    splits: tuple[str | None, str | None]
    image_size: int | None
    channels: Literal[1, 3] | None
    class_names: Sequence[str] | None
    name: str | None
    in_memory: bool | None


def _opened(wanted: _Wanted) -> _Data:
    """The data set, read or as it was read before."""
    if wanted.image_size is not None and wanted.image_size < 1:
        raise RepulseError(f"image_size must be at least 1 pixel, got {wanted.image_size}")
    if _kept is not None and repr(wanted) in _kept:
        return _kept[repr(wanted)]
    data = _Data(wanted)
    if _kept is not None:
        _kept[repr(wanted)] = data
    return data


class _Data:
    """A data set whose splits are decoded when they are asked for."""

    def __init__(self, wanted: _Wanted) -> None:
        source, image_size, channels = wanted.source, wanted.image_size, wanted.channels
        kind = (wanted.reader or Auto()).of(source)
        if wanted.columns != Columns() and not kind.has_columns:
            raise RepulseError(f"{source} has no columns; leave out image_column and label_column")
        self.source, self.in_memory, self.image_size = source, wanted.in_memory, image_size
        self.name = wanted.name or Path(source).name or Path(source).resolve().name
        found = kind.read(source, self.name, wanted.columns)
        self.chosen = choose_splits(found, *wanted.splits, source, strict=kind.strict)
        train, test = (None if split is None else found[split] for split in self.chosen)
        self.splits: tuple[Split | None, Split | None] = train, test
        first = train if train is not None and not unlabelled(train) else test or train
        assert first is not None
        if unlabelled(first):
            raise RepulseError(
                f"{source} has no labels; an image folder needs a folder for each of at least two classes"
            )
        self.first = first
        self.own = own_names(first)
        self.class_names, self.classes = named(self.own, wanted.class_names, first.where)
        encoded = [
            split.images for split in (train, test) if split is not None and not isinstance(split.images, Tensor)
        ]
        asked = {"image_size": image_size, "channels": channels}
        unfit = [option for option, value in asked.items() if value is not None]
        if not encoded and unfit:
            raise RepulseError(f"the images of {source} are always the same; leave out {', '.join(unfit)}")
        self.format = common_format(encoded, image_size, channels) if encoded else None

    @cached_property
    def train(self) -> ImageSource:
        """The split to train on, whole."""
        split = self.splits[0]
        if split is None:
            raise RepulseError(f"{self.source} has no split to train on, only {self.chosen[1]}; give train_split")
        check_classes(self._labels(split), self.class_names, split.where)
        return self._decoded(split, "train")

    @cached_property
    def test(self) -> ImageSource:
        """The split to measure on, whole; the only one, if there is one only."""
        split = self.splits[1] or self.splits[0]
        assert split is not None
        return self._decoded(split, "train" if self.splits[1] is None else "test")

    def divided(self) -> tuple[ImageSource, ImageSource]:
        """What to train on and what to measure on, with no image in both."""
        if self.splits[0] is not None and self.splits[0] is self.splits[1]:
            raise RepulseError(f"{self.source}: train_split and test_split are both {self.chosen[0]!r}")
        if self.splits[1] is not None:
            return self.train, self.test
        return _divide(self.train, TEST_SHARE, 0, "test")

    def _labels(self, split: Split) -> Tensor:
        named_by_text = self.first.names is None and isinstance(self.first.labels[0], str)
        if named_by_text and split.names is None and not isinstance(split.labels[0], str | None):
            raise RepulseError(
                f"{split.where}: the labels are numbers, but those of {self.first.where} are names, and which is which "
                "is not known"
            )
        return numbered(split, self.own, self.classes, self.class_names)

    def _decoded(self, split: Split, role: str) -> ImageSource:
        labels = self._labels(split)
        if isinstance(split.images, Tensor):
            return ImageSet(split.images, labels, self.class_names, self.name, role)
        assert self.format is not None
        # One size was seen, but no image is to be resized silently: the format leaves it open unless it is given.
        form = self.format if self.image_size is not None else replace(self.format, size=None)
        streamed = StreamedImages(split.images, form, labels, self.class_names, self.name, role)
        size = len(split) * math.prod((self.format.channels, *(self.format.size or (1, 1))))
        if self.in_memory if self.in_memory is not None else size <= IN_MEMORY_BYTES:
            images = streamed.fetch(torch.arange(len(split)))
            return ImageSet(images, labels, self.class_names, self.name, role)
        if self.image_size is None:
            raise RepulseError(
                f"{self.source} is too large to hold in memory; give image_size, so that it can be streamed"
            )
        return streamed


def _divide(source: ImageSource, share: float, seed: int, split: str) -> tuple[ImageSource, ImageSource]:
    """Hold out a `share` of the images of each class: what is left, and what is held out."""
    count = round(share * len(source))
    if not 0 < count < len(source):
        raise RepulseError(
            f"{source.name}: a {split} share of {share} of {len(source)} images leaves none on one side; "
            "change the share"
        )
    held = stratified_indices(source.labels, count, seed, split)
    rest = torch.ones(len(source), dtype=torch.bool)
    rest[held] = False
    kept = source.take(rest.nonzero().flatten())
    check_classes(kept.labels, kept.class_names, f"{source.name} without a {split} share of {share}")
    return kept, replace(source.take(held), split=split)  # type: ignore[type-var]


def _shape(source: ImageSource) -> str:
    channels, height, width = source.image_shape
    return f"{height}x{width} with {channels} channel{'s' if channels > 1 else ''}"
