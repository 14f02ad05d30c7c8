"""Blocks in a terminal, in 80 columns or more: tables, and the two answers as a panel with one colour."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table as RichTable
from rich.text import Text as RichText

from repulse.report.blocks import Block, Card, Cards, Facts, Heading, Listing, Pair, Section, Table, Text
from repulse.report.words import plain

_STYLES = {"good": "bold green", "bad": "bold red", "open": "bold yellow"}


def show(console: Console, blocks: Sequence[Block | str]) -> None:
    """Print blocks one under the other; pictures, galleries and what is folded are left to the page."""
    for block in blocks:
        shown = RichText(block) if isinstance(block, str) else to_terminal(block, console.width)
        if shown is not None:
            console.print(shown)


def to_terminal(block: Block, width: int) -> RenderableType | None:
    """One block for a terminal of so many columns; None where a terminal shows nothing."""
    match block:
        case Table():
            return _table(block, width)
        case Heading():
            return RichText(plain(block.text), style="bold")
        case Text():
            return _prose(block.text)
        case Listing():
            return Group(RichText(plain(block.title)), *(_prose(f"- {item}") for item in block.items))
        case Facts():
            return Group(*(_prose(f"{name}: {value}") for name, value in block.pairs))
        case Cards():
            return Group(*(_card(card) for card in block.cards))
        case Pair():
            return _group(block.blocks, width)
        case Section() if not block.folded:
            return Group(RichText(plain(block.title), style="bold"), _group(block.blocks, width))
        case _:
            return None


def _group(blocks: Sequence[Block], width: int) -> RenderableType:
    return Group(*(shown for block in blocks if (shown := to_terminal(block, width)) is not None))


def _table(table: Table, width: int) -> RenderableType:
    """As many columns as fit; the report has the others."""
    columns = list(zip(*([cell.text for cell in row] for row in table.rows), strict=True))
    # A heading may break between words, a figure may not.
    widths = [
        max([*map(len, cells), *map(len, head.split())]) if cells else len(head)
        for head, cells in zip(table.head, columns or [()] * len(table.head), strict=True)
    ]
    fitting = next(n for n in range(len(widths), 0, -1) if n == 1 or sum(widths[:n]) + 2 * n <= width)
    # Text that a narrow terminal cuts off can be read in the report.
    shown = RichTable(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    numbers = [bool(table.rows) and table.rows[0][i].number for i in range(fitting)]
    spare = width - sum(widths[:fitting]) - 2 * fitting
    for head, number, wide in zip(table.head[:fitting], numbers, widths, strict=False):
        # A heading breaks between words where there is no room for it; a cell does not.
        more = max(0, min(spare, len(head) - wide))
        spare -= more
        exact = wide + more if fitting > 1 else None
        shown.add_column(head, justify="right" if number else "left", vertical="bottom", width=exact)
    for row in table.rows:
        shown.add_row(*(RichText(plain(c.text), style="bold" if c.strong else "") for c in row[:fitting]))
    return shown


def _card(card: Card) -> RenderableType:
    grid = RichTable.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    figure = RichText(f"{card.figure}  ", style="bold").append(plain(card.phrase), style="not bold")
    grid.add_row("how robust", figure)
    grid.add_row("", RichText(plain(card.detail), style="dim"))
    if card.sure:
        grid.add_row("how sure", RichText(card.sure, style=_STYLES[card.tone]))
    for text in card.why:
        grid.add_row("", _prose(text))
    for step in card.steps:
        grid.add_row("next", _prose(step))
    return Panel(grid, title=RichText(plain(card.title)), title_align="left", border_style="dim", width=None)


def _prose(text: str) -> RichText:
    """Text from outside, no markup; what stands between backticks stands out."""
    parts = plain(text).split("`")
    if len(parts) % 2 == 0:
        return RichText(plain(text))
    return RichText.assemble(*((part, "bold" if i % 2 else "") for i, part in enumerate(parts)))
