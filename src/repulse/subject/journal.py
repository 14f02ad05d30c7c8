"""What of an evaluation is done, batch by batch: so that a killed one goes on, and several processes can share one."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from repulse.common.errors import RepulseError
from repulse.common.files import load_tensors, save_tensors, sha256_of
from repulse.common.notice import notice
from repulse.subject.identity import Identity

BatchResult = dict[str, Tensor]
"""What was found for one batch."""

# Raised when batches are kept in another form, so that nobody goes on from what an earlier version left.
_FORMAT = 5

# With it a folder counts as begun.
_IDENTITY_FILE = "identity.safetensors"


class Journal:
    """Batches that are done, in a folder or in memory.

    A batch is a file that is whole or absent, so killing the process at any moment loses at most the batch in work, and
    none is done twice. Under `torchrun` the processes take batches in turn, the next one as soon as one is done, and
    all read the results of all from the folder, which they must share.

    Args:
        folder: where batches are kept; None: in memory, for one process.
        identity: everything that the results depend on; a folder with another one is emptied, which is said.
    """

    def __init__(self, folder: Path | None = None, identity: Identity | None = None) -> None:
        self.folder = folder
        self._used: set[str] = set()
        self._store, self.rank, self.processes = _shared_store()
        if folder is not None:
            self._open(folder, identity or Identity({}))

    def _open(self, folder: Path, identity: Identity) -> None:
        if self.rank == 0:
            changed = _changed(folder, identity)
            if changed is None or changed:
                if changed and any(path.name != _IDENTITY_FILE for path in folder.iterdir()):
                    notice(
                        f"{folder} holds a measurement that was interrupted, of something else "
                        f"({', '.join(changed)} changed): starting anew"
                    )
                shutil.rmtree(folder, ignore_errors=True)
                save_tensors(folder / _IDENTITY_FILE, identity.answers, _parts(identity))
        self.barrier("open")

    def each(
        self,
        stage: str,
        count: int,
        work: Callable[[int], BatchResult],
        callback: Callable[[int], None] | None = None,
        *,
        key: str | None = None,
    ) -> list[BatchResult]:
        """The results of batches 0 to `count - 1` of a stage, in order.

        Args:
            stage: what people call it.
            count: how many batches it has.
            work: makes a batch that is not done yet.
            callback: called after each batch that was made and kept here.
            key: everything that decides the results, exactly; None: the stage is one of a kind.

        Raises:
            RepulseError: if several processes have no folder to share.
            ValueError: if the key was used before: two things would be taken for one.
        """
        if self._store is not None and self.folder is None:
            raise RepulseError("several processes share an evaluation through a folder; name one to keep it in")
        key = stage if key is None else f"{stage}: {key}"
        if key in self._used:
            raise ValueError(f"two stages of one evaluation have the same key: {key}")
        self._used.add(key)
        name = f"{re.sub(r'[^a-z0-9.]+', '-', stage.lower()).strip('-')[:60]}-{sha256_of(key.encode())[:16]}"
        callback = callback or _nobody
        if self._store is None:
            return [self._one(f"{name}-{index:05d}", index, work, callback) for index in range(count)]
        while (index := self._store.add(f"{name}/next", 1) - 1) < count:
            self._one(f"{name}-{index:05d}", index, work, callback)
            self._store.add(f"{name}/done", 1)
        while self._store.add(f"{name}/done", 0) < count:
            time.sleep(0.02)
        return [self._one(f"{name}-{index:05d}", index, work, callback) for index in range(count)]

    def text(self, stage: str, write: Callable[[], str]) -> str:
        """A text of one stage, written once whoever asks for it, and read from then on."""

        def work(_: int) -> BatchResult:
            return {"text": torch.tensor(list(write().encode()), dtype=torch.uint8)}

        (part,) = self.each(stage, 1, work)
        return bytes(part["text"].tolist()).decode()

    def barrier(self, name: str) -> None:
        """Wait until every process has come here."""
        if self._store is None:
            return
        self._store.add(f"barrier/{name}", 1)
        while self._store.add(f"barrier/{name}", 0) < self.processes:
            time.sleep(0.02)

    def close(self) -> None:
        """Forget all but the identity, which goes up to the record: the measurement is written."""
        self.barrier("close")
        if self.folder is not None and self.rank == 0:
            if (self.folder / _IDENTITY_FILE).is_file():
                (self.folder / _IDENTITY_FILE).replace(self.folder.parent / _IDENTITY_FILE)
            shutil.rmtree(self.folder, ignore_errors=True)

    def abandon(self) -> None:
        """Leave nothing behind of a measurement that could not start: no folder that was made for it."""
        if self.folder is None or self.rank != 0:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        for folder in (self.folder.parent, self.folder.parent.parent):
            # A folder that holds something is not ours to remove.
            with suppress(OSError):
                folder.rmdir()

    def _one(
        self, name: str, index: int, work: Callable[[int], BatchResult], callback: Callable[[int], None]
    ) -> BatchResult:
        path = None if self.folder is None else self.folder / f"{name}.safetensors"
        if path is not None and path.is_file():
            return load_tensors(path)[0]
        part = work(index)
        if path is not None:
            save_tensors(path, part)
        callback(index)
        return part


def finished(folder: Path, identity: Identity) -> bool:
    """Whether a folder holds this very measurement, done."""
    return _changed(folder, identity) == []


def other(folder: Path, identity: Identity, *, unfinished: bool = True) -> list[str]:
    """By what a folder holds another measurement, finished or interrupted; empty if it does not."""
    places = (folder, folder / "progress") if unfinished else (folder,)
    changed = [found for place in places if (found := _changed(place, identity)) is not None]
    if changed:
        return min(changed, key=len)
    # It was killed when its record was written, and before the identity went up beside that.
    if _changed(folder / "progress", identity) == []:
        return []
    # Records of earlier versions say nothing of the program and the answers.
    return ["the version of repulse"] if any(folder.glob("*.json")) else []


def _changed(folder: Path, identity: Identity) -> list[str] | None:
    """By what the measurement kept in a folder is another one; None if there is none."""
    try:
        answers, parts = load_tensors(folder / _IDENTITY_FILE)
    except RepulseError:
        return None
    return Identity(_parts(identity), identity.answers, identity.wobble).differences(parts, answers)


def _parts(identity: Identity) -> dict[str, str]:
    return {**identity.parts, "the form of what is kept": str(_FORMAT)}


def _shared_store() -> tuple[Any, int, int]:
    """The store, rank and number of the processes that `torchrun` started; None for a store if there is but one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None, 0, 1
    global _STORE
    if _STORE is None:
        _STORE = next(rendezvous("env://"))
    store, rank, processes = _STORE
    return store, rank, processes


_STORE: tuple[Any, int, int] | None = None


def _nobody(index: int) -> None:
    """A callback that does nothing."""
