"""The grid of a comparison: its cells, a method and a seed each, and what of them is done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from repulse.common.files import write_atomically, writing
from repulse.common.registry import unknown_name
from repulse.common.run_files import CONFIG_FILE, TEST_FILE
from repulse.config.run import RunConfig, read_config
from repulse.evaluation.protocol import threat_name
from repulse.evaluation.record import RECORD_FILE, Record
from repulse.evaluation.settings import AttackNames, EvaluationSettings
from repulse.reproduce.comparisons import SCALES, Scale, cell_config, comparison, measurement
from repulse.reproduce.methods import METHODS, Method
from repulse.run_folder import differences
from repulse.subject.record import read_record

Stage = Literal["train", "measure", "report"]

COST_FILE = "cost.json"
EMBEDDING_FILE = "embedding.json"
TRANSFER_FILE = "transfer.json"
ASKED_FILE = "asked.json"
"""Beside a record: what was asked for, so that a changed setting is seen."""

# What PGD on the source crafts for the matrix of transfer.
TRANSFER_STEPS = 20


@dataclass(eq=False)
class Grid:
    """A comparison at a scale: which cells it has, how they are measured, and where they lie.

    Args:
        name: of the comparison.
        scale: how large everything is.
        data: where the images lie.
        output: cells lie in `output/NAME/SCALE/METHOD/seed-S`.
        methods: the rows; empty: the scale's own.
        seeds: of the runs of each method; empty: the scale's own.
        images: how many test images are attacked; 0: as many as the scale says.
        title: what tables call the data; empty: the comparison's own name for it.
        processes: how many train and attack a cell together.
        attacks: with what every cell is attacked; None: what the scale says.

    Raises:
        RepulseError: if a name is unknown; the nearest is suggested.
    """

    name: str
    scale: Scale
    data: str
    output: Path
    methods: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    images: int = 0
    title: str = ""
    processes: int = 1
    attacks: AttackNames | None = None

    def __post_init__(self) -> None:
        size = SCALES[self.scale]
        self.title = self.title or comparison(self.name, self.data).title
        self.methods = tuple(dict.fromkeys(self.methods)) or size.methods
        self.seeds = tuple(dict.fromkeys(self.seeds)) or size.seeds
        self.images = self.images or size.images
        for method in self.methods:
            if method not in METHODS:
                raise unknown_name("method", method, METHODS)

    @property
    def folder(self) -> Path:
        """Where everything of the comparison lies."""
        return self.output / self.name / self.scale

    @cached_property
    def measurement(self) -> EvaluationSettings:
        """How every cell is attacked."""
        return measurement(self.name, self.data, self.scale, self.attacks)

    @cached_property
    def cells(self) -> tuple[GridCell, ...]:
        """All cells, seed by seed, so that one seed of everything is there first."""
        return tuple(GridCell(self, method, seed) for seed in self.seeds for method in self.methods)


@dataclass(frozen=True, eq=False)
class GridCell:
    """One method with one seed: a run folder, and what was measured of it."""

    grid: Grid
    method: str
    seed: int

    @cached_property
    def config(self) -> RunConfig:
        """The configuration of the run."""
        grid = self.grid
        return cell_config(grid.name, self.method, self.seed, grid.data, grid.title, grid.scale)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.grid.folder / self.method / f"seed-{self.seed}"

    @property
    def crafts(self) -> bool:
        """Whether other models are shown images that were crafted on it: one seed of each method is."""
        return self.seed == self.grid.seeds[0]

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.method}, seed {self.seed}"

    @property
    def about(self) -> Method:
        """Its row of the table of methods."""
        return METHODS[self.method]

    @property
    def asked(self) -> dict[str, Any]:
        """What its evaluation depends on, beside the run; settings that later versions add don't count unless set.

        The radii of the curve follow from eps, and are left out.
        """
        changed = self.grid.measurement.model_dump(mode="json", exclude_defaults=True, exclude={"curve"})
        return {**changed, "images": self.grid.images}

    @property
    def crafted_of(self) -> dict[str, Any]:
        """What the images that are crafted on it depend on, beside the run."""
        asked = self.grid.measurement.model_dump(include={"norm", "eps", "seed"})
        return {**asked, "steps": TRANSFER_STEPS, "images": self.grid.images}

    @property
    def evaluation(self) -> Path:
        """The folder of its evaluation."""
        return self.folder / "evaluations" / threat_name(self.grid.measurement)

    @property
    def has_weights(self) -> bool:
        """Whether its model is there, and not only what was measured of it."""
        return (self.folder / "checkpoints" / "last.safetensors").is_file()

    def changed(self) -> list[str]:
        """Settings by which the run in the folder differs from this cell, where its data lies aside."""
        if not (self.folder / CONFIG_FILE).is_file():
            return []
        return [name for name in differences(read_config(self.folder), self.config) if name != "data.source"]

    def begun(self) -> bool:
        """Whether there is a run of this cell."""
        return (self.folder / CONFIG_FILE).is_file() and not self.changed()

    def trained(self) -> bool:
        """Whether the run has ended."""
        return (self.folder / TEST_FILE).is_file() and self.begun()

    def record(self) -> Record | None:
        """What its evaluation says; None if there is none with these settings.

        Raises:
            RepulseError: if it cannot be read.
        """
        asked = read_json(self.evaluation / ASKED_FILE)
        if asked is None or not self.trained():
            return None
        # Earlier versions wrote the curve.
        asked.pop("curve", None)
        if asked != self.asked:
            return None
        path = self.evaluation / RECORD_FILE
        return read_record(Record, path, "record", "repulse reproduce") if path.is_file() else None

    def crafted(self) -> bool:
        """Whether images were crafted on it with these settings."""
        return (read_json(self.folder / TRANSFER_FILE) or {}).get("of") == self.crafted_of

    def measured(self) -> bool:
        """Whether everything that is measured of it alone is there."""
        small = all((self.folder / name).is_file() for name in (COST_FILE, EMBEDDING_FILE))
        return small and (self.crafted() or not self.crafts) and self.record() is not None

    def to_do(self, stages: Sequence[Stage]) -> bool:
        """Whether anything of these stages is left to do."""
        return "train" in stages if not self.trained() else "measure" in stages and not self.measured()

    @contextmanager
    def claimed(self) -> Iterator[bool]:
        """Hold it within this context; False if another process does. A process that ends, however, lets go."""
        lock = FileLock(self._lock, timeout=0)
        with writing(self._lock):
            self._lock.parent.mkdir(parents=True, exist_ok=True)
            free = _acquired(lock)
        if not free:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def held(self) -> bool:
        """Whether another process is at it."""
        if not self._lock.is_file():
            return False
        with self.claimed() as mine:
            return not mine

    @property
    def _lock(self) -> Path:
        return self.grid.folder / ".claims" / f"{self.method}-seed-{self.seed}.lock"

    def move_aside(self) -> Path | None:
        """Move a run that cannot be gone on with aside; returns where it lies now, or None if there was none."""
        if not (self.folder / CONFIG_FILE).is_file() or not differences(read_config(self.folder), self.config):
            return None
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}-before-{number}")).exists():
            number += 1
        shutil.move(self.folder, aside)
        return aside


def read_json(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds; None if it is absent or not whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def once(path: Path, make: Callable[[], Mapping[str, Any]]) -> None:
    """Make a JSON file and write it, if it is absent."""
    if read_json(path) is None:
        write_json(path, make())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire()
    except Timeout:
        return False
    return True
