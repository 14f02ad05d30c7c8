import pytest

from repulse.common import notice as room
from repulse.common.notice import notice


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(room, "_said", set())


def test_a_note_is_one_line_on_standard_error(capsys):
    notice("two\n  words")
    assert capsys.readouterr() == ("", "repulse: note: two words\n")


def test_a_note_comes_once(capsys):
    for text in ("a", "b", "a"):
        notice(text)
    assert capsys.readouterr().err == "repulse: note: a\nrepulse: note: b\n"


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_one_process_of_several_speaks(rank, lines, monkeypatch, capsys):
    monkeypatch.setenv("RANK", rank)
    notice("x")
    assert capsys.readouterr().err.count("\n") == lines
