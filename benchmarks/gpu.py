"""The paper at its own scale in the minutes that a GPU is at hand: ResNet-18 on CIFAR-10, then on CIFAR-100.

    python benchmarks/gpu.py pack --data FOLDER --output packed/cifar10
    python benchmarks/gpu.py run --packed packed/cifar10 packed/cifar100 --output OUT --minutes 12

`pack` writes a data set without loss as three small files (the training images are two of them), for machines that data
can only be carried to. `run` trains and attacks one model after the other, the most valuable first, and writes
`OUT/gpu.json` after each step, so that whatever ends it leaves what is finished. A step that would not end in time is
left out, and said so. Runs lie in `--runs` and are taken up where they stand.

Network, losses, augmentation and optimiser are the paper's, as `repulse reproduce --scale full` has them, in bfloat16,
compiled, channels last. The schedule is compressed: fewer epochs of larger batches, the learning rate in proportion to
the batch, the half-cycle in proportion to the steps. `images_per_second` is that of the last epoch; `share_of_peak` the
arithmetic of training (counted, two operations per multiply-add, every pass of the recipe) over that of a large product
of bfloat16 matrices on the same device.
"""

from __future__ import annotations

import argparse
import json
import lzma
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from repulse.common.environment import environment
from repulse.common.files import load_tensors, save_tensors, write_atomically
from repulse.common.settings import merge
from repulse.config.run import RunConfig
from repulse.data import ImageSource, load_data
from repulse.data.sources import SOURCES, Columns, Source, Split
from repulse.opening import evaluate_run
from repulse.reproduce.comparisons import cell_config, measurement
from repulse.reproduce.methods import METHODS
from repulse.run_folder import load_run, read_test_accuracy
from repulse.runs import train_run
from repulse.training import read_metrics
from repulse.training.schedules import Cyclic

ORDER = ("paper-linf", "softmax", "fgsm-rs", "paper-cosine")
PARTS = {"train": 2, "test": 1}

# What a model of the paper's trains with, before it is compressed.
PAPER_BATCH, PAPER_EPOCHS = 128, 200


def encode(images: Tensor) -> bytes:
    """Images (N, C, H, W) of grey levels, without loss: differences of neighbours and of colours are small numbers."""
    levels = images.numpy().copy()
    if levels.shape[1] == 3:
        levels[:, ::2] -= levels[:, 1:2]
    for axis in (2, 3):
        levels = np.diff(levels, axis=axis, prepend=np.zeros_like(levels.take([0], axis)))
    return lzma.compress(np.ascontiguousarray(levels.swapaxes(0, 1)).tobytes(), preset=4)


def decode(data: bytes, shape: tuple[int, ...]) -> Tensor:
    """What `encode` was given; `shape` is (N, C, H, W)."""
    n, c, h, w = shape
    levels = np.frombuffer(lzma.decompress(data), np.uint8).reshape(c, n, h, w).swapaxes(0, 1)
    for axis in (2, 3):
        levels = np.cumsum(levels, axis=axis, dtype=np.uint8)
    if c == 3:
        levels[:, ::2] += levels[:, 1:2]
    return torch.from_numpy(np.ascontiguousarray(levels))


def pack(source: ImageSource, split: str, folder: Path) -> None:
    """Write a split to `folder`, in as many files as it has parts."""
    for number, rows in enumerate(torch.arange(len(source)).chunk(PARTS[split])):
        images = source.fetch(rows)
        coded = torch.frombuffer(bytearray(encode(images)), dtype=torch.uint8)
        about = {
            "shape": json.dumps(list(images.shape)),
            "names": json.dumps(list(source.class_names)),
            "title": source.name,
        }
        save_tensors(folder / f"{split}-{number}.safetensors", {"coded": coded, "labels": source.labels[rows]}, about)


@SOURCES.register("packed")
class Packed(Source):
    """A data set as `pack` wrote it: `--data.source` is its folder."""

    def read(self, place: str, name: str, columns: Columns) -> Mapping[str, Split]:
        """Both splits."""
        return {split: unpack(split, Path(place), f"{name} {split}") for split in PARTS}


def unpack(split: str, folder: Path, where: str) -> Split:
    """A split as it was packed."""
    images, labels, names = [], [], []
    for number in range(PARTS[split]):
        tensors, about = load_tensors(folder / f"{split}-{number}.safetensors")
        images.append(decode(tensors["coded"].numpy().tobytes(), tuple(json.loads(about["shape"]))))
        labels += tensors["labels"].tolist()
        names = json.loads(about["names"])
    return Split(torch.cat(images), labels, where, names)


@dataclass
class Clock:
    """How much time is left, and what steps like the next one took."""

    deadline: float
    taken: dict[str, float] = field(default_factory=dict)

    def allows(self, step: str, scale: float) -> bool:
        """Whether a step would end in time, as far as an earlier one of its kind tells."""
        return time.monotonic() + scale * self.taken.get(step, 0.0) < self.deadline

    def note(self, step: str, scale: float, started: float) -> float:
        """Note how long a step took; returns the seconds."""
        seconds = time.monotonic() - started
        self.taken[step] = seconds / scale
        return seconds


