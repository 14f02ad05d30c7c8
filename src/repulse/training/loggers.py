"""Where metrics go beside the run folder: to TensorBoard if it is there, to Weights & Biases if asked."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from repulse.common.errors import RepulseError, one_line
from repulse.common.files import write_atomically

Logger = Callable[[Mapping[str, float], int], None]
"""`(metrics, epoch)`: told after each epoch."""


def loggers(folder: Path, upto: int, project: str | None, name: str, settings: Mapping[str, Any]) -> list[Logger]:
    """Those that a run has.

    Args:
        folder: of the run.
        upto: epochs that are done.
        project: of Weights & Biases; None: nothing is sent anywhere.
        name: of the run.
        settings: its configuration, for Weights & Biases.

    Raises:
        RepulseError: if Weights & Biases is asked for and not installed, or refuses.
    """
    found = []
    if importlib.util.find_spec("tensorboard") is not None:
        found.append(_tensorboard(folder, upto))
    if project is not None:
        found.append(_wandb(folder, project, name, settings))
    return found


def _tensorboard(folder: Path, upto: int) -> Logger:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(folder / "tensorboard", purge_step=upto + 1)

    def log(metrics: Mapping[str, float], epoch: int) -> None:
        for key, value in metrics.items():
            writer.add_scalar(key, value, epoch)
        writer.flush()

    return log


def _wandb(folder: Path, project: str, name: str, settings: Mapping[str, Any]) -> Logger:
    try:
        import wandb
    except ImportError as error:
        raise RepulseError("fit.wandb needs Weights & Biases: pip install 'repulse[wandb]'") from error
    try:
        # The same name in the same folder is the same run, so that one that was stopped goes on there.
        run = wandb.init(
            project=project, name=name, dir=str(folder), config=dict(settings), id=_id(folder), resume="allow"
        )
    except Exception as error:  # Whatever it raises without a network or an account.
        raise RepulseError(
            f"Weights & Biases cannot log ({one_line(error)}); WANDB_MODE=offline keeps it here"
        ) from error

    def log(metrics: Mapping[str, float], epoch: int) -> None:
        run.log(dict(metrics), step=epoch)

    return log


def _id(folder: Path) -> str:
    """A name for the run that stays the same when it is taken up again."""
    file = folder / "wandb-id.txt"
    if not file.is_file():
        import secrets

        write_atomically(file, secrets.token_hex(4) + "\n")
    return file.read_text(encoding="utf-8").strip()
