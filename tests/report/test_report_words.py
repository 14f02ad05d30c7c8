import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import LEAVES, sample

from repulse.report.words import finding, overstatement, percent, plain, wilson


def test_wilson_agrees_with_a_published_example():
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263 gives 0.2553 to 0.3662 without correction.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    # 0 of 10 is 0 to 0.2775: the interval does not vanish at an end.
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=5e-5)


@given(count=st.integers(1, 10**6), part=st.floats(0, 1))
def test_wilson_bounds_solve_the_score_equation(count, part):
    share = round(part * count) / count
    for bound in wilson(share, count):
        assert 0 <= bound <= 1
        # At a bound p, the share lies 1.96 standard errors of p away: that is how the interval is defined.
        error = 1.959963984540054 * (bound * (1 - bound) / count) ** 0.5
        assert abs(bound - share) == pytest.approx(error, abs=1e-6)


def test_percentages_have_a_tenth_and_a_space_that_does_not_break():
    assert percent(0.19655) == "19.7\N{NO-BREAK SPACE}%"


def test_an_overstated_protocol_is_said_in_points(tmp_path):
    record = sample(tmp_path)
    gap = record.attack("pgd-100-training-loss").robust_accuracy - record.worst_case_accuracy
    assert overstatement(record) == pytest.approx(gap)
    paper = round(100 * record.attack("pgd-100-training-loss").robust_accuracy, 1)
    points = paper - round(100 * record.worst_case_accuracy, 1)
    assert points > 2
    text = finding(record)
    assert f"overstated by {points:.1f} points, under the attacks tried here." in text
    assert "Of 80 images" in text
    assert "L-inf, eps 8/255" in text
    # The paper's script as published changes other images by other amounts, so it is no reason for the worst case.
    assert "every one of 5 attacks" in text


def test_a_protocol_that_holds_is_not_called_overstated(tmp_path):
    record = sample(tmp_path, leaves=dict.fromkeys(LEAVES, 1.0))
    assert "the worst case lies within 2 points of it." in finding(record)
    assert "overstated" not in finding(record)


def test_without_the_papers_protocol_nothing_is_claimed_about_it(tmp_path):
    record = sample(tmp_path, leaves={key: share for key, share in LEAVES.items() if key[2] == "logits"})
    assert overstatement(record) is None
    assert finding(record).endswith("The paper's protocol was not run.")


def test_text_from_outside_loses_control_characters_and_length():
    assert plain("a\x00b\nc") == "a b c"
    assert plain("abcdefgh", 5) == "abcd…"
    assert plain("abcde", 5) == "abcde"
