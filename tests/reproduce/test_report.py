"""Tables, claims, sentences and pages against numbers counted by hand from made-up cells."""

import json
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_cells import content, fake

from repulse.common.errors import RepulseError
from repulse.reproduce import page, sentences, tables
from repulse.reproduce.cards import cards
from repulse.reproduce.claims import claims
from repulse.reproduce.figures import gather, spread
from repulse.reproduce.grid import Grid
from repulse.reproduce.methods import METHODS
from repulse.reproduce.page import keep, write_reproduction

ROOT = Path(__file__).parents[2]


def grid_of(folder, methods, *, name="paper-cifar10", seeds=(0,), title=""):
    return Grid(name, "cpu", "FOLDER", folder, methods=methods, seeds=seeds, images=50, title=title)


def rows(table):
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


@pytest.fixture
def three_seeds(tmp_path):
    grid = grid_of(tmp_path, ["softmax", "paper-linf", "fgsm-rs"], seeds=(0, 1, 2))
    natural, worst = (0.6, 0.7, 0.8), (0.02, 0.04, 0.0)
    for seed in range(3):
        plain, paper, trained = (cell for cell in grid.cells if cell.seed == seed)
        fake(plain, natural=0.9, seconds=10, worst=0.0, paper=(0.0, 0.0), angle=80, spread=0.2)
        word = "overstated" if seed < 2 else "upper-bound"
        fake(
            paper,
            natural=natural[seed],
            seconds=11,
            worst=worst[seed],
            paper=(0.3, 0.2),
            verdict=word,
            angle=40,
            spread=0.5,
        )
        fake(trained, natural=0.7, seconds=30, passes=(2.0, 2.0), epochs=3, worst=0.35, paper=(0.4, 0.38), angle=50)
    return gather(grid)


def test_means_and_spreads_are_over_seeds(three_seeds):
    shown = rows(tables.accuracies(three_seeds))
    deviation = 100 * statistics.stdev([0.6, 0.7, 0.8])
    space = "\N{NO-BREAK SPACE}"
    assert shown["paper-linf"] == [
        f"2.0 ± 2.0{space}%",
        f"70.0 ± {deviation:.1f}{space}%",
        f"30.0 ± 0.0{space}%",
        f"20.0 ± 0.0{space}%",
        "2 overstated, 1 upper-bound",
        "fixed prototypes",
        "3",
    ]
    assert shown["softmax"][-3:] == ["measured", "no defence", "3"]


def test_the_page_answers_first_with_the_paper_its_best_rival_and_no_defence(three_seeds):
    first = cards(three_seeds).cards
    assert [card.title.split(":")[0] for card in first] == ["paper-linf", "fgsm-rs", "softmax"]
    assert (first[0].figure[:4], first[0].tone) == ("2.0 ", "bad")
    assert "says" in first[0].why[0]


def test_one_seed_has_no_spread():
    assert spread([0.5]).share == "50.0\N{NO-BREAK SPACE}%"
    assert spread([]) is None
    assert spread([None, 2.0]).number() == "2.00"


def test_costs_are_held_against_plain_training_of_the_same_seed(three_seeds):
    shown = rows(tables.costs(three_seeds))
    # 3 epochs of 2 + 2 passes are 12 against 2 of 1 + 1, which are 4.
    assert shown["fgsm-rs"] == ["30 ± 0", "12 ± 0", "3.00 ± 0.00", "3.00 ± 0.00"]
    assert shown["paper-linf"][2:] == ["1.10 ± 0.00", "1.00 ± 0.00"]


def test_seconds_of_other_machines_are_not_compared(tmp_path):
    grid = grid_of(tmp_path, ["softmax", "simplex"])
    fake(grid.cells[0], processor="fast")
    fake(grid.cells[1], processor="slow")
    assert rows(tables.costs(gather(grid)))["simplex"][2] == "–"


def test_separation_is_held_against_that_of_the_prototypes(three_seeds):
    shown = rows(tables.separations(three_seeds))["paper-linf"]
    assert shown[:4] == ["40.0 ± 0.0", "90.0 ± 0.0", "44.4 ± 0.0\N{NO-BREAK SPACE}%", "0.50 ± 0.00"]


def test_cells_of_other_settings_are_left_out(tmp_path):
    grid = grid_of(tmp_path, ["softmax", "simplex"])
    for cell in grid.cells:
        fake(cell)
    other = Grid("paper-cifar10", "cpu", "FOLDER", tmp_path, methods=grid.methods, seeds=(0,), images=51)
    assert gather(other).results == ()
    grid.cells[0].evaluation.joinpath("asked.json").unlink()
    assert [result.cell.method for result in gather(grid).results] == ["simplex"]


