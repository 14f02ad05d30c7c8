"""What training costs: prototypes against softmax, and this loop against a plain one, in one run on one machine.

    python benchmarks/training.py --data FOLDER --output results/benchmarks/training.json

Every epoch is measured in a process of its own, in turns, so that a machine that slows down slows all of them. Ours
keep the memory that they free, as the command line does; the plain loop runs as Python runs it.

- *prototypes / softmax*: seconds per epoch of simplex prototypes, and of the paper's method, over those of softmax
  cross-entropy, all in our loop.
- *our loop / plain loop*: seconds per epoch of our loop over those of a plain PyTorch loop, whose DataLoader transforms
  one image at a time (pad, crop, flip, to float, normalise), with the same network, batch size and optimiser.
- *where the time goes*: shares of one of our epochs, measured by running its parts alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from repulse.common.allocator import keep_memory
from repulse.common.environment import environment
from repulse.common.files import load_tensors, save_tensors, write_atomically
from repulse.config.presets import preset
from repulse.data import Augment, ImageSet, ImageSource, batches, load_data, subset
from repulse.models import PrototypeClassifier, make_backbone
from repulse.prototypes import make_prototypes
from repulse.training import EpochMetrics, Loss, fit, make_fabric
from repulse.training.settings import FitSettings
from repulse.training.state import TrainingState

BATCH = 128

OURS = ("softmax", "simplex", "paper")
PLAIN = {"plain loop, 0 workers": 0, "plain loop, 2 workers": 2}
PARTS = "parts of an epoch"
AUGMENT = Augment(crop_padding=4, flip="random")


class PerImage(Dataset[tuple[Tensor, int]]):
    """The plain way: every image is transformed alone when it is asked for."""

    def __init__(self, images: ImageSet, mean: Tensor, std: Tensor) -> None:
        self.images, self.mean, self.std = images, mean, std

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = F.pad(self.images.images[index], (4, 4, 4, 4))
        row, column = torch.randint(0, 9, (2,)).tolist()
        image = image[:, row : row + 32, column : column + 32]
        if torch.rand(()) < 0.5:
            image = image.flip(2)
        return (image.float() / 255 - self.mean) / self.std, int(self.images.labels[index])


class Stopwatch:
    """Notes the seconds of each epoch of a fit."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step(self, epoch: int, step: int, steps: int, images: int) -> None:
        """Nothing to note."""

    def on_epoch(self, metrics: EpochMetrics, state: TrainingState, weights: dict[str, Tensor]) -> None:
        """Note the epoch's seconds, which leave out validation and checkpoints."""
        self.seconds.append(metrics.seconds)


def classifier(name: str) -> tuple[PrototypeClassifier, Loss]:
    """A small CNN for 10 classes with the prototypes of a preset, and its loss."""
    config = preset(name)
    prototypes = make_prototypes(
        config.prototypes.method, 10, config.prototypes.dimension or 10, steps=config.prototypes.steps
    )
    torch.manual_seed(0)
    backbone = make_backbone("small-cnn", channels=3, dimension=prototypes.d)
    model = PrototypeClassifier(
        backbone, prototypes, config.model.readout, temperature=config.model.temperature, mean=(0.47,), std=(0.25,)
    )
    return model, config.loss


