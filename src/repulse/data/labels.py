"""Labels to classes 0 to n-1: by number, by the names that the data has, by the names that the user gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.common.notice import notice
from repulse.common.registry import unknown_name
from repulse.data.images import check_labels
from repulse.data.sources import Split


class OtherClassesError(RepulseError):
    """The classes of the data are not those that are asked for."""

    def __init__(self, message: str, own: Sequence[str]) -> None:
        super().__init__(message)
        self.own = tuple(own)


def own_names(split: Split) -> tuple[str, ...]:
    """The classes of a split in the data's own words: names of its labels, labels that are names, or numbers.

    Labels that are text are sorted; if all are whole numbers, as numbers.

    Raises:
        RepulseError: if a number is higher than there are images.
    """
    if split.names is not None:
        return tuple(split.names)
    values = {value for value in split.labels if value is not None}
    if any(isinstance(value, str) for value in values):
        return in_order(map(str, values), split.where)
    # What is no whole number is refused later, with its row.
    highest = max((int(value) for value in values if math.isfinite(value)), default=-1)
    if highest >= len(split.labels):
        # Checked before a name is made for each: an id in place of a label can be in the billions.
        raise RepulseError(
            f"{split.where}: labels go up to {highest}, but there are only {len(split.labels)} images; labels must "
            "have no gaps"
        )
    return tuple(str(label) for label in range(highest + 1))


def in_order(names: Any, where: str) -> tuple[str, ...]:
    """Names in alphabetical order, or by value if all are whole numbers; says where that may be a trap."""
    names = sorted(names)
    if not names or not all(name.isascii() and name.isdecimal() for name in names):
        return tuple(names)
    by_value = sorted(names, key=lambda name: (int(name), name))
    if by_value != names:
        notice(
            f"{where}: class names are numbers, so classes are in the order {_listed(by_value)}; torchvision's "
            f"ImageFolder has them as text, {_listed(names)}: for a model of that order, give class_names in it"
        )
    if [int(name) for name in by_value] != list(range(len(names))):
        notice(
            f"{where}: class names are the numbers {_listed(by_value)}, which become the classes 0 to "
            f"{len(names) - 1}; for a model of other or more classes, give all of its class_names"
        )
    return tuple(by_value)


def named(own: Sequence[str], given: Sequence[str] | None, where: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The names of the classes, and for each class of the data which of them it is.

    Names that the data has too are found by name, in whatever order they are given, and more may be given than the data
    has. Names of which the data has none are new names, in the order of the labels.

    Args:
        own: the data's own names.
        given: the user's names, or one text file with a name a line; None: the data's own.
        where: what messages call the data.

    Raises:
        RepulseError: if one name stands twice, or names are neither the data's own nor all new.
    """
    if given is None:
        return tuple(own), tuple(range(len(own)))
    given = _from_file(given)
    twice = sorted({name for name in given if given.count(name) > 1}) if len(set(given)) < len(given) else []
    if twice:
        raise RepulseError(f"class_names names {_listed(twice)} twice")
    index = {name: place for place, name in enumerate(given)}
    if all(name in index for name in own):
        return given, tuple(index[name] for name in own)
    # Numbers are no names: anything may stand for them.
    plain = all(name == str(place) for place, name in enumerate(own))
    moved = [name for place, name in enumerate(own) if index.get(name, place) != place]
    if (len(given) == len(own) and not moved) or (plain and len(given) >= len(own)):
        return given, tuple(range(len(own)))
    if len(given) < len(own) or (not moved and not any(name in index for name in own)):
        raise OtherClassesError(
            f"{where}: {len(given)} class_names are given, but the data has {len(own)} classes ({_listed(own)})", own
        )
    missing = [name for name in own if name not in index]
    raise OtherClassesError(
        f"{where}: class_names has {_listed(sorted(set(own) & set(given)))} of the data, but not "
        f"{_listed(missing)}; give all names of the data, in the order of the model",
        own,
    )


def numbered(split: Split, own: Sequence[str], classes: Sequence[int], names: Sequence[str]) -> Tensor:
    """The labels of a split as classes 0 to n-1.

    Args:
        split: the split.
        own: the data's own names, of the split that the classes are taken from.
        classes: for each of them, which class it is.
        names: the names of the classes.

    Raises:
        RepulseError: in one line that names the row of a label that is missing, no whole number, or no class.
    """
    # By name wherever there are names: another split may have the same ones in another order.
    known = {name: index for index, name in enumerate(names)} | dict(zip(own, classes, strict=True))
    found = []
    for row, value in enumerate(split.labels):
        if value is None:
            raise RepulseError(f"{split.place(row)}: the label is missing")
        if isinstance(value, str):
            if value not in known:
                raise RepulseError(f"{split.place(row)}: {unknown_name('label', value, own)}")
            found.append(known[value])
            continue
        if not math.isfinite(value) or int(value) != value:
            raise RepulseError(f"{split.place(row)}: label {value} is not a whole number")
        value = int(value)
        if split.names is None:
            found.append(classes[value] if 0 <= value < len(classes) else known.get(str(value), value))
            continue
        if not 0 <= value < len(split.names):
            raise RepulseError(
                f"{split.place(row)}: label {value} is not one of the {len(split.names)} classes 0 to "
                f"{len(split.names) - 1}"
            )
        if split.names[value] not in known:
            raise RepulseError(f"{split.place(row)}: {unknown_name('label', split.names[value], own)}")
        found.append(known[split.names[value]])
    labels = torch.tensor(found, dtype=torch.int64)
    check_labels(labels, len(names), split.where)
    return labels


def _from_file(given: Sequence[str]) -> tuple[str, ...]:
    if len(given) == 1 and Path(given[0]).suffix == ".txt":
        try:
            lines = Path(given[0]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise RepulseError(f"cannot read the class names in {given[0]}: {error}") from error
        return tuple(line.strip() for line in lines if line.strip())
    return tuple(given)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
