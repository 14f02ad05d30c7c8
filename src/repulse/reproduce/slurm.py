"""Cells as jobs of a Slurm cluster, by submitit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from repulse.common.errors import RepulseError
from repulse.common.settings import Settings

if TYPE_CHECKING:
    from repulse.reproduce.grid import Grid, GridCell, Stage


class SlurmSettings(Settings):
    """Jobs of a Slurm cluster, one for each cell."""

    workers: int = Field(0, ge=0, description="How many jobs may run at once; 0: work here, without Slurm.")
    partition: str | None = Field(None, description="Where they run; none: the cluster's default.")
    hours: float = Field(24.0, gt=0, description="Time limit of a job; one that meets it is queued again and goes on.")
    gpus: int = Field(1, ge=0, description="GPUs of a job.")
    cpus: int = Field(8, ge=1, description="CPU cores of a job.")
    memory: float = Field(32.0, gt=0, description="Memory of a job, in GB.")
    executor: Literal["slurm", "local", "debug"] = Field(
        "slurm",
        description="submitit's executor: the cluster, or to try things out processes of this machine, or none.",
    )


def submit(grid: Grid, stages: Sequence[Stage], settings: SlurmSettings) -> list[Any]:
    """Hand what is left of a grid to Slurm; returns submitit's jobs, at once. Their logs lie in the grid's folder.

    Raises:
        RepulseError: if submitit is not installed, or does not find a cluster.
    """
    try:
        import submitit
    except ImportError:
        raise RepulseError("jobs on Slurm need submitit: pip install 'repulse[slurm]'") from None
    try:
        executor = submitit.AutoExecutor(folder=grid.folder / ".slurm", cluster=settings.executor)
    except RuntimeError as error:
        raise RepulseError(f"cannot reach Slurm: {' '.join(str(error).split())}") from error
    parameters = {
        "name": f"{grid.name}-{grid.scale}",
        "timeout_min": round(60 * settings.hours),
        "gpus_per_node": settings.gpus,
        "cpus_per_task": settings.cpus,
        "mem_gb": settings.memory,
        "slurm_array_parallelism": settings.workers,
    }
    if settings.partition is not None:
        parameters["slurm_partition"] = settings.partition
    executor.update_parameters(**parameters)
    left = [cell for cell in grid.cells if cell.to_do(stages)]
    return list(executor.submit_array([Job(cell, stages) for cell in left])) if left else []


class Job:
    """A cell as a job of Slurm's. At its time limit submitit asks for a checkpoint, and queues it again."""

    def __init__(self, cell: GridCell, stages: Sequence[Stage]) -> None:
        self.cell, self.stages = cell, stages

    def __call__(self) -> None:
        """Do it; that it failed is known by the error."""
        from repulse.reproduce.cells import do_cell
        from repulse.reproduce.work import tell_on_stderr

        if (why := do_cell(self.cell, self.stages, tell_on_stderr)) is not None:
            raise RepulseError(why)

    def checkpoint(self) -> Any:
        """What submitit queues again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
