"""Add a finished run to the zoo of checkpoints that comes with the package, or take its digests anew.

    python benchmarks/zoo.py RUN NAME "One line about it" [--half] [--checkpoint best]

The run should hold an evaluation (`repulse evaluate RUN`), whose record goes with it. `--half` keeps the weights in
half precision, for networks that would be larger than 5 MB; answers then differ by rounding, so evaluate the zoo's own:
`repulse evaluate zoo:NAME`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path

from repulse.deploy import Classifier
from repulse.places.zoo import INDEX_FILE, PLACE

LARGEST = 5_000_000
"""Bytes of one checkpoint."""


def add(run: Path, name: str, about: str, *, half: bool, checkpoint: str) -> None:
    """Copy what is public of a run, and enter its digests in the index."""
    classifier = Classifier.load(run, "best" if checkpoint == "best" else "last")
    if half:
        classifier.model.half()
    folder = PLACE / name
    shutil.rmtree(folder, ignore_errors=True)
    classifier.save_pretrained(folder)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    size = sum(file.stat().st_size for file in files)
    if size > LARGEST:
        shutil.rmtree(folder)
        raise SystemExit(f"{name} has {size / 1e6:.1f} MB, at most {LARGEST / 1e6:g} are allowed; try --half")
    index_file = PLACE / INDEX_FILE
    index = json.loads(index_file.read_text(encoding="utf-8")) if index_file.is_file() else {}
    digests = {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    index[name] = {"about": about, "files": digests}
    index_file.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"zoo:{name}, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("about")
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last")
    given = parser.parse_args()
    add(given.run, given.name, given.about, half=given.half, checkpoint=given.checkpoint)
