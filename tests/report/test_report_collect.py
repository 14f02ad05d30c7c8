import pytest
from report_samples import judged, sample, sample_run

from repulse.common.errors import RepulseError
from repulse.report import write_report
from repulse.report.collect import collect
from repulse.report.group import grouped


def test_runs_evaluations_and_folders_of_runs_are_found_once(tmp_path):
    sample_run(tmp_path / "runs" / "a", model="a")
    sample_run(tmp_path / "runs" / "deep" / "b", model="b")
    sample(tmp_path / "loose", model="loose")
    paths = [tmp_path / "loose", tmp_path / "runs" / "deep" / "b" / "evaluations" / "linf-8_255", tmp_path / "runs"]
    found = collect(paths)
    assert [each.record.model.name for each in found] == ["loose", "b", "a"]
    assert [each.place for each in found] == ["loose", "b/evaluations/linf-8_255", "a/evaluations/linf-8_255"]
    assert found[0].config is None
    assert found[0].metrics is None
    assert found[1].config == "name: <paper>\n"
    assert found[1].metrics["validation_accuracy"] == (None, 0.55)
    assert found[1].environment == {"torch": "2.x"}


def test_a_run_without_evaluations_says_what_to_do(tmp_path):
    (tmp_path / "config.yaml").write_text("name: x\n")
    with pytest.raises(RepulseError) as error:
        collect([tmp_path])
    assert str(error.value) == f"{tmp_path} holds no evaluation: make one with `repulse evaluate RUN`"


def test_a_pattern_may_match_other_things_too(tmp_path):
    sample_run(tmp_path / "run")
    (tmp_path / "notes").mkdir()
    (tmp_path / "README.md").write_text("notes")
    assert len(collect([tmp_path / "notes", tmp_path / "README.md", tmp_path / "run"])) == 1
    with pytest.raises(RepulseError, match="hold no evaluation: make one with"):
        collect([tmp_path / "notes", tmp_path / "README.md"])


def test_an_absent_folder(tmp_path):
    with pytest.raises(RepulseError) as error:
        collect([tmp_path / "nothing"])
    assert str(error.value) == f"no such folder: {tmp_path / 'nothing'}"


def test_an_evaluation_that_was_cut_off_is_passed_over(tmp_path):
    sample_run(tmp_path / "a")
    cut = tmp_path / "a" / "evaluations" / "cut"
    cut.mkdir()
    (cut / "outcomes.safetensors").write_bytes(b"half")
    (cut / ".record.json.tmp").write_text("{")
    assert len(collect([tmp_path / "a"])) == 1


def test_a_damaged_record_is_one_line(tmp_path):
    sample(tmp_path)
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(RepulseError, match="is not a record that this version reads") as error:
        collect([tmp_path])
    assert "\n" not in str(error.value)


def test_records_that_were_kept_small_are_compared_by_themselves(tmp_path):
    for name in "ab":
        judged(tmp_path / name / "evaluations" / "e", model=name)
    (tmp_path / "b" / "evaluations" / "e" / "outcomes.safetensors").unlink()
    whole, small = collect([tmp_path])
    assert small.outcomes == {}
    assert small.record.worst_case_accuracy == whole.record.worst_case_accuracy
    page = write_report([tmp_path], tmp_path / "page.html").html.read_text(encoding="utf-8")
    assert page.count('class="card"') == 2


def test_absent_outcomes_are_an_error(tmp_path):
    sample(tmp_path)
    (tmp_path / "outcomes.safetensors").unlink()
    with pytest.raises(RepulseError, match="no such file"):
        collect([tmp_path])


def test_a_record_must_agree_with_its_outcomes(tmp_path):
    sample(tmp_path, worst_case_accuracy=0.99)
    with pytest.raises(RepulseError, match=r"contradicts itself: its record says 0\.9900 of 80 images") as error:
        collect([tmp_path])
    assert str(error.value).endswith("evaluate the model again")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.csv", "epoch,loss\n1,abc\n", "metrics.csv, line 2: expected a number for 'loss', got 'abc'"),
        ("metrics.csv", "epoch,loss\n1,2\n", "metrics.csv, line 2: expected a number for 'train_accuracy', got None"),
        ("environment.json", "[]", "environment.json is not whole: expected an object"),
    ],
)
def test_damaged_files_of_a_run_are_named(tmp_path, name, text, message):
    sample_run(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(RepulseError) as error:
        collect([tmp_path])
    assert str(error.value) == f"{tmp_path}/{message}"


def test_metrics_without_a_row_are_none(tmp_path):
    sample_run(tmp_path)
    (tmp_path / "metrics.csv").write_text("epoch,loss\n")
    assert collect([tmp_path])[0].metrics is None


def test_only_the_same_images_norm_and_eps_share_a_group(tmp_path):
    sample(tmp_path / "a", model="a")
    sample(tmp_path / "b", model="b", seed=1)
    sample(tmp_path / "eps", eps=0.1)
    sample(tmp_path / "l2", norm="l2", eps=0.5)
    sample(tmp_path / "other", data="fashion")
    sample(tmp_path / "few", count=40)
    groups = grouped(collect([tmp_path / name for name in ("a", "b", "eps", "l2", "other", "few")]))
    assert [len(group.entries) for group in groups] == [2, 1, 1, 1, 1]
    assert [group.title for group in groups] == [
        "digits, test, 80 images, L-inf, eps 8/255",
        "digits, test, 80 images, L-inf, eps 0.1",
        "digits, test, 80 images, L2, eps 0.5",
        "fashion, test, 80 images, L-inf, eps 8/255",
        "digits, test, 40 images, L-inf, eps 8/255",
    ]


def test_runs_are_called_by_their_folders_and_told_apart(tmp_path):
    sample_run(tmp_path / "first", model="paper")
    sample_run(tmp_path / "second", model="paper", seed=1)
    sample_run(tmp_path / "x" / "second", model="paper", seed=2)
    (group,) = grouped(collect([tmp_path]))
    assert [entry.label for entry in group.entries] == ["first", "second #1", "second #2"]
    assert len({entry.anchor for entry in group.entries}) == 3
