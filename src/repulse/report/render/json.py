"""Blocks as JSON: what a page says, with figures unrounded."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any

from repulse.report.blocks import Cell, Page, Picture, Section

# Markup and pixels are for the page.
_LEFT_OUT = {"svg", "clean", "perturbation", "adversarial", "data"}


def page_as_json(page: Page) -> str:
    """The whole page: what its sections say, and beside it what the page holds for machines."""
    content = {"title": page.title, **page.data, "sections": [to_json(section) for section in page.sections]}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def to_json(block: Any) -> Any:
    """One block, with its kind; a cell without a note or a value is its text."""
    if isinstance(block, Cell):
        extras = {"value": block.value, "note": block.note}
        kept = {name: value for name, value in extras.items() if value not in (None, "")}
        return {"text": block.text, **kept} if kept else block.text
    if is_dataclass(block):
        content = {field.name: to_json(getattr(block, field.name)) for field in fields(block)}
        kind = {"kind": block.kind} if hasattr(block, "kind") else {}
        data = dict(block.data) if isinstance(block, Section) else {}
        if isinstance(block, Picture):
            content.pop("series")
        return kind | {name: value for name, value in content.items() if name not in _LEFT_OUT and value != ""} | data
    return [to_json(each) for each in block] if isinstance(block, tuple | list) else block
