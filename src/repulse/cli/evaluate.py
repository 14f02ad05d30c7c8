"""`repulse evaluate`: attack a model, and say which number to quote."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import Field

from repulse.cli.measure import MeasuringCommand, open_subject, shown_progress
from repulse.cli.options import SettingsCommand
from repulse.common.environment import is_first_process
from repulse.evaluation import evaluate_subject
from repulse.evaluation.settings import EvaluationSettings
from repulse.report import markdown_table


class EvaluateCommand(MeasuringCommand, EvaluationSettings):
    """Attack the model of a run, or any other PyTorch model, and say what holds and which number to quote.

    The paper's protocol, attacks that don't give up, and a verdict: measured, overstated, or only an upper bound. The
    record and the outcome of every image are kept in a folder; an evaluation that was stopped goes on there.

    Examples:
      repulse evaluate runs/digits --eps 0.1
      repulse evaluate runs/fashion-paper --eps 8/255 --images 1000 --attacks adaptive
      repulse evaluate --model package.module:factory --weights net.safetensors --data FOLDER --eps 8/255
      torchrun --nproc-per-node 4 -m repulse evaluate runs/mine --norm l2 --eps 0.5
    """

    output: Path | None = Field(None, description="Folder for the record; none: in the run, or evaluations/NAME.")


def evaluate_command(settings: EvaluateCommand) -> None:
    """Measure a run or a model from outside, print the table and the verdict, and say where the record is."""
    chosen = EvaluationSettings(**{name: getattr(settings, name) for name in EvaluationSettings.model_fields})
    with shown_progress(settings) as progress:
        evaluation = evaluate_subject(open_subject(settings, "evaluate", progress), chosen, settings.output)
    if is_first_process():
        verdict, place = evaluation.record.verdict, evaluation.folder
        assert place is not None, "runs and models from outside have a home"
        said = "" if verdict is None else f"\n\nverdict: {verdict.word}. {verdict.summary}"
        click.echo(f"{markdown_table([place])}{said}\n\nrecord: {place}")


command = SettingsCommand(EvaluateCommand, "evaluate", evaluate_command, positional="run")
