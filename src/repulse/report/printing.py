"""What the commands print when they have measured: for a person in a terminal, for a file, or for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from repulse.certification.record import CertificateRecord
from repulse.report.answers import card
from repulse.report.blocks import Block, Cards, Heading, Text
from repulse.report.collect import collect
from repulse.report.group import grouped
from repulse.report.render.json import to_json
from repulse.report.render.markdown import to_markdown
from repulse.report.render.terminal import show
from repulse.report.tables import comparison, leaderboard

Format = Literal["auto", "table", "markdown", "json"]
"""How to print: `auto` is a table in a terminal, and Markdown in a file or a pipe."""


def print_evaluation(place: Path, form: Format = "auto") -> None:
    """Print every attack of an evaluation, where its record is, and the two answers last.

    Raises:
        RepulseError: if the folder holds no evaluation, or a file is damaged.
    """
    *blocks, answers = evaluation_blocks([place], brief=_form(form) == "table")
    print_blocks([*blocks, f"record: {place}", answers], form)


def print_certificate(record: CertificateRecord, place: Path | None, form: Format = "auto") -> None:
    """Print what one certificate proves, and where its record is."""
    print_blocks([f"record: {place}", *certificate_blocks(record)], form)


def certificate_blocks(record: CertificateRecord) -> list[Block]:
    """The table of one certificate, and what it says."""
    from repulse.report.certificates import finding, table

    return [table(record), Text(finding(record))]


def print_blocks(blocks: Sequence[Block | str], form: Format = "auto") -> None:
    """Print blocks, and lines as they are, on standard output."""
    form = _form(form)
    if form == "table":
        show(Console(), blocks)
    elif form == "json":
        sys.stdout.write(json.dumps([to_json(block) for block in blocks], indent=1, ensure_ascii=False) + "\n")
    else:
        texts = [block if isinstance(block, str) else to_markdown(block) for block in blocks]
        sys.stdout.write("\n\n".join(text for text in texts if text) + "\n")


def evaluation_blocks(paths: Sequence[Path], *, brief: bool) -> list[Block]:
    """One evaluation: a row for each attack, and the answers; several: a row for each model, briefly or by attack."""
    from repulse.report.sections.attacks import attacks

    groups = grouped(collect(paths))
    if len(groups) == 1 and len(groups[0].entries) == 1:
        entry = groups[0].entries[0]
        return [Heading(f"{entry.label}: {groups[0].title}"), attacks(entry), Cards((card(entry),))]
    table = leaderboard if brief else comparison
    return [block for group in groups for block in (Heading(group.title), table(group.entries))]


def _form(form: Format) -> Format:
    if form != "auto":
        return form
    return "table" if sys.stdout.isatty() else "markdown"
