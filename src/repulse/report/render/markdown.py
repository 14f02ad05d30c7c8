"""Blocks as GitHub's Markdown; pictures, which it cannot hold, are left to the page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from repulse.report.blocks import (
    Block,
    Cards,
    Code,
    Facts,
    Gallery,
    Heading,
    Listing,
    Page,
    Pair,
    Picture,
    Section,
    Table,
    Text,
)
from repulse.report.words import plain


def page_as_markdown(page: Page) -> str:
    """The whole page."""
    parts = [f"# {escaped(page.title)}", *(to_markdown(section, level=2) for section in page.sections)]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_markdown(block: Block, *, level: int = 2) -> str:
    """One block, headings of sections at a level; empty where Markdown shows nothing."""
    match block:
        case Table():
            return _table(block)
        case Text():
            return prose(block.text)
        case Heading():
            return f"**{escaped(block.text)}**"
        case Listing():
            return f"{escaped(block.title)}\n\n" + "\n".join(f"- {prose(item)}" for item in block.items)
        case Facts():
            return "\n".join(f"- {escaped(name)}: {prose(value)}" for name, value in block.pairs)
        case Code():
            return "\n".join(f"    {line}" for line in block.text.splitlines())
        case Cards():
            return "\n\n".join(_card(block))
        case Pair():
            return _joined(block.blocks, level)
        case Section():
            return _section(block, level)
        case Picture() | Gallery():
            return ""


def escaped(text: str) -> str:
    """Text from outside as Markdown shows it: no pipes, tags, emphasis, links or code."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", plain(text)).replace("&", "&amp;").replace("<", "&lt;")


def prose(text: str) -> str:
    """The same, but what stands between backticks is code."""
    parts = plain(text).split("`")
    if len(parts) % 2 == 0:
        return escaped(text)
    return "".join(f"`{part}`" if i % 2 else escaped_part(part) for i, part in enumerate(parts))


def escaped_part(text: str) -> str:
    """`escaped` that keeps spaces at the ends."""
    return text[: len(text) - len(text.lstrip())] + escaped(text) + text[len(text.rstrip()) :] if text.strip() else text


def _section(section: Section, level: int) -> str:
    # Beyond six levels Markdown has no headings.
    head = f"{'#' * level} {escaped(section.title)}" if level <= 6 else f"**{escaped(section.title)}**"
    body = _joined(section.blocks, level + 1)
    about = [prose(section.about)] if section.about else []
    return "\n\n".join([*([head] if section.title else []), *about, body]) if body else ""


def _joined(blocks: Sequence[Block], level: int) -> str:
    return "\n\n".join(part for part in (to_markdown(block, level=level) for block in blocks) if part)


def _card(cards: Cards) -> list[str]:
    parts = []
    for card in cards.cards:
        lines = [f"**{escaped(card.title)}**: {card.label} **{card.figure}**, {escaped(card.phrase)}. {card.detail}."]
        if card.sure:
            lines.append(f"How sure: **{escaped(card.sure)}**. " + " ".join(prose(each) for each in card.why))
        lines += [f"Next: {prose(step)}" for step in card.steps]
        parts.append("  \n".join(line.strip() for line in lines))
    return parts


def _table(table: Table) -> str:
    align = ["---:" if all(row[i].number for row in table.rows) else "---" for i in range(len(table.head))]
    lines = [_line([escaped(text) for text in table.head]), f"|{'|'.join(align)}|"]
    for row in table.rows:
        texts = [prose(cell.text) for cell in row]
        lines.append(_line([f"**{t}**" if c.strong and t else t for t, c in zip(texts, row, strict=True)]))
    return "\n".join(lines)


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"
