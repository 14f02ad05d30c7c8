"""`repulse report`: write a page about one run, or about several."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import Field

from repulse.cli.options import SettingsCommand
from repulse.common.errors import RepulseError
from repulse.common.settings import Settings


class ReportCommand(Settings):
    """Write one self-contained HTML page, and the same figures as Markdown and JSON, for one run or for several.

    Examples:
      repulse report runs/digits
      repulse report runs/fashion-paper runs/fashion-softmax --output fashion.html
    """

    runs: tuple[Path, ...] = Field((), description="Run folders, evaluation folders, or folders that hold some.")
    output: Path = Field(Path("report.html"), description="The page; the other files take its name.")
    title: str | None = Field(None, description="Title of the page.")


def report_command(settings: ReportCommand) -> None:
    """Write the report, and say where it is."""
    from repulse.report import write_report

    if not settings.runs:
        raise RepulseError("name at least one run folder: repulse report RUN")
    files = write_report(settings.runs, settings.output, title=settings.title)
    click.echo(f"report: {files.html}")


command = SettingsCommand(ReportCommand, "report", report_command, positional="runs")
