"""`repulse prototypes`: make class prototypes, and measure how far apart they are."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import Field
from rich.console import Console
from rich.table import Table

from repulse.cli.options import SettingsCommand
from repulse.common.errors import RepulseError
from repulse.common.settings import Settings


class PrototypesCommand(Settings):
    """Partition the output space: make class prototypes, and say how far apart they are.

    Beside each measure of separation stands the best that is possible, or the best bound that is known, for that many
    classes in that many dimensions.

    Examples:
      repulse prototypes --classes 100 --dimension 64
      repulse prototypes --classes 10 --dimension 100 --method repulsive-linf --output paper.safetensors
      repulse prototypes --file paper.safetensors
    """

    classes: int | None = Field(None, ge=2, description="n, the number of classes.")
    dimension: int | None = Field(None, ge=1, description="d, the dimension; none: the number of classes.")
    method: str = Field("auto", description="Name of a method; a wrong one lists them all.")
    seed: int = Field(0, ge=0, description="Seed of a random start.")
    steps: int | None = Field(None, ge=1, description="Steps of an iterative method; none: its default.")
    file: Path | None = Field(None, description="Measure the prototypes in this safetensors file instead.")
    output: Path | None = Field(None, description="Write the prototypes to this safetensors file.")


def prototypes_command(settings: PrototypesCommand) -> None:
    """Make or load prototypes, print their separation, and write them if asked to."""
    from repulse.prototypes import Prototypes, make_prototypes, measure

    if settings.file is not None:
        prototypes = Prototypes.load(settings.file)
    elif settings.classes is not None:
        prototypes = make_prototypes(
            settings.method,
            settings.classes,
            settings.dimension or settings.classes,
            seed=settings.seed,
            steps=settings.steps,
        )
    else:
        raise RepulseError("give the number of classes (--classes 10), or a file of prototypes (--file PATH)")
    chosen = prototypes.provenance.get("chosen")
    method = prototypes.method if chosen is None else f"{prototypes.method}, which took {chosen}"
    table = Table(title=f"{prototypes.n} prototypes in {prototypes.d} dimensions, by {method}")
    table.add_column("measure")
    for heading in ("value", "best possible", "ratio"):
        table.add_column(heading, justify="right")
    table.add_column("source of the bound")
    for name, value, bound, ratio, source in measure(prototypes.points).rows():
        table.add_row(name, f"{value:.4f}", _number(bound), _number(ratio), source)
    Console().print(table)
    if settings.output is not None:
        prototypes.save(settings.output)
        click.echo(f"prototypes: {settings.output}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


command = SettingsCommand(PrototypesCommand, "prototypes", prototypes_command)
