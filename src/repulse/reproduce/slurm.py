"""Workers on the machines of a Slurm cluster, by submitit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from repulse.common.errors import RepulseError
from repulse.config.settings import Settings

if TYPE_CHECKING:
    from repulse.reproduce.grid import Grid
    from repulse.reproduce.work import Stage


class SlurmSettings(Settings):
    """Workers that Slurm runs, which share the grid with each other and with anybody else at it."""

    workers: int = Field(0, ge=0, description="How many jobs to hand to Slurm; 0: work on this machine.")
    partition: str | None = Field(None, description="Where they run; none: the cluster's default.")
    hours: float = Field(24.0, gt=0, description="Time limit of a job; what it leaves, the next one goes on with.")
    gpus: int = Field(1, ge=0, description="GPUs of a job.")
    cpus: int = Field(8, ge=1, description="CPU cores of a job.")
    memory: float = Field(32.0, gt=0, description="Memory of a job, in GB.")
    executor: Literal["slurm", "local", "debug"] = Field(
        "slurm",
        description="submitit's executor: the cluster, or to try things out processes of this machine, or none.",
    )


def submit(grid: Grid, stages: tuple[Stage, ...], settings: SlurmSettings) -> list[Any]:
    """Hand workers to Slurm; returns submitit's jobs, at once. Their logs lie in the grid's folder.

    Raises:
        RepulseError: if submitit is not installed, or does not find a cluster.
    """
    try:
        import submitit
    except ImportError:
        raise RepulseError("workers on Slurm need submitit: pip install 'repulse[slurm]'") from None
    try:
        executor = submitit.AutoExecutor(folder=grid.folder / ".slurm", cluster=settings.executor)
    except RuntimeError as error:
        raise RepulseError(f"cannot reach Slurm: {' '.join(str(error).split())}") from error
    parameters: dict[str, Any] = {
        "name": f"{grid.name}-{grid.scale}",
        "timeout_min": round(60 * settings.hours),
        "gpus_per_node": settings.gpus,
        "cpus_per_task": settings.cpus,
        "mem_gb": settings.memory,
    }
    if settings.partition is not None:
        parameters["slurm_partition"] = settings.partition
    executor.update_parameters(**parameters)
    with executor.batch():
        return [executor.submit(_work, grid, stages) for _ in range(settings.workers)]


def _work(grid: Grid, stages: tuple[Stage, ...]) -> None:
    from repulse.reproduce.run import run_grid, tell_on_stderr

    run_grid(grid, stages, tell=tell_on_stderr)
