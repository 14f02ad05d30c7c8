"""`repulse evaluate`: attack a model, and say which number to quote."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import Field

from repulse.cli.measure import MeasuringCommand, measured_command, of_foreign, of_run
from repulse.cli.options import SettingsCommand
from repulse.evaluation.settings import EvaluationSettings


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
    from repulse.common.progress import progress_bar
    from repulse.measuring import evaluate_foreign, evaluate_run, threat_name
    from repulse.report import markdown_table
    from repulse.runs import is_first_process

    command = measured_command(settings, "evaluate")
    chosen = EvaluationSettings(**{name: getattr(settings, name) for name in EvaluationSettings.model_fields})
    with progress_bar(settings.progress == "rich" and is_first_process()) as progress:
        if settings.run is not None:
            evaluation, place = evaluate_run(
                settings.run, chosen, **of_run(settings), command=command, progress=progress
            )
        else:
            foreign = of_foreign(settings)
            place = settings.output or Path("evaluations") / f"{foreign.name}-{threat_name(chosen)}"
            evaluation = evaluate_foreign(foreign, chosen, output=place, command=command, progress=progress)
    if is_first_process():
        verdict = evaluation.record.verdict
        said = "" if verdict is None else f"\n\nverdict: {verdict.word}. {verdict.summary}"
        click.echo(f"{markdown_table([place])}{said}\n\nrecord: {place}")


command = SettingsCommand(EvaluateCommand, "evaluate", evaluate_command, positional="run")
