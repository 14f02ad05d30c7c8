"""Certified accuracy of small networks: prototypes and a loss on margins beside softmax and one-hot margins.

    python benchmarks/certified.py fashion-mnist --data FOLDER
    python benchmarks/certified.py cifar10 --data FOLDER

L2: one 1-Lipschitz network, the same images, epochs and optimiser for every head and loss. Each has five settings; the
best on validation images at 36/255, after as long a training with a seed of its own, is trained with `--seeds` and
certified on test images.
L-inf: an L-inf-distance network. Certificates are attacked at their own radius on `--attacked` images, and the script
fails if one breaks. What was measured goes to `results/certified/NAME.json` and `NAME.md`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from repulse import CertificationSettings, certify
from repulse.certification.record import CertificateRecord
from repulse.common.allocator import keep_memory
from repulse.common.environment import environment
from repulse.common.files import write_atomically
from repulse.common.settings import merge
from repulse.config.presets import preset
from repulse.config.run import RunConfig
from repulse.data import data_kept
from repulse.opening import certify_run
from repulse.reproduce.figures import spread
from repulse.run_folder import load_run, load_splits
from repulse.runs import train_run

TITLES = {"fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
PADDING = {"fashion-mnist": 2, "cifar10": 4}

# Seed of the runs that choose settings: none of those that are reported.
CHOOSING_SEED = 100
CHOSEN_AT = 36 / 255
L2_RADII = (36 / 255, 72 / 255, 108 / 255)
LINF_RADII = {
    "fashion-mnist": (2 / 255, 8 / 255, 0.1),
    "cifar10": (2 / 255, 8 / 255),
}


def _margins(offset: float, temperature: float) -> dict[str, Any]:
    return {
        "loss": {
            "name": "certified-cross-entropy",
            "offset": offset,
            "margin_temperature": temperature,
        }
    }


# Each head with the settings that it may choose from: as many for each.
CHOICES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "softmax cross-entropy": (
        "certified-l2-softmax",
        [{"model": {"temperature": temperature}} for temperature in (0.125, 0.25, 0.5, 1.0, 2.0)],
    ),
    "one-hot margins": (
        "certified-l2-one-hot",
        [{"loss": {"offset": offset}} for offset in (0.25, 0.5, 1.0, 2.0, 4.0)],
    ),
    "simplex prototypes": (
        "certified-l2",
        [_margins(0.25, 0.25), _margins(0.5, 0.25), _margins(0.5, 0.5), _margins(1.0, 0.25), _margins(1.0, 0.5)],
    ),
}


def configuration(
    name: str,
    preset_name: str,
    changes: dict[str, Any],
    seed: int,
    data: str,
    images: int,
    epochs: int,
) -> RunConfig:
    """One run of the comparison, on `images` training images, or all of them if that is 0."""
    common = {
        "seed": seed,
        "data": {
            "source": data,
            "name": TITLES[name],
            "train_images": images or None,
        },
        "augment": {"crop_padding": PADDING[name], "flip": "random"},
        "fit": {"epochs": epochs, "accelerator": "cpu", "devices": "1"},
    }
    return merge(merge(preset(preset_name), common, "certified"), changes, "certified")


def choose(
    name: str,
    preset_name: str,
    choices: list[dict[str, Any]],
    options: argparse.Namespace,
) -> tuple[int, list[float]]:
    """The choice that certifies most validation images, and the share that each certifies."""
    found = []
    for i, changes in enumerate(choices):
        images, epochs = options.choosing_images, options.choosing_epochs
        config = configuration(name, preset_name, changes, CHOOSING_SEED, options.data, images, epochs)
        folder = options.runs / "certified" / name / f"{preset_name}-{i}" / "choosing"
        train_run(config, folder, resume=True, output="quiet")
        validation = load_splits(config).validation
        assert validation is not None, "the configuration keeps validation images"
        model, _, _ = load_run(folder)
        pixels = validation.fetch(torch.arange(len(validation))).float() / 255
        certification = certify(model, pixels, validation.labels, CertificationSettings(radii=(CHOSEN_AT,)))
        found.append(_certified(certification.record, CHOSEN_AT))
    return found.index(max(found)), found


def measure(
    name: str,
    preset_name: str,
    changes: dict[str, Any],
    label: str,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Train with every seed, certify on test images, attack some of the certificates."""
    linf = preset_name.startswith("certified-linf")
    radii, epochs = (LINF_RADII[name], options.linf_epochs) if linf else (L2_RADII, options.epochs)
    rows = []
    for seed in options.seeds:
        config = configuration(name, preset_name, changes, seed, options.data, options.train_images, epochs)
        folder = options.runs / "certified" / name / label.replace(" ", "-") / f"seed-{seed}"
        train_run(config, folder, resume=True, output="quiet")
        certification = certify_run(folder, CertificationSettings(radii=radii), images=options.images)
        record = certification.record
        attacked = None
        if seed == options.seeds[0]:
            settings = CertificationSettings(radii=radii, attack=True, ensemble="quick")
            tried = certify_run(folder, settings, images=options.attacked, output=folder / "attacked")
            tried.record.check_sound()
            attacked = {str(round(255 * point.radius, 2)): point.attacked for point in tried.record.points}
        rows.append(
            {
                "seed": seed,
                "natural": record.natural_accuracy,
                "certified": {str(round(255 * radius, 2)): _certified(record, radius) for radius in radii},
                "attacked": attacked,
                "lipschitz": None if record.lipschitz is None else record.lipschitz.constant,
                "images": record.data.count,
            }
        )
        print(label, rows[-1], flush=True)
    return {
        "method": label,
        "norm": "linf" if linf else "l2",
        "settings": changes,
        "runs": rows,
    }


