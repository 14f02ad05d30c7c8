"""Ideas for training that earns robustness, judged at equal cost beside FGSM-RS adversarial training.

    python benchmarks/ideas.py cifar10 --data FOLDER
    python benchmarks/ideas.py fashion-mnist --data FOLDER

Network and optimiser are those of `repulse reproduce` at the scale `cpu`; every idea has as many epochs as cost six
forward and backward passes of every image, or `--budget` passes. `--ideas`, with `--suffix` for files of their own,
takes some of them only, so that the best can be judged at a larger budget. Natural accuracy is that of all test images;
robust accuracy is the worst case of `--images` test images under `--attacks`, and, to tell ideas apart, that of more
images under PGD on the margin.
What was measured goes to `results/ideas/NAME.json` and `NAME.md`.
"""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repulse.attacks import OBJECTIVES, PGD, Threat
from repulse.common.allocator import keep_memory
from repulse.common.environment import environment
from repulse.common.files import write_atomically
from repulse.common.settings import merge
from repulse.data import data_kept
from repulse.evaluation.attack_runner import AttackRunner
from repulse.evaluation.settings import EvaluationSettings
from repulse.opening import evaluate_run, open_run
from repulse.reproduce.comparisons import cell_config
from repulse.reproduce.figures import Spread, spread
from repulse.run_folder import read_test_accuracy
from repulse.runs import train_run
from repulse.training import read_metrics

COMPARISONS = {"fashion-mnist": "fashion", "cifar10": "paper-cifar10"}
TITLES = {"fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
EPS = 8 / 255


@dataclass(frozen=True)
class Idea:
    """A method of the comparison with changes.

    Args:
        base: the method.
        passes: what an image costs in an epoch.
        recipe: how a batch becomes what is minimised.
        changes: others.
    """

    base: str
    passes: float
    recipe: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)


# At so few epochs the network learns too little, not too much: moving images about only makes that worse. For all.
_STILL = {"augment": {"crop_padding": 0}}

IDEAS: dict[str, Idea] = {
    "paper": Idea("paper-linf", 1),
    "FGSM-RS, softmax": Idea("softmax", 2, {"name": "fgsm-rs"}),
    "FGSM-RS, simplex": Idea("simplex", 2, {"name": "fgsm-rs"}),
    "FGSM-RS, simplex, after as many plain steps": Idea("simplex", 1.5, {"name": "fgsm-rs", "delay": 0.5}),
    "N-FGSM, simplex": Idea("simplex", 2, {"name": "n-fgsm"}),
    "N-FGSM, simplex, batches of 32": Idea("simplex", 2, {"name": "n-fgsm"}, {"fit": {"batch_size": 32}}),
    "one step towards the nearest wrong prototype": Idea("simplex", 2, {"name": "margin-step"}),
    "TRADES in one step, simplex": Idea("simplex", 3, {"name": "fast-trades"}),
    "TRADES in one step, on the embedding": Idea("simplex", 3, {"name": "embedding-trades"}),
    "slope of the loss, softmax": Idea("softmax", 3, {"name": "slope"}),
    "slope of the loss, simplex": Idea("simplex", 3, {"name": "slope", "strength": 0.1}),
    "curvature, simplex": Idea("simplex", 6, {"name": "curvature"}),
}


