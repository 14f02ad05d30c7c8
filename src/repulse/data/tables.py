"""Tables of images and labels, as Hugging Face `datasets` reads them: which column is which."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repulse.common.errors import RepulseError
from repulse.common.registry import unknown_name
from repulse.data.decode import Encoded
from repulse.data.sources import Columns, Split

_LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "y")


@dataclass(frozen=True, eq=False)
class TableImages:
    """The undecoded images of one table."""

    table: Any
    column: str
    where: str

    def __len__(self) -> int:
        return len(self.table)

    def read(self, rows: Sequence[int]) -> list[Encoded]:
        """The images of these rows, as they are stored."""
        return [image or {} for image in self.table[list(rows)][self.column]]


def read_tables(kind: str, source: str, **files: Any) -> dict[str, Any]:
    """The splits that `datasets.load_dataset` finds.

    Args:
        kind: what an error calls the source.
        source: what an error calls it by name.
        files: arguments of `load_dataset`.

    Raises:
        RepulseError: if nothing can be read there.
    """
    import datasets

    level = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        return dict(datasets.load_dataset(**files))
    except Exception as error:  # datasets raises many kinds, without a common base
        # What it says of a broken file is only that there was an error.
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise RepulseError(f"cannot read {source} as a {kind}: {reason}") from error
    finally:
        datasets.logging.set_verbosity(level)
        datasets.enable_progress_bars()


def table_splits(tables: Mapping[str, Any], source: str, name: str, columns: Columns) -> dict[str, Split]:
    """Each table as a split, with the columns of images and labels that the first table has.

    Raises:
        RepulseError: in one line that names the column that is wrong, missing or not plain.
    """
    first = next(iter(tables.values()))
    image_column = _image_column(first, columns.image, source)
    label_column = _label_column(first, columns.label, image_column, source)
    return {
        split: _split(table, image_column, label_column, source, split, f"{name} {split}")
        for split, table in tables.items()
    }


def _split(table: Any, image_column: str, label_column: str, source: str, split: str, where: str) -> Split:
    import datasets

    for column in (image_column, label_column):
        if column not in table.column_names:
            raise RepulseError(
                f"split {split!r} of {source} has no column {column!r}; it has {_listed(table.column_names)}"
            )
    feature = table.features[label_column]
    plain = isinstance(feature, datasets.Value) and feature.dtype.startswith(
        ("int", "uint", "float", "bool", "string", "large_string")
    )
    names = feature.names if isinstance(feature, datasets.ClassLabel) else None
    if not plain and names is None:
        raise RepulseError(
            f"column {label_column!r} of {source} does not hold one label per image; its columns are "
            f"{_listed(table.column_names)}; give label_column"
        )
    try:
        images = table.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise RepulseError(f"column {image_column!r} does not hold images; give image_column") from error
    return Split(TableImages(images, image_column, where), list(table[label_column][:]), where, names)


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


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(str, names))
