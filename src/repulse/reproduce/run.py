"""Work through a grid with any number of processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from repulse.common.errors import RepulseError
from repulse.reproduce.grid import Grid
from repulse.reproduce.work import Stage, failure, held, measure_transfer, to_do, work

Tell = Callable[[str], None]


def run_grid(grid: Grid, stages: tuple[Stage, ...], *, jobs: int = 1, tell: Tell) -> dict[str, str]:
    """Train and measure what is left to do; returns the cells that failed, and why.

    Args:
        grid: the cells.
        stages: what to do.
        jobs: processes on this machine. Several run on one thread each, and on the machine's GPUs in turn.
        tell: told a line when something was done.

    Raises:
        RepulseError: if jobs is below 1.
    """
    if jobs < 1:
        raise RepulseError(f"jobs must be at least 1, got {jobs}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RepulseError(
            "start this as one process; --processes N lets N processes train and attack each cell together"
        )
    session = uuid.uuid4().hex
    if jobs == 1:
        work(grid, stages, session, tell)
    else:
        _side_by_side(grid, stages, session, jobs, tell)
    if "measure" in stages:
        measure_transfer(grid)
    failed = {cell.label: failure(cell, session) for cell in grid.cells}
    return {label: why for label, why in failed.items() if why is not None}


def _side_by_side(grid: Grid, stages: tuple[Stage, ...], session: str, jobs: int, tell: Tell) -> None:
    """Run workers until nothing is left that one of them could take."""
    context = multiprocessing.get_context("spawn")
    # Workers that die leave cells to the next round; more rounds than cells means that none can even start.
    for _ in range(2 * len(grid.cells) + 1):
        left = [cell for cell in grid.cells if failure(cell, session) is None and to_do(cell, grid, stages)]
        if all(held(cell) for cell in left):
            break
        workers = []
        for index in range(min(jobs, len(left))):
            with _environment(index, alone=grid.processes == 1):
                worker = context.Process(target=_worker, args=(grid, stages, session), daemon=True)
                worker.start()
            workers.append(worker)
        for worker in workers:
            worker.join()
        died = [str(worker.exitcode) for worker in workers if worker.exitcode]
        if died:
            tell(f"{len(died)} of {len(workers)} workers died (exit codes {', '.join(died)})")


@contextmanager
def _environment(index: int, *, alone: bool) -> Iterator[None]:
    """What a worker inherits: one thread, since many on one core wait for each other; and, alone, a GPU of its own."""
    wanted = {"OMP_NUM_THREADS": "1"}
    if alone and torch.cuda.device_count() > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
        wanted["CUDA_VISIBLE_DEVICES"] = str(index % torch.cuda.device_count())
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _worker(grid: Grid, stages: tuple[Stage, ...], session: str) -> None:
    torch.set_num_threads(1)
    work(grid, stages, session, tell_on_stderr)


def tell_on_stderr(line: str) -> None:
    """Print a line that says how far things are."""
    import click

    click.echo(line, err=True)
