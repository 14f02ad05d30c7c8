"""A process for each case, forked from one that has imported everything, so that a thousand of them are affordable."""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PRINTED = 3000


@dataclass(frozen=True)
class End:
    """How a process ended: its exit code (minus the signal that killed it), what it printed, how long it took."""

    code: int
    out: str
    err: str
    seconds: float
    killed: bool


def in_child(work: Callable[[], int], *, kill_after: float) -> End:
    """Do `work` in a forked process with its children in a group of their own, and kill all of them after a time.

    Args:
        work: returns the exit code.
        kill_after: seconds; it is SIGKILL, which nothing can be done about.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begun = time.monotonic()
        child = os.fork()
        if child == 0:
            _work_and_leave(work, out.fileno(), err.fileno())
        killed = False
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            if not killed and time.monotonic() - begun >= kill_after:
                killed = True
                _kill(child)
            time.sleep(0.001)
        seconds = time.monotonic() - begun
        # What it had started itself must not live on; its own number may be somebody else's by now.
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
    return End(os.waitstatus_to_exitcode(status), said[0][-PRINTED:], said[1][-PRINTED:], seconds, killed)


def _kill(group: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(group, signal.SIGKILL)
            return
        except (ProcessLookupError, PermissionError):
            # It has not made its group yet, or is gone.
            continue


def _work_and_leave(work: Callable[[], int], out: int, err: int) -> None:
    code = 99
    try:
        os.setsid()
        os.dup2(out, 1)
        os.dup2(err, 2)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                code = code or 98
        os._exit(code)


def faults_of(end: End) -> str | None:
    """What is wrong with an end: a command must be done (0), or say in one line what to mend (2). None: nothing."""
    lines = [line for line in end.err.splitlines() if line.startswith("repulse: error: ")]
    if "Traceback" in end.err or end.code in (98, 99):
        return f"traceback: {end.err[-600:]}"
    if end.code == 2 and len(lines) != 1:
        return f"exit code 2 with {len(lines)} lines of error: {end.err[-300:]}"
    if end.code not in (0, 2):
        return f"exit code {end.code}: {end.err[-600:]}"
    return None


def prepare() -> Callable[[list[str]], int]:
    """Import everything that the commands need, on one thread; returns the command line as a function."""
    import torch

    torch.set_num_threads(1)
    import repulse

    others = (
        "datasets",
        "lightning_fabric",
        "matplotlib.pyplot",
        "scipy.optimize",
        "sklearn.datasets",
        "torch._dynamo",
    )
    own = [module.name for module in pkgutil.walk_packages(repulse.__path__, "repulse.")]
    for name in (*others, *(name for name in own if not name.endswith("__main__"))):
        importlib.import_module(name)
    main: Callable[[list[str]], int] = importlib.import_module("repulse.cli").main
    return main


def at_write(work: Callable[[], int], place: Path, number: int, then: Callable[[], None]) -> int:
    """Do `work`, and `then` right before it opens to write, renames, removes or makes the `number`-th file in `place`.

    This cannot be undone, so it belongs in a child.
    """
    seen = 0

    def look(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in _WRITES or (event == "open" and not _to_write(*arguments)):
            return
        if str(arguments[0]).startswith(str(place)):
            seen += 1
            if seen == number:
                then()

    sys.addaudithook(look)
    return work()


def writes_of(work: Callable[[], int], place: Path) -> int:
    """How many such moments there are in a child's whole life."""
    with tempfile.NamedTemporaryFile("r") as file:

        def count() -> int:
            seen = 0

            def look(event: str, arguments: tuple[object, ...]) -> None:
                nonlocal seen
                writes = event in _WRITES and (event != "open" or _to_write(*arguments))
                seen += writes and str(arguments[0]).startswith(str(place))

            sys.addaudithook(look)
            code = work()
            Path(file.name).write_text(str(seen), encoding="utf-8")
            return code

        end = in_child(count, kill_after=900)
        assert end.code == 0, end.err
        return int(file.read())


_WRITES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate"}


def _to_write(_path: object, mode: object, flags: object) -> bool:
    return bool(set(str(mode)) & set("wax+")) if mode is not None else bool(int(str(flags)) & (os.O_WRONLY | os.O_RDWR))


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
