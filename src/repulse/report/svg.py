"""Matplotlib figures as inline SVG that follows the page: its fonts, its light and dark colours, its width."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.figure import Figure

from repulse.report.blocks import Picture, Series

# Stand-ins that are drawn with, and replaced by the page's own colours, which differ by day, by night and in print.
INK, FAINT, PAPER = "#fe0001", "#fe0002", "#fe0003"
SERIES = tuple(f"#fe01{i:02x}" for i in range(6))
CLASSES = tuple(f"#fe02{i:02x}" for i in range(10))
_COLOURS = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    PAPER: "var(--paper)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)},
    **{colour: f"var(--class-{i})" for i, colour in enumerate(CLASSES)},
}
MARKERS = ("o", "s", "^", "D", "v", "P")

# Width of a figure in inches: at 72 points to the inch about as wide as a phone, so that text needs no zooming there.
WIDTH = 5.0

# Points of a line that a page tells of when the pointer is near; a stepped line has many more.
_TOLD = 64

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "repulse",
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FONT = re.compile(r"font: *((?:[\w]+ +)*?)([\d.]+px)[^;]*")
_FAMILY = re.compile(r"font-family: *[^;]*;? *")
_COLOUR = re.compile("|".join(_COLOURS))


class Canvas:
    """A figure being drawn; `picture` holds it once the `canvas` block is left."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self._picture: Picture | None = None

    @property
    def picture(self) -> Picture:
        """The finished figure."""
        assert self._picture is not None, "the figure is finished when its block is left"
        return self._picture


@contextmanager
def canvas(name: str, description: str, caption: str, height: float = 3.2) -> Iterator[Canvas]:
    """Draw a figure in the style of the page.

    Args:
        name: unique on the page; all ids of the figure start with it.
        description: read aloud in place of the figure.
        caption: printed beneath it.
        height: in inches; the width is `WIDTH`.
    """
    # Text takes the page's font, so it does not matter whether matplotlib's own has all letters of a class name.
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from", category=UserWarning)
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support", category=UserWarning)
        drawn = Canvas(Figure(figsize=(WIDTH, height), layout="constrained"))
        yield drawn
        file = io.StringIO()
        drawn.figure.savefig(file, format="svg", metadata={"Date": None})
        series = _series(drawn.figure)
    drawn._picture = Picture(name, _inlined(file.getvalue(), name, description), caption, series)


def _series(figure: Figure) -> tuple[Series, ...]:
    """The points of all lines that have a name (a `gid`, or else a label), where the SVG shows them."""
    found = []
    height, scale = figure.bbox.height, 72 / figure.dpi
    for axes in figure.axes:
        for line in axes.lines:
            name = line.get_gid() or str(line.get_label())
            if name.startswith("_"):
                continue
            data: Any = line.get_xydata()
            data = data[:: max(1, len(data) // _TOLD)]
            points = tuple(
                (round(x * scale, 1), round((height - y) * scale, 1), f"{_plain(a)}: {_plain(b)}")
                for (x, y), (a, b) in zip(axes.transData.transform(data).tolist(), data.tolist(), strict=True)
                if isfinite(x) and isfinite(y)
            )
            found.append(Series(name, points))
    return tuple(found)


def _plain(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _inlined(document: str, name: str, description: str) -> str:
    """An SVG document as an element of the page: ids its own, colours and fonts the page's, width free."""
    root = ElementTree.fromstring(document)
    for metadata in root.findall(f"{_SVG}metadata"):
        root.remove(metadata)
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key == _XLINK:
                del element.attrib[key]
                element.set("href", f"#{name}-{value[1:]}" if value.startswith("#") else value)
            elif key in ("style", "clip-path", "fill", "stroke"):
                element.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", _themed(value)))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", description)
    ElementTree.register_namespace("", _SVG[1:-1])
    return ElementTree.tostring(root, encoding="unicode")


def _themed(style: str) -> str:
    style = _FONT.sub(lambda match: f"font-size: {match[2]}" + ("; font-weight: 600" if match[1] else ""), style)
    return _COLOUR.sub(lambda match: _COLOURS[match[0]], _FAMILY.sub("", style))
