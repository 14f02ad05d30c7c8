"""`repulse reproduce`: remake the paper's comparison beside its rivals."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from pydantic import Field
from rich.console import Console

from repulse.cli.options import settings_command
from repulse.common.errors import RepulseError
from repulse.config.settings import Settings
from repulse.reproduce.comparisons import COMPARISONS, DIGITS
from repulse.reproduce.slurm import SlurmSettings


class ReproduceCommand(Settings):
    """Remake the paper's comparison beside its rivals: train every method, attack every model, report honestly.

    Each cell, a method with a seed, is a run folder OUTPUT/NAME/SCALE/METHOD/seed-S. What is done is never done again:
    the same command goes on where it was stopped, and may run on several machines that share the folder.

    Examples:
      repulse reproduce fashion --scale smoke
      repulse reproduce paper-cifar10 --scale cpu --data FOLDER --title "CIFAR-10 (JPEG 75)" --jobs 2
      repulse reproduce paper-cifar100 --scale full --dry-run
      repulse reproduce paper-cifar10 --scale full --slurm.workers 8 --slurm.partition gpu
    """

    name: str | None = Field(None, description=f"Which comparison: {', '.join(COMPARISONS)}.")
    scale: Literal["smoke", "cpu", "full"] = Field(
        "smoke", description="Digits in a minute; small networks in hours; the paper's settings, on a GPU."
    )
    data: str | None = Field(None, description="Folder or Hub id of the images; none: digits (smoke), or the Hub's.")
    title: str | None = Field(None, description="What tables call the data, such as 'CIFAR-10 (JPEG 75)'.")
    output: Path = Field(Path("runs"), description="Folder for all comparisons.")
    methods: tuple[str, ...] = Field((), description="Some of the methods; none: all.")
    seeds: tuple[int, ...] = Field((), description="Seeds of the runs; none: 0 (smoke), 0,1,2.")
    images: int | None = Field(
        None, ge=1, description="Test images to attack; none: 20 (smoke), 200 (cpu), 1000 (full)."
    )
    attacks: Literal["quick", "standard", "adaptive"] | None = Field(
        None, description="With what; none: quick (smoke), adaptive (cpu, full)."
    )
    stages: tuple[Literal["train", "measure", "report"], ...] = Field(
        ("train", "measure", "report"), description="What to do; without train, runs that have not ended are left out."
    )
    jobs: int = Field(1, ge=1, description="Processes side by side on this machine, one thread each.")
    processes: int = Field(1, ge=1, description="Processes, or GPUs, that torchrun starts for each cell.")
    dry_run: bool = Field(False, description="Only say what is left to do, and about what it costs.")
    keep: Path | None = Field(None, description="Copy the results, without weights and paths, to this folder.")
    slurm: SlurmSettings = SlurmSettings()


def reproduce_command(settings: ReproduceCommand) -> None:
    """Make the grid of a comparison, and plan it, hand it to Slurm, or work through it and report."""
    from repulse.reproduce.command import hand_to_slurm, reproduce, show_plan
    from repulse.reproduce.grid import make_grid
    from repulse.reproduce.run import tell_on_stderr

    if settings.name is None:
        raise RepulseError(f"name a comparison: repulse reproduce {' | '.join(COMPARISONS)}")
    usual = COMPARISONS[settings.name].source if settings.name in COMPARISONS else ""
    grid = make_grid(
        settings.name,
        settings.scale,
        settings.data or (DIGITS if settings.scale == "smoke" else usual),
        settings.output,
        methods=settings.methods,
        seeds=settings.seeds,
        images=settings.images,
        title=settings.title,
        processes=settings.processes,
        attacks=settings.attacks,
    )
    if settings.dry_run:
        show_plan(grid, settings.stages, Console())
    elif settings.slurm.workers:
        hand_to_slurm(grid, settings.stages, settings.slurm, tell_on_stderr)
    else:
        said = reproduce(grid, settings.stages, jobs=settings.jobs, keep_in=settings.keep, tell=tell_on_stderr)
        click.echo(said, nl=bool(said))


command = settings_command(ReproduceCommand, "reproduce", reproduce_command, positional="name")