def measure(name: str, label: str, idea: Idea, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train an idea with one seed, and attack it."""
    base = cell_config(COMPARISONS[name], idea.base, seed, options.data, TITLES[name])
    epochs = round(options.budget / idea.passes)
    config = merge(base, {"name": label, "recipe": idea.recipe, "fit": {"epochs": epochs}}, label)
    for changes in ({"data": {"train_images": options.train_images or None}}, _STILL, idea.changes):
        config = merge(config, changes, label)
    folder = options.runs / "ideas" / f"{name}{options.suffix}" / slug(label) / f"seed-{seed}"
    train_run(config, folder, resume=True, output="quiet")
    natural, _ = read_test_accuracy(folder)
    settings = EvaluationSettings(eps=EPS, attacks=options.attacks, steps=(20,), curve=(), gallery=0)
    record = evaluate_run(folder, settings, images=options.images).record
    row = {
        "seed": seed,
        "natural": natural,
        "margin": after_margin(folder, options.more_images),
        "robust": record.worst_case_accuracy,
        "verdict": "" if record.verdict is None else record.verdict.word,
        "seconds": sum(epoch.seconds for epoch in read_metrics(folder)),
    }
    print(label, row, flush=True)
    return row


def slug(label: str) -> str:
    """A label as the name of a folder."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in label.lower()).split())


def after_margin(folder: Path, images: int) -> float:
    """Robust accuracy after 20 steps of PGD on the margin, of more images than stronger attacks have time for."""
    outcome = AttackRunner(open_run(folder, images=images)).attack(
        PGD(OBJECTIVES["margin"], steps=20), Threat("linf", EPS), "PGD-20, margin"
    )
    return outcome.robust.double().mean().item()


def table(found: dict[str, list[dict[str, Any]]], images: int, more_images: int) -> str:
    """A row per idea, most robust first."""
    lines = [
        f"| idea | natural | PGD-20 on the margin, {more_images:,} images | **worst case**, {images:,} images "
        "| verdict | seconds of training |",
        "|---|--:|--:|--:|---|--:|",
    ]
    for label, rows in sorted(found.items(), key=lambda item: -_over_seeds(item[1], "margin").mean):
        verdicts = ", ".join(sorted({row["verdict"] for row in rows}))
        cells = [f"{_over_seeds(rows, key).number(100, 1)} %" for key in ("natural", "margin", "robust")]
        lines.append(f"| {label} | {' | '.join(cells)} | {verdicts} | {_over_seeds(rows, 'seconds').mean:.0f} |")
    return "\n".join(lines) + "\n"


def _over_seeds(rows: list[dict[str, Any]], key: str) -> Spread:
    found = spread(row[key] for row in rows)
    assert found is not None, "an idea has at least one run"
    return found


def main() -> None:
    """Train, attack, write after every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(COMPARISONS))
    parser.add_argument("--data", required=True, help="folder of parquet files, or a Hub id")
    parser.add_argument("--ideas", choices=sorted(IDEAS), nargs="+", default=list(IDEAS), help="some of them only")
    parser.add_argument("--budget", type=float, default=6, help="passes of every image, forward and backward as one")
    parser.add_argument("--suffix", default="", help="of the names of the files with results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-images", type=int, default=12_000, help="0 for all of them")
    parser.add_argument("--images", type=int, default=100, help="test images to attack, classes balanced")
    parser.add_argument("--more-images", type=int, default=1000, help="test images for PGD-20 on the margin alone")
    parser.add_argument("--attacks", choices=("quick", "standard", "adaptive"), default="quick")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    keep_memory()
    found: dict[str, list[dict[str, Any]]] = {label: [] for label in options.ideas}
    with data_kept():
        for seed in options.seeds:
            for label in options.ideas:
                found[label].append(measure(options.name, label, IDEAS[label], seed, options))
            write(found, options)


def write(found: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    """What was measured so far, as figures and as a table."""
    command = (
        f"python benchmarks/ideas.py {options.name} --data FOLDER --budget {options.budget:g} --seeds "
        f"{' '.join(map(str, options.seeds))} --train-images {options.train_images} --images {options.images} "
        f"--more-images {options.more_images} --attacks {options.attacks}"
    )
    if options.ideas != list(IDEAS):
        command += f" --ideas {' '.join(shlex.quote(label) for label in options.ideas)}"
    if options.suffix:
        command += f" --suffix={options.suffix}"
    content = {
        "command": command,
        "environment": environment(),
        "data": TITLES[options.name],
        "eps": EPS,
        "budget": options.budget,
        "images": options.images,
        "more_images": options.more_images,
        "found": found,
    }
    place = options.results / "ideas" / f"{options.name}{options.suffix}"
    write_atomically(place.with_suffix(".json"), json.dumps(content, indent=1) + "\n")
    write_atomically(place.with_suffix(".md"), table(found, options.images, options.more_images))


if __name__ == "__main__":
    main()
