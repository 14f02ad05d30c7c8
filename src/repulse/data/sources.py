"""Where images come from: a registry. A source is one function, registered by name, with its own typed options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.common.registry import Registry
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


Read = Callable[..., Mapping[str, Split]]
"""From what `--data.source` says, and the name that messages use, with the source's own options: its splits by name."""


@dataclass(frozen=True)
class Source:
    """A kind of source; see `register_source`."""

    read: Read
    takes: Callable[[str], bool] | None = None
    strict: bool = False


SOURCES: Registry[Source] = Registry("data source")


def register_source(
    name: str, takes: Callable[[str], bool] | None = None, *, strict: bool = False
) -> Callable[[Read], Read]:
    """Decorate a function that reads a source, to enter it in `SOURCES`.

    Args:
        name: `--data.source NAME` reads it.
        takes: says of another value of `--data.source`, a folder perhaps, that this source reads it.
        strict: whether a split of no usual name is an error even where there are others to train and to measure on.
    """

    def enter(read: Read) -> Read:
        SOURCES.register(name)(Source(read, takes, strict))
        return read

    return enter


def find_source(source: str) -> str:
    """The name of the kind of source that reads `source`: its own name, or the first kind that takes it.

    Raises:
        RepulseError: if it is a file, or a folder that does not exist.
    """
    if source in SOURCES:
        return source
    local = Path(source)
    if local.exists() and not local.is_dir():
        raise RepulseError(f"{source} is a file; give the folder that holds the images or parquet files")
    if not local.exists() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise RepulseError(f"no such folder: {source}")
    return next(name for name, kind in SOURCES.items() if kind.takes is not None and kind.takes(source))