def our_epoch(name: str, images: ImageSource, *, channels_last: bool = True) -> float:
    """Seconds of one epoch of our loop, after a warm-up epoch on a tenth of the images."""
    model, loss = classifier(name)
    settings = FitSettings(epochs=1, batch_size=BATCH, accelerator="cpu", devices="1", channels_last=channels_last)
    fabric = make_fabric(settings)
    fabric.launch()
    watch = Stopwatch()
    for source in (subset(images, len(images) // 10, 0), images):
        fit(model, loss, source, None, settings, fabric=fabric, augment=AUGMENT, watcher=watch)
    return watch.seconds[-1]


def plain_epoch(images: ImageSet, workers: int) -> float:
    """Seconds of one epoch of the plain loop, after a warm-up on a tenth of the images."""
    torch.manual_seed(0)
    model = make_backbone("small-cnn", channels=3, dimension=10)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    mean, std = torch.full((3, 1, 1), 0.47), torch.full((3, 1, 1), 0.25)
    started = 0.0
    for source in (subset(images, len(images) // 10, 0), images):
        assert isinstance(source, ImageSet)
        loader = DataLoader(PerImage(source, mean, std), batch_size=BATCH, shuffle=True, num_workers=workers)
        started = time.perf_counter()
        for x, y in loader:
            loss = F.cross_entropy(model(x), y)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return time.perf_counter() - started


def parts(images: ImageSet) -> dict[str, float]:
    """Seconds of parts of one of our epochs: batches alone, forward alone."""
    model, _ = classifier("softmax")
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    started = time.perf_counter()
    for _ in our_batches(images):
        pass
    loading = time.perf_counter() - started
    model.train()
    started = time.perf_counter()
    for x, _ in our_batches(images):
        model(x)
    forward = time.perf_counter() - started - loading
    return {"loading and augmentation": loading, "forward": forward}


def our_batches(images: ImageSet) -> Any:
    """One epoch of augmented batches, as the loop takes them."""
    return batches(images, BATCH, epoch=0, seed=0, shuffle=True, augment=AUGMENT, channels_last=True)


def measure(what: str, images: ImageSet) -> dict[str, float]:
    """Seconds of one epoch, or of its parts, in this process."""
    if what in PLAIN:
        return {"epoch": plain_epoch(images, PLAIN[what])}
    keep_memory()
    return parts(images) if what == PARTS else {"epoch": our_epoch(what, images)}


def apart(what: str, images: Path) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--data", str(images), "--one", what]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{what} failed: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def kept_images(path: Path) -> ImageSet:
    """Images that the first process wrote for the others, which need not decode them again."""
    tensors, about = load_tensors(path)
    names = tuple(str(place) for place in range(int(about["classes"])))
    return ImageSet(tensors["images"], tensors["labels"], names, about["name"], "train")


def main() -> None:
    """Run the benchmark, print its table, and write its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of CIFAR-10, or any 32x32 colour set of ten classes")
    parser.add_argument("--images", type=int, default=5000, help="training images per epoch")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each, taken in turns")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/training.json"))
    parser.add_argument("--one", help="one of them in this process, on images kept in a file; prints JSON")
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(options.one, kept_images(Path(options.data)))))
        return
    train = load_data(options.data).train
    images = subset(train, options.images, 0)
    assert isinstance(images, ImageSet)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.safetensors"
        about = {"classes": str(len(images.class_names)), "name": images.name}
        save_tensors(file, {"images": images.images, "labels": images.labels}, about)
        for _ in range(options.rounds):
            for name in (*OURS, *PLAIN):
                seconds.setdefault(name, []).append(apart(name, file)["epoch"])
        where = apart(PARTS, file)
    where["backward, optimiser and the rest"] = statistics.median(seconds["softmax"]) - sum(where.values())

    def ratio(over: str, under: str) -> dict[str, float]:
        ratios = [a / b for a, b in zip(seconds[over], seconds[under], strict=True)]
        return {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}

    record = {
        "command": f"python benchmarks/training.py --images {options.images} --rounds {options.rounds}",
        "environment": environment(),
        "data": images.name,
        "images_per_epoch": len(images),
        "batch_size": BATCH,
        "seconds_per_epoch": seconds,
        "ratios": {
            "simplex prototypes / softmax": ratio("simplex", "softmax"),
            "paper / softmax": ratio("paper", "softmax"),
            "plain loop without workers / ours": ratio("plain loop, 0 workers", "softmax"),
            "plain loop with 2 workers / ours": ratio("plain loop, 2 workers", "softmax"),
        },
        "where_the_time_goes": where,
    }
    write_atomically(options.output, json.dumps(record, indent=1) + "\n")
    for name, values in record["ratios"].items():  # type: ignore[attr-defined]
        print(f"{name}: {values['median']:.2f} ({values['lowest']:.2f} to {values['highest']:.2f})")
    print(f"record: {options.output}")


if __name__ == "__main__":
    main()
