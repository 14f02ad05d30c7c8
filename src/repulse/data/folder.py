"""Folders of images: a folder per class, as they are or under a folder per split."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import ClassVar

from repulse.common.errors import RepulseError
from repulse.common.notice import notice
from repulse.data.decode import ImageFiles, pillow
from repulse.data.sources import SOURCES, Columns, Source, Split
from repulse.data.splits import role

# Pillow's readers of these want another program, or only say what the file is.
_STUBS = {".bufr", ".emf", ".eps", ".grib", ".h5", ".hdf", ".mpeg", ".mpg", ".ps", ".wmf"}

# Pictures that Pillow reads not at all, or only with a plug-in or in a newer version.
_OTHER_IMAGES = {".avif", ".heic", ".heif", ".jxl", ".svg", ".npy", ".npz", ".cr2", ".nef", ".dng", ".dcm", ".exr"}

# What lies beside images and is none.
_NOTES = {
    "",
    ".csv",
    ".db",
    ".html",
    ".ini",
    ".json",
    ".jsonl",
    ".log",
    ".md",
    ".pdf",
    ".py",
    ".txt",
    ".xml",
    ".yaml",
    ".yml",
}

_METADATA = {"metadata.csv", "metadata.jsonl", "metadata.parquet"}


@SOURCES.register("folder")
class ImageFolder(Source):
    """A folder of images.

    First-level folders called `train`, `test`, `val` and the like, in any case, are splits; the level below them is the
    classes, and whatever lies deeper belongs to its class. Without splits the first level is the classes.
    """

    strict: ClassVar[bool] = True

    @classmethod
    def takes(cls, place: str) -> bool:
        """A folder of images rather than of tables, and without a table that gives their labels."""
        tables = images = 0
        for path in files_under(Path(place)):
            if path.name in _METADATA:
                return False
            tables += path.suffix.lower() == ".parquet"
            images += path.suffix.lower() in image_suffixes() | _OTHER_IMAGES
        return images > tables

    def read(self, place: str, name: str, columns: Columns) -> Mapping[str, Split]:  # noqa: ARG002
        """Its splits.

        Raises:
            RepulseError: if no image can be read.
        """
        root = Path(place)
        images, others = [], Counter[str]()
        for path in files_under(root):
            suffix = path.suffix.lower()
            if suffix in image_suffixes():
                images.append(path)
            elif suffix not in _NOTES or (suffix == "" and len(path.parts) > 1):
                others[suffix or "without ending"] += 1
        left = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
        hint = "; `pip install pillow-heif` for HEIC" if others.keys() & {".heic", ".heif"} else ""
        if not images:
            raise RepulseError(f"{place} holds no image that can be read, but {left}{hint or '; convert them to PNG'}")
        if others:
            notice(f"{name}: files that are no images, or of a kind that is not read, are left out: {left}{hint}")
        tops: dict[str, list[PurePosixPath]] = defaultdict(list)
        for path in images:
            tops[path.parts[0] if len(path.parts) > 1 else ""].append(path)
        named = {top for top in tops if role(top)}
        # A class may be called `train`: then its images lie in the folder itself.
        deep = {top for top in named if 2 * sum(len(path.parts) > 2 for path in tops[top]) > len(tops[top])}
        if not deep and named != tops.keys() - {""}:
            return {"train": _split(root, images, 0, f"{name} train")}
        stray = tops.pop("", [])
        if stray:
            _leave_out(name, stray)
        return {top: _split(root, paths, 1, f"{name} {top}") for top, paths in tops.items()}


def _split(root: Path, paths: Sequence[PurePosixPath], depth: int, where: str) -> Split:
    """The images whose classes are the folders at this depth."""
    inside = [path for path in paths if len(path.parts) > depth + 1]
    stray = [path for path in paths if len(path.parts) <= depth + 1]
    if not inside:
        return Split(ImageFiles([str(root / path) for path in paths], where), [-1] * len(paths), where)
    if stray:
        _leave_out(where, stray)
    deeper = [path for path in inside if len(path.parts) > depth + 2]
    if deeper:
        notice(
            f"{where}: the class of an image is its first folder, so {deeper[0]} is of class {deeper[0].parts[depth]}"
        )
    return Split(
        ImageFiles([str(root / path) for path in inside], where), [path.parts[depth] for path in inside], where
    )


def _leave_out(where: str, stray: Sequence[PurePosixPath]) -> None:
    more = f" and {len(stray) - 3} more" if len(stray) > 3 else ""
    notice(f"{where}: in no folder of a class, and left out: {', '.join(map(str, stray[:3]))}{more}")


def files_under(root: Path) -> Iterator[PurePosixPath]:
    """All files below a folder that are not hidden, linked folders included, relative to it and in order."""
    found: list[PurePosixPath] = []
    for folder, inner, files in os.walk(root, followlinks=True):
        here = Path(folder)
        inner[:] = [name for name in inner if not name.startswith((".", "__MACOSX")) and not _is_loop(here / name)]
        found += [PurePosixPath((here / file).relative_to(root).as_posix()) for file in files if file[0] != "."]
    return iter(sorted(found, key=str))


def _is_loop(folder: Path) -> bool:
    """Whether a folder is a link to one that it lies in, which would go round for ever."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


@cache
def image_suffixes() -> frozenset[str]:
    """The endings of files that Pillow reads here."""
    readers = pillow()
    return frozenset(end for end, kind in readers.registered_extensions().items() if kind in readers.OPEN) - _STUBS
