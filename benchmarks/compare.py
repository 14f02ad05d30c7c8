"""Train and attack four classifiers with the small CNN on one data set, and write the results that the README shows.

    python benchmarks/compare.py fashion-mnist --data FOLDER
    python benchmarks/compare.py cifar10 --data FOLDER

Softmax cross-entropy, the paper's method, and simplex prototypes with the cosine loss and with cross-entropy: the same
network, images, epochs and optimiser for all. On CIFAR-10 beside them, as a model whose robustness is known to be real,
FGSM-RS adversarial training of a softmax layer (Wong et al. 2020), with the epochs that it needs. Training runs go to
`--runs` and are taken up where they stand, evaluations too; what was measured goes to `results/NAME/`, without
checkpoints.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repulse.common.files import write_atomically
from repulse.common.settings import merge
from repulse.config.presets import preset
from repulse.config.run import RunConfig
from repulse.evaluation.settings import EvaluationSettings
from repulse.opening import evaluate_run
from repulse.report import markdown_table, write_report
from repulse.runs import train_run

METHODS = ("softmax", "paper", "simplex-cosine", "simplex", "fgsm-rs")

TRAINING: dict[str, Any] = {
    "batch_size": 128,
    "optimiser": {"learning_rate": 0.1},
    "accelerator": "cpu",
    "devices": "1",
}

# What of a run is worth keeping; checkpoints are not, since the command makes them again.
KEPT = ("config.yaml", "environment.json", "classes.json", "metrics.csv", "test.json", "prototypes.safetensors")


@dataclass(frozen=True)
class Comparison:
    """A data set with the settings that suit it."""

    title: str
    epochs: int
    adversarial_epochs: int
    """Of FGSM-RS; 0: it is left out."""
    padding: int
    radii: tuple[float, ...]


COMPARISONS = {
    "fashion-mnist": Comparison("Fashion-MNIST", epochs=5, adversarial_epochs=0, padding=2, radii=(0.1, 8 / 255)),
    "cifar10": Comparison("CIFAR-10", epochs=5, adversarial_epochs=8, padding=4, radii=(8 / 255,)),
}


def configuration(method: str, comparison: Comparison, data: str) -> RunConfig:
    """The configuration of one cell of the comparison."""
    adversarial = method == "fgsm-rs"
    changes: dict[str, Any] = {
        "data": {"source": data, "name": comparison.title},
        "augment": {"crop_padding": comparison.padding, "flip": "random"},
        "fit": {**TRAINING, "epochs": comparison.adversarial_epochs if adversarial else comparison.epochs},
    }
    if adversarial:
        changes["recipe"] = {"eps": max(comparison.radii)}
    return merge(preset(method), changes, "compare")


def main() -> None:
    """Train, attack, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(COMPARISONS))
    parser.add_argument("--data", required=True, help="folder of parquet files, or a Hub id")
    parser.add_argument("--images", type=int, default=500, help="test images to attack, classes balanced")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for the training runs")
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    comparison = COMPARISONS[options.name]
    command = f"python benchmarks/compare.py {options.name} --data FOLDER --images {options.images}"
    kept = []
    for method in METHODS if comparison.adversarial_epochs else METHODS[:-1]:
        run = options.runs / options.name / method
        train_run(configuration(method, comparison, options.data), run, resume=True, output="json")
        place = options.results / options.name / method
        for eps in comparison.radii:
            settings = EvaluationSettings(eps=eps)
            record = evaluate_run(run, settings, images=options.images, command=command).folder
            assert record is not None
            shutil.copytree(record, place / "evaluations" / record.name, dirs_exist_ok=True)
        for name in KEPT:
            shutil.copyfile(run / name, place / name)
        hide_path(place / "config.yaml", options.data)
        kept.append(place)
    files = write_report(
        kept, options.results / options.name / "report.html", title=f"{comparison.title}, small CNN: what holds"
    )
    write_atomically(options.results / options.name / "table.md", markdown_table(kept))
    print(f"report: {files.html}")


def hide_path(config: Path, data: str) -> None:
    """A result is for others to repeat: where the data lay on this machine is nothing to them."""
    config.write_text(config.read_text(encoding="utf-8").replace(data, "FOLDER"), encoding="utf-8")


if __name__ == "__main__":
    main()
