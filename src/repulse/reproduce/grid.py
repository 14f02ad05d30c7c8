"""The grid of a comparison: its cells, a method and a seed each, and what of them is done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from repulse.common.errors import RepulseError
from repulse.common.files import write_atomically
from repulse.common.registry import unknown_name
from repulse.config.run import CONFIG_FILE, RunConfig, read_config
from repulse.config.settings import EvaluationSettings
from repulse.evaluation.record import RECORD_FILE, Record
from repulse.measuring import threat_name
from repulse.reproduce.comparisons import Attacks, Scale, cell, comparison, images_of, measurement, seeds_of
from repulse.reproduce.methods import METHODS, Method
from repulse.runs import CLASSES_FILE, TEST_FILE, differences, load_splits

COST_FILE = "cost.json"
EMBEDDING_FILE = "embedding.json"
TRANSFER_FILE = "transfer.json"
ASKED_FILE = "asked.json"
"""Beside a record: what was asked for, so that a changed setting is seen."""


@dataclass(frozen=True)
class Grid:
    """A comparison at a scale: which cells it has, how they are measured, and where they lie.

    Args:
        name: of the comparison.
        scale: how large everything is.
        data: where the images lie.
        output: cells lie in `output/NAME/SCALE/METHOD/seed-S`.
        methods: the rows.
        seeds: of the runs of each method.
        images: how many test images are attacked.
        title: what tables call the data; None: the comparison's own name for it.
        processes: how many train and attack a cell together.
        attacks: with what every cell is attacked; None: what the scale says.

    Raises:
        RepulseError: if a name is unknown, or there is no method or no seed.
    """

    name: str
    scale: Scale
    data: str
    output: Path
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    images: int
    title: str | None = None
    processes: int = 1
    attacks: Attacks | None = None

    def __post_init__(self) -> None:
        comparison(self.name, self.data)
        for method in self.methods:
            if method not in METHODS:
                raise unknown_name("method", method, METHODS)
        if not self.methods or not self.seeds:
            raise RepulseError("a comparison needs at least one method and one seed")

    @property
    def folder(self) -> Path:
        """Where everything of the comparison lies."""
        return self.output / self.name / self.scale

    @property
    def measurement(self) -> EvaluationSettings:
        """How every cell is attacked."""
        return measurement(self.name, self.data, self.scale, self.attacks)

    @property
    def data_title(self) -> str:
        """What tables call the data."""
        return self.title or comparison(self.name, self.data).title

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, seed by seed, so that one seed of everything is there first."""
        return tuple(
            Cell(
                method,
                seed,
                cell(self.name, method, seed, self.data, self.title, self.scale),
                self.folder / method / f"seed-{seed}",
                self.measurement,
                self.images,
            )
            for seed in self.seeds
            for method in self.methods
        )

    def of(self, method: str) -> tuple[Cell, ...]:
        """The cells of a method."""
        return tuple(each for each in self.cells if each.method == method)

    @property
    def first_seed(self) -> tuple[Cell, ...]:
        """The cells between which transfer is measured."""
        return tuple(each for each in self.cells if each.seed == self.seeds[0])


def make_grid(
    name: str,
    scale: Scale,
    data: str,
    output: Path,
    *,
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (),
    images: int | None = None,
    title: str | None = None,
    processes: int = 1,
    attacks: Attacks | None = None,
) -> Grid:
    """A grid; what is left out has the scale's own value: all methods, its seeds, its number of images."""
    return Grid(
        name,
        scale,
        data,
        output,
        tuple(dict.fromkeys(methods)) or tuple(METHODS),
        tuple(dict.fromkeys(seeds)) or seeds_of(scale),
        images or images_of(scale),
        title,
        processes,
        attacks,
    )


@dataclass(frozen=True)
class Cell:
    """One method with one seed: a run folder, and what was measured of it.

    Args:
        method: its name.
        seed: of everything random in the run.
        config: of the run.
        folder: the run folder.
        measurement: how it is attacked.
        images: on how many test images.
    """

    method: str
    seed: int
    config: RunConfig
    folder: Path
    measurement: EvaluationSettings
    images: int

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
        """What its evaluation depends on, beside the run; settings that later versions add don't count unless set."""
        return {**self.measurement.model_dump(mode="json", exclude_defaults=True), "images": self.images}

    @property
    def evaluation(self) -> Path:
        """The folder of its evaluation."""
        return self.folder / "evaluations" / threat_name(self.measurement)

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
        if not self.trained() or read_json(self.evaluation / ASKED_FILE) != self.asked:
            return None
        path = self.evaluation / RECORD_FILE
        if not path.is_file():
            return None
        try:
            return Record.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise RepulseError(f"{path} is not a record that this version reads; remove it") from error

    def measured(self) -> bool:
        """Whether everything that is measured of the cell alone is there."""
        small = all((self.folder / name).is_file() for name in (COST_FILE, EMBEDDING_FILE))
        return small and self.record() is not None

    def make_room(self) -> Path | None:
        """Move a run with other settings aside; returns where it lies now, or None if there was none.

        Data that lies elsewhere is other data only if it holds other images.
        """
        if not (self.folder / CONFIG_FILE).is_file():
            return None
        moved_data = read_config(self.folder).data.source != self.config.data.source
        if not self.changed() and not (moved_data and not self._same_images()):
            return None
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}-before-{number}")).exists():
            number += 1
        shutil.move(self.folder, aside)
        return aside

    def _same_images(self) -> bool:
        classes = read_json(self.folder / CLASSES_FILE) or {}
        return bool(self.trained() and classes.get("train_sha256") == load_splits(self.config).train.sha256())


def read_json(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds; None if it is absent or not whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def once(path: Path, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON file's content, made and written if it is absent."""
    content = read_json(path)
    if content is None:
        content = dict(make())
        write_json(path, content)
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_atomically(path, json.dumps(content, indent=1) + "\n")
