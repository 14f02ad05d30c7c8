"""`repulse zoo`: the checkpoints that come with the package."""

from __future__ import annotations

import click

from repulse.cli.options import SettingsCommand
from repulse.common.settings import Settings


class ZooCommand(Settings):
    """List the checkpoints that come with the package, with what was measured of them.

    Examples:
      repulse zoo
      repulse predict zoo:digits-pgd photographs/
    """


def zoo_command(settings: ZooCommand) -> None:  # noqa: ARG001
    """Print the table."""
    from repulse.deploy.zoo_table import zoo_table

    click.echo(zoo_table())


command = SettingsCommand(ZooCommand, "zoo", zoo_command)
