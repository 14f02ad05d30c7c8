"""An evaluation that is killed goes on, and one that is shared is the same: nothing done twice, nothing lost."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from repulse.attacks import OBJECTIVES, PGD, Threat, through_embedding
from repulse.common.errors import RepulseError
from repulse.evaluation import EvaluationSettings, evaluate, load_evaluation
from repulse.subject.identity import Identity, exact_words
from repulse.subject.journal import Journal

ABC, OTHER = Identity({"the weights": "abc"}), Identity({"the weights": "other"})

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
        # What it took differs from run to run; that it is written at all is checked by the names.
        assert name == "seconds" or torch.equal(value, others[name]), name
    assert record.checks == other.checks


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


def lines(path, *, checks=False):
    """What was told; not of the checks unless wanted: every process tells of all of them, whoever measured.

    Nor that a stage begins, which whoever goes on says again.
    """
    told = path.read_text().splitlines() if path.is_file() else []
    told = [line for line in told if not line.endswith(" 0")]
    return [line for line in told if checks or not line.startswith("checks")]


CHECKED = """
import os, signal, sys
from pathlib import Path
import torch
from torch import nn
from repulse.evaluation import EvaluationSettings, evaluate

folder, log, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

class Asked(nn.Linear):
    count = 0

    def forward(self, x):
        Asked.count += len(x)
        return super().forward(x.flatten(1))

torch.manual_seed(0)
model = Asked(16, 3)
x = torch.rand(60, 1, 4, 4)
y = model(x).argmax(1)
Asked.count = 0

def told(stage, done, of):
    with log.open("a") as file:
        file.write(f"{stage},{done},{Asked.count}\\n")
    if stage == "checks" and done == last > 0:
        os.kill(os.getpid(), signal.SIGKILL)

