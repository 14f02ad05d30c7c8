"""Where images come from: a registry. A source is a class with its own typed settings, registered by name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.common.settings import Choice, Choices
from repulse.data.decode import EncodedImages, place


@dataclass(frozen=True, eq=False)
class Split:
    """One split as its source has it.

    Args:
        images: not decoded yet, or a tensor (N, C, H, W) of grey levels 0 to 255, which is taken as it is.
        labels: for each image its class: a whole number from 0, or a name. -1 for all: not known.
        where: what messages call the split: 'flowers train'.
        names: names of the numbers; None: the source has none.
    """

    images: EncodedImages | Tensor
    labels: Sequence[Any]
    where: str
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def place(self, row: int) -> str:
        """What messages call one image."""
        if isinstance(self.images, Tensor):
            return f"{self.where} row {row}"
        return place(self.images.read([row])[0] or {}, self.where, row)


@dataclass(frozen=True)
class Columns:
    """Which columns of a table to read, as given by the user; None: found by itself."""

    image: str | None = None
    label: str | None = None


class Source(Choice):
    """A way to read images and labels, with settings of its own. It is one file, registered by one line.

    `strict`: whether a split of no usual name is an error even where there are others to train and to measure on.
    `has_columns`: whether the user may say which columns to read.
    """

    strict: ClassVar[bool] = False
    has_columns: ClassVar[bool] = False

    @classmethod
    def takes(cls, place: str) -> bool:  # noqa: ARG003
        """Whether `--data.source PLACE` is read this way if nothing else is said; its own name always is."""
        return False

    def of(self, place: str) -> Source:  # noqa: ARG002
        """The source that reads this place: itself."""
        return self

    @abstractmethod
    def read(self, place: str, name: str, columns: Columns) -> Mapping[str, Split]:
        """The splits, by name.

        Args:
            place: what `--data.source` says: the source's own name, a folder, an id.
            name: what messages call the data.
            columns: for a source that `has_columns`, those that the user names.

        Raises:
            RepulseError: in one line that says what is wrong, and what to do.
        """


SOURCES: Choices[Source] = Choices("data reader")


@SOURCES.register("auto")
class Auto(Source):
    """Whichever source has the name that `--data.source` says, or else takes such a folder or id."""

    def of(self, place: str) -> Source:
        """The source that is found."""
        return find_source(place)

    def read(self, place: str, name: str, columns: Columns) -> Mapping[str, Split]:
        """As the source that is found."""
        return self.of(place).read(place, name, columns)


def find_source(place: str) -> Source:
    """The source of that name, or else the first one that takes the place.

    Raises:
        RepulseError: if it is a file, or a folder that does not exist.
    """
    if place in SOURCES:
        return SOURCES.make(place)
    local = Path(place)
    if local.exists() and not local.is_dir():
        raise RepulseError(f"{place} is a file; give the folder that holds the images or parquet files")
    if not local.exists() and (place.startswith((".", "/", "~")) or place.count("/") > 1):
        raise RepulseError(f"no such folder: {place}")
    return next(kind() for kind in SOURCES.values() if kind.takes(place))
