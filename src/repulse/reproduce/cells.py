"""What is done with one cell: train it, attack it, measure it; and show its model the images of others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from repulse.attacks import Threat
from repulse.common.errors import RepulseError
from repulse.common.files import load_tensors, save_tensors
from repulse.common.settings import Settings, merge, to_yaml
from repulse.data import ImageSource, subset
from repulse.models import PrototypeClassifier
from repulse.opening import evaluate_run
from repulse.reproduce.grid import (
    ASKED_FILE,
    COST_FILE,
    EMBEDDING_FILE,
    TRANSFER_FILE,
    TRANSFER_STEPS,
    Grid,
    GridCell,
    Stage,
    once,
    read_json,
    write_json,
)
from repulse.reproduce.measures import correct, craft, embeddings, learned_separation, training_cost
from repulse.run_folder import load_run, load_splits, read_test_accuracy
from repulse.runs import train_run

CRAFTED_FILE = "crafted.safetensors"

Tell = Callable[[str], None]


def do_cell(cell: GridCell, stages: Sequence[Stage], tell: Tell) -> str | None:
    """Do what is left of a cell, unless another process is at it; returns why it failed, or None."""
    with cell.claimed() as mine:
        if not mine or not cell.to_do(stages):
            return None
        try:
            if not cell.trained():
                _train(cell, tell)
            if "measure" in stages:
                _measure(cell, tell)
            return None
        except RepulseError as error:
            why = str(error)
        # A defect in one method must not cost the results of all others.
        except Exception as error:
            tell(traceback.format_exc())
            why = repr(error)
        tell(f"{cell.label}: failed: {why}")
        return why


def _train(cell: GridCell, tell: Tell) -> None:
    changed = cell.changed()
    if (aside := cell.move_aside()) is not None:
        what = ", ".join(changed) or "data.source"
        tell(f"{cell.label}: trained anew, since {what} changed; the old run lies in {aside.name}")
    started, processes = time.perf_counter(), cell.grid.processes
    if processes > 1:
        config = merge(cell.config, {"fit": {"devices": str(processes)}}, "processes")
        _under_torchrun(["train", "--output", str(cell.folder), "--resume"], config, processes)
    else:
        train_run(cell.config, cell.folder, resume=True)
    natural, _ = read_test_accuracy(cell.folder)
    tell(f"{cell.label}: trained in {time.perf_counter() - started:.0f} s, natural accuracy {100 * natural:.1f} %")


def _measure(cell: GridCell, tell: Tell) -> None:
    if not cell.has_weights:
        raise RepulseError(
            f"{cell.folder} has no checkpoint to measure: it is a kept copy; write its report by --stages report, or "
            "name another --output"
        )
    if cell.record() is None:
        grid, source = cell.grid, cell.config.data.source
        if read_json(cell.evaluation / ASKED_FILE) not in (None, cell.asked):
            # Something else was asked before, in a place that is the cell's own.
            shutil.rmtree(cell.evaluation)
        if grid.processes > 1:
            argv = ["evaluate", str(cell.folder), "--images", str(grid.images), "--source", source]
            argv += ["--output", str(cell.evaluation)]
            _under_torchrun(argv, cell.grid.measurement, grid.processes)
        else:
            command = f"repulse reproduce {grid.name} --scale {grid.scale}"
            evaluate_run(
                cell.folder,
                cell.grid.measurement,
                output=cell.evaluation,
                images=grid.images,
                source=source,
                command=command,
            )
        # Written after the record: what it says was asked has then been answered.
        write_json(cell.evaluation / ASKED_FILE, cell.asked)
        record = cell.record()
        assert record is not None, "the evaluation has just been written"
        tell(
            f"{cell.label}: attacked {record.data.count} images in {record.seconds:.0f} s, worst case "
            f"{100 * record.worst_case_accuracy:.1f} %"
        )
    if cell.measured():
        return
    model, splits = _model(cell), load_splits(cell.config)
    once(
        cell.folder / EMBEDDING_FILE,
        lambda: learned_separation(embeddings(model, splits.test), splits.test.labels, model.prototypes.cpu()),
    )
    if cell.crafts and not cell.crafted():
        pixels, labels = _attacked_images(cell, splits.test)
        threat = Threat(cell.grid.measurement.norm, cell.grid.measurement.eps)
        crafted = craft(model, pixels, labels, threat, steps=TRANSFER_STEPS, seed=cell.grid.measurement.seed)
        save_tensors(cell.folder / CRAFTED_FILE, {"images": crafted})
        write_json(cell.folder / TRANSFER_FILE, {"of": cell.crafted_of, "robust": {}})
    # Last, since it spoils the model.
    once(cell.folder / COST_FILE, lambda: training_cost(cell.folder, cell.config, model.cpu(), splits.train))


def measure_transfer(grid: Grid) -> None:
    """Show every model of the first seed the images that were crafted on each; what was shown before is not again.

    A source's file holds, for each target, the share of images that it classifies right both clean and crafted.
    """
    records = {cell: record for cell in grid.cells if cell.crafts and (record := cell.record()) is not None}
    sources = {cell: read_json(cell.folder / TRANSFER_FILE) or {} for cell in records if cell.crafted()}
    for target, record in records.items():
        digest = record.model.weights_sha256
        new = [s for s, shown in sources.items() if shown["robust"].get(target.method, {}).get("weights") != digest]
        if not new or not target.has_weights:
            continue
        model = _model(target)
        pixels, labels = _attacked_images(target, load_splits(target.config).test)
        clean = correct(model, pixels, labels)
        for source in new:
            crafted = load_tensors(source.folder / CRAFTED_FILE)[0]["images"]
            share = (clean & correct(model, crafted, labels)).double().mean().item()
            sources[source]["robust"][target.method] = {"weights": digest, "share": share}
            write_json(source.folder / TRANSFER_FILE, sources[source])


def _model(cell: GridCell) -> PrototypeClassifier:
    return load_run(cell.folder)[0].to("cuda" if torch.cuda.is_available() else "cpu")


def _attacked_images(cell: GridCell, test: ImageSource) -> tuple[torch.Tensor, torch.Tensor]:
    """The images that evaluations attack, too."""
    some = subset(test, min(cell.grid.images, len(test)), cell.grid.measurement.seed)
    return some.fetch(torch.arange(len(some))).float() / 255, some.labels


def _under_torchrun(argv: Sequence[str], settings: Settings, processes: int) -> None:
    """A command of repulse on so many processes of this machine; what it says when it fails is the error."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / "settings.yaml"
        file.write_text(to_yaml(settings), encoding="utf-8")
        command = [*launch, "-m", "repulse", *argv, "--config", str(file), "--progress", "quiet"]
        env = {"OMP_NUM_THREADS": "1", **os.environ}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        # torchrun has much to say itself; what the command said is what helps.
        said = [line for line in done.stderr.splitlines() if line.startswith("repulse: error: ")]
        raise RepulseError(said[0].removeprefix("repulse: error: ") if said else done.stderr.strip()[-2000:])
