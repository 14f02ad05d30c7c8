"""The command line: parse, call, print."""

from repulse.cli.group import cli, main

__all__ = ["cli", "main"]
