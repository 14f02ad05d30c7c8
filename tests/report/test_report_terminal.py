"""What a terminal, a pipe and a program get of the same figures."""

import io
import json

from report_samples import judged
from rich.console import Console

from repulse.report.answers import card
from repulse.report.blocks import Cell, Section, Table, Text
from repulse.report.collect import collect
from repulse.report.group import grouped
from repulse.report.printing import evaluation_blocks, print_evaluation
from repulse.report.render.terminal import show


def printed(blocks, width=80):
    """The text, and the same with its styles as a terminal gets them."""
    texts = []
    for colours in (None, "standard"):
        file = io.StringIO()
        show(Console(width=width, file=file, force_terminal=colours is not None, color_system=colours), blocks)
        texts.append(file.getvalue())
    return texts


def test_an_evaluation_fits_eighty_columns_and_ends_in_its_answers(tmp_path):
    judged(tmp_path / "a")
    text, styled = printed(evaluation_blocks([tmp_path / "a"], brief=True))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    (group,) = grouped(collect([tmp_path / "a"]))
    found = card(group.entries[0])
    panel = text[text.index("╭") :]
    assert panel.count("how robust") == panel.count("how sure") == text.count("how sure") == 1
    assert found.figure in panel
    assert "claim overstated" in panel
    assert "next" in panel
    assert "`" not in panel
    assert lines[-1].startswith("╰")
    # One colour, that of the second answer.
    assert styled.count("\x1b[1;31m") == 1


def test_columns_that_do_not_fit_are_left_to_the_report():
    table = Table(("model", "number", "settings"), ((Cell("a"), Cell("1", number=True), Cell("words " * 30)),))
    wide, _ = printed([table], 300)
    narrow, _ = printed([table], 40)
    assert "settings" in wide
    assert "settings" not in narrow
    assert "number" in narrow


def test_headings_break_before_cells_do():
    head = ("model", "number to quote", "95 % interval", "natural", "how sure", "paper-style")
    row = ("adversarial", "61.0 %", "51.2 to 70.0 %", "100.0 %", "claim overstated", "67.0 %")
    cells = tuple(Cell(text, number=place in (1, 2, 3, 5)) for place, text in enumerate(row))
    text, _ = printed([Table(head, (cells,))], 80)
    assert text.splitlines()[-1].split() == " ".join(row).split()
    assert "paper-style" in text


def test_what_is_folded_is_left_to_the_report():
    text, _ = printed([Section("shown", (Text("open"),)), Section("hidden", (Text("folded"),), folded=True)])
    assert "open" in text
    assert "folded" not in text


def test_a_pipe_gets_markdown_and_a_program_json(tmp_path, capsys):
    judged(tmp_path)
    print_evaluation(tmp_path)
    text = capsys.readouterr().out
    assert "| attack | accuracy |" in text
    assert text.index(f"record: {tmp_path}") < text.index("How sure: **claim overstated**")
    print_evaluation(tmp_path, "json")
    heading, table, place, answers = json.loads(capsys.readouterr().out)
    assert [heading["kind"], table["kind"], answers["kind"]] == ["heading", "table", "cards"]
    assert place == f"record: {tmp_path}"
    print_evaluation(tmp_path, "table")
    assert "╭" in capsys.readouterr().out
