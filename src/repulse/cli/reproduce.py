"""`repulse reproduce`: remake the paper's comparison beside its rivals."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from pydantic import Field
from rich.console import Console

from repulse.cli.options import SettingsCommand
from repulse.common.errors import RepulseError
from repulse.common.settings import Settings
from repulse.evaluation.settings import AttackNames
from repulse.reproduce.comparisons import COMPARISONS, DIGITS, SCALES, Scale
from repulse.reproduce.slurm import SlurmSettings


def _usual(name: str) -> str:
    """What each scale takes by itself: '20 (smoke), 200 (cpu)'."""
    values = {scale: getattr(size, name) for scale, size in SCALES.items()}
    words = {k: ",".join(map(str, v)) if isinstance(v, tuple) else v for k, v in values.items()}
    return ", ".join(f"{word} ({scale})" for scale, word in words.items())


class ReproduceCommand(Settings):
    """Remake the paper's comparison beside its rivals: train every method, attack every model, report honestly.

    Each cell, a method with a seed, is a run folder OUTPUT/NAME/SCALE/METHOD/seed-S. What is done is never done again:
    the same command goes on where it was stopped, and may run on several machines that share the folder.

    Examples:
      repulse reproduce fashion --scale smoke
      repulse reproduce paper-cifar10 --scale cpu --data FOLDER --jobs 2
      repulse reproduce paper-cifar10 --scale fast --data FOLDER --dry-run
      repulse reproduce paper-cifar10 --scale full --slurm.workers 8 --slurm.partition gpu
    """

    name: str | None = Field(None, description=f"Which comparison: {', '.join(COMPARISONS)}.")
    scale: Scale = Field(
        "smoke",
        description="Digits in a minute; small networks in hours; a fast network at 92 % in hours each; the paper's "
        "settings, on a GPU.",
    )
    data: str | None = Field(None, description="Folder or Hub id of the images; none: digits (smoke), or the Hub's.")
    title: str | None = Field(None, description="What tables call the data, such as 'CIFAR-10'.")
    output: Path = Field(Path("runs"), description="Folder for all comparisons.")
    methods: tuple[str, ...] = Field((), description="Some of the methods; none: all.")
    seeds: tuple[int, ...] = Field((), description=f"Seeds of the runs; none: {_usual('seeds')}.")
    images: int | None = Field(None, ge=1, description=f"Test images to attack; none: {_usual('images')}.")
    attacks: AttackNames | None = Field(None, description=f"With what; none: {_usual('attacks')}.")
    stages: tuple[Literal["train", "measure", "report"], ...] = Field(
        ("train", "measure", "report"), description="What to do; without train, runs that have not ended are left out."
    )
    jobs: int = Field(1, ge=1, description="Cells at once on this machine, each in a process on one thread.")
    processes: int = Field(1, ge=1, description="Processes, or GPUs, that torchrun starts for each cell.")
    dry_run: bool = Field(False, description="Only say what is left to do, and about what it costs.")
    keep: Path | None = Field(None, description="Copy the results, without weights and paths, to this folder.")
    slurm: SlurmSettings = SlurmSettings()


def reproduce_command(settings: ReproduceCommand) -> None:
    """Make the grid of a comparison, and plan it, hand it to Slurm, or work through it and report."""
    from repulse.reproduce.grid import Grid
    from repulse.reproduce.plan import show_plan
    from repulse.reproduce.slurm import submit
    from repulse.reproduce.work import reproduce, tell_on_stderr

    if settings.name is None:
        raise RepulseError(f"name a comparison: repulse reproduce {' | '.join(COMPARISONS)}")
    usual = COMPARISONS[settings.name].source if settings.name in COMPARISONS else ""
    grid = Grid(
        settings.name,
        settings.scale,
        settings.data or (DIGITS if settings.scale == "smoke" else usual),
        settings.output,
        methods=settings.methods,
        seeds=settings.seeds,
        images=settings.images or 0,
        title=settings.title or "",
        processes=settings.processes,
        attacks=settings.attacks,
    )
    if settings.dry_run:
        show_plan(grid, settings.stages, Console())
    elif settings.slurm.workers:
        jobs = submit(grid, settings.stages, settings.slurm)
        tell_on_stderr(f"handed {len(jobs)} jobs to Slurm: {', '.join(str(job.job_id) for job in jobs)}")
        tell_on_stderr("when they are done, the same command without --slurm.workers writes the report")
    else:
        said = reproduce(grid, settings.stages, jobs=settings.jobs, keep_in=settings.keep, tell=tell_on_stderr)
        click.echo(said, nl=bool(said))


command = SettingsCommand(ReproduceCommand, "reproduce", reproduce_command, positional="name")
