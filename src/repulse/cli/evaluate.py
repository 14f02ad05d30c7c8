"""`repulse evaluate`: attack a model, and say which number to quote."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from repulse.cli.measure import MeasuringCommand, open_subject, shown_progress
from repulse.cli.options import SettingsCommand
from repulse.common.environment import is_first_process
from repulse.common.errors import MissedBarError
from repulse.common.units import in_percent
from repulse.evaluation import Record, evaluate_subject
from repulse.evaluation.settings import EvaluationSettings
from repulse.report.printing import print_evaluation
from repulse.subject.targeted import towards


class EvaluateCommand(MeasuringCommand, EvaluationSettings):
    """Attack the model of a run, or any other PyTorch model, and say what holds and which number to quote.

    The paper's protocol, attacks that don't give up, and a verdict: measured, overstated, or only an upper bound. The
    record and the outcome of every image are kept in a folder; an evaluation that was stopped goes on there. The exit
    code is 2 for a mistake, and 3 if the model misses the bar of --fail-under or --fail-on.

    Examples:
      repulse evaluate runs/digits --eps 0.1
      repulse evaluate runs/fashion-paper --eps 8/255 --images 1000 --attacks adaptive
      repulse evaluate --model package.module:factory --weights net.safetensors --data FOLDER --eps 8/255
      torchrun --nproc-per-node 4 -m repulse evaluate runs/mine --norm l2 --eps 0.5
    """

    output: Path | None = Field(None, description="Folder for the record; none: in the run, or evaluations/NAME.")
    target: str | None = Field(None, description="Only this class counts as fooled, by name or number; none: any.")
    fail_under: float | None = Field(None, ge=0, le=1, description="Fail if fewer of the images are robust, in [0, 1].")
    fail_on: tuple[Literal["overstated", "upper-bound"], ...] = Field((), description="Fail on these verdicts.")


def evaluate_command(settings: EvaluateCommand) -> None:
    """Measure a run or a model from outside, print the table and the verdict, and say where the record is."""
    chosen = EvaluationSettings(**{name: getattr(settings, name) for name in EvaluationSettings.model_fields})
    with shown_progress(settings, "evaluating") as progress:
        subject = open_subject(settings, "evaluate", progress)
        subject = subject if settings.target is None else towards(subject, settings.target)
        evaluation = evaluate_subject(subject, chosen, settings.output, stop_if_misused=not settings.anyway)
    if is_first_process():
        assert evaluation.folder is not None, "runs and models from outside have a home"
        print_evaluation(evaluation.folder, settings.format)
    _check_bar(settings, evaluation.record)


def _check_bar(settings: EvaluateCommand, record: Record) -> None:
    """What a continuous integration asks: whether the model is robust enough, and the figure sure.

    Raises:
        MissedBarError: if not.
    """
    robust, bar = record.worst_case_accuracy, settings.fail_under
    if bar is not None and robust < bar:
        raise MissedBarError(f"{in_percent(robust)} of the images are robust, less than the bar of {in_percent(bar)}")
    if record.verdict is not None and record.verdict.word in settings.fail_on:
        raise MissedBarError(f"the verdict is {record.verdict.word!r}, on which this was to fail")


command = SettingsCommand(EvaluateCommand, "evaluate", evaluate_command, positional="run")
