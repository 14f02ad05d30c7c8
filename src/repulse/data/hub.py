"""Data sets of the Hugging Face Hub, by their ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from repulse.data.sources import SOURCES, Columns, Source, Split
from repulse.data.tables import read_tables, table_splits


@SOURCES.register("hub")
class Hub(Source):
    """A data set on the Hub, by an id such as `uoft-cs/cifar10`."""

    has_columns: ClassVar[bool] = True

    @classmethod
    def takes(cls, place: str) -> bool:
        """Whatever is no folder."""
        return not Path(place).exists()

    def read(self, place: str, name: str, columns: Columns) -> Mapping[str, Split]:
        """Its splits.

        Raises:
            RepulseError: if it cannot be reached or read.
        """
        tables = read_tables("Hugging Face Hub id (or a local folder that does not exist)", place, path=place)
        return table_splits(tables, place, name, columns)
