"""Natural accuracy of trained networks, from one view of each test image and from averages over several.

    python benchmarks/views.py --runs RUN [RUN ...] --data FOLDER

Writes `results/fast/views.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from repulse.common.environment import environment
from repulse.common.files import write_atomically
from repulse.common.settings import merge
from repulse.data import data_kept
from repulse.run_folder import load_run, load_splits
from repulse.training import make_fabric, natural_accuracy

# `model.mirror` and `model.shift`; the last is 2 x 3 views.
VIEWS = {"image": (False, 0), "and its mirror image": (True, 0), "and both moved by a pixel": (True, 1)}


def measure(run: Path, data: str) -> dict[str, float]:
    """Share of the test images that the run's model gets right, by the views that it averages."""
    model, config, _ = load_run(run)
    test = load_splits(merge(config, {"data": {"source": data}}, "views")).test
    fabric, found = make_fabric(config.fit), {}
    for views, (mirror, shift) in VIEWS.items():
        model.mirror, model.shift = mirror, shift
        found[views] = natural_accuracy(model, test, fabric=fabric)
    print(run, found, flush=True)
    return found


def main() -> None:
    """Measure every run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--data", required=True, help="folder of parquet files, or a Hub id")
    parser.add_argument("--output", type=Path, default=Path("results/fast/views.json"))
    options = parser.parse_args()
    with data_kept():
        found = {run.name: measure(run, options.data) for run in options.runs}
    command = f"python benchmarks/views.py --runs {' '.join(str(run) for run in options.runs)} --data FOLDER"
    content = {"command": command, "environment": environment(), "natural accuracy": found}
    write_atomically(options.output, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
