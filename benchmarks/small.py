"""A small folder: five classes of 120 photographs, trained by defaults and by the preset that is made for few images.

    python benchmarks/small.py --data FOLDER --output results/benchmarks/small.json

The images are of CIFAR-10: the first 120 training images and the first 100 test images of five classes, written as PNG
files into a folder of images, as users have them. Natural accuracy, and what the attacks of `quick` leave in the L-inf
ball of 8/255, on the 500 test images. `repulse` is the default, which says that its steps are few here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from repulse.common.environment import environment
from repulse.common.errors import RepulseError
from repulse.common.files import write_atomically
from repulse.common.settings import merge
from repulse.common.units import in_percent
from repulse.config.presets import preset
from repulse.data import ImageSource, load_data
from repulse.evaluation.settings import EvaluationSettings
from repulse.opening import evaluate_run
from repulse.runs import train_run

CLASSES = ("airplane", "automobile", "bird", "horse", "ship")
COUNTS = {"train": 120, "test": 100}
EPS = 8 / 255
BEGIN, END = "<!-- small folder -->", "<!-- end of small folder -->"


def write_folder(splits: dict[str, ImageSource], folder: Path) -> None:
    """The first images of each class as PNG files: `folder/SPLIT/CLASS/NUMBER.png`."""
    for split, count in COUNTS.items():
        source = splits[split]
        names = list(source.class_names)
        for name in CLASSES:
            rows = (source.labels == names.index(name)).nonzero().flatten()[:count]
            place = folder / split / name
            place.mkdir(parents=True)
            for number, image in enumerate(source.fetch(rows)):
                Image.fromarray(image.movedim(0, -1).numpy()).save(place / f"{number:03}.png")


def measure(name: str, photographs: Path, runs: Path) -> dict[str, Any]:
    """Train one preset on the folder, and attack it."""
    config = merge(preset(name), {"data": {"source": str(photographs)}}, name)
    folder = runs / name
    started = time.perf_counter()
    train_run(config, folder)
    trained = time.perf_counter() - started
    settings = EvaluationSettings(eps=EPS, attacks="quick", curve=(), steps=(20,), gallery=0)
    record = evaluate_run(folder, settings).record
    return {
        "preset": name,
        "epochs": len((folder / "metrics.csv").read_text(encoding="utf-8").splitlines()) - 1,
        "natural_accuracy": record.natural_accuracy,
        "worst_case_accuracy": record.worst_case_accuracy,
        "verdict": None if record.verdict is None else record.verdict.word,
        "training_seconds": round(trained, 1),
    }


def table(content: dict[str, Any]) -> str:
    """The figures of a file as a Markdown table, and what they are of."""
    rows = [
        f"| `{row['preset']}` | {row['epochs']} | {in_percent(row['natural_accuracy'])} | "
        f"{in_percent(row['worst_case_accuracy'])} |"
        for row in content["results"]
    ]
    head = "| preset | epochs | natural accuracy | worst case |\n|---|---|---|---|"
    return (
        f"{head}\n" + "\n".join(rows) + f"\n\n{content['data']}; {content['test_images']} test images; attacks: "
        f"{content['attacks']}."
    )


def write_page(page: Path, content: dict[str, Any]) -> None:
    """Replace what stands between the markers of a page."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table(content)}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main() -> None:
    """Measure the presets one after the other, and keep what is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="CIFAR-10 as parquet files, or its id on the Hub")
    parser.add_argument("--page", type=Path, help="copy the figures of --output into this page, and measure nothing")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/small.json"))
    parser.add_argument("--presets", default="repulse,softmax,small")
    given = parser.parse_args()
    if given.page is not None:
        write_page(given.page, json.loads(given.output.read_text(encoding="utf-8")))
        return
    if given.data is None:
        parser.error("name the images by --data")
    torch.set_num_threads(1)
    loaded = load_data(given.data, validation=0.0)
    if not set(CLASSES) <= set(loaded.train.class_names):
        raise RepulseError(f"{given.data} has other classes than CIFAR-10")
    done: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        photographs = Path(scratch) / "photographs"
        write_folder({"train": loaded.train, "test": loaded.test}, photographs)
        for name in given.presets.split(","):
            done.append(measure(name, photographs, Path(scratch) / "runs"))
            print(json.dumps(done[-1]), flush=True)
            content = {
                "command": "python benchmarks/small.py --data cifar10",
                "data": f"CIFAR-10, classes {', '.join(CLASSES)}; {COUNTS['train']} training images of each",
                "test_images": COUNTS["test"] * len(CLASSES),
                "attacks": "quick, linf, eps 8/255",
                "environment": environment(),
                "results": done,
            }
            write_atomically(given.output, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
