"""Progress: which share of all the work is done, and what a person sees of it."""

import io

import pytest
from rich.console import Console

from repulse.common import progress
from repulse.common.progress import Display, Work, expect, found, progress_bar


def test_a_share_counts_what_each_stage_costs():
    work = Work()
    work.expect({"long": 3.0, "short": 1.0})
    shares = []
    for stage, done in [("long", 0), ("long", 1), ("long", 2), ("short", 0), ("short", 2)]:
        work.tell(stage, done, 2)
        shares.append(work.share)
    assert shares == [0, 0.375, 0.75, 0.75, 1]


def test_a_share_never_falls_and_less_work_than_expected_moves_it_on():
    work = Work()
    work.expect({"a": 1.0, "b": 99.0})
    work.tell("a", 1, 1)
    assert work.share == 0.01
    # Most images fell: little is left to do.
    work.expect({"b": 1.0})
    work.tell("b", 0, 1)
    assert work.share == 0.5
    work.expect({"c": 100.0})
    work.tell("c", 0, 1)
    assert work.share == 0.5


def test_stages_that_had_nothing_to_do_are_passed_over_and_unexpected_ones_belong_to_the_one_that_runs():
    work = Work()
    work.expect({"a": 1.0, "skipped": 5.0, "b": 1.0})
    work.tell("a", 1, 1)
    work.tell("b", 0, 1)
    assert work.share == 0.5
    work.tell("inside b", 9, 10)
    assert work.share == 0.5
    work.tell("b", 1, 1)
    assert work.share == 1


def test_without_expectations_the_stage_that_runs_is_all_there_is():
    work = Work()
    work.tell("training", 30, 40)
    assert work.share == 0.75
    work.tell("another", 0, 40)
    assert work.share == 0


def test_parts_of_some_work_share_one_bar(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    display = Display("demo", {"training": 1.0, "attacking": 3.0})
    now[0] += 10
    display("training", 640, 640)
    assert (display.title, display.share, display.times) == ("training", 0.25, "0:10, about 0:30 left")
    display.begin("attacking")
    expect(display, {"APGD": 2.0, "PGD": 1.0})
    now[0] += 2
    display("APGD", 50, 50)
    found(display, "robust so far 43.0 %")
    display("PGD", 25, 50)
    assert display.share == pytest.approx((1 + 3 * 2.5 / 3) / 4)
    # The speed is that of this part, over all of its stages.
    assert display.line == "PGD 25 of 50 · 38 images/s · robust so far 43.0 %"


def test_news_for_a_display_is_nothing_to_an_ordinary_callback():
    heard = []

    def callback(*news):
        heard.append(news)

    expect(callback, {"a": 1.0})
    found(callback, "something")
    assert heard == []


@pytest.mark.parametrize("width", [60, 80])
def test_the_bar_fits_the_terminal_and_says_no_none(width):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, color_system=None)
    with progress_bar(True, console, title="evaluating") as bar:
        bar("Near misses: APGD, polishing", 100, 1000)
        found(bar, "robust so far 43.0 %")
    drawn = file.getvalue()
    assert "evaluating" in drawn
    assert "Near misses: APGD, polishing 100 of 1,000" in drawn
    assert "None" not in drawn


def test_nothing_is_drawn_in_a_log():
    file = io.StringIO()
    with progress_bar(True, Console(file=file), title="evaluating") as bar:
        bar("a", 1, 2)
    assert file.getvalue() == ""
