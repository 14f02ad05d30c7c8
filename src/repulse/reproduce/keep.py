"""A copy of a comparison's results that is small enough to commit: no weights, no images, no paths."""

from __future__ import annotations

from pathlib import Path

from repulse.common.errors import RepulseError
from repulse.common.files import write_atomically
from repulse.config.run import CONFIG_FILE, merge, read_config, to_yaml
from repulse.evaluation.record import RECORD_FILE
from repulse.reproduce.figures import Figures
from repulse.reproduce.grid import ASKED_FILE, COST_FILE, EMBEDDING_FILE, TRANSFER_FILE, Cell
from repulse.reproduce.report import write_reproduction
from repulse.runs import ENVIRONMENT_FILE, TEST_FILE
from repulse.training.metrics import METRICS_FILE

KEPT = (ENVIRONMENT_FILE, METRICS_FILE, TEST_FILE, COST_FILE, EMBEDDING_FILE, TRANSFER_FILE)

# What stands for the place of the data, which is nobody else's.
PLACE = "FOLDER"


def keep(figures: Figures, folder: Path) -> Path:
    """Copy what was measured to `folder/NAME/SCALE`, with the report; returns that folder.

    A kept copy is laid out as the original is, so `repulse reproduce NAME --stages report --output FOLDER` writes its
    report again. Outcomes of single images are left out: every figure of the report stands in the records.

    Raises:
        RepulseError: if the folder is the original itself, or a file cannot be written.
    """
    target = folder / figures.grid.name / figures.grid.scale
    if target.resolve() == figures.grid.folder.resolve():
        raise RepulseError(f"results are kept elsewhere than they were made: name another folder than {folder}")
    for found in figures.found:
        _keep_cell(found.cell, target / found.cell.method / f"seed-{found.cell.seed}")
    write_reproduction(figures, target)
    return target


def _keep_cell(cell: Cell, target: Path) -> None:
    config = merge(read_config(cell.folder), {"data": {"source": PLACE}}, "keep")
    for name in KEPT:
        if (cell.folder / name).is_file():
            write_atomically(target / name, (cell.folder / name).read_bytes())
    place = target / cell.evaluation.relative_to(cell.folder)
    write_atomically(place / ASKED_FILE, (cell.evaluation / ASKED_FILE).read_bytes())
    record = cell.record()
    assert record is not None, "only measured cells are kept"
    # On one line: indented, the confusion matrices alone are as long as all the rest.
    write_atomically(place / RECORD_FILE, record.model_dump_json() + "\n")
    write_atomically(target / CONFIG_FILE, to_yaml(config))
