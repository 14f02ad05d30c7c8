"""What `repulse reproduce` does: plan, or work and report, and say what is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from repulse.common.errors import RepulseError
from repulse.data.load import data_kept
from repulse.reproduce.figures import gather
from repulse.reproduce.grid import Grid
from repulse.reproduce.keep import keep
from repulse.reproduce.plan import make_plan, plan_table
from repulse.reproduce.report import TABLE, write_reproduction
from repulse.reproduce.run import run_grid
from repulse.reproduce.slurm import SlurmSettings, submit
from repulse.reproduce.work import Stage, held, to_do
from repulse.runs import is_first_process, load_splits

Tell = Callable[[str], None]


def show_plan(grid: Grid, stages: tuple[Stage, ...], console: Console) -> None:
    """Print what is left to do, and about what it costs."""
    with data_kept():
        planned, source = make_plan(grid, stages)
    console.print(plan_table(planned))
    console.print(source, highlight=False)


def hand_to_slurm(grid: Grid, stages: tuple[Stage, ...], settings: SlurmSettings, tell: Tell) -> None:
    """Hand workers to Slurm, and say how to get the report."""
    jobs = submit(grid, stages, settings)
    tell(f"handed {len(jobs)} workers to Slurm: {', '.join(str(job.job_id) for job in jobs)}")
    tell("when they are done, the same command without --slurm.workers writes the report")


def reproduce(grid: Grid, stages: tuple[Stage, ...], *, jobs: int, keep_in: Path | None, tell: Tell) -> str:
    """Do what is left to do of a grid, and report; returns the table and where the report lies.

    Args:
        grid: the cells.
        stages: what to do.
        jobs: processes on this machine.
        keep_in: where to keep a copy of the results; None: nowhere.
        tell: told a line when something was done.

    Raises:
        RepulseError: if the data cannot be read, there is nothing to report, or cells failed, after all others are done
            and the report is written.
    """
    failed = _work(grid, stages, jobs, tell)
    left = [cell for cell in grid.cells if cell.label not in failed and to_do(cell, grid, stages)]
    if elsewhere := [cell.label for cell in left if held(cell)]:
        tell(f"others are still at {len(elsewhere)} cells: {'; '.join(elsewhere)}")
    said = _report(grid, keep_in, quietly=bool(failed)) if "report" in stages and is_first_process() else ""
    if failed:
        each = "; ".join(f"{label}: {why}" for label, why in failed.items())
        raise RepulseError(
            f"{len(failed)} of {len(grid.cells)} cells failed: {each}. The same command tries them again; what was "
            f"going on stands in {grid.folder / '.failed'}"
        )
    return said


def _work(grid: Grid, stages: tuple[Stage, ...], jobs: int, tell: Tell) -> dict[str, str]:
    if not {"train", "measure"} & set(stages):
        return {}
    with data_kept():
        if any(to_do(cell, grid, stages) for cell in grid.cells):
            # A mistake in the data would fail in every cell; here it is said once.
            load_splits(grid.cells[0].config)
        if jobs == 1:
            return run_grid(grid, stages, tell=tell)
    return run_grid(grid, stages, jobs=jobs, tell=tell)


def _report(grid: Grid, keep_in: Path | None, *, quietly: bool) -> str:
    figures = gather(grid)
    if not figures.found:
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