PAPER = {"natural": 0.93, "paper": (0.6, 0.55), "worst": 0.1}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "holds under its protocol only: overstated"),
        ({"worst": 0.51}, "holds"),
        ({"natural": 0.91}, "not reached at scale cpu, and what is reached is overstated"),
        ({"paper": (0.2, 0.12)}, "not reached at scale cpu"),
    ],
)
def test_the_claim_of_accuracy(changes, verdict, tmp_path):
    grid = grid_of(tmp_path, ["paper-linf"])
    fake(grid.cells[0], **(PAPER | changes))
    ten, hundred, *_ = claims(gather(grid))
    assert ten.verdict == verdict
    assert hundred.verdict == "not measured"


def test_the_claim_says_both_figures_and_whose_they_are(tmp_path):
    grid = grid_of(tmp_path, ["paper-linf", "paper-cosine"])
    fake(grid.cells[0], **PAPER)
    fake(grid.cells[1], natural=0.95, paper=(0.7, 0.65), worst=0.0)
    first = claims(gather(grid))[0]
    # The paper's lowest figure of its best method stands for it.
    assert (
        first.protocol.replace("\N{NO-BREAK SPACE}", " ")
        == "65.0 % at 95.0 % natural accuracy (paper-cosine, one seed)"
    )
    assert first.worst.replace("\N{NO-BREAK SPACE}", " ") == "0.0 % at 95.0 % natural accuracy"


CURVE = {0: (0.9, 0.9), 8: (0.4, 0.2), 16: (0.2, 0.1)}


@pytest.mark.parametrize(
    ("own", "verdict"),
    [
        # The rival keeps a half under both.
        ({0: (0.9, 0.9), 8: (0.5, 0.2), 16: (0.3, 0.12)}, "holds"),
        ({0: (0.9, 0.9), 8: (0.5, 0.2), 16: (0.3, 0.05)}, "holds under its protocol only"),
        ({0: (0.9, 0.9), 8: (0.5, 0.2), 16: (0.2, 0.05)}, "does not hold"),
        (
            {0: (0.9, 0.9), 8: (0.5, 0.01), 16: (0.3, 0.0)},
            "cannot be asked: nothing is left that could decay; holds under its protocol only",
        ),
    ],
)
def test_the_claim_of_slow_decay(own, verdict, tmp_path):
    grid = grid_of(tmp_path, ["paper-linf", "fgsm-rs"])
    fake(grid.cells[0], curve=own)
    fake(grid.cells[1], curve=CURVE)
    assert claims(gather(grid))[2].verdict == verdict


def test_the_claim_of_cost(three_seeds):
    cost = claims(three_seeds)[3]
    assert (cost.protocol, cost.verdict) == ("1.00 ± 0.00 times the passes of softmax (paper-linf)", "holds")


def test_what_a_comparison_does_not_have_is_not_measured(tmp_path):
    grid = grid_of(tmp_path, ["simplex"], name="fashion")
    fake(grid.cells[0])
    assert [claim.verdict for claim in claims(gather(grid))] == ["not measured"] * 4


def test_rank_correlation_is_spearmans(tmp_path):
    methods = ["softmax", "simplex", "sphere", "noise", "jacobian"]
    grid = grid_of(tmp_path, methods)
    angles, worst = (10, 20, 30, 40, 50), (0.1, 0.3, 0.2, 0.5, 0.4)
    for cell, angle, left in zip(grid.cells, angles, worst, strict=True):
        fake(cell, angle=angle, worst=left)
    found = sentences.correlation(gather(grid).rows, lambda r: r.angle, lambda r: r.worst)
    # 1 - 6 sum d^2 / (n (n^2 - 1)), with ranks 1 3 2 5 4 against 1 2 3 4 5.
    assert found.rho == pytest.approx(1 - 6 * 4 / (5 * 24))
    assert found.count == 5
    assert sentences.correlation(gather(grid).rows, lambda r: 1.0, lambda r: r.worst) is None


def test_sentences_name_what_the_figures_show(tmp_path):
    grid = grid_of(tmp_path, ["softmax", "paper-linf", "fgsm-rs", "fgsm-rs-simplex"])
    plain, paper, trained, prototypes = grid.cells
    own = dict.fromkeys(grid.methods, 0.5)
    fake(plain, worst=0.0, paper=(0.0, 0.0), transfer=own | {"softmax": 0.0, "paper-linf": 0.1})
    fake(paper, worst=0.02, paper=(0.3, 0.25), natural=0.7, transfer=own | {"paper-linf": 0.2})
    fake(trained, worst=0.3, paper=(0.31, 0.31), natural=0.6, transfer=own | {"fgsm-rs": 0.3})
    fake(prototypes, worst=0.325, paper=(0.33, 0.33), natural=0.61, transfer=own | {"fgsm-rs-simplex": 0.3})
    figures = gather(grid)
    said = {name: getattr(sentences, name)(figures).replace("\N{NO-BREAK SPACE}", " ") for name in SAID}
    assert said == SAID


