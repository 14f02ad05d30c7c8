"""What a file is, told by its first bytes, before anybody reads it: nothing in it is run."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from repulse.common.errors import RepulseError

FileKind = Literal["torchscript", "exported", "weights", "onnx"]

# What people download or check out in place of the file that they meant.
_IMPOSTORS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself: run `git lfs pull` where it came from",
    b"<!doctype html": "is a web page, not the file itself: download it by its direct link",
    b"<html": "is a web page, not the file itself: download it by its direct link",
    b"\x89hdf": "is an HDF5 file, as Keras writes: convert its weights to PyTorch first",
}


def kind_of_file(path: Path) -> FileKind | None:
    """Whether a file is a program, an ONNX model or weights (or a pickled model); None for anything else.

    Raises:
        RepulseError: if there is no such file, or it is something that merely stands where a file was meant to be.
    """
    if path.is_dir():
        raise RepulseError(f"{path} is a folder, not a file")
    if not path.is_file():
        raise RepulseError(f"no such file: {path}")
    with path.open("rb") as file:
        start = file.read(512)
    for sign, what in _IMPOSTORS.items():
        if start.lstrip().lower().startswith(sign):
            raise RepulseError(f"{path} {what}")
    # An ONNX file begins with its version (field 1), then the name of its producer, or opset, or graph.
    if path.suffix == ".onnx" or (start[:1] == b"\x08" and start[2:3] in (b"\x12", b"\x3a", b"\x42")):
        return "onnx"
    if path.suffix == ".safetensors":
        return "weights"
    try:
        if not zipfile.is_zipfile(path):
            # What torch.save wrote before PyTorch 1.6 begins with a pickle.
            return "weights" if start[:1] == b"\x80" else None
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, OSError, ValueError) as error:
        raise RepulseError(f"{path} is damaged: {error}; fetch it again") from error
    if names & {"archive_format", "serialized_exported_program.json"}:
        return "exported"
    if "constants.pkl" in names:
        return "torchscript"
    return "weights" if "data.pkl" in names else None
