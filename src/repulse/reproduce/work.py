"""Working through a grid, in this process or in several side by side; and the report."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from repulse.common.errors import RepulseError
from repulse.data.load import data_kept
from repulse.reproduce.cells import Tell, do_cell, measure_transfer
from repulse.reproduce.figures import gather
from repulse.reproduce.grid import Grid, GridCell, Stage
from repulse.reproduce.page import TABLE, keep, write_reproduction
from repulse.run_folder import load_splits


def reproduce(grid: Grid, stages: Sequence[Stage], *, jobs: int, keep_in: Path | None, tell: Tell) -> str:
    """Do what is left to do of a grid, and report; returns the table and where the report lies.

    Args:
        grid: the cells.
        stages: what to do.
        jobs: cells at once on this machine. Several run on one thread each, and on the machine's GPUs in turn.
        keep_in: where to keep a copy of the results; None: nowhere.
        tell: told a line when something was done.

    Raises:
        RepulseError: if the data cannot be read, there is nothing to report, or cells failed, after all others are done
            and the report is written.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RepulseError("start this as one process; --processes N gives each cell N processes")
    failed = _work(grid, stages, jobs, tell)
    if left := [cell.label for cell in grid.cells if cell.label not in failed and cell.to_do(stages)]:
        tell(f"others are still at {len(left)} cells: {'; '.join(left)}")
    said = _report(grid, keep_in, quietly=bool(failed)) if "report" in stages else ""
    if failed:
        each = "; ".join(f"{label}: {why}" for label, why in failed.items())
        raise RepulseError(
            f"{len(failed)} of {len(grid.cells)} cells failed: {each}. The same command tries them again"
        )
    return said


def tell_on_stderr(line: str) -> None:
    """Print a line that says how far things are."""
    import click

    click.echo(line, err=True)


def _work(grid: Grid, stages: Sequence[Stage], jobs: int, tell: Tell) -> dict[str, str]:
    """Train and measure what is left to do; returns the cells that failed, and why."""
    left = [cell for cell in grid.cells if cell.to_do(stages)]
    with data_kept():
        if left:
            # A mistake in the data would fail in every cell; here it is said once.
            load_splits(left[0].config)
        if jobs == 1:
            whys = [do_cell(cell, stages, tell) for cell in left]
        else:
            with ThreadPoolExecutor(jobs) as pool:
                whys = list(pool.map(lambda index, cell: _in_a_process(index, cell, stages), range(len(left)), left))
        if "measure" in stages:
            measure_transfer(grid)
    return {cell.label: why for cell, why in zip(left, whys, strict=True) if why is not None}


def _in_a_process(index: int, cell: GridCell, stages: Sequence[Stage]) -> str | None:
    """Do a cell in a process of its own, whose death costs no other cell; returns why it failed, or None."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, index, cell, stages), daemon=True)
    process.start()
    sender.close()
    try:
        return receiver.recv()  # type: ignore[no-any-return]
    except EOFError:
        process.join()
        why = f"its process died (exit code {process.exitcode}); is there enough memory?"
        tell_on_stderr(f"{cell.label}: failed: {why}")
        return why


def _child(sender: Any, index: int, cell: GridCell, stages: Sequence[Stage]) -> None:
    import torch

    # Many threads on one core wait for each other.
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if cell.grid.processes == 1 and torch.cuda.device_count() > 1:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", str(index % torch.cuda.device_count()))
    with data_kept():
        sender.send(do_cell(cell, stages, tell_on_stderr))


def _report(grid: Grid, keep_in: Path | None, *, quietly: bool) -> str:
    figures = gather(grid)
    if not figures.results:
        if quietly:
            return ""
        raise RepulseError(
            f"{grid.folder} holds no cell that was measured with these settings ({grid.images} images); make some by "
            "--stages train,measure"
        )
    page = write_reproduction(figures, grid.folder)
    table = page.with_name(TABLE).read_text(encoding="utf-8")
    kept = "" if keep_in is None else f"\nkept: {keep(figures, keep_in)}"
    return f"{table}\nreport: {page}{kept}"
