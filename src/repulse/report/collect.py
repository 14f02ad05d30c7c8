"""Find evaluations on disk, and what their runs left beside them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.common.run_files import CERTIFICATES, CONFIG_FILE, ENVIRONMENT_FILE, EVALUATIONS, METRICS_FILE
from repulse.evaluation.record import OUTCOMES_FILE, RECORD_FILE, Record, load_evaluation
from repulse.prototypes import Separation, measure
from repulse.report.certified import Certified, certificate_folders, certificate_for, collect_certificates
from repulse.subject.record import read_record

_COLUMNS = (
    "epoch",
    "loss",
    "train_accuracy",
    "validation_accuracy",
    "learning_rate",
    "seconds",
    "images_per_second",
)

# A record is counted from its outcomes; anything beyond rounding means that one of the two files was changed.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Measured:
    """One evaluation, with what its run folder says about the model.

    Args:
        folder: of the evaluation.
        record: what was measured.
        outcomes: per image, see `repulse.evaluation.record`; empty where only the record was kept.
        run: the run folder; None for an evaluation that lies elsewhere.
        config: text of the run's `config.yaml`, verbatim.
        metrics: columns of the run's `metrics.csv`; a value that was not measured is None.
        environment: what the run was trained with.
        certificates: of the run, of whatever weights and norm.
    """

    folder: Path
    record: Record
    outcomes: dict[str, Tensor] = field(repr=False)
    run: Path | None = None
    config: str | None = None
    metrics: dict[str, tuple[float | None, ...]] | None = None
    environment: dict[str, str] | None = None
    certificates: tuple[Certified, ...] = ()

    @property
    def certified(self) -> Certified | None:
        """What is proved of this very model in the norm of the evaluation; None if nothing."""
        return certificate_for(self.record, self.certificates)

    @cached_property
    def separation(self) -> Separation | None:
        """How far apart the prototypes are; None without prototypes, or if they cannot be measured (one is zero)."""
        try:
            return measure(self.outcomes["prototypes"]) if "prototypes" in self.outcomes else None
        except RepulseError:
            return None

    @property
    def place(self) -> str:
        """Where it lies, without the folders above: 'RUN/evaluations/NAME', or the name of the folder."""
        whole = self.folder.resolve()
        return whole.name if self.run is None else f"{self.run.resolve().name}/{EVALUATIONS}/{whole.name}"


def collect(paths: Sequence[Path]) -> list[Measured]:
    """Read all evaluations under the paths, each once: in the order of the paths, and by name within a path.

    A path that holds certificates need not hold an evaluation. Of several paths, those that hold neither are passed
    over, so that a pattern such as `results/*` may match other things too.

    Args:
        paths: run folders, evaluation folders, or folders that hold some, at any depth.

    Raises:
        RepulseError: if a path is absent, or none holds an evaluation or a certificate; if a file is damaged, or a
            record does not agree with its outcomes.
    """
    found: dict[Path, Measured] = {}
    for path in paths:
        if not path.exists():
            raise RepulseError(f"no such folder: {path}")
        for folder in _evaluation_folders(path):
            if folder.resolve() not in found:
                # Results that were kept small have no outcomes of single images: their records say enough to compare.
                alone = folder != path and not (folder / OUTCOMES_FILE).is_file()
                found[folder.resolve()] = _read(folder, alone=alone)
    if paths and not found and not any(certificate_folders(path) for path in paths):
        held = "holds" if len(paths) == 1 else "hold"
        raise RepulseError(f"{', '.join(map(str, paths))} {held} no evaluation: make one with `repulse evaluate RUN`")
    return list(found.values())


def _evaluation_folders(path: Path) -> Iterator[Path]:
    # The record is written last, so a folder without one is an evaluation that was cut off: it is passed over.
    for file in sorted(path.rglob(RECORD_FILE)):
        if not any(part.startswith(".") for part in file.relative_to(path).parts):
            yield file.parent


def _read(folder: Path, *, alone: bool) -> Measured:
    outcomes: dict[str, Tensor] = {}
    if alone:
        record = read_record(Record, folder / RECORD_FILE, "record", "repulse evaluate")
        _check_verdict(folder, record)
    else:
        record, outcomes = load_evaluation(folder)
        _check_agreement(folder, record, outcomes)
    whole = folder.resolve()
    if whole.parent.name != EVALUATIONS:
        return Measured(folder, record, outcomes)
    run = whole.parent.parent
    return Measured(
        folder,
        record,
        outcomes,
        run,
        config=_text(run / CONFIG_FILE),
        metrics=_metrics(run / METRICS_FILE),
        environment=_environment(run / ENVIRONMENT_FILE),
        certificates=tuple(collect_certificates([run / CERTIFICATES])),
    )


def _check_agreement(folder: Path, record: Record, outcomes: dict[str, Tensor]) -> None:
    shares = {f"robust/{attack.name}": attack.robust_accuracy for attack in record.attacks}
    for name, stated in {**shares, "robust/worst-case": record.worst_case_accuracy}.items():
        if name not in outcomes:
            raise RepulseError(f"the outcomes in {folder} lack {name!r}: evaluate the model again")
        counted = outcomes[name].double().mean().item()
        if len(outcomes[name]) != record.data.count or abs(counted - stated) > _ROUNDING:
            raise RepulseError(
                f"{folder} contradicts itself: its record says {stated:.4f} of {record.data.count} images for {name!r},"
                f" its outcomes {counted:.4f} of {len(outcomes[name])}; evaluate the model again"
            )

    _check_verdict(folder, record)
    _check_shapes(folder, record, outcomes)


def _check_verdict(folder: Path, record: Record) -> None:
    verdict = record.verdict
    if verdict is not None and verdict.quote > record.worst_case_accuracy + _ROUNDING:
        raise RepulseError(
            f"{folder} contradicts itself: its verdict says to quote {verdict.quote:.4f}, but only"
            f" {record.worst_case_accuracy:.4f} of its images are robust; evaluate the model again"
        )


def _check_shapes(folder: Path, record: Record, outcomes: dict[str, Tensor]) -> None:
    wanted: dict[str, tuple[int, ...]] = {"smallest": (record.data.count,)}
    if "slice/margin" in outcomes and {"slice/index", "slice/eps"} <= set(outcomes):
        points = len(outcomes["slice/eps"])
        wanted["slice/margin"] = (len(outcomes["slice/index"]), points, points)
    for name, shape in wanted.items():
        if name in outcomes and tuple(outcomes[name].shape) != shape:
            raise RepulseError(
                f"the outcomes in {folder} hold {name!r} of shape {tuple(outcomes[name].shape)}, not {shape}: evaluate"
                " the model again"
            )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise RepulseError(f"cannot read {path}: {error}") from error


def _metrics(path: Path) -> dict[str, tuple[float | None, ...]] | None:
    text = _text(path)
    if text is None:
        return None
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows:
        return None
    return {
        name: tuple(_number(path, line, name, row.get(name)) for line, row in enumerate(rows, 2)) for name in _COLUMNS
    }


def _number(path: Path, line: int, column: str, text: str | None) -> float | None:
    if text == "" and column == "validation_accuracy":
        return None
    try:
        return float(text or "")
    except ValueError:
        raise RepulseError(f"{path}, line {line}: expected a number for {column!r}, got {text!r}") from None


def _environment(path: Path) -> dict[str, str] | None:
    text = _text(path)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise RepulseError(f"{path} is not whole: {error}") from error
    if not isinstance(content, dict):
        raise RepulseError(f"{path} is not whole: expected an object")
    return {str(name): str(value) for name, value in content.items()}
