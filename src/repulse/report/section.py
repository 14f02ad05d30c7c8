"""Sections of an evaluation: each is one file and one name in `SECTIONS`, and a page shows them in that order."""

from __future__ import annotations

from collections.abc import Callable

from repulse.common.registry import Registry
from repulse.report.blocks import Section
from repulse.report.group import Entry

SECTIONS: Registry[Callable[[Entry], Section | None]] = Registry("section of a report")
"""By name: a function from an evaluation to its section, or to None where there is nothing to show."""
