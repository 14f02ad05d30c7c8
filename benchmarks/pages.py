"""Make the pages of `results/` again from their records: nothing is trained, nothing is attacked.

    python benchmarks/pages.py

Reports and tables of the comparisons, the page of certified accuracy, and the pages of `repulse reproduce`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compare import COMPARISONS, METHODS
from repulse.attacks import Norm
from repulse.common.files import write_atomically
from repulse.report import markdown_table, write_report
from repulse.report.blocks import Block, Card, Cards, Cell, Listing, Page, Section, Table, Text
from repulse.report.render.html import page_as_html
from repulse.report.words import NORMS, percent
from repulse.reproduce.figures import gather, spread
from repulse.reproduce.grid import Grid
from repulse.reproduce.page import write_reproduction

ROOT = Path(__file__).parent.parent / "results"

# Of each folder of results/reproduce, what its command says (see results/README.md).
GRIDS = {"fashion": ("Fashion-MNIST", 100), "paper-cifar10": ("CIFAR-10 (JPEG 75)", 100)}


def comparisons() -> None:
    """`report.html` and its companions, and `table.md`, of each comparison."""
    for folder in sorted(ROOT.iterdir()):
        runs = [folder / name for name in METHODS if (folder / name / "evaluations").is_dir()]
        if not runs:
            continue
        known = COMPARISONS.get(folder.name)
        title = known.title if known is not None else "CIFAR-10 (JPEG 75)"
        write_report(runs, folder / "report.html", title=f"{title}, small CNN: what holds")
        write_atomically(folder / "table.md", markdown_table(runs))
        print(folder.name)


def reproductions() -> None:
    """`report.html`, `table.md`, `claims.md` and `figures.json` of each comparison with its rivals."""
    for name, (title, images) in GRIDS.items():
        grid = Grid(name, "cpu", "FOLDER", ROOT / "reproduce", images=images, title=title)
        print(write_reproduction(gather(grid), grid.folder))


def certified() -> None:
    """`results/certified/report.html`: what is proved, on one page."""
    sections = []
    for file in sorted((ROOT / "certified").glob("*.json"), key=lambda file: ("jpeg" in file.name, file.name)):
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        sections.append(_chapter(content, file.stem))
    footer = "Made from the figures in results/certified, which hold the commands that made them."
    page = Page("Certified accuracy of small networks: what is proved", tuple(sections), footer)
    write_atomically(ROOT / "certified" / "report.html", page_as_html(page))
    print("certified")


def _chapter(content: dict[str, Any], anchor: str) -> Section:
    norms: tuple[Norm, ...] = ("l2", "linf")
    groups = {norm: [entry for entry in content["found"] if entry["norm"] == norm] for norm in norms}
    about = Text(
        "A proof holds against every attack there will ever be, whoever looks for it. Some of the certificates were "
        "attacked, inside their own radii, and none broke.",
        "note",
    )
    cards, blocks = [], []
    for norm, found in groups.items():
        if found:
            best = max(found, key=lambda entry: _mean(entry, next(iter(entry["runs"][0]["certified"]))))
            cards.append(_card(best, norm))
            blocks.append(_table(found, norm))
    steps = (
        "Train such a network on your images: `repulse train --preset certified-l2 --output runs/proved`, or "
        "`--preset certified-linf`.",
        "Prove it, and attack the proofs: `repulse certify runs/proved --attack`.",
    )
    shown: tuple[Block, ...] = (Cards(tuple(cards)), *blocks, about, Listing("Next", steps))
    return Section(content["data"], shown, anchor)


def _mean(entry: dict[str, Any], radius: str) -> float:
    values = [run["certified"][radius] for run in entry["runs"]]
    return float(sum(values) / len(values))


def _card(entry: dict[str, Any], norm: Norm) -> Card:
    runs = entry["runs"]
    radius = next(iter(runs[0]["certified"]))
    each = [run["certified"][radius] for run in runs]
    natural = sum(run["natural"] for run in runs) / len(runs)
    return Card(
        title=f"{NORMS[norm]}: {entry['method']}",
        link="",
        label=f"certified accuracy, mean of {len(runs)} seeds",
        figure=percent(_mean(entry, radius)),
        phrase=f"proved right within {float(radius):g}/255, {NORMS[norm]}",
        scale=(_mean(entry, radius), min(each), max(each), natural, 0.1),
        detail=f"natural accuracy {percent(natural)}; seeds from {percent(min(each))} to {percent(max(each))}; "
        f"{runs[0]['images']:,} images",
        sure="proved, and attacked",
        tone="good",
        why=("The best of its table at the smallest radius.",),
    )


def _table(found: list[dict[str, Any]], norm: Norm) -> Table:
    radii = list(found[0]["runs"][0]["certified"])
    head = (NORMS[norm], *(f"proved, {float(radius):g}/255" for radius in radii), "natural", "seeds")
    rows = []
    for entry in found:
        columns = [[run["certified"][radius] for run in entry["runs"]] for radius in radii]
        columns.append([run["natural"] for run in entry["runs"]])
        cells = [_cell(column, strong=place == 0) for place, column in enumerate(columns)]
        rows.append((Cell(entry["method"]), *cells, Cell(str(len(entry["runs"])), number=True)))
    return Table(head, tuple(rows))


def _cell(values: list[float], *, strong: bool) -> Cell:
    over = spread(values)
    assert over is not None, "a method has runs"
    return Cell(over.share, value=over.mean, strong=strong, number=True, bar=strong)


def main() -> None:
    """All of them."""
    comparisons()
    certified()
    reproductions()


if __name__ == "__main__":
    main()
