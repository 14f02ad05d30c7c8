import json
import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from report_samples import judged, sample

from repulse.attacks import Threat
from repulse.common.files import load_tensors, save_tensors
from repulse.common.units import in_255ths
from repulse.evaluation.record import OUTCOMES_FILE, save_evaluation
from repulse.report import write_report
from repulse.report.answers import card
from repulse.report.collect import collect
from repulse.report.group import grouped
from repulse.report.pooled import radii, surviving
from repulse.report.sections.curve import curve, curve_of_many, curve_of_one
from repulse.report.sections.slices import first_fooled, slice_pictures
from repulse.report.tables import comparison, leaderboard
from repulse.report.words import percent

EPS = 8 / 255


def entries(folder):
    (group,) = grouped(collect([folder]))
    return group.entries


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.25, 0.5, 1.0, math.inf]), min_size=1, max_size=12),
    st.lists(st.floats(0, 2), min_size=1, max_size=6),
)
def test_the_curve_counts_images_beyond_each_eps(distances, eps):
    threat = Threat("linf", 0.3)
    expected = [
        sum(d > (e + threat.tolerance if e else 0) for d in torch.tensor(distances).double().tolist()) / len(distances)
        for e in eps
    ]
    assert surviving(torch.tensor(distances), eps, threat) == pytest.approx(expected)


def test_an_image_fooled_on_the_edge_of_the_ball_is_fooled_there(tmp_path):
    # Rounding puts images that an attack pushed to the edge a hair outside.
    edge = torch.nextafter(torch.tensor([EPS]), torch.tensor([1.0]))
    assert surviving(edge, [EPS, 0.9 * EPS], Threat("linf", EPS)) == (0.0, 1.0)


def test_the_curve_meets_natural_and_robust_accuracy_of_the_record(tmp_path):
    record = judged(tmp_path)
    (entry,) = entries(tmp_path)
    natural, robust = entry.pool.curve([0.0, EPS])
    assert natural == pytest.approx(record.natural_accuracy)
    assert robust == pytest.approx(record.worst_case_accuracy)
    grid = entry.pool.grid()
    accuracy = entry.pool.curve(grid)
    assert list(accuracy) == sorted(accuracy, reverse=True)
    assert grid[0] == 0
    assert grid[-1] == pytest.approx(16 / 255)
    smallest = entry.measured.outcomes["smallest"]
    finite = sorted(smallest[smallest > 0].tolist())
    assert f"fooled within {finite[(len(finite) - 1) // 2]:.3g}." in entry.pool.half


def test_a_model_that_nothing_fools_is_said_to_be_one(tmp_path):
    judged(tmp_path)
    tensors = load_tensors(tmp_path / OUTCOMES_FILE)[0]
    save_tensors(tmp_path / OUTCOMES_FILE, tensors | {"smallest": torch.full((80,), math.inf)})
    assert entries(tmp_path)[0].pool.half.endswith("none was found.")
    save_tensors(tmp_path / OUTCOMES_FILE, tensors | {"smallest": torch.zeros(80)})
    assert entries(tmp_path)[0].pool.half == ""


def test_the_table_beside_the_curve_has_the_same_values(tmp_path):
    judged(tmp_path)
    (entry,) = entries(tmp_path)
    table = curve(entry)
    assert table.head[-1] == "worst case"
    expected = entry.pool.curve([0.0, EPS, 2 * EPS])
    assert [row[-1].text for row in table.rows] == [percent(share) for share in expected]


def drawn(picture, name):
    """The points of a line of a picture, as the page tells them: `{x: y}`."""
    (series,) = [each for each in picture.series if each.name == name]
    return {float(x): float(y) for x, y in (text.split(": ") for _, _, text in series.points)}


@pytest.fixture
def two_radii(tmp_path):
    """One model at two radii: the larger one found less at the smaller, and the smaller one knows nothing of that."""
    count = 40
    natural = torch.zeros(count)
    natural[4:] = 1
    for name, eps, smallest in (
        ("small", EPS, torch.tensor([0.0] * 4 + [0.01] * 20 + [math.inf] * 16)),
        ("large", 2 * EPS, torch.tensor([0.0] * 4 + [0.05] * 20 + [0.02] * 8 + [math.inf] * 8)),
    ):
        folder = tmp_path / "run" / "evaluations" / name
        robust = (smallest > eps).to(torch.uint8)
        share = robust.double().mean().item()
        record = sample(folder, eps=eps, count=count, curve=(), leaves={}, natural_accuracy=0.9)
        tensors = load_tensors(folder / OUTCOMES_FILE)[0]
        tensors |= {"smallest": smallest.float(), "robust/worst-case": robust}
        save_evaluation(folder, record.model_copy(update={"worst_case_accuracy": share}), tensors)
    return tmp_path / "run"


