"""The report of a comparison: one self-contained page, and the same figures as Markdown and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from repulse.common.errors import RepulseError
from repulse.common.files import write_atomically
from repulse.common.run_files import CONFIG_FILE, ENVIRONMENT_FILE, METRICS_FILE, TEST_FILE
from repulse.common.settings import merge, to_yaml
from repulse.common.units import in_255ths
from repulse.config.run import read_config
from repulse.evaluation.record import RECORD_FILE
from repulse.report.blocks import Block, Facts, Listing, Page, Picture, Section, Table, Text
from repulse.report.render.html import page_as_html
from repulse.report.render.markdown import escaped, to_markdown
from repulse.report.words import plain
from repulse.reproduce import sentences
from repulse.reproduce.cards import cards
from repulse.reproduce.claims import claims
from repulse.reproduce.figures import Figures, Row
from repulse.reproduce.grid import ASKED_FILE, COST_FILE, EMBEDDING_FILE, TRANSFER_FILE, GridCell
from repulse.reproduce.tables import accuracies, claim_table, costs, curves, separations
from repulse.version import __version__

PAGE, TABLE, CLAIMS, FIGURES = "report.html", "table.md", "claims.md", "figures.json"

# What a kept copy of a cell takes along as it is.
_KEPT = (ENVIRONMENT_FILE, METRICS_FILE, TEST_FILE, COST_FILE, EMBEDDING_FILE, TRANSFER_FILE)

# What stands in a kept copy for the place of the data, which is nobody else's.
_PLACE = "FOLDER"

_CLAIMS_NOTE = (
    "Of the paper's methods the one that does best under its own protocol stands for all. Its protocol: PGD on the "
    "training loss from the clean image. Worst case: over all attacks."
)
_ACCURACY_NOTE = (
    "PGD on the training loss is the paper's protocol. The worst case, every attack withstood, is the number to quote; "
    "it is an upper bound, since a stronger attack may leave less. A verdict says whether the paper-style figure "
    "exceeds it (overstated), or whether something casts doubt on it (upper-bound)."
)
_ANGLES_NOTE = (
    "Angles are those between class means of the embeddings of all test images, seen from their centre, and the same "
    "of the prototypes; preserved is their ratio. Spread: root mean square distance to the class mean, over the mean "
    "distance between class means."
)
_COST_NOTE = (
    "Passes are forward and backward passes of an image through the network, over all epochs, counted while training; "
    "ratios compare runs of the same seed on the same kind of machine. Seconds include whatever else the machine did."
)


def write_reproduction(figures: Figures, folder: Path) -> Path:
    """Write `report.html`, `table.md`, `claims.md` and `figures.json`; returns the page's path.

    The same cells give the same bytes: nothing depends on the time or the place of writing.

    Raises:
        RepulseError: if a file cannot be written.
    """
    texts = {
        PAGE: page_as_html(make_page(figures)),
        TABLE: _table(figures),
        CLAIMS: _claims(figures),
        FIGURES: figures_json(figures),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return folder / PAGE


def keep(figures: Figures, folder: Path) -> Path:
    """Copy what was measured to `folder/NAME/SCALE`, with the report; returns that folder.

    A kept copy is laid out as the original is, so `repulse reproduce NAME --stages report --output FOLDER` writes its
    report again. It has no weights, no images, no paths and no outcomes of single images: small enough to commit.

    Raises:
        RepulseError: if the folder is the original itself, or a file cannot be written.
    """
    target = folder / figures.grid.name / figures.grid.scale
    if target.resolve() == figures.grid.folder.resolve():
        raise RepulseError(f"results are kept elsewhere than they were made: name another folder than {folder}")
    for result in figures.results:
        _keep_cell(result.cell, target / result.cell.method / f"seed-{result.cell.seed}")
    write_reproduction(figures, target)
    return target


def _keep_cell(cell: GridCell, target: Path) -> None:
    config = merge(read_config(cell.folder), {"data": {"source": _PLACE}}, "keep")
    place = cell.evaluation.relative_to(cell.folder)
    for name in (*_KEPT, place / ASKED_FILE):
        if (cell.folder / name).is_file():
            write_atomically(target / name, (cell.folder / name).read_bytes())
    record = cell.record()
    assert record is not None, "only measured cells are kept"
    # On one line: indented, the confusion matrices alone are as long as all the rest.
    write_atomically(target / place / RECORD_FILE, record.model_dump_json() + "\n")
    write_atomically(target / CONFIG_FILE, to_yaml(config))


def _setting(figures: Figures) -> str:
    """What was measured on, and how much of the grid is there."""
    grid = figures.grid
    return (
        f"{plain(grid.title)}, scale {grid.scale}; L-inf, eps {in_255ths(grid.measurement.eps)}; {grid.images:,} "
        f"test images under the {grid.measurement.attacks} attacks, natural accuracy on all; {len(figures.results)} of "
        f"{len(grid.cells)} cells (methods and seeds) measured. Means ± standard deviations over seeds."
    )


def make_page(figures: Figures) -> Page:
    """What was found, the claims and the accuracies in the open; the rest is folded."""
    # Drawing takes matplotlib, which tables alone should not wait for.
    from repulse.reproduce.pictures import curves_picture, separation_picture, transfer_picture

    chapters: tuple[tuple[str, str, Picture | None, Table | None, str], ...] = (
        ("The paper, claim by claim", "claims", None, claim_table(figures), _CLAIMS_NOTE),
        ("What holds", "accuracy", None, accuracies(figures), _ACCURACY_NOTE),
        ("Robustness over eps", "eps", curves_picture(figures), curves(figures), ""),
        ("Transfer between models", "pairs", transfer_picture(figures), None, ""),
        ("Does separation buy robustness?", "angles", separation_picture(figures), separations(figures), _ANGLES_NOTE),
        ("What training costs", "cost", None, costs(figures), _COST_NOTE),
    )
    said = (sentences.overall(figures), sentences.heads(figures))
    first = cards(figures)
    blocks: list[Block] = [Text(text, "lead") for text in said if text]
    blocks += [*([] if first is None else [first]), Text(_setting(figures), "note")]
    for title, anchor, picture, table, note in chapters:
        shown = [block for block in (picture, table, Text(note, "note") if note else None) if block is not None]
        if picture is not None or table is not None:
            blocks.append(Section(title, tuple(shown), anchor, folded=anchor not in ("claims", "accuracy")))
    methods = Facts(tuple((row.method, _about(row)) for row in figures.rows))
    blocks.append(Section("Methods", (methods,), "methods", folded=True))
    blocks.append(Listing("Next", _next(figures)))
    footer = f"Made by repulse {__version__}: `repulse reproduce {figures.grid.name} --scale {figures.grid.scale}`. "
    footer += "The same figures lie beside this page as Markdown and JSON."
    title = plain(figures.grid.title)
    return Page(f"The paper beside its rivals: {title}", (Section(title, tuple(blocks), "comparison"),), footer)


def _next(figures: Figures) -> tuple[str, ...]:
    """What to do with the comparison."""
    grid = figures.grid
    larger = {"smoke": "cpu", "cpu": "fast"}.get(grid.scale, "full")
    steps = [] if grid.scale == "full" else [f"On a larger network: `repulse reproduce {grid.name} --scale {larger}`."]
    return (
        *steps,
        "One model of it in full, with its checks and its images: `repulse report` and the folder of its run.",
        "Your own model under the same attacks: `repulse evaluate --model net.py:make --weights net.pt --data FOLDER`.",
    )


def _about(row: Row) -> str:
    return f"{row.about.family}; {row.about.source}. {row.results[0].record.model.description}"


def _table(figures: Figures) -> str:
    said = (sentences.overall, sentences.heads, sentences.separation, sentences.transfer)
    parts = [
        f"**{escaped(plain(figures.grid.title))}**",
        to_markdown(accuracies(figures)),
        escaped(_setting(figures)),
        *(escaped(text) for say in said if (text := say(figures))),
        "Cost of training:",
        to_markdown(costs(figures)),
        "Separation of the learned embedding:",
        to_markdown(separations(figures)),
    ]
    return "\n\n".join(parts) + "\n"


def _claims(figures: Figures) -> str:
    title = f"**{escaped(plain(figures.grid.title))}, scale {figures.grid.scale}**"
    return "\n\n".join((title, to_markdown(claim_table(figures)), _CLAIMS_NOTE)) + "\n"


def figures_json(figures: Figures) -> str:
    """Every figure, unrounded, as JSON."""
    grid = figures.grid
    content = {
        "comparison": grid.name,
        "scale": grid.scale,
        "data": grid.title,
        "eps": grid.measurement.eps,
        "images": grid.images,
        "seeds": grid.seeds,
        "methods": [_row(figures, row) for row in figures.rows],
        "claims": [asdict(claim) for claim in claims(figures)],
        "correlations": {
            name: None if each is None else asdict(each) for name, each in sentences.correlations(figures).items()
        },
        "transfer": figures.transfer,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _row(figures: Figures, row: Row) -> dict[str, Any]:
    cells = [
        {
            "seed": result.cell.seed,
            "natural": result.natural,
            "pgd_20": result.paper(20),
            "pgd_100": result.paper(100),
            "worst_case": result.worst,
            "verdict": result.verdict,
            "seconds": result.seconds,
            "passes": result.passes,
            "seconds_ratio": figures.relative(result, lambda each: each.seconds),
            "passes_ratio": figures.relative(result, lambda each: each.passes),
            "angle": result.angle,
            "prototype_angle": result.prototype_angle,
            "spread": result.spread,
            "curve": [point.model_dump() for point in result.record.curve],
        }
        for result in row.results
    ]
    return {"method": row.method, "family": row.about.family, "source": row.about.source, "cells": cells}