def table(found: list[dict[str, Any]], norm: str) -> str:
    """Natural and certified accuracy, mean and standard deviation over seeds, as Markdown."""
    chosen = [entry for entry in found if entry["norm"] == norm]
    radii = list(chosen[0]["runs"][0]["certified"])
    head = [
        "network and loss" if norm == "linf" else "head and loss",
        "natural",
        *(f"certified, {float(r):g}/255" for r in radii),
    ]
    lines = [f"| {' | '.join(head)} |", "|---|" + "--:|" * (len(head) - 1)]
    for entry in chosen:
        columns = [[run["natural"] for run in entry["runs"]]]
        columns += [[run["certified"][radius] for run in entry["runs"]] for radius in radii]
        lines.append(f"| {entry['method']} | {' | '.join(_percent(column) for column in columns)} |")
    return "\n".join(lines)


def _percent(values: list[float]) -> str:
    over_seeds = spread(values)
    return "–" if over_seeds is None else f"{over_seeds.number(100, 1)} %"


def _certified(record: CertificateRecord, radius: float) -> float:
    return next(point.certified for point in record.points if abs(point.radius - radius) < 1e-9)


def write_tables(place: Path, found: list[dict[str, Any]], norms: list[str]) -> None:
    """The tables beside the figures, one per norm."""
    titles = {"l2": "L2", "linf": "L-inf"}
    parts = [f"**{TITLES[place.name]}, {titles[norm]}**\n\n{table(found, norm)}" for norm in norms]
    write_atomically(place.with_suffix(".md"), "\n\n".join(parts) + "\n")


def main() -> None:
    """Choose, train, certify, attack, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(TITLES))
    parser.add_argument("--data", required=True, help="folder of parquet files, or a Hub id")
    parser.add_argument("--train-images", type=int, default=0, help="0 for all of them")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--linf-epochs", type=int, default=10)
    parser.add_argument("--choosing-images", type=int, default=0, help="of the runs that choose; 0 for all of them")
    parser.add_argument("--choosing-epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=10_000, help="test images to certify")
    parser.add_argument(
        "--attacked",
        type=int,
        default=50,
        help="test images whose certificates are attacked",
    )
    parser.add_argument("--norms", choices=("l2", "linf"), nargs="+", default=["l2", "linf"])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    keep_memory()
    with data_kept():
        everything(options)


def everything(options: argparse.Namespace) -> None:
    """Both norms, one after the other."""
    found, chosen = [], {}
    for label, (preset_name, choices) in CHOICES.items() if "l2" in options.norms else ():
        best, shares = choose(options.name, preset_name, choices, options)
        chosen[label] = {
            "choices": choices,
            "certified on validation": shares,
            "chosen": best,
        }
        print(label, chosen[label], flush=True)
        found.append(measure(options.name, preset_name, choices[best], label, options))
    if "linf" in options.norms:
        linf = "certified-linf" if options.name == "fashion-mnist" else "certified-linf-cifar10"
        found.append(measure(options.name, linf, {}, "L-inf-distance network", options))
    command = (
        f"python benchmarks/certified.py {options.name} --data FOLDER --train-images {options.train_images} "
        f"--epochs {options.epochs} --linf-epochs {options.linf_epochs} "
        f"--choosing-images {options.choosing_images} --choosing-epochs {options.choosing_epochs} "
        f"--seeds {' '.join(map(str, options.seeds))} --images {options.images} "
        f"--attacked {options.attacked} --norms {' '.join(options.norms)}"
    )
    content = {
        "command": command,
        "environment": environment(),
        "data": TITLES[options.name],
        "chosen": chosen,
        "found": found,
    }
    place = options.results / "certified" / options.name
    write_atomically(place.with_suffix(".json"), json.dumps(content, indent=1) + "\n")
    write_tables(place, found, options.norms)


if __name__ == "__main__":
    main()
