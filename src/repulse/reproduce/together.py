"""One cell on several processes: the commands `train` and `evaluate` under torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from repulse.common.errors import RepulseError
from repulse.config.run import RunConfig, merge, to_yaml
from repulse.config.settings import EvaluationSettings


def train_together(config: RunConfig, folder: Path, processes: int) -> None:
    """Train a run, or go on with it, as `repulse.runs.train_run` does, on so many processes of this machine.

    Raises:
        RepulseError: if a process failed, with what it said last.
    """
    config = merge(config, {"fit": {"devices": str(processes)}}, "together")
    with TemporaryDirectory() as scratch:
        settings = Path(scratch) / "run.yaml"
        settings.write_text(to_yaml(config), encoding="utf-8")
        argv = ["train", "--config", str(settings), "--output", str(folder), "--resume", "--progress", "quiet"]
        _launch(argv, processes)


def evaluate_together(folder: Path, settings: EvaluationSettings, images: int, source: str, processes: int) -> None:
    """Attack a run's model as `repulse.measuring.evaluate_run` does, on so many processes of this machine.

    Raises:
        RepulseError: if a process failed, with what it said last.
    """
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / "evaluation.yaml"
        file.write_text(to_yaml(settings), encoding="utf-8")
        argv = ["evaluate", str(folder), "--config", str(file), "--images", str(images), "--source", source]
        _launch([*argv, "--progress", "quiet"], processes)


def _launch(argv: Sequence[str], processes: int) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*command, "-m", "repulse", *argv],
        capture_output=True,
        text=True,
        check=False,
        env={"OMP_NUM_THREADS": "1", **os.environ},
    )
    if done.returncode:
        # torchrun has much to say itself; what the command said is what helps.
        said = [line for line in done.stderr.splitlines() if line.startswith("repulse: error: ")]
        raise RepulseError(said[0].removeprefix("repulse: error: ") if said else done.stderr.strip()[-2000:])
