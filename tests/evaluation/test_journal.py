"""An evaluation that is killed goes on, and one that is shared is the same: nothing done twice, nothing lost."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from repulse.errors import RepulseError
from repulse.evaluation import load_evaluation
from repulse.evaluation.journal import Journal

SCRIPT = """
import sys, time
from pathlib import Path
import torch
from torch import nn
from repulse.evaluation import EvaluationSettings, evaluate

folder, log, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
x = torch.rand(60, 1, 4, 4)
y = model(x).argmax(1)

def told(stage, done, of):
    with log.open("a") as file:
        file.write(f"{stage} {done}\\n")
    time.sleep(pause)

settings = EvaluationSettings(eps=0.05, steps=(2, 5), curve=(0.02, 0.05), curve_steps=3, batch_size=7, attacks="paper")
evaluate(model, x, y, settings, folder=folder, progress=told)
print("done", flush=True)
"""


def run(arguments, **more):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True, **more)


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def same(first, second):
    (record, outcomes), (other, others) = load_evaluation(first), load_evaluation(second)
    assert record.worst_case_accuracy == other.worst_case_accuracy
    assert record.curve == other.curve
    assert [attack.robust_accuracy for attack in record.attacks] == [a.robust_accuracy for a in other.attacks]
    assert outcomes.keys() == others.keys()
    for name, value in outcomes.items():
        assert torch.equal(value, others[name]), name


@pytest.mark.slow
def test_an_evaluation_killed_again_and_again_ends_as_if_it_had_not_been(script, tmp_path):
    run([script, tmp_path / "whole", tmp_path / "whole.log", "0"]).communicate(timeout=100)
    killed = 0
    for _ in range(10):
        process = run([script, tmp_path / "killed", tmp_path / "killed.log", "0.03"])
        before = len(lines(tmp_path / "killed.log"))
        # Let it do some batches, then kill it wherever it is.
        while process.poll() is None and len(lines(tmp_path / "killed.log")) < before + 20:
            time.sleep(0.01)
        if process.poll() is not None:
            process.communicate()
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += 1
    else:
        raise AssertionError("it never ended")
    assert killed >= 2
    same(tmp_path / "whole", tmp_path / "killed")
    done = lines(tmp_path / "killed.log")
    # A batch is told of after it is kept, so none is told of twice; a kill between the two may lose a line.
    assert len(done) == len(set(done))
    whole = lines(tmp_path / "whole.log")
    assert set(done) <= set(whole)
    assert len(done) >= len(whole) - killed
    assert not (tmp_path / "killed" / "progress").exists()


@pytest.mark.slow
def test_two_processes_share_one_evaluation_and_give_the_record_of_one(script, tmp_path):
    run([script, tmp_path / "alone", tmp_path / "alone.log", "0"]).communicate(timeout=100)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", sys.executable]
    both = run([*launch, script, tmp_path / "both", tmp_path / "both.log", "0.01"], stderr=subprocess.DEVNULL)
    out, _ = both.communicate(timeout=200)
    assert out.count("done") == 2
    same(tmp_path / "alone", tmp_path / "both")
    assert sorted(lines(tmp_path / "both.log")) == sorted(lines(tmp_path / "alone.log"))


def lines(path):
    """What was told, but for the checks: they are cheap, and every process makes them for itself."""
    told = path.read_text().splitlines() if path.is_file() else []
    return [line for line in told if not line.startswith("checks")]


def test_a_journal_remembers_and_makes_only_what_is_missing(tmp_path):
    made = []

    def work(index):
        made.append(index)
        return {"index": torch.tensor([index])}

    first = Journal(tmp_path / "progress", "abc")
    first.each("a stage, 8/255", 3, work)
    (tmp_path / "progress" / "a-stage-8-255-00001.safetensors").unlink()
    again = Journal(tmp_path / "progress", "abc").each("a stage, 8/255", 3, work)
    assert made == [0, 1, 2, 1]
    assert [int(part["index"]) for part in again] == [0, 1, 2]


def test_another_evaluation_does_not_go_on_from_this_one(tmp_path):
    Journal(tmp_path / "progress", "abc").each("stage", 1, lambda index: {"x": torch.zeros(1)})
    made = Journal(tmp_path / "progress", "other").each("stage", 1, lambda index: {"x": torch.ones(1)})
    assert made[0]["x"] == 1


def test_a_finished_journal_leaves_nothing(tmp_path):
    journal = Journal(tmp_path / "progress", "abc")
    journal.each("stage", 1, lambda index: {"x": torch.zeros(1)})
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_several_processes_need_a_folder(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("repulse.evaluation.journal._STORE", (object(), 0, 2))
    with pytest.raises(RepulseError, match=r"^several processes share an evaluation through a folder"):
        Journal(None, "")
