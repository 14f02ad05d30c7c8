"""The story of `repulse demo`, for several seeds of training: how many of them tell it.

    python benchmarks/demo_seeds.py

Trains the attacked models of the demo with other seeds, as the demo does, attacks them as it does, and writes what the
paper-style figure and the worst case were to `results/benchmarks/demo.json`. Runs are taken up where they stand.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from repulse.cli.demo import EPS, MODELS, SEEDS, settings
from repulse.common.environment import environment
from repulse.common.files import write_atomically
from repulse.opening import evaluate_run
from repulse.runs import train_run


def row(name: str, seed: int, runs: Path, images: int) -> dict[str, Any]:
    """Train and attack one model of the demo with one seed."""
    model = next(each for each in MODELS if each.name == name)
    folder = runs / name / f"seed-{seed}"
    train_run(model.config(seed), folder, resume=True)
    record = evaluate_run(folder, settings(curve=False), images=images).record
    assert record.verdict is not None
    found = {
        "natural": record.natural_accuracy,
        "paper-style": record.verdict.claim,
        "by": record.verdict.claim_by,
        "worst case": record.worst_case_accuracy,
        "how sure": record.verdict.word,
    }
    print(name, seed, found, flush=True)
    return {"seed": seed, **found}


def main() -> None:
    """Train and attack with every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--runs", type=Path, default=Path("runs/demo-seeds"))
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/demo.json"))
    options = parser.parse_args()
    attacked = [model.name for model in MODELS if not model.proved]
    rows = {name: [row(name, s, options.runs, options.images) for s in range(options.seeds)] for name in attacked}
    content = {
        "command": "python benchmarks/demo_seeds.py",
        "environment": environment(),
        "eps": EPS,
        "images": options.images,
        "models": rows,
    }
    write_atomically(options.output, json.dumps(content, indent=1) + "\n")
    print(f"written: {options.output}")


if __name__ == "__main__":
    main()