SAID = {
    "overall": (
        "Under every attack together most is left of fgsm-rs-simplex: 32.5 % of the images, at a natural accuracy of "
        "61.0 %. The paper's protocol misleads most on paper-linf: it leaves 25.0 %, all attacks together 2.0 %."
    ),
    "heads": (
        "Simplex prototypes in place of the softmax layer change the worst case of adversarial training by so many "
        "points: fgsm-rs +2.5; +2.5 on average."
    ),
    "transfer": (
        "Images crafted on softmax transfer best: on average the other models still classify 36.7 % of them right. "
        "Another model's images fool 1 of 4 by over 5 points more than its own gradient does, first paper-linf by "
        "those of softmax."
    ),
}


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.ids = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]


def test_the_page_needs_nothing_else_and_escapes_what_comes_from_outside(tmp_path):
    methods = ["softmax", "paper-linf", "fgsm-rs", "simplex"]
    grid = grid_of(tmp_path, methods, title="<script>alert(1)</script> | 'x'")
    for i, cell in enumerate(grid.cells):
        fake(cell, angle=30 + i, worst=0.1 * i, transfer=dict.fromkeys(methods, 0.1 * i))
    path = write_reproduction(gather(grid), grid.folder)
    text = path.read_text(encoding="utf-8")
    parsed = Page(text)
    # The page's own script, which its policy names by digest, and nothing else.
    assert [tag for tag, _ in parsed.tags if tag in ("script", "img", "iframe")] == ["script"]
    links = [value for _, attrs in parsed.tags for name, value in attrs.items() if name in ("href", "src") and value]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "url(http" not in text
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {"claims", "accuracy", "eps", "pairs", "angles", "cost"} <= set(parsed.ids)
    assert {link[1:] for link in links if link.startswith("#")} <= set(parsed.ids)
    assert sum(tag == "svg" for tag, _ in parsed.tags) == 3
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    table = (grid.folder / "table.md").read_text(encoding="utf-8")
    assert "<script" not in table
    assert len(re.findall(r"^\| softmax", table, re.MULTILINE)) == 3


def test_the_figures_hold_every_cell(three_seeds):
    write_reproduction(three_seeds, three_seeds.grid.folder)
    found = content(three_seeds.grid.folder / "figures.json")
    (paper,) = [row for row in found["methods"] if row["method"] == "paper-linf"]
    assert [cell["worst_case"] for cell in paper["cells"]] == [0.02, 0.04, 0.0]
    assert [cell["seconds_ratio"] for cell in paper["cells"]] == pytest.approx([1.1] * 3)
    assert len(found["claims"]) == 4


def test_a_kept_copy_is_small_nameless_and_reports_the_same(tmp_path):
    grid = Grid("fashion", "cpu", "/secret/place", tmp_path / "runs", methods=["softmax", "simplex"], seeds=(0,))
    for cell in grid.cells:
        fake(cell, transfer=dict.fromkeys(grid.methods, 0.5))
        (cell.folder / "checkpoints").mkdir()
        (cell.folder / "checkpoints" / "last.safetensors").write_bytes(b"x" * 100_000)
    figures = gather(grid)
    write_reproduction(figures, grid.folder)
    copy = keep(figures, tmp_path / "results")
    files = [path for path in copy.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix == ".safetensors"]
    assert not [path for path in files if "secret" in path.read_text(encoding="utf-8")]
    assert sum(path.stat().st_size for path in files if path.parent != copy) < 2 * 20_000
    # The same report can be written from the copy, whatever the place of the data is called now.
    again = Grid("fashion", "cpu", "FOLDER", tmp_path / "results", methods=["softmax", "simplex"], seeds=(0,))
    for name in ("table.md", "claims.md", "figures.json", "report.html"):
        before = (grid.folder / name).read_bytes()
        assert (copy / name).read_bytes() == before
        (copy / name).unlink()
    write_reproduction(gather(again), again.folder)
    for name in ("table.md", "claims.md", "figures.json", "report.html"):
        assert (copy / name).read_bytes() == (grid.folder / name).read_bytes()


def test_results_are_not_kept_over_the_original(tmp_path):
    grid = grid_of(tmp_path, ["softmax"])
    fake(grid.cells[0])
    with pytest.raises(RepulseError) as error:
        keep(gather(grid), tmp_path)
    assert str(error.value) == (f"results are kept elsewhere than they were made: name another folder than {tmp_path}")


@pytest.mark.parametrize(("name", "title"), [("fashion", ""), ("paper-cifar10", "CIFAR-10 (JPEG 75)")])
def test_committed_results_are_read_and_their_tables_remade(name, title):
    """Everybody's figures stand on these files: no later version may read them otherwise."""
    grid = Grid(name, "cpu", "FOLDER", ROOT / "results" / "reproduce", images=100, title=title)
    kept = content(grid.folder / "figures.json")
    again = json.loads(page.figures_json(gather(grid)))
    assert [row["method"] for row in again["methods"]] == list(METHODS)
    assert all(len(row["cells"]) == 3 for row in again["methods"])
    # Verdicts have other words since.
    words = {"believable": "measured", "not established": "upper-bound"}
    for cell in (cell for row in kept["methods"] for cell in row["cells"]):
        cell["verdict"] = words.get(cell["verdict"], cell["verdict"])
    for part in ("methods", "transfer", "correlations"):
        assert again[part] == kept[part]
