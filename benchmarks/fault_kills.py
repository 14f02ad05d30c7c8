"""Commands that are killed at random moments, and started again: is anything lost, or different in the end?"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from fault_harness import End, at_write, faults_of, in_child, writes_of
from repulse.common.errors import RepulseError
from repulse.common.files import load_tensors, sha256_of

Main = Callable[[list[str]], int]

# One start in this many is left to end by itself, or a command longer than its kills would never be done.
_LEFT_ALONE = 8

# One kill in this many comes at a write: files are open for a hundredth of the time, and torn there if anywhere.
_AT_WRITES = 2

# What two runs of one command never share.
_OF_THE_CLOCK = {"seconds", "images_per_second", "created", "environment", "command", "seconds_per_epoch"}

TRAIN = [
    *("--preset", "softmax", "--data.train-images", "100", "--model.width", "0.25"),
    *("--fit.epochs", "4", "--fit.batch-size", "50", "--progress", "quiet"),
]
EVALUATE = [
    *("--attacks", "paper", "--images", "4", "--eps", "0.1", "--curve", "0.05", "--steps", "2", "--curve-steps", "2"),
    *("--batch-size", "1", "--progress", "quiet"),
]
CERTIFY = [
    *("--method", "smoothing", "--n", "50", "--n0", "5", "--images", "4", "--batch-size", "1"),
    *("--progress", "quiet"),
]
REPRODUCE = ["fashion", "--scale", "smoke", "--methods", "softmax", "--seeds", "0", "--images", "4"]


@dataclass(frozen=True)
class Command:
    """A command that keeps what it has done in a folder.

    Args:
        name: of the command.
        line: from the folder, its command line; the same one goes on after a kill.
        begin: makes what it needs in the folder.
    """

    name: str
    line: Callable[[Path], list[str]]
    begin: Callable[[Path], None]


def commands(main: Main, folder: Path) -> list[Command]:
    """The four commands, with a trained run for those that measure one."""
    run = folder / "run"
    if not (run / "test.json").is_file():
        end = in_child(lambda: main(["train", "--output", str(run), *TRAIN]), kill_after=600)
        assert end.code == 0, end.err

    def copy(place: Path) -> None:
        shutil.copytree(run, place)

    def nothing(place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)

    return [
        Command("train", lambda place: ["train", "--output", str(place), "--resume", *TRAIN], nothing),
        Command("evaluate", lambda place: ["evaluate", str(place), *EVALUATE], copy),
        Command("certify", lambda place: ["certify", str(place), *CERTIFY], copy),
        Command("reproduce", lambda place: ["reproduce", "--output", str(place), *REPRODUCE], nothing),
    ]


def kill_at_random(
    main: Main, command: Command, folder: Path, *, kills: int, seconds: float, seed: int
) -> dict[str, Any]:
    """Kill a command again and again, until it has been killed often enough or the time is over.

    Returns:
        Counts: kills, results that came to their end in spite of them, finished parts lost, ends that differ from the
        one without kills, and commands that failed.
    """
    dice = random.Random(seed)
    reference, whole = without_faults(main, command, folder)
    wanted = contents(reference)
    writes = _writes(main, command, folder)
    count = {"kills": 0, "kills at writes": 0, "starts": 0, "ends": 0, "lost": 0, "different": 0, "failed": 0}
    notes: list[str] = []
    stop = time.monotonic() + seconds
    while count["kills"] < kills and time.monotonic() < stop:
        place = folder / f"{command.name}-killed"
        shutil.rmtree(place, ignore_errors=True)
        command.begin(place)
        before: dict[str, str] = {}
        while True:
            alone = dice.randrange(_LEFT_ALONE) == 0 or time.monotonic() > stop
            work = partial(main, command.line(place))
            writing = not alone and dice.randrange(_AT_WRITES) == 0
            if writing:
                work = partial(at_write, work, place, dice.randint(1, writes), _kill_myself)
            end = in_child(work, kill_after=900.0 if alone or writing else dice.uniform(0, whole.seconds))
            killed = end.code == -signal.SIGKILL
            count["starts"] += 1
            count["kills"] += killed
            count["kills at writes"] += killed and writing
            now = finished(place)
            for path, digest in before.items():
                # A record that stands may only be replaced by the same one.
                if now.get(path) != digest:
                    count["lost"] += 1
                    notes.append(f"{path} was finished and is {'gone' if path not in now else 'another'}")
            before = now
            if not killed:
                break
        count["ends"] += 1
        wrong = faults_of(end)
        if wrong is not None or end.code != 0:
            count["failed"] += 1
            notes.append(wrong or end.err[-300:])
            continue
        found = contents(place)
        differing = sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))
        if differing:
            count["different"] += 1
            notes.append(f"differs: {', '.join(differing[:5])}")
    return {**count, "seconds_without_kills": round(whole.seconds, 2), "notes": notes[:10]}


def without_faults(main: Main, command: Command, folder: Path) -> tuple[Path, End]:
    """The folder of a command that nothing happened to, and its end."""
    place = folder / f"{command.name}-whole"
    shutil.rmtree(place, ignore_errors=True)
    command.begin(place)
    end = in_child(partial(main, command.line(place)), kill_after=900)
    assert end.code == 0, end.err
    return place, end


def _writes(main: Main, command: Command, folder: Path) -> int:
    """How often a command opens, renames or removes a file of its folder."""
    place = folder / f"{command.name}-counted"
    command.begin(place)
    return writes_of(partial(main, command.line(place)), place)


def _kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def finished(place: Path) -> dict[str, str]:
    """What must never be lost again: epochs, and every record of a finished measurement, by path."""
    found = {}
    for path in sorted(place.rglob("*")):
        kept = path.name in ("test.json", "record.json", "certificate.json", "config.yaml", "prototypes.safetensors")
        if kept and path.is_file():
            found[str(path.relative_to(place))] = _digest(path)
        if path.name == "metrics.csv":
            for row in _rows(path):
                found[f"{path.relative_to(place)} epoch {row.split(',')[0]}"] = row
    return found


def contents(place: Path) -> dict[str, str]:
    """A digest of every result in a folder, without what is of the clock; pages and locks are left out."""
    kinds = {".json", ".safetensors", ".csv", ".yaml"}
    found = {}
    for path in sorted(place.rglob("*")):
        named = path.relative_to(place)
        if path.is_file() and path.suffix in kinds and not path.name.startswith(".") and "progress" not in named.parts:
            found[str(named)] = _digest(path)
    return found


def _digest(path: Path) -> str:
    if path.suffix == ".json":
        try:
            content = json.dumps(_timeless(json.loads(path.read_text(encoding="utf-8"))), sort_keys=True)
        except ValueError:
            return "torn"
        return hashlib.sha256(content.encode()).hexdigest()
    if path.name == "metrics.csv":
        return hashlib.sha256("\n".join(_rows(path)).encode()).hexdigest()
    if path.suffix == ".safetensors":
        try:
            tensors, about = load_tensors(path)
        except RepulseError:
            return "torn"
        parts = [(name, tensors[name]) for name in sorted(tensors) if name.rpartition(".")[2] != "seconds"]
        return sha256_of(
            json.dumps(about, sort_keys=True).encode(), *(part for pair in parts for part in _bytes(*pair))
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _bytes(name: str, tensor: Tensor) -> tuple[bytes, Tensor]:
    return name.encode(), tensor


def _rows(path: Path) -> list[str]:
    """Rows of metrics without the columns of the clock, which are the last two."""
    return [line.rsplit(",", 2)[0] for line in path.read_text(encoding="utf-8").splitlines()[1:]]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in _OF_THE_CLOCK}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value
