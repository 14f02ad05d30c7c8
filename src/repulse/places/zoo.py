"""A few small checkpoints that come with the package, so that there is something to attack in a minute.

Each is a folder of `zoo_files/`, as `Classifier.save_pretrained` writes it; `index.json` has the digest of every file.
`benchmarks/zoo.py` adds one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from repulse.common.errors import RepulseError
from repulse.common.registry import unknown_name

PLACE = Path(__file__).parent / "zoo_files"
INDEX_FILE = "index.json"


@dataclass(frozen=True)
class ZooModel:
    """A checkpoint of the zoo."""

    name: str
    about: str
    """One line: data, training, what it shows."""
    files: dict[str, str]
    """SHA-256 of each file, by its path in the folder."""

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return PLACE / self.name


def zoo() -> dict[str, ZooModel]:
    """The checkpoints, by name."""
    index = json.loads((PLACE / INDEX_FILE).read_text(encoding="utf-8"))
    return {name: ZooModel(name, entry["about"], entry["files"]) for name, entry in sorted(index.items())}


def zoo_folder(name: str) -> Path:
    """The folder of a checkpoint, once its files are those of the index.

    Raises:
        RepulseError: if there is none of that name, or a file is missing or was changed.
    """
    models = zoo()
    if name not in models:
        raise unknown_name("checkpoint of the zoo", name, models)
    model = models[name]
    for file, digest in model.files.items():
        path = model.folder / file
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise RepulseError(f"zoo:{name} is damaged: {file} is not the file that its digest was taken of")
    return model.folder