def configuration(comparison: str, method: str, folder: Path, options: argparse.Namespace) -> RunConfig:
    """The paper's training of a method, compressed; recipes of several passes get so many fewer epochs."""
    config = cell_config(comparison, method, options.seed, str(folder), scale="full")
    factor = options.batch_size / PAPER_BATCH
    epochs = max(1, round(options.epochs / METHODS[method].passes))
    schedule = config.fit.schedule
    assert isinstance(schedule, Cyclic), "the paper's schedule"
    half_cycle = max(1, round(schedule.half_cycle * epochs / PAPER_EPOCHS / factor))
    changes: dict[str, Any] = {
        "data": {"validation": 0.0, "reader": "packed"},
        "model": {"width": options.width},
        "fit": {
            "epochs": epochs,
            "batch_size": options.batch_size,
            "optimiser": {"learning_rate": config.fit.optimiser.learning_rate * factor},
            "schedule": {"half_cycle": half_cycle},
            "precision": options.precision,
            "channels_last": True,
            "compile": options.compile,
            "accelerator": options.accelerator,
            "devices": "1",
        },
    }
    return merge(config, changes, "gpu")


def peak(device: torch.device) -> float:
    """Operations per second of a large product of bfloat16 matrices: the median of five."""
    size = 8192 if device.type == "cuda" else 256
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(8):
        _wait(device)
        started = time.perf_counter()
        a @ b
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return float(2 * size**3 / sorted(seconds[3:])[2])


def operations(folder: Path) -> float:
    """Operations of one forward and one backward pass of an image through the model of a run."""
    model, _, classes = load_run(folder)
    counter = FlopCounterMode(display=False)
    with counter:
        model.embed(torch.rand(2, *classes.image_shape)).sum().backward()  # type: ignore[no-untyped-call]
    return counter.get_total_flops() / 2


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train and attack one model after the other until the time is up; returns what `gpu.json` holds."""
    clock = Clock(time.monotonic() + 60 * options.minutes)
    device = torch.device("cuda" if options.accelerator == "cuda" else "cpu")
    found: dict[str, Any] = {"environment": environment(), "peak": peak(device), "models": [], "left_out": []}
    for folder in options.packed:
        comparison = f"paper-{folder.name}"
        for method in options.methods:
            place = options.runs / folder.name / method
            config = configuration(comparison, method, folder, options)
            work = config.fit.epochs * METHODS[method].passes
            label = f"{folder.name}, {method}"
            if not clock.allows("train", work):
                found["left_out"].append(f"{label}: training")
                continue
            started = time.monotonic()
            train_run(config, place, resume=True)
            row: dict[str, Any] = {"data": folder.name, "method": method, "epochs": config.fit.epochs}
            row["seconds_of_training"] = clock.note("train", work, started)
            row["natural_accuracy"] = read_test_accuracy(place)[0]
            row["images_per_second"] = read_metrics(place)[-1].images_per_second
            flops = operations(place) * METHODS[method].passes
            row["share_of_peak"] = flops * row["images_per_second"] / found["peak"]
            found["models"].append(row)
            _write(found, options.output)
            settings = measurement(comparison, str(folder), "full", options.attacks)
            if not clock.allows("attack", 1.0):
                found["left_out"].append(f"{label}: attacks")
                continue
            started = time.monotonic()
            evaluation = evaluate_run(place, settings, images=options.images, device=device.type)
            row["seconds_of_attacks"] = clock.note("attack", 1.0, started)
            row["record"] = evaluation.record.model_dump(mode="json")
            _write(found, options.output)
    _write(found, options.output)
    return found


def _write(found: dict[str, Any], folder: Path) -> None:
    write_atomically(folder / "gpu.json", json.dumps(found) + "\n")
    for row in found["models"]:
        robust = "" if "record" not in row else f", robust {100 * row['record']['worst_case_accuracy']:.1f} %"
        speed = f"{row['images_per_second']:,.0f} images/s, {100 * row['share_of_peak']:.0f} % of peak"
        natural = f"natural {100 * row['natural_accuracy']:.1f} %"
        print(f"{row['data']}, {row['method']}: {row['epochs']} epochs, {speed}, {natural}{robust}", flush=True)
    for what in found["left_out"]:
        print(f"{what}: left out", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Pack data, or train and attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write a data set as three files")
    packing.add_argument("--data", required=True, help="folder of parquet files, or a Hub id")
    packing.add_argument("--output", type=Path, required=True, help="folder, named cifar10 or cifar100")
    running = commands.add_parser("run", help="train and attack")
    running.add_argument("--packed", type=Path, nargs="+", required=True, help="folders that pack wrote")
    running.add_argument("--output", type=Path, required=True, help="folder of gpu.json")
    running.add_argument("--runs", type=Path, default=Path("runs/gpu"))
    running.add_argument("--minutes", type=float, default=12.0, help="no step begins that would end later")
    running.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=list(ORDER))
    running.add_argument("--epochs", type=int, default=30, help="of plain training")
    running.add_argument("--batch-size", type=int, default=512)
    running.add_argument("--images", type=int, default=1000, help="test images to attack")
    running.add_argument("--attacks", default="quick", choices=("quick", "standard", "adaptive"))
    running.add_argument("--width", type=float, default=1.0)
    running.add_argument("--seed", type=int, default=0)
    running.add_argument("--accelerator", default="cuda", choices=("cuda", "cpu"))
    running.add_argument("--precision", default="bf16-mixed")
    running.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args(argv)
    if options.command == "run":
        run(options)
        return
    splits = load_data(options.data)
    for split, images in (("train", splits.train), ("test", splits.test)):
        pack(images, split, options.output)
    print(*(f"{file}: {file.stat().st_size:,} bytes" for file in sorted(options.output.iterdir())), sep="\n")


if __name__ == "__main__":
    main()
