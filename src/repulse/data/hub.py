"""Anything that Hugging Face `datasets` reads: parquet folders, image folders, Hub ids."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.common.registry import unknown_name
from repulse.data.decode import Encoded, Format, decode, native_format
from repulse.data.images import ImageSet, ImageSource, check_classes, check_labels
from repulse.data.stream import StreamedImages

# A split of at most this many bytes, decoded, is held in memory.
IN_MEMORY_BYTES = 2 * 1024**3

_TRAIN_SPLITS = ("train", "training")
_TEST_SPLITS = ("test", "validation", "valid", "val", "dev")
_LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "y")


@dataclass(frozen=True)
class Columns:
    """Which columns to read, as given by the user; None: found by itself."""

    image: str | None = None
    label: str | None = None


def read_hub(
    source: str,
    *,
    columns: Columns,
    train_split: str | None,
    test_split: str | None,
    class_names: Sequence[str] | None,
    image_size: int | None,
    channels: Literal[1, 3] | None,
    name: str,
    in_memory: bool | None,
) -> tuple[ImageSource, ImageSource | None]:
    """The training and the test split of a data set; the test split is None if there is only one split.

    Raises:
        RepulseError: in one line that names the file, row, column or split that is wrong.
    """
    splits = _load(source)
    train_name = _split(splits, train_split, _TRAIN_SPLITS, source)
    others = [split for split in splits if split != train_name]
    test_name = None
    if test_split is not None or others:
        test_name = _split({split: splits[split] for split in others}, test_split, _TEST_SPLITS, source)
    first = splits[train_name]
    image_column = _image_column(first, columns.image, source)
    label_column = _label_column(first, columns.label, image_column, source)
    _check_label_column(first, label_column, source)
    names = _class_names(first, label_column, class_names, f"{name} {train_name}")
    splits = {split: _undecoded(table, image_column) for split, table in splits.items()}
    form = _format(splits[train_name][0:1], image_column, image_size, channels, f"{name} {train_name} row 0")

    def read(split: str, role: str) -> ImageSource:
        table = splits[split]
        for column in (image_column, label_column):
            if column not in table.column_names:
                raise RepulseError(
                    f"split {split!r} of {source} has no column {column!r}; it has {_listed(table.column_names)}"
                )
        rows = _Rows(table, image_column, f"{name} {split}")
        labels = _labels(table, label_column, names, f"{name} {split}")
        if role == "train":
            check_classes(labels, names, f"{name} {split}")
        size = math.prod((len(table), form.channels, *(form.size or (1, 1))))
        if in_memory if in_memory is not None else size <= IN_MEMORY_BYTES:
            # One size was seen, but no image is to be resized silently: the format leaves it open unless it is given.
            strict = form if image_size is not None else Format(form.channels, None)
            return ImageSet(rows.decode_all(strict), labels, tuple(names), name, role)
        if image_size is None:
            raise RepulseError(f"{source} is too large to hold in memory; give image_size, so that it can be streamed")
        return StreamedImages(rows, form, labels, tuple(names), name, role)

    train = read(train_name, "train")
    return train, None if test_name is None else read(test_name, "test")


class _Rows:
    """The undecoded images of one split."""

    def __init__(self, table: Any, column: str, where: str) -> None:
        self.table = table.select_columns([column])
        self.column = column
        self.where = where

    def __len__(self) -> int:
        return len(self.table)

    def fetch(self, indices: Sequence[int], form: Format) -> Tensor:
        images: list[Encoded] = [row or {} for row in self.table[list(indices)][self.column]]
        return decode(images, form, [_place(image, self.where, i) for image, i in zip(images, indices, strict=True)])

    def decode_all(self, form: Format) -> Tensor:
        chunks: list[Tensor] = []
        for start in range(0, len(self), 4096):
            chunk = self.fetch(range(start, min(start + 4096, len(self))), form)
            if chunks and chunk.shape[1:] != chunks[0].shape[1:]:
                raise RepulseError(
                    f"{self.where} row {start}: the image has {chunk.shape[2]}x{chunk.shape[3]} pixels, but row 0 has "
                    f"{chunks[0].shape[2]}x{chunks[0].shape[3]}; give image_size to bring all to one size"
                )
            chunks.append(chunk)
        return torch.cat(chunks)


def _place(image: Encoded, where: str, row: int) -> str:
    # A file's own path says more than a row; images inside parquet files have only a row.
    path = image.get("path")
    return str(path) if path and image.get("bytes") is None else f"{where} row {row}"


def _load(source: str) -> dict[str, Any]:
    import datasets

    local = Path(source)
    if local.exists() and not local.is_dir():
        raise RepulseError(f"{source} is a file; give the folder that holds the images or parquet files")
    if not local.exists() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise RepulseError(f"no such folder: {source}")
    if local.is_dir() and not any(path.is_file() for path in local.rglob("*")):
        raise RepulseError(f"the folder {source} is empty")
    level = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(str(local.resolve()) if local.is_dir() else source)
    except Exception as error:  # datasets raises many kinds, without a common base
        reason = " ".join(str(error).split())[:200]
        kind = "folder" if local.is_dir() else "Hugging Face Hub id (or a local folder that does not exist)"
        raise RepulseError(f"cannot read {source} as a {kind}: {reason}") from error
    finally:
        datasets.logging.set_verbosity(level)
        datasets.enable_progress_bars()
    return dict(loaded)


def _split(splits: dict[str, Any], wanted: str | None, usual: Sequence[str], source: str) -> str:
    if wanted is not None:
        if wanted not in splits:
            raise unknown_name(f"split of {source}", wanted, splits)
        return wanted
    for split in usual:
        if split in splits:
            return split
    if len(splits) == 1:
        return next(iter(splits))
    raise RepulseError(f"which split of {source}? It has {_listed(splits)}; give train_split and test_split")


def _image_column(table: Any, wanted: str | None, source: str) -> str:
    import datasets

    if wanted is not None:
        if wanted not in table.column_names:
            raise unknown_name(f"column of {source}", wanted, table.column_names)
        return wanted
    found: list[str] = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    if len(found) != 1:
        what = "no column of images" if not found else f"several columns of images ({_listed(found)})"
        raise RepulseError(f"{source} has {what}; its columns are {_listed(table.column_names)}; give image_column")
    return found[0]


def _undecoded(table: Any, column: str) -> Any:
    import datasets

    if column not in table.column_names:
        return table
    try:
        return table.cast_column(column, datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise RepulseError(f"column {column!r} does not hold images; give image_column") from error


def _label_column(table: Any, wanted: str | None, image_column: str, source: str) -> str:
    import datasets

    if wanted is not None:
        if wanted not in table.column_names:
            raise unknown_name(f"column of {source}", wanted, table.column_names)
        return wanted
    classes = [name for name, feature in table.features.items() if isinstance(feature, datasets.ClassLabel)]
    for found in (classes, [name for name in _LABEL_COLUMNS if name in table.column_names]):
        if len(found) == 1 or (found and found[0] in _LABEL_COLUMNS):
            return found[0]
    rest = [name for name in table.column_names if name != image_column]
    if not rest:
        raise RepulseError(f"{source} has no labels; an image folder needs a folder for each of at least two classes")
    raise RepulseError(
        f"{source} has no column that is plainly the label; besides {image_column!r} it has {_listed(rest)}; "
        "give label_column"
    )


def _check_label_column(table: Any, column: str, source: str) -> None:
    import datasets

    feature = table.features[column]
    plain = isinstance(feature, datasets.Value) and feature.dtype.startswith(
        ("int", "uint", "float", "bool", "string", "large_string")
    )
    if not plain and not isinstance(feature, datasets.ClassLabel):
        raise RepulseError(
            f"column {column!r} of {source} does not hold one label per image; its columns are "
            f"{_listed(table.column_names)}; give label_column"
        )


def _class_names(table: Any, column: str, given: Sequence[str] | None, where: str) -> list[str]:
    import datasets

    if given is not None:
        return list(given)
    feature = table.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return list(feature.names)
    values = [value for value in table.unique(column) if value is not None]
    if any(isinstance(value, str) for value in values):
        return sorted(values)
    # What is no whole number is refused later, with its row.
    highest = max((int(value) for value in values if math.isfinite(value)), default=-1)
    if highest >= len(table):
        # Checked before a name is made for each: an id in place of a label can be in the billions.
        raise RepulseError(
            f"{where}: labels go up to {highest}, but there are only {len(table)} images; labels must have no gaps"
        )
    return [str(label) for label in range(highest + 1)]


def _labels(table: Any, column: str, names: Sequence[str], where: str) -> Tensor:
    values = table[column][:]
    for row, value in enumerate(values):
        if value is None:
            raise RepulseError(f"{where} row {row}: the label is missing")
    if values and isinstance(values[0], str):
        place = {name: index for index, name in enumerate(names)}
        for row, value in enumerate(values):
            if value not in place:
                raise RepulseError(f"{where} row {row}: {unknown_name('label', value, names)}")
        values = [place[value] for value in values]
    else:
        for row, value in enumerate(values):
            if not math.isfinite(value) or int(value) != value:
                raise RepulseError(f"{where} row {row}: label {value} is not a whole number")
    labels = torch.tensor(values, dtype=torch.int64)
    check_labels(labels, len(names), where)
    return labels


def _format(rows: Any, column: str, image_size: int | None, channels: Literal[1, 3] | None, where: str) -> Format:
    images = rows[column]
    if not images or images[0] is None:
        raise RepulseError(f"{where}: there is no image")
    native = native_format(images[0], _place(images[0], where.removesuffix(" row 0"), 0))
    size = native.size if image_size is None else (image_size, image_size)
    return Format(channels or native.channels, size)


def _listed(names: Any) -> str:
    return ", ".join(map(str, names))
