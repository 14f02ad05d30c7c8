"""Commands whose disk is full at a random point, or may only be read: one line of error, and with room the same end."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fault_harness import faults_of, in_child
from fault_kills import Command, Main, contents, without_faults

# One case in so many is a file system that may only be read.
_READ_ONLY = 4


def full_disk(main: Main, command: Command, folder: Path, *, cases: int, seconds: float, seed: int) -> dict[str, Any]:
    """Give a command too little room in a single file at a random point, then enough."""
    dice = random.Random(seed)
    whole, _ = without_faults(main, command, folder)
    reference = contents(whole)
    largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    count = {"cases": 0, "refused": 0, "ended anyway": 0, "different": 0, "failed": 0}
    notes: list[str] = []
    stop = time.monotonic() + seconds
    while count["cases"] < cases and time.monotonic() < stop:
        place = folder / f"{command.name}-full"
        shutil.rmtree(place, ignore_errors=True)
        command.begin(place)
        # As often small as large, for most of what is written is small; what is said on standard error has room always.
        room = int(4096 * (2 * largest / 4096) ** dice.random())
        count["cases"] += 1
        end = in_child(partial(_limited, main, command.line(place), room), kill_after=900)
        if wrong := faults_of(end):
            count["failed"] += 1
            notes.append(wrong)
            continue
        count["refused" if end.code == 2 else "ended anyway"] += 1
        if not _ends_alike(main, command, place, reference):
            count["different"] += 1
            notes.append(f"differs after a file was cut at {room} bytes")
    return {**count, "how": "RLIMIT_FSIZE", "notes": notes[:10]}


def _limited(main: Main, line: list[str], room: int) -> int:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    return main(line)


def small_disk(main: Main, command: Command, folder: Path, *, cases: int, seconds: float, seed: int) -> dict[str, Any]:
    """The same on a file system that is truly full after a random part of what is written, or may only be read."""
    dice = random.Random(seed)
    whole, _ = without_faults(main, command, folder)
    reference = contents(whole)
    size = sum(path.stat().st_size + 8192 for path in whole.rglob("*"))
    count = {"full": 0, "read-only": 0, "refused": 0, "ended anyway": 0, "different": 0, "failed": 0}
    notes: list[str] = []
    disk = folder / "disk"
    stop = time.monotonic() + seconds
    for case in range(cases):
        if time.monotonic() > stop:
            break
        read_only = case % _READ_ONLY == _READ_ONLY - 1
        with mounted(disk, 4 * size) as done:
            if not done:
                return {"how": "not allowed to mount here; see the limit on the size of files"}
            place = disk / "place"
            command.begin(place)
            held = os.statvfs(disk)
            used = (held.f_blocks - held.f_bfree) * held.f_frsize
            room = used + 4096 * dice.randrange(1, max(2, (size - used) // 4096))
            _remount(disk, "ro" if read_only else f"size={room}")
            count["read-only" if read_only else "full"] += 1
            end = in_child(partial(main, command.line(place)), kill_after=900)
            if wrong := faults_of(end):
                count["failed"] += 1
                notes.append(wrong)
                continue
            count["refused" if end.code == 2 else "ended anyway"] += 1
            _remount(disk, f"rw,size={4 * size}")
            if not _ends_alike(main, command, place, reference):
                count["different"] += 1
                notes.append(f"differs after {'a read-only disk' if read_only else f'{room} bytes of disk'}")
    return {**count, "how": "tmpfs", "notes": notes[:10]}


def _ends_alike(main: Main, command: Command, place: Path, reference: dict[str, str]) -> bool:
    """Whether a command ends with the results of one that nothing happened to."""
    return in_child(partial(main, command.line(place)), kill_after=900).code == 0 and contents(place) == reference


def _remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


@contextmanager
def mounted(disk: Path, size: int) -> Iterator[bool]:
    """A file system of a size at `disk`, where that is allowed."""
    disk.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", "-l", str(disk)], check=True)
