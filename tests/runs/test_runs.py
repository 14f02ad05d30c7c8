"""A run folder through its whole life, by the command line, as a user would."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from repulse.cli import main
from repulse.run_folder import load_run
from repulse.training import read_metrics

SMALL = ["--data.train-images", "300", "--fit.batch-size", "50", "--fit.accelerator", "cpu", "--model.width", "0.25"]


def train(folder, *flags):
    return main(["train", "--output", str(folder), "--progress", "quiet", *SMALL, *flags])


def weights(folder, name="last"):
    return load_file(folder / "checkpoints" / f"{name}.safetensors")


def assert_same_weights(a, b):
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert train(folder, "--fit.epochs", "3", "--name", "ours") == 0
    return folder


def test_a_run_folder_holds_all_that_is_needed_to_repeat_it(whole):
    names = {"config.yaml", "environment.json", "prototypes.safetensors", "classes.json", "metrics.csv"}
    assert names <= {path.name for path in whole.iterdir()}
    rows = read_metrics(whole)
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert rows[-1].loss < rows[0].loss


def test_its_own_configuration_repeats_it(whole, tmp_path):
    assert (
        main(["train", "--config", str(whole / "config.yaml"), "--output", str(tmp_path / "b"), "--progress", "quiet"])
        == 0
    )
    assert_same_weights(whole, tmp_path / "b")


def test_the_model_comes_back_as_it_was(whole):
    model, config, classes = load_run(whole)
    assert config.name == "ours"
    assert classes.names == tuple("0123456789")
    assert not model.training
    x = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(model(x), model.classify(model.embed(x)))
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in weights(whole).items()
    }


def test_best_is_the_epoch_of_best_validation_accuracy(whole):
    from repulse.common.files import load_tensors

    best = max(read_metrics(whole), key=lambda row: row.validation_accuracy)
    assert load_tensors(whole / "checkpoints" / "best.safetensors")[1]["epoch"] == str(best.epoch)


def test_an_existing_run_is_not_overwritten(whole, capsys):
    before = (whole / "metrics.csv").read_bytes()
    assert train(whole, "--fit.epochs", "3") == 2
    assert "holds a run already; go on with it by --resume" in capsys.readouterr().err
    assert (whole / "metrics.csv").read_bytes() == before


def test_resuming_with_other_settings_is_refused_by_name(whole, capsys):
    # More epochs extend a run; everything else that decides its weights must stay.
    assert main(["train", "--output", str(whole), "--resume", "--fit.batch-size", "32", "--progress", "quiet"]) == 2
    assert "with other settings (fit.batch_size)" in capsys.readouterr().err


def test_resuming_a_finished_run_changes_nothing(whole):
    before = weights(whole)
    assert main(["train", "--output", str(whole), "--resume", "--progress", "quiet"]) == 0
    for name, value in weights(whole).items():
        assert torch.equal(value, before[name])


@pytest.mark.slow
@pytest.mark.parametrize("extra", [[], ["--fit.averaging.name", "ema"]])
def test_kill_9_loses_at_most_the_current_epoch(tmp_path, extra):
    """Killed at whatever moment, a run that is resumed ends at the weights of one that was left alone, bit for bit."""
    flags = [*SMALL, "--fit.epochs", "6", "--progress", "quiet", *extra]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(folder, *more):
        command = [sys.executable, "-m", "repulse", "train", "--output", str(folder), *flags, *more]
        return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "alone").wait() == 0
    killed = tmp_path / "killed"
    process = start(killed)
    deadline = time.monotonic() + 120
    while not (killed / "checkpoints" / "state.safetensors").is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() in (-signal.SIGKILL, 0)
    assert start(killed, "--resume").wait() == 0
    assert_same_weights(tmp_path / "alone", killed)
    assert [row.epoch for row in read_metrics(killed)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_can_go_on(tmp_path):
    command = [
        sys.executable,
        "-m",
        "repulse",
        "train",
        "--output",
        str(tmp_path / "run"),
        *SMALL,
        "--progress",
        "json",
    ]
    process = subprocess.Popen(
        [*command, "--fit.epochs", "500"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background makes its children deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    first = json.loads(process.stdout.readline())
    assert first["epoch"] == 1
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with --resume" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path):
    """DDP over gloo: the same images, so the same weights but for the order of floating-point sums.

    A network without batch norm, whose statistics DDP keeps per process, and training without random starts, which each
    process draws for itself. Tolerance 1e-4 relative, 1e-5 absolute, after 12 steps in float32.
    """
    network = tmp_path / "net.py"
    network.write_text(
        "import sys\n"
        "from torch import nn\n"
        "from repulse.models import BACKBONES\n"
        "@BACKBONES.register('plain')\n"
        "def plain(channels, dimension, width):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, dimension))\n"
        "from repulse.cli import main\n"
        "sys.exit(main())\n"
    )
    flags = ["--data.train-images", "300", "--fit.batch-size", "75", "--fit.epochs", "3", "--model.backbone", "plain"]
    flags += ["--preset", "simplex"]
    flags += ["--fit.accelerator", "cpu", "--fit.optimiser.learning-rate", "0.05", "--progress", "quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    one = [sys.executable, str(network), "train", "--output", str(tmp_path / "one"), *flags]
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(network)]
    two += ["train", "--output", str(tmp_path / "two"), *flags]
    for command in (one, two):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5, msg=name)
    losses = [[row.loss for row in read_metrics(tmp_path / run)] for run in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
