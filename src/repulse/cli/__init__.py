"""The command line: parse, call, print."""

from repulse.cli.app import cli, main

__all__ = ["cli", "main"]
