"""One way to all images: embedded digits, a folder, or a Hub id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from repulse.common.errors import RepulseError
from repulse.data.digits import digits
from repulse.data.hub import Columns, read_hub
from repulse.data.images import DataSplits, ImageSource, check_classes, stratified_indices

# Where a data set has no test split, this share of its images becomes one.
TEST_SHARE = 0.2

_KEPT: dict[str, tuple[ImageSource, ImageSource | None]] | None = None


@contextmanager
def data_kept() -> Iterator[None]:
    """Within this context, what was read from a folder or the Hub is not read again: for many runs in one process."""
    global _KEPT
    before, _KEPT = _KEPT, {} if _KEPT is None else _KEPT
    try:
        yield
    finally:
        _KEPT = before


def load_data(
    source: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    train_split: str | None = None,
    test_split: str | None = None,
    validation: float = 0.0,
    image_size: int | None = None,
    channels: Literal[1, 3] | None = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    in_memory: bool | None = None,
    divide: bool = True,
    seed: int = 0,
) -> DataSplits:
    """The training, validation and test images of a data set.

    Args:
        source: `digits` (8x8 handwritten digits, embedded); a folder of parquet files in the Hugging Face layout; a
            folder with a folder of images per class, as it is or under `train/` and `test/`; or an id on the Hub.
        image_column: column of the images; found by itself if there is only one.
        label_column: column of the labels; found by itself if it is plain.
        train_split: name of the split to train on; `train` by default.
        test_split: name of the split to measure on; `test`, or else `validation`, by default. A set with one split only
            is divided, the same way every time.
        validation: share of the training images, and of each class, to hold out, in [0, 1); drawn from `seed`.
        image_size: bring all images to this many pixels square; needed if their sizes differ or they are streamed.
        channels: 1 for grey, 3 for colour; as in the first image by default.
        class_names: names of the classes in the order of the labels; from the data by default.
        name: what tables call the set; the source's own name by default.
        in_memory: hold decoded images in memory or decode them as they are needed; by default, by size.
        divide: divide a set with one split only; if not, all of it is there to train on and to measure on alike, which
            suits a model that was trained on something else.
        seed: of the validation split.

    Raises:
        RepulseError: in one line that names what is wrong: a broken image, a missing column or split, one class only,
            a class without images, labels out of range, images of different sizes, options that the digits, which
            are what they are, cannot follow.
    """
    if not 0 <= validation < 1:
        raise RepulseError(f"validation must be a share in [0, 1), got {validation}")
    if image_size is not None and image_size < 1:
        raise RepulseError(f"image_size must be at least 1 pixel, got {image_size}")
    train: ImageSource
    test: ImageSource
    if source == "digits":
        options = {
            "image_column": image_column,
            "label_column": label_column,
            "train_split": train_split,
            "test_split": test_split,
            "image_size": image_size,
            "channels": channels,
            "class_names": class_names,
        }
        unfit = [option for option, value in options.items() if value is not None]
        if unfit:
            raise RepulseError(f"the embedded digits are always the same; leave out {', '.join(unfit)}")
        train, test = (replace(part, name=name or part.name) for part in digits())
    else:
        known = name or Path(source).name
        whole, held_out = _read(
            source,
            {
                "columns": Columns(image_column, label_column),
                "train_split": train_split,
                "test_split": test_split,
                "class_names": class_names,
                "image_size": image_size,
                "channels": channels,
                "name": known,
                "in_memory": in_memory,
            },
        )
        if held_out is not None or not divide:
            train, test = whole, held_out or whole
        else:
            train, test = _divide(whole, TEST_SHARE, 0, "test")
        if test.image_shape != train.image_shape:
            raise RepulseError(
                f"{known}: training images are {_shape(train)}, test images {_shape(test)}; "
                "give image_size and channels"
            )
    if validation == 0:
        return DataSplits(train, None, test)
    train, held = _divide(train, validation, seed, "validation")
    return DataSplits(train, held, test)


def _read(source: str, how: dict[str, Any]) -> tuple[ImageSource, ImageSource | None]:
    if _KEPT is None:
        return read_hub(source, **how)
    key = f"{source} {how}"
    if key not in _KEPT:
        _KEPT[key] = read_hub(source, **how)
    return _KEPT[key]


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
    return kept, _renamed(source.take(held), split)


def _renamed(source: ImageSource, split: str) -> ImageSource:
    return replace(source, split=split)  # type: ignore[type-var]


def _shape(source: ImageSource) -> str:
    channels, height, width = source.image_shape
    return f"{height}x{width} with {channels} channel{'s' if channels > 1 else ''}"
