"""The report of a comparison: one self-contained page, and the same figures as Markdown and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from repulse.common.files import write_atomically
from repulse.common.units import in_255ths
from repulse.report.svg import Picture
from repulse.report.tables import Table, escaped, to_markdown
from repulse.report.words import plain
from repulse.reproduce import reading, tables
from repulse.reproduce.claims import claim_table, claims
from repulse.reproduce.figures import Figures, Row
from repulse.version import __version__

PAGE, TABLE, CLAIMS, FIGURES = "report.html", "table.md", "claims.md", "figures.json"


@dataclass(frozen=True)
class Chapter:
    """A part of the page: words, a picture and a table, each of which may be missing."""

    title: str
    anchor: str
    text: str = ""
    picture: Picture | None = None
    table: Table | None = None
    note: str = ""


def write_reproduction(figures: Figures, folder: Path) -> Path:
    """Write `report.html`, `table.md`, `claims.md` and `figures.json`; returns the page's path.

    The same cells give the same bytes: nothing depends on the time or the place of writing.

    Raises:
        RepulseError: if a file cannot be written.
    """
    made = {PAGE: _page(figures), TABLE: _table(figures), CLAIMS: _claims(figures), FIGURES: _figures(figures)}
    for name, text in made.items():
        write_atomically(folder / name, text)
    return folder / PAGE


def setting(figures: Figures) -> str:
    """What was measured on, and how much of the grid is there."""
    grid = figures.grid
    there = f"{len(figures.found)} of {len(grid.cells)} cells"
    eps = in_255ths(grid.measurement.eps)
    return (
        f"{plain(grid.data_title)}, scale {grid.scale}; L-inf, eps {eps}; {grid.images:,} test images under the "
        f"{grid.measurement.attacks} attacks, natural accuracy on all; {there} (methods and seeds) measured. Means ± "
        "standard deviations over seeds."
    )


def _title(figures: Figures) -> str:
    return f"The paper beside its rivals: {plain(figures.grid.data_title)}"


def _chapters(figures: Figures) -> tuple[Chapter, ...]:
    # Drawing takes matplotlib, which tables alone should not wait for.
    from repulse.reproduce.pictures import curves_picture, separation_picture, transfer_picture

    return (
        Chapter("The paper, claim by claim", "claims", table=claim_table(claims(figures)), note=_CLAIMS_NOTE),
        Chapter("What holds", "accuracy", table=tables.accuracies(figures), note=_ACCURACY_NOTE),
        Chapter("Robustness over eps", "eps", picture=curves_picture(figures), table=tables.curves(figures)),
        Chapter("Transfer between models", "pairs", picture=transfer_picture(figures)),
        Chapter(
            "Does separation buy robustness?",
            "angles",
            picture=separation_picture(figures),
            table=tables.separations(figures),
            note=_SEPARATION_NOTE,
        ),
        Chapter("What training costs", "cost", table=tables.costs(figures), note=_COST_NOTE),
    )


_CLAIMS_NOTE = (
    "Of the paper's methods the one that does best under its own protocol stands for all. Its protocol: PGD on the "
    "training loss from the clean image. Believable: the worst case over all attacks."
)
_ACCURACY_NOTE = (
    "PGD on the training loss is the paper's protocol. The worst case, every attack withstood, is the number to quote; "
    "it is an upper bound, since a stronger attack may leave less. A verdict says whether the paper-style figure "
    "exceeds it (overstated), or whether something casts doubt on it (not established)."
)
_SEPARATION_NOTE = (
    "Angles are those between class means of the embeddings of all test images, seen from their centre, and the same "
    "of the prototypes; preserved is their ratio. Spread: root mean square distance to the class mean, over the mean "
    "distance between class means."
)
_COST_NOTE = (
    "Passes are forward and backward passes of an image through the network, over all epochs, counted while training; "
    "ratios compare runs of the same seed on the same kind of machine. Seconds include whatever else the machine did."
)


def _page(figures: Figures) -> str:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("repulse.reproduce"), PackageLoader("repulse.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("reproduce.html").render(
        title=_title(figures),
        setting=setting(figures),
        overall=reading.overall(figures),
        heads=reading.heads(figures),
        chapters=[c for c in _chapters(figures) if c.picture is not None or c.table is not None],
        rows=figures.rows,
        command=f"repulse reproduce {figures.grid.name} --scale {figures.grid.scale}",
        version=__version__,
    )
    return page.lstrip() + "\n"


def _table(figures: Figures) -> str:
    sentences = [
        reading.overall(figures),
        reading.heads(figures),
        reading.separation(figures),
        reading.transfer(figures),
    ]
    parts = [
        f"**{escaped(plain(figures.grid.data_title))}**",
        to_markdown(tables.accuracies(figures)),
        escaped(setting(figures)),
        *(escaped(text) for text in sentences if text),
        "Cost of training:",
        to_markdown(tables.costs(figures)),
        "Separation of the learned embedding:",
        to_markdown(tables.separations(figures)),
    ]
    return "\n\n".join(parts) + "\n"


def _claims(figures: Figures) -> str:
    title = f"**{escaped(plain(figures.grid.data_title))}, scale {figures.grid.scale}**"
    return "\n\n".join((title, to_markdown(claim_table(claims(figures))), _CLAIMS_NOTE)) + "\n"


def _figures(figures: Figures) -> str:
    grid = figures.grid
    content = {
        "comparison": grid.name,
        "scale": grid.scale,
        "data": grid.data_title,
        "eps": grid.measurement.eps,
        "images": grid.images,
        "seeds": grid.seeds,
        "methods": [_row(figures, row) for row in figures.rows],
        "claims": [asdict(claim) for claim in claims(figures)],
        "correlations": _correlations(figures),
        "transfer": figures.transfer,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _row(figures: Figures, row: Row) -> dict[str, Any]:
    cells = [
        {
            "seed": found.cell.seed,
            "natural": found.natural,
            "pgd_20": found.paper(20),
            "pgd_100": found.paper(100),
            "worst_case": found.worst,
            "verdict": found.verdict,
            "seconds": found.seconds,
            "passes": found.passes,
            "seconds_ratio": figures.relative(found, lambda each: each.seconds),
            "passes_ratio": figures.relative(found, lambda each: each.passes),
            "angle": found.angle,
            "prototype_angle": found.prototype_angle,
            "spread": found.spread,
            "curve": [point.model_dump() for point in found.record.curve],
        }
        for found in row.found
    ]
    return {"method": row.method, "family": row.about.family, "source": row.about.source, "cells": cells}


def _correlations(figures: Figures) -> dict[str, Any]:
    geometry = [row for row in figures.rows if row.about.family in reading.GEOMETRY_ONLY]
    found = {
        "angle, all methods": reading.correlation(figures.rows, lambda f: f.angle, lambda f: f.worst),
        "angle, output layer only": reading.correlation(geometry, lambda f: f.angle, lambda f: f.worst),
        "spread, all methods": reading.correlation(figures.rows, lambda f: f.spread, lambda f: f.worst),
    }
    return {name: None if each is None else asdict(each) for name, each in found.items()}
