"""Working through a grid: train, attack and measure cell by cell, beside any number of other workers.

A worker holds a cell by a lock on a file, which the operating system gives back when the process ends, however it
ends; so a cell whose worker died is free at once, and the next worker goes on where it stopped. Locks of this kind
(`flock`) reach across machines on NFS 4, Lustre and the like.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout

from repulse.attacks import Threat
from repulse.common.errors import RepulseError
from repulse.common.files import load_tensors, save_tensors
from repulse.data import ImageSource, subset
from repulse.data.load import data_kept
from repulse.evaluation.bench import Progress
from repulse.measuring import evaluate_run
from repulse.reproduce.costs import cost
from repulse.reproduce.grid import (
    ASKED_FILE,
    COST_FILE,
    EMBEDDING_FILE,
    TRANSFER_FILE,
    Cell,
    Grid,
    once,
    read_json,
    write_json,
)
from repulse.reproduce.separation import embeddings, learned_separation
from repulse.reproduce.together import evaluate_together, train_together
from repulse.reproduce.transfer import STEPS, craft, right
from repulse.runs import load_run, load_splits, read_test_accuracy, train_run

Stage = Literal["train", "measure", "report"]

CRAFTED_FILE = "crafted.safetensors"

# A cell whose worker was killed is tried once more, not for ever: it may be what killed it.
TRIES = 2


def work(
    grid: Grid,
    stages: tuple[Stage, ...],
    session: str,
    tell: Callable[[str], None],
    *,
    progress: Progress | None = None,
) -> None:
    """Work through all cells that nobody else is at, until there is none left to take.

    A cell that fails is noted with its session, so that no worker of the same session tries it again.

    Args:
        grid: the cells.
        stages: without `train`, runs that have not ended are passed over; without `measure`, nothing is attacked.
        session: any text; another one tries failed cells again.
        tell: told a line when something was done.
        progress: told how attacks go on.
    """
    with data_kept():
        did_something = True
        while did_something:
            did_something = False
            for cell in grid.cells:
                if failure(cell, session) is None and to_do(cell, grid, stages):
                    with claimed(cell) as mine:
                        if mine:
                            did_something = _try(cell, grid, stages, session, tell, progress) or did_something


def to_do(cell: Cell, grid: Grid, stages: tuple[Stage, ...]) -> bool:
    """Whether anything of these stages is left to do for a cell."""
    if not cell.trained():
        return "train" in stages
    return "measure" in stages and not (cell.measured() and (cell not in grid.first_seed or _has_crafted(cell)))


@contextmanager
def claimed(cell: Cell) -> Iterator[bool]:
    """Hold a cell within this context; False if another process holds it."""
    path = _lock_file(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def held(cell: Cell) -> bool:
    """Whether another process is at a cell."""
    if not _lock_file(cell).is_file():
        return False
    with claimed(cell) as mine:
        return not mine


def _lock_file(cell: Cell) -> Path:
    return cell.folder.parent.parent / ".claims" / f"{cell.method}-seed-{cell.seed}.lock"


def failure(cell: Cell, session: str) -> str | None:
    """Why a cell failed in a session, in one line; None if it didn't, or may be tried once more."""
    found = read_json(_note(cell)) or {}
    gone = found.get("final") or found.get("tries", 0) >= TRIES
    return str(found["message"]) if gone and found.get("session") == session else None


def _begin(cell: Cell, session: str) -> None:
    """Note that a cell is being tried: if its process is killed, nobody else can say so."""
    found = read_json(_note(cell)) or {}
    tries = found.get("tries", 0) if found.get("session") == session else 0
    message = "its worker died; is there enough memory?"
    write_json(_note(cell), {"session": session, "tries": tries + 1, "message": message, "final": False})


def _note(cell: Cell) -> Path:
    return cell.folder.parent.parent / ".failed" / f"{cell.method}-seed-{cell.seed}.json"


def _try(
    cell: Cell,
    grid: Grid,
    stages: tuple[Stage, ...],
    session: str,
    tell: Callable[[str], None],
    progress: Progress | None,
) -> bool:
    """Do what is left of a cell; returns whether anything was left, now that nobody else can have done it."""
    if not to_do(cell, grid, stages):
        return False
    _begin(cell, session)
    try:
        if not cell.trained():
            _train(cell, tell, grid.processes)
        if "measure" in stages:
            _measure(cell, grid, tell, progress)
    # A defect in one method must not cost the results of all others.
    except Exception as error:
        message = " ".join(str(error).split()) if isinstance(error, RepulseError) else repr(error)
        details = {"message": message, "final": True, "traceback": traceback.format_exc()}
        write_json(_note(cell), {"session": session, **details})
        tell(f"{cell.label}: failed: {message}")
    else:
        _note(cell).unlink(missing_ok=True)
    return True