settings = EvaluationSettings(eps=0.05, steps=(2,), curve=(), batch_size=7, attacks="paper")
evaluate(model, x, y, settings, folder=folder, progress=told)
"""


def asked(log):
    """How often the model had been asked when each stage was told of last."""
    told = (line.rsplit(",", 2) for line in lines(log, checks=True))
    return {(stage, int(done)): int(count) for stage, done, count in told}


def test_checks_that_are_done_are_not_done_again_after_a_kill(tmp_path):
    """Killed after every few checks, it asks the model no more often for all of them than in one go."""
    script = tmp_path / "script.py"
    script.write_text(CHECKED)
    run([script, tmp_path / "whole", tmp_path / "whole.log", "0"]).communicate(timeout=100)
    whole = asked(tmp_path / "whole.log")
    number = max(done for stage, done in whole if stage == "checks")
    for last in (6, 12, 0):
        log = tmp_path / f"killed-{last}.log"
        process = run([script, tmp_path / "killed", log, str(last)])
        process.communicate(timeout=100)
        assert process.returncode == (0 if last == 0 else -signal.SIGKILL)
    same(tmp_path / "whole", tmp_path / "killed")

    first, second, third = (asked(tmp_path / f"killed-{last}.log") for last in (6, 12, 0))
    assert first["checks", 6] == whole["checks", 6]
    # The clean images are asked about anew, and nothing of what is kept is asked again: not the attacks, nor how the
    # model is used, nor the checks before the kill.
    opened = third["checks", 1]
    assert second["checks", 1] == second["checks", 6] == opened == third["checks", 12]
    assert opened < whole["checks", 1] / 4
    again = second["checks", 12] - opened + third["checks", number] - opened
    assert again == whole["checks", number] - whole["checks", 6] > 0


def test_a_text_is_written_once(tmp_path):
    written = []

    def write():
        written.append(1)
        return "größer als 8/255 ✓"

    texts = [Journal(tmp_path / "progress", ABC).text("a stage", write) for _ in range(2)]
    assert texts == ["größer als 8/255 ✓"] * 2
    assert len(written) == 1


def test_batches_kept_in_another_form_are_not_read(tmp_path, monkeypatch, capsys):
    Journal(tmp_path / "progress", ABC).each("stage", 1, lambda index: {"x": torch.zeros(1)})
    monkeypatch.setattr("repulse.subject.journal._FORMAT", 1000)
    journal = Journal(tmp_path / "progress", ABC)
    assert "(the form of what is kept changed)" in capsys.readouterr().err
    made = journal.each("stage", 1, lambda index: {"x": torch.ones(1)})
    assert made[0]["x"] == 1


def test_a_journal_remembers_and_makes_only_what_is_missing(tmp_path):
    made = []

    def work(index):
        made.append(index)
        return {"index": torch.tensor([index])}

    first = Journal(tmp_path / "progress", ABC)
    first.each("a stage, 8/255", 3, work)
    (second,) = (tmp_path / "progress").glob("a-stage-8-255-*-00001.safetensors")
    second.unlink()
    again = Journal(tmp_path / "progress", ABC).each("a stage, 8/255", 3, work)
    assert made == [0, 1, 2, 1]
    assert [int(part["index"]) for part in again] == [0, 1, 2]


def test_an_evaluation_killed_after_its_record_was_written_finds_its_own(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x = torch.rand(6, 1, 4, 4)
    y = model(x).argmax(1)
    settings = EvaluationSettings(eps=0.05, attacks="paper", steps=(2,), curve=())

    def killed(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "close", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(model, x, y, settings, folder=tmp_path / "here")
    assert (tmp_path / "here" / "record.json").is_file()
    record = evaluate(model, x, y, settings, folder=tmp_path / "here").record
    assert not (tmp_path / "here" / "progress").exists()
    again = evaluate(model, x, y, settings, folder=tmp_path / "here").record
    assert again == record
    with pytest.raises(RepulseError, match="holds another measurement"):
        evaluate(model, x, y, settings.model_copy(update={"eps": 0.06}), folder=tmp_path / "here")


def test_another_evaluation_does_not_go_on_from_this_one(tmp_path, capsys):
    Journal(tmp_path / "progress", ABC).each("stage", 1, lambda index: {"x": torch.zeros(1)})
    journal = Journal(tmp_path / "progress", OTHER)
    assert "(the weights changed): starting anew" in capsys.readouterr().err
    made = journal.each("stage", 1, lambda index: {"x": torch.ones(1)})
    assert made[0]["x"] == 1


def test_a_finished_journal_leaves_nothing_but_its_identity(tmp_path):
    journal = Journal(tmp_path / "progress", ABC)
    journal.each("stage", 1, lambda index: {"x": torch.zeros(1)})
    journal.close()
    assert [path.name for path in tmp_path.iterdir()] == ["identity.safetensors"]


def test_several_processes_need_a_folder(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("repulse.subject.journal._STORE", (object(), 0, 2))
    with pytest.raises(RepulseError, match=r"^several processes share an evaluation through a folder"):
        Journal(None).each("stage", 1, lambda index: {"x": torch.zeros(1)})


def test_a_key_that_is_used_twice_is_an_error():
    """Two things would be taken for one."""
    journal = Journal(None)
    journal.each("curve", 1, lambda index: {"x": torch.zeros(1)}, key="eps=1e-05")
    journal.each("curve", 1, lambda index: {"x": torch.ones(1)}, key="eps=2e-05")
    with pytest.raises(ValueError, match="the same key: curve: eps=1e-05"):
        journal.each("curve", 1, lambda index: {"x": torch.zeros(1)}, key="eps=1e-05")


def test_exact_words_tell_apart_all_that_decides():
    """Objectives that are closures of one function, radii that agree to many digits, losses by their parameter."""

    def loss(weight):
        return lambda z, y: weight * z[:, 0]

    attacks = [
        PGD(OBJECTIVES["margin"]),
        PGD(OBJECTIVES["cross-entropy"]),
        PGD(OBJECTIVES["margin"], random_start=True),
        PGD(through_embedding(loss(1.0))),
        PGD(through_embedding(loss(2.0))),
    ]
    words = {exact_words((attack, Threat("linf", eps))) for attack in attacks for eps in (0.1, 0.1 + 1e-12)}
    assert len(words) == 10
    assert exact_words(PGD(OBJECTIVES["margin"])) == exact_words(PGD(OBJECTIVES["margin"]))


def test_radii_that_agree_to_four_digits_are_different_radii(tmp_path):
    """A linear model of two classes: an image is robust at eps where its margin is more than eps * |w|_1."""
    layer = nn.Linear(4, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
    model = nn.Sequential(nn.Flatten(), Shifted(0.5), layer).eval()
    x = torch.full((30, 1, 2, 2), 0.5)
    # The distance to the boundary of image i is (i + 1/2) * 2e-6.
    x[:, 0, 0, 0] += (torch.arange(30) + 0.5) * 2e-6
    radii = (1e-5, 2e-5, 4e-5)
    settings = EvaluationSettings(eps=1e-5, steps=(5,), curve=radii, curve_steps=10, attacks="paper")
    curve = evaluate(model, x, torch.zeros(30, dtype=torch.int64), settings, folder=tmp_path).record.curve
    assert [point.robust_accuracy["worst case"] for point in curve] == pytest.approx([25 / 30, 20 / 30, 10 / 30])
    for name in ("training loss", "cross-entropy", "margin"):
        assert [point.robust_accuracy[name] for point in curve] == pytest.approx([25 / 30, 20 / 30, 10 / 30])


class Shifted(nn.Module):
    """Subtracts a plain attribute, which no state dict holds."""

    def __init__(self, mean):
        super().__init__()
        self.mean = mean

    def forward(self, x):
        return x - self.mean


class Embedded(nn.Module):
    """A model with an embedding, for training losses."""

    def __init__(self, mean=0.5):
        super().__init__()
        self.body = nn.Sequential(Shifted(mean), nn.Flatten())

    def embed(self, x):
        return self.body(x)

    def classify(self, z):
        return torch.stack([z[:, 0], -z[:, 0]], 1) * 10

    def forward(self, x):
        return self.classify(self.embed(x))


class StoppedError(Exception):
    """The evaluation was interrupted."""


IMAGES = 0.5 + 0.5 * torch.rand(40, 1, 2, 2, generator=torch.Generator().manual_seed(0))
SETTINGS = EvaluationSettings(eps=0.2, steps=(5,), curve=(), attacks="paper", batch_size=10)


def interrupted(folder, model, loss=None, stages=2):
    """Evaluate, and stop after so many stages of attacks."""
    seen = set()

    def stop(stage, done, of):
        seen.add(stage)
        if len(seen) > stages:
            raise StoppedError

    with pytest.raises(StoppedError):
        evaluate(model, IMAGES, torch.zeros(40).long(), SETTINGS, training_loss=loss, folder=folder, progress=stop)


def outcomes(model, loss=None, folder=None):
    record = evaluate(model, IMAGES, torch.zeros(40).long(), SETTINGS, training_loss=loss, folder=folder).record
    return record.worst_case_accuracy, [attack.robust_accuracy for attack in record.attacks]


def test_an_evaluation_does_not_go_on_with_another_training_loss(tmp_path, capsys):
    def useless(z, y):
        return 0 * z[:, 0]

    def honest(z, y):
        return -z[:, 0]

    interrupted(tmp_path, Embedded(), useless, stages=3)
    found = outcomes(Embedded(), honest, tmp_path)
    assert "(the training loss changed)" in capsys.readouterr().err
    assert found == outcomes(Embedded(), honest)
    assert found != outcomes(Embedded(), useless)


@pytest.mark.parametrize("change", ["attribute", "buffer"])
def test_an_evaluation_does_not_go_on_with_a_model_that_computes_something_else(tmp_path, change, capsys):
    """The state dicts are equal: what changed is a plain attribute, or a buffer that is not kept with the weights."""
    first, second = Embedded(0.5), Embedded(0.2)
    if change == "buffer":
        for model in (first, second):
            mean = model.body[0].mean
            del model.body[0].mean
            model.body[0].register_buffer("mean", torch.tensor(mean), persistent=False)
    interrupted(tmp_path, first)
    found = outcomes(second, folder=tmp_path)
    assert "(the model's answers changed)" in capsys.readouterr().err
    assert found == outcomes(second)
    assert found != outcomes(first)


def test_rounding_is_no_change():
    """Answers of another batch size or thread count differ in the last digits; no digit is near a boundary here."""
    answers = {"the model's answers": torch.randn(64, 10, generator=torch.Generator().manual_seed(1))}
    identity = Identity({}, answers)
    near = {name: value + 1e-5 * torch.randn_like(value) for name, value in answers.items()}
    far = {name: value * 1.01 for name, value in answers.items()}
    assert identity.differences({}, near) == []
    assert identity.differences({}, far) == ["the model's answers"]
