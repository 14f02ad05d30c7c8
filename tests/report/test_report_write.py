import base64
import hashlib
import json
import re
import string
from html.parser import HTMLParser

import pytest
from report_samples import LEAVES, NASTY, sample, sample_run

from repulse.common.errors import RepulseError
from repulse.evaluation.record import Record
from repulse.report import markdown_table, write_report


class Page(HTMLParser):
    """What a page holds, read independently of how it was made."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self._cell: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag):
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1][-1].append("".join(self._cell).strip())
            self._cell = None

    def handle_data(self, data):
        self.words.append(data)
        if self._cell is not None:
            self._cell.append(data)

    def of(self, tag):
        return [attributes for found, attributes in self.tags if found == tag]

    @property
    def text(self):
        return "".join(self.words)


def report(*paths, output):
    files = write_report(list(paths), output)
    page = files.html.read_text(encoding="utf-8")
    return page, Page(page), files.markdown.read_text(encoding="utf-8"), json.loads(files.json.read_text())


def markdown_rows(text):
    rows = []
    for line in text.splitlines():
        if line.startswith("|") and "---" not in line:
            rows.append(
                [re.sub(r"\\(.)", r"\1", cell).replace("**", "").strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            )
    return rows


def plainly(share):
    return f"{100 * share:.1f} %"


def shown(share):
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    record = sample_run(folder / "run")
    return record, *report(folder / "run", output=folder / "report.html")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    records = [sample_run(folder / name, model=name, seed=i) for i, name in enumerate(("a <b>", "c|d"))]
    return records, *report(folder, output=folder / "report.html")


def test_every_figure_of_the_record_stands_in_all_three(one):
    record, _, page, markdown, numbers = one
    expected = {"natural": record.natural_accuracy, "worst case": record.worst_case_accuracy}
    expected |= {attack.label: attack.robust_accuracy for attack in record.attacks}
    attacks = next(table for table in page.tables if table[0][0] == "attack")
    assert {row[0]: row[1] for row in attacks[1:]} == {label: shown(share) for label, share in expected.items()}
    rows = [row for row in markdown_rows(markdown) if len(row) == 5 and row[0] in expected]
    assert {row[0]: row[1] for row in rows} == {label: plainly(share) for label, share in expected.items()}
    (evaluation,) = numbers["groups"][0]["evaluations"]
    assert Record.model_validate(evaluation["record"]) == record
    assert set(evaluation["intervals"]) == {"natural", "worst-case", *(name for name, _, _ in LEAVES)}
    curve = next(table for table in page.tables if table[0][0] == "eps")
    assert curve[0] == ["eps", "training loss", "worst case"]
    # What attacks left at the eps of the table is less than what the made-up curve says there.
    assert curve[2] == ["8/255", shown(0.9 - 40 / 255), shown(record.worst_case_accuracy)]


def test_the_card_answers_first_and_the_papers_protocol_stands_beside_the_worst_case(one):
    record, text, page, *_ = one
    assert re.findall(r'class="big">([^<]+)<', text) == [shown(record.worst_case_accuracy)]
    assert text.index("<article") < text.index("<figure") < text.index("<table") < text.index("<details")
    assert f"natural accuracy {shown(record.natural_accuracy)}, chance {shown(1 / 4)}" in page.text
    paper = record.attack("pgd-100-training-loss").robust_accuracy
    assert f"Under the paper's protocol (PGD-100, training loss) {shown(paper)} stay right: overstated by" in page.text


def test_the_published_script_stands_below_the_worst_case(one):
    attacks = next(table for table in one[2].tables if table[0][0] == "attack")
    labels = [row[0] for row in attacks]
    assert labels[-2:] == ["worst case", "PGD-20, training loss, as published"]
    assert attacks[-1][3] == "the paper's script, not counted"


def test_several_models_are_compared_in_one_table(two):
    records, _, page, markdown, _ = two
    table = page.tables[1]
    columns = ["pgd-20-training-loss", "pgd-100-training-loss", "pgd-100-margin"]
    assert table[0] == ["model", "natural", *(records[0].attack(name).label for name in columns), "worst case"]
    rows = [
        [
            record.model.name,
            shown(record.natural_accuracy),
            *(shown(record.attack(name).robust_accuracy) for name in columns),
            shown(record.worst_case_accuracy),
        ]
        for record in records
    ]
    assert table[1:] == rows
    escaped = [[cell.replace("<", "&lt;").replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in rows]
    assert [row for row in markdown_rows(markdown) if row in escaped] == escaped
    # The table that stands open has model and number first, and a row for each model too.
    first = page.tables[0]
    assert first[0][:2] == ["model", "worst case"]
    assert [row[:2] for row in first[1:]] == [[row[0], row[-1]] for row in rows]


def test_what_was_not_run_is_a_dash_and_not_a_number(tmp_path):
    sample(tmp_path / "a", model="a")
    sample(tmp_path / "b", model="b", leaves={key: share for key, share in LEAVES.items() if key[2] == "logits"})
    _, page, *_ = report(tmp_path, output=tmp_path / "r.html")
    assert page.tables[1][2][2:4] == ["–", "–"]


def test_text_from_outside_is_escaped(one):
    _, text, page, markdown, _ = one
    # One script, the page's own, and the browser is told to run no other.
    assert len(page.of("script")) == text.count("<script") == 1
    own = re.search(r"<script>(.*?)</script>", text, flags=re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in text
    assert "alert" not in own
    assert "<script" not in markdown
    assert "<cnn>" not in text
    assert "name: <paper>" in page.text
    assert NASTY[0] in page.text
    assert "small <cnn>" in page.text
    # Dollar signs are no formulas.
    assert "$\\alpha$ 日本" in page.text
    assert "\x07" not in text


def test_the_page_needs_nothing_else(one):
    _, text, page, *_ = one
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert "url(http" not in text
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.of("meta")
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


@pytest.mark.parametrize("which", ["one", "two"])
def test_ids_are_unique_and_references_are_met(which, request):
    text, page = request.getfixturevalue(which)[1:3]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 20
    links = [attributes["href"][1:] for _, attributes in page.tags if (attributes.get("href") or "").startswith("#")]
    references = re.findall(r"url\(#([^)]+)\)", text)
    assert set(links + references) <= set(ids)


def test_figures_are_told_to_those_who_cannot_see_them(one):
    figures = one[2].of("svg")
    # Curve, two confusion matrices, Gram matrix, PCA, t-SNE, loss, accuracy.
    assert len(figures) == 8
    for figure in figures:
        assert figure["role"] == "img"
        assert len(figure["aria-label"]) > 20
        assert "viewbox" in figure
        assert "width" not in figure
    assert len(one[2].of("img")) == 9
    assert all(image["alt"] for image in one[2].of("img"))


def test_figures_take_the_colours_of_the_page(one):
    text = one[1]
    svg = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert "#fe0" not in svg
    css = text[text.index("<style>") : text.index("</style>")]
    dark = css[css.index("prefers-color-scheme: dark") :]
    for name in set(re.findall(r"var\((--[\w-]+)\)", svg)):
        assert f"{name}:" in css
        assert f"{name}:" in dark
    assert "DejaVu" not in svg


def test_a_bare_record_is_enough(tmp_path):
    sample(tmp_path, extras=False, curve=())
    _, page, markdown, numbers = report(tmp_path, output=tmp_path / "r.html")
    assert len(page.of("svg")) == 2
    assert not page.of("img")
    assert "Separation" not in markdown
    (evaluation,) = numbers["groups"][0]["evaluations"]
    assert evaluation["separation"] is None
    assert evaluation["training"] is None


def test_a_model_measured_twice_shows_its_prototypes_once(tmp_path):
    sample(tmp_path / "run" / "evaluations" / "a")
    sample(tmp_path / "run" / "evaluations" / "b", eps=0.1)
    _, page, _, numbers = report(tmp_path, output=tmp_path / "r.html")
    assert len(numbers["groups"]) == 2
    assert page.text.count("the weights are the same") == 1
    assert sum("PCA" in (svg["aria-label"] or "") for svg in page.of("svg")) == 1


def test_the_same_records_give_the_same_bytes(tmp_path):
    sample_run(tmp_path / "run")
    first = write_report([tmp_path / "run"], tmp_path / "a" / "report.html")
    second = write_report([tmp_path / "run"], tmp_path / "b" / "report.html")
    assert first.html.read_bytes() == second.html.read_bytes()
    assert first.markdown.read_bytes() == second.markdown.read_bytes()
    assert first.json.read_bytes() == second.json.read_bytes()
    # Paths of the machine stay on the machine.
    assert str(tmp_path) not in first.html.read_text() + first.markdown.read_text() + first.json.read_text()


def test_the_other_files_take_the_name_of_the_page(tmp_path):
    sample(tmp_path / "e", extras=False)
    files = write_report([tmp_path / "e"], tmp_path / "v1.2", title="<My> title")
    assert [file.name for file in (files.html, files.markdown, files.json)] == ["v1.2.html", "v1.2.md", "v1.2.json"]
    assert "<h1>&lt;My&gt; title</h1>" in files.html.read_text()
    assert files.markdown.read_text().startswith("# &lt;My> title\n")


def test_nothing_is_written_when_there_is_nothing_to_say(tmp_path):
    with pytest.raises(RepulseError, match="holds no evaluation"):
        write_report([tmp_path], tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_the_markdown_table_of_one_and_of_several(tmp_path):
    record = sample(tmp_path / "a", model="a")
    alone = markdown_table([tmp_path / "a"])
    assert alone.startswith("**a: digits, test, 80 images, L-inf, eps 8/255**\n\n| attack |")
    assert f"**{plainly(record.worst_case_accuracy)}**" in alone
    sample(tmp_path / "b", model="b", seed=1)
    together = markdown_table([tmp_path / "a", tmp_path / "b"])
    assert together.startswith("**digits, test, 80 images, L-inf, eps 8/255**\n\n| model |")
    assert [row[0] for row in markdown_rows(together)] == ["model", "a", "b"]


def test_many_classes_still_make_a_page(tmp_path):
    names = [f"class {letter}{other}" for letter in string.ascii_lowercase[:11] for other in "0123456789"]
    sample(tmp_path, class_names=names, count=220)
    text, page, *_ = report(tmp_path, output=tmp_path / "r.html")
    assert any("logarithmic scale" in word for word in page.words)
    assert len(text) < 1_500_000