def _train(cell: Cell, tell: Callable[[str], None], processes: int) -> None:
    changed = cell.changed()
    aside = cell.make_room()
    if aside is not None:
        what = ", ".join(changed) or "data.source"
        tell(f"{cell.label}: trained anew, since {what} changed; the old run lies in {aside.name}")
    started = time.perf_counter()
    if processes > 1:
        train_together(cell.config, cell.folder, processes)
    else:
        train_run(cell.config, cell.folder, resume=True)
    natural, _ = read_test_accuracy(cell.folder)
    tell(f"{cell.label}: trained in {time.perf_counter() - started:.0f} s, natural accuracy {100 * natural:.1f} %")


def _measure(cell: Cell, grid: Grid, tell: Callable[[str], None], progress: Progress | None) -> None:
    if not (cell.folder / "checkpoints" / "last.safetensors").is_file():
        raise RepulseError(
            f"{cell.folder} has no checkpoint to measure: it is a kept copy; write its report by --stages report, or "
            "name another --output"
        )
    if cell.record() is None:
        source = cell.config.data.source
        if grid.processes > 1:
            evaluate_together(cell.folder, cell.measurement, cell.images, source, grid.processes)
        else:
            command = f"repulse reproduce {grid.name} --scale {grid.scale}"
            evaluate_run(
                cell.folder, cell.measurement, images=cell.images, source=source, command=command, progress=progress
            )
        # Written after the record: what it says was asked has then been answered.
        write_json(cell.evaluation / ASKED_FILE, cell.asked)
        record = cell.record()
        assert record is not None, "the evaluation has just been written"
        tell(
            f"{cell.label}: attacked {record.data.count} images in {record.seconds:.0f} s, worst case "
            f"{100 * record.worst_case_accuracy:.1f} %"
        )
    if not to_do(cell, grid, ("measure",)):
        return
    model, _, _ = load_run(cell.folder)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    splits = load_splits(cell.config)
    once(
        cell.folder / EMBEDDING_FILE,
        lambda: learned_separation(embeddings(model, splits.test), splits.test.labels, model.prototypes.cpu()),
    )
    if cell in grid.first_seed and not _has_crafted(cell):
        pixels, labels = _attacked_images(cell, splits.test)
        threat = Threat(cell.measurement.norm, cell.measurement.eps)
        made = craft(model, pixels, labels, threat, seed=cell.measurement.seed)
        save_tensors(cell.folder / CRAFTED_FILE, {"images": made})
        write_json(cell.folder / TRANSFER_FILE, {"of": _crafted_of(cell), "robust": {}})
    # Last, since it spoils the model.
    once(cell.folder / COST_FILE, lambda: cost(cell.folder, cell.config, model.cpu(), splits.train))


def measure_transfer(grid: Grid) -> None:
    """Show every model of the first seed the images that were crafted on each; what was shown before is not again.

    A source's file holds, for each target, the share of images that it classifies right both clean and crafted.
    """
    records = {cell.method: record for cell in grid.first_seed if (record := cell.record()) is not None}
    sources = [cell for cell in grid.first_seed if cell.method in records and _has_crafted(cell)]
    shown = {cell.method: read_json(cell.folder / TRANSFER_FILE) or {} for cell in sources}
    for target in grid.first_seed:
        if target.method not in records:
            continue
        digest = records[target.method].model.weights_sha256
        new = [s for s in sources if shown[s.method]["robust"].get(target.method, {}).get("weights") != digest]
        if not new or not (target.folder / "checkpoints" / "last.safetensors").is_file():
            continue
        model, _, _ = load_run(target.folder)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        pixels, labels = _attacked_images(target, load_splits(target.config).test)
        clean = right(model, pixels, labels)
        for source in new:
            crafted = load_tensors(source.folder / CRAFTED_FILE)[0]["images"]
            share = (clean & right(model, crafted, labels)).double().mean().item()
            shown[source.method]["robust"][target.method] = {"weights": digest, "share": share}
            write_json(source.folder / TRANSFER_FILE, shown[source.method])


def _attacked_images(cell: Cell, test: ImageSource) -> tuple[torch.Tensor, torch.Tensor]:
    """The images that evaluations attack, too."""
    some = subset(test, min(cell.images, len(test)), cell.measurement.seed)
    return some.fetch(torch.arange(len(some))).float() / 255, some.labels


def _crafted_of(cell: Cell) -> dict[str, Any]:
    settings = cell.measurement
    return {"norm": settings.norm, "eps": settings.eps, "steps": STEPS, "seed": settings.seed, "images": cell.images}


def _has_crafted(cell: Cell) -> bool:
    return (read_json(cell.folder / TRANSFER_FILE) or {}).get("of") == _crafted_of(cell)
