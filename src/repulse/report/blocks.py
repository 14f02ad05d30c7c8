"""What a page is made of: sections of blocks, which HTML, Markdown, JSON and a terminal each render in their own way.

Text from outside is put into blocks as it is; each renderer escapes it. `code` between backticks is set as code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Args:
        text: what it says.
        note: shown when the pointer rests on it.
        value: the figure behind the text, unrounded; rows are sorted by it.
        bar: whether the value, a share in [0, 1], is drawn as a bar too.
        strong: whether it stands out.
        number: whether it is a figure, set flush right.
        link: anchor of a section of the page.
    """

    text: str
    note: str = ""
    value: int | float | None = None
    bar: bool = False
    strong: bool = False
    number: bool = False
    link: str = ""


ABSENT = Cell("–", note="not run", number=True)
"""What was not measured."""


@dataclass(frozen=True)
class Table:
    """A table; all rows have as many cells as the head.

    Args:
        head: names of the columns.
        rows: the cells; the first of each names its row.
        filtered: whether a page offers to filter the rows by a word.
    """

    kind: ClassVar = "table"
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    filtered: bool = False


@dataclass(frozen=True)
class Series:
    """Points of a picture that a page shows when the pointer is near.

    Args:
        name: what they belong to.
        points: `(x, y, text)` of each, x and y in units of the picture's view box.
    """

    name: str
    points: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True)
class Picture:
    """A figure.

    Args:
        name: unique on the page.
        svg: markup, safe to put into a page.
        caption: what it shows, in plain words.
        series: what a page tells when the pointer is near a point.
    """

    kind: ClassVar = "picture"
    name: str
    svg: str = field(repr=False)
    caption: str
    series: tuple[Series, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Text:
    """A paragraph: plain, a `lead` that a reader should see first, or a small `note`."""

    kind: ClassVar = "text"
    text: str
    style: Literal["body", "lead", "note"] = "body"


@dataclass(frozen=True)
class Heading:
    """A heading inside a section, one level below the section's own."""

    kind: ClassVar = "heading"
    text: str


@dataclass(frozen=True)
class Listing:
    """Points under a title."""

    kind: ClassVar = "listing"
    title: str
    items: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """Names and what belongs to them."""

    kind: ClassVar = "facts"
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Code:
    """Text as it stands in a file."""

    kind: ClassVar = "code"
    text: str


@dataclass(frozen=True)
class Triple:
    """One image before and after an attack; images are data URIs, `true`, `before` and `after` names of classes."""

    index: int
    clean: str = field(repr=False)
    perturbation: str = field(repr=False)
    adversarial: str = field(repr=False)
    true: str
    before: str
    after: str


@dataclass(frozen=True)
class Gallery:
    """Images that were fooled; perturbations are drawn `magnified` times as strong."""

    kind: ClassVar = "gallery"
    images: tuple[Triple, ...]
    magnified: float


@dataclass(frozen=True)
class Card:
    """The two answers about one model: how robust it is, and how sure that is.

    Args:
        title: the model.
        link: anchor of the section with the details; may be empty.
        label: what the large figure is.
        figure: the large figure.
        phrase: what it says in plain words.
        scale: `(share, low, high, natural, chance)` in [0, 1], drawn as a scale; None: nothing is drawn. `natural` and
            `chance` may be None.
        detail: natural accuracy, chance, what it was measured on.
        sure: the second answer in a word or two; may be empty.
        tone: `good`, `bad` or `open`: how the second answer is coloured.
        why: one or two sentences on the second answer.
        steps: what to do next.
    """

    title: str
    link: str
    label: str
    figure: str
    phrase: str
    scale: tuple[float, float, float, float | None, float | None] | None
    detail: str
    sure: str
    tone: Literal["good", "bad", "open"]
    why: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cards:
    """Cards side by side."""

    kind: ClassVar = "cards"
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Pair:
    """Blocks side by side where there is room."""

    kind: ClassVar = "pair"
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Section:
    """Blocks under a heading.

    Args:
        title: the heading.
        blocks: what stands under it; sections may hold sections.
        anchor: unique on the page; may be empty.
        folded: whether a page shows the heading only, until it is opened.
        about: a few words beside the heading.
        data: figures for machines, which only JSON shows.
    """

    kind: ClassVar = "section"
    title: str
    blocks: tuple[Block, ...]
    anchor: str = ""
    folded: bool = False
    about: str = ""
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Page:
    """A whole report.

    Args:
        title: its heading.
        sections: what stands under it.
        footer: where it comes from.
        data: figures for machines, which only JSON shows.
    """

    title: str
    sections: tuple[Section, ...]
    footer: str = ""
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)


Block = Table | Picture | Text | Heading | Listing | Facts | Code | Gallery | Cards | Pair | Section
