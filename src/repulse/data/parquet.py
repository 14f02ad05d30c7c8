"""Folders of parquet files in the Hugging Face layout, and of whatever else `datasets` reads."""

from __future__ import annotations

import glob
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

from repulse.common.errors import RepulseError
from repulse.data.folder import files_under
from repulse.data.sources import SOURCES, Columns, Source, Split
from repulse.data.splits import role
from repulse.data.tables import read_tables, table_splits

# 'train-00000-of-00001.parquet'
_SHARD = re.compile(r"-\d+-of-\d+$")


@SOURCES.register("parquet")
class ParquetFolder(Source):
    """A folder of tables.

    `SPLIT-00000-of-00001.parquet`, `SPLIT.parquet` and `SPLIT/*.parquet` are parts of a split. A folder whose README
    describes it for the Hub, or without parquet files, is left to `datasets`.
    """

    has_columns: ClassVar[bool] = True

    @classmethod
    def takes(cls, place: str) -> bool:
        """Any folder."""
        return Path(place).is_dir()

    def read(self, place: str, name: str, columns: Columns) -> Mapping[str, Split]:
        """Its splits.

        Raises:
            RepulseError: if the folder is empty, or cannot be read.
        """
        root = Path(place)
        paths = list(files_under(root))
        if not paths:
            raise RepulseError(f"the folder {place} is empty")
        files = [path for path in paths if path.suffix.lower() == ".parquet"]
        if files and not _is_described(root):
            # Each split on its own: together, all would be read with the class names of the first.
            tables = {
                split: read_tables(
                    # What is in a file's name is no pattern.
                    "folder",
                    place,
                    path="parquet",
                    data_files=[glob.escape(str(root.resolve() / path)) for path in some],
                )["train"]
                for split, some in _by_split(files, place).items()
            }
        else:
            tables = read_tables("folder", place, path=str(root.resolve()))
        return table_splits(tables, place, name, columns)


def _is_described(root: Path) -> bool:
    readme = root / "README.md"
    return readme.is_file() and re.search(r"^configs:", readme.read_text("utf-8", "replace"), re.MULTILINE) is not None


def _by_split(files: list[PurePosixPath], source: str) -> dict[str, list[PurePosixPath]]:
    found: dict[str, list[PurePosixPath]] = defaultdict(list)
    sets = set()
    for path in files:
        inside = next((part for part in path.parts[:-1] if role(part)), None)
        stem = _SHARD.sub("", path.stem)
        split = inside or (stem if role(stem) or stem != path.stem else "")
        found[split].append(path)
        sets.add(tuple(part for part in path.parts[:-1] if part != inside))
    if len(sets) > 1:
        several = ", ".join(sorted("/".join(parts) or "." for parts in sets))
        raise RepulseError(f"{source} holds several sets: {several}; give the folder of one")
    unnamed = found.pop("", [])
    if unnamed and found:
        raise RepulseError(
            f"{source}: {unnamed[0]} is of no split, unlike {', '.join(found)}; rename it or move it away"
        )
    return dict(found) or {"train": unnamed}