def test_worst_case_pools_everything_found_at_or_inside_a_radius(two_radii):
    small, large = (entry for group in grouped(collect([two_radii])) for entry in group.entries)
    if small.record.eps > large.record.eps:
        small, large = large, small
    # Alone: 16 of 40 at the small radius; with what the other found inside it, 8 of them go.
    assert small.record.worst_case_accuracy == pytest.approx(16 / 40)
    assert small.robust == pytest.approx(8 / 40)
    assert large.record.worst_case_accuracy == pytest.approx(8 / 40)
    assert large.robust == pytest.approx(8 / 40)


def test_picture_table_card_and_json_tell_the_same(two_radii):
    files = write_report([two_radii], two_radii.parent / "r.html")
    numbers = json.loads(files.json.read_text())
    for group in grouped(collect([two_radii])):
        (entry,) = group.entries
        told = percent(entry.robust)
        assert card(entry).figure == told
        assert leaderboard(group.entries).rows[0][1].text == told
        assert comparison(group.entries).rows[0][-1].text == told
        rows = {row[0].text: row[-1].text for row in curve(entry).rows}
        assert rows[in_255ths(entry.record.eps)] == told
        for picture, name in ((curve_of_one(entry), "worst case"), (curve_of_many([entry], "x"), entry.label)):
            line = drawn(picture, name)
            before = max(x for x in line if x <= 255 * entry.record.eps * (1 + 1e-4))
            assert line[before] == pytest.approx(100 * entry.robust, abs=0.06)
    found = [each for group in numbers["groups"] for each in group["evaluations"]]
    assert [each["number_to_quote"] for each in found] == [pytest.approx(0.2), pytest.approx(0.2)]


def test_smallest_perturbations_alone_are_a_curve(tmp_path):
    judged(tmp_path, curve=())
    (entry,) = entries(tmp_path)
    table = curve(entry)
    assert table.head == ("eps", "worst case")
    assert [row[0].text for row in table.rows][:3] == ["0", "2/255", "4/255"]
    assert radii(entry.measured)[-1] == pytest.approx(16 / 255)
    picture = curve_of_one(entry)
    # The axis is in grey levels, as the eps is a whole number of them.
    assert "in 1/255" in picture.svg
    assert percent(entry.record.worst_case_accuracy) in picture.svg.split("aria-label=")[1].split(">")[0]


def test_no_curve_and_no_smallest_perturbation_is_no_picture(tmp_path):
    sample(tmp_path, curve=())
    (entry,) = entries(tmp_path)
    assert curve_of_one(entry) is None
    assert curve_of_many([entry], "x") is None
    assert curve(entry) is None


def test_models_with_and_without_smallest_perturbations_share_a_picture(tmp_path):
    judged(tmp_path / "a", model="a")
    judged(tmp_path / "b", model="b", seed=1, curve=())
    sample(tmp_path / "old", model="old", seed=2)
    caption = curve_of_many(entries(tmp_path), "x").caption
    assert "Solid: worst case, nothing ever found" in caption
    assert "Dashed" in caption


def test_a_map_says_where_the_answer_changes_and_draws_the_border_there(tmp_path):
    judged(tmp_path)
    (entry,) = entries(tmp_path)
    fooled, right = slice_pictures(entry)
    # The margin is x - 0.3 y - 0.6 eps on a grid of steps of 4/255: the first positive x is 8/255.
    assert fooled.caption.endswith("fooled along the attack from 8/255 on.")
    assert right.caption.endswith("right along the attack up to 16/255.")
    assert ">fooled</text>" in fooled.svg
    assert ">right</text>" in fooled.svg
    assert ">fooled</text>" not in right.svg
    assert "along the attack, 1/255" in fooled.svg
    index = entry.measured.outcomes["slice/index"].tolist()
    assert [picture.caption.split(",")[0] for picture in (fooled, right)] == [f"Image {i}" for i in index]
    # The border is there once, and only where both signs are.
    assert len(re.findall("QuadContourSet", fooled.svg)) == 1
    assert "QuadContourSet" not in right.svg


def test_the_first_fooled_coordinate_looks_from_the_clean_image_towards_the_attack():
    axis = torch.linspace(-2, 2, 5)
    margin = torch.full((5, 5), -1.0)
    margin[2] = torch.tensor([1.0, -1.0, -1.0, -0.5, 0.1])
    assert first_fooled(axis, margin) == 2.0
    margin[2, 4] = 0
    assert first_fooled(axis, margin) is None


@pytest.mark.parametrize("value", [0.0, -3.0, math.nan])
def test_a_flat_map_is_called_flat(tmp_path, value):
    judged(tmp_path, norm="l2", eps=0.5)
    tensors = load_tensors(tmp_path / OUTCOMES_FILE)[0]
    tensors["slice/margin"] = torch.full_like(tensors["slice/margin"], value)
    save_tensors(tmp_path / OUTCOMES_FILE, tensors)
    picture = slice_pictures(entries(tmp_path)[0])[0]
    assert "The margin is the same everywhere" in picture.caption
    assert "L2 distance" in picture.svg
