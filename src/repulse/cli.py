"""The command line: parse, call, print."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import click
from pydantic import Field
from rich.console import Console
from rich.table import Table

from repulse.config import CONFIG_FILE, RunConfig, read_config
from repulse.errors import RepulseError
from repulse.options import settings_command
from repulse.presets import PRESETS, preset
from repulse.settings import EvaluationSettings, Settings
from repulse.version import __version__


class PrototypesCommand(Settings):
    """Partition the output space: make class prototypes, and say how far apart they are.

    Beside each measure of separation stands the best that is possible, or the best bound that is known, for that many
    classes in that many dimensions.

    Examples:
      repulse prototypes --classes 100 --dimension 64
      repulse prototypes --classes 10 --dimension 100 --method repulsive-linf --output paper.safetensors
      repulse prototypes --file paper.safetensors
    """

    classes: int | None = Field(None, ge=2, description="n, the number of classes.")
    dimension: int | None = Field(None, ge=1, description="d, the dimension; none: the number of classes.")
    method: str = Field("auto", description="Name of a method; a wrong one lists them all.")
    seed: int = Field(0, ge=0, description="Seed of a random start.")
    steps: int | None = Field(None, ge=1, description="Steps of an iterative method; none: its default.")
    file: Path | None = Field(None, description="Measure the prototypes in this safetensors file instead.")
    output: Path | None = Field(None, description="Write the prototypes to this safetensors file.")


class TrainCommand(RunConfig):
    """Train a classifier on class prototypes, and keep everything needed to repeat it in one folder.

    Settings come in layers: a preset, then the YAML file, then the flags. The folder holds the resolved configuration,
    the environment, the prototypes, one row of metrics per epoch, and checkpoints.

    Examples:
      repulse train --output runs/digits
      repulse train --preset paper --data.source PATH/fashion-mnist --output runs/fashion-paper
      repulse train --config my.yaml --fit.epochs 20 --output runs/mine
      repulse train --output runs/mine --resume
    """

    output: Path = Field(description="The run folder.")
    preset: str | None = Field(None, description=f"Start from a named configuration: {', '.join(PRESETS)}.")
    resume: bool = Field(False, description="Go on with the run in the folder, with its own settings.")
    progress: Literal["rich", "json", "quiet"] = Field(
        "rich", description="A progress bar, a JSON line per epoch, or nothing."
    )


class EvaluateCommand(EvaluationSettings):
    """Attack the model of a run, or any other PyTorch model, and say what holds and which number to quote.

    The paper's protocol, attacks that don't give up, and a verdict: believable, overstated, or not established. The
    record and the outcome of every image are kept in a folder; an evaluation that was stopped goes on there.

    Examples:
      repulse evaluate runs/digits --eps 0.1
      repulse evaluate runs/fashion-paper --eps 8/255 --images 1000 --attacks adaptive
      repulse evaluate --model package.module:factory --weights net.safetensors --data FOLDER --eps 8/255
      torchrun --nproc-per-node 4 -m repulse evaluate runs/mine --norm l2 --eps 0.5
    """

    run: Path | None = Field(None, description="The run folder.")
    checkpoint: Literal["last", "best"] = Field("last", description="Weights of the last epoch, or of the best.")
    images: int | None = Field(None, ge=1, description="How many test images, classes balanced; none: all.")
    source: str | None = Field(None, description="Where the data lies now; none: where the run found it.")
    model: str | None = Field(None, description="From outside: module:factory, file.py:factory, timm/NAME, a file.")
    weights: Path | None = Field(None, description="Its weights: .safetensors, or a .pt state dict.")
    data: str | None = Field(None, description="Its images: 'digits', a folder of parquet files or images, a Hub id.")
    split: str | None = Field(None, description="Split to measure on; none: found by itself.")
    image_column: str | None = Field(None, description="Column of the images; none: found by itself.")
    label_column: str | None = Field(None, description="Column of the labels; none: found by itself.")
    image_size: int | None = Field(None, ge=1, description="Resize and crop to this side; none: as they are.")
    channels: Literal[1, 3] | None = Field(None, description="Grey or colour; none: as they are.")
    class_names: tuple[str, ...] | None = Field(None, description="Names of the classes; none: from the data.")
    mean: tuple[float, ...] | None = Field(None, description="Mean that the model wants subtracted; none: pixels.")
    std: tuple[float, ...] | None = Field(None, description="Deviation that it wants pixels divided by.")
    output: Path | None = Field(None, description="Folder for the record; none: in the run, or evaluations/NAME.")
    device: str = Field("auto", description="cpu, cuda or auto.")
    progress: Literal["rich", "quiet"] = Field("rich", description="A progress bar, or nothing.")


class ReportCommand(Settings):
    """Write one self-contained HTML page, and the same figures as Markdown and JSON, for one run or for several.

    Examples:
      repulse report runs/digits
      repulse report runs/fashion-paper runs/fashion-softmax --output fashion.html
    """

    runs: tuple[Path, ...] = Field((), description="Run folders, evaluation folders, or folders that hold some.")
    output: Path = Field(Path("report.html"), description="The page; the other files take its name.")
    title: str | None = Field(None, description="Title of the page.")


class DemoCommand(Settings):
    """Train, attack and report on the embedded handwritten digits: the whole story in about a minute.

    Examples:
      repulse demo
      repulse demo --output runs/demo
    """

    output: Path = Field(Path("runs/demo"), description="Folder for the runs and the report.")
    images: int = Field(200, ge=10, description="How many test images to attack.")
    progress: Literal["rich", "json", "quiet"] = Field("rich", description="How much to print.")


def prototypes_command(settings: PrototypesCommand) -> None:
    """Make or load prototypes, print their separation, and write them if asked to."""
    from repulse.prototypes import Prototypes, make_prototypes, measure

    if settings.file is not None:
        prototypes = Prototypes.load(settings.file)
    elif settings.classes is not None:
        prototypes = make_prototypes(
            settings.method,
            settings.classes,
            settings.dimension or settings.classes,
            seed=settings.seed,
            steps=settings.steps,
        )
    else:
        raise RepulseError("give the number of classes (--classes 10), or a file of prototypes (--file PATH)")
    chosen = prototypes.provenance.get("chosen")
    method = prototypes.method if chosen is None else f"{prototypes.method}, which took {chosen}"
    table = Table(title=f"{prototypes.n} prototypes in {prototypes.d} dimensions, by {method}")
    table.add_column("measure")
    for heading in ("value", "best possible", "ratio"):
        table.add_column(heading, justify="right")
    table.add_column("source of the bound")
    for name, value, bound, ratio, source in measure(prototypes.points).rows():
        table.add_row(name, f"{value:.4f}", _number(bound), _number(ratio), source)
    Console().print(table)
    if settings.output is not None:
        prototypes.save(settings.output)
        click.echo(f"prototypes: {settings.output}")


def train_command(settings: TrainCommand) -> None:
    """Train, and say where the run is."""
    from repulse.runs import is_first_process, read_test_accuracy, train_run

    own = {name: getattr(settings, name) for name in RunConfig.model_fields}
    train_run(RunConfig(**own), settings.output, resume=settings.resume, output=settings.progress)
    if is_first_process():
        accuracy, images = read_test_accuracy(settings.output)
        apart = settings.progress == "json"
        click.echo(f"natural accuracy: {100 * accuracy:.2f} % of {images:,} test images", err=apart)
        click.echo(f"run: {settings.output}", err=apart)


def evaluate_command(settings: EvaluateCommand) -> None:
    """Measure a run or a model from outside, print the table and the verdict, and say where the record is."""
    from repulse.console import progress_bar
    from repulse.measuring import evaluate_foreign, evaluate_run
    from repulse.report import markdown_table
    from repulse.runs import is_first_process

    if (settings.run is None) == (settings.model is None):
        raise RepulseError("name a run folder (repulse evaluate RUN), or a model from outside (--model), and not both")
    chosen = EvaluationSettings(**{name: getattr(settings, name) for name in EvaluationSettings.model_fields})
    command = _command_line(settings)
    with progress_bar(settings.progress == "rich" and is_first_process()) as progress:
        if settings.run is not None:
            _refuse(settings, _ONLY_FOREIGN, "with a run folder; it knows its own")
            evaluation, place = evaluate_run(
                settings.run,
                chosen,
                checkpoint=settings.checkpoint,
                images=settings.images,
                source=settings.source,
                output=settings.output,
                device=settings.device,
                command=command,
                progress=progress,
            )
        else:
            _refuse(settings, ("source", "checkpoint"), "with --model; use --data and --weights")
            if settings.model is None or settings.data is None:
                raise RepulseError("a model from outside needs images: name them by --data FOLDER_OR_ID")
            place = settings.output or _place(settings.model, chosen)
            evaluation = evaluate_foreign(
                settings.model,
                settings.data,
                chosen,
                output=place,
                weights=settings.weights,
                data={
                    "test_split": settings.split,
                    "image_column": settings.image_column,
                    "label_column": settings.label_column,
                    "image_size": settings.image_size,
                    "channels": settings.channels,
                    "class_names": settings.class_names,
                },
                mean=settings.mean,
                std=settings.std,
                images=settings.images,
                device=settings.device,
                command=command,
                progress=progress,
            )
    if is_first_process():
        verdict = evaluation.record.verdict
        said = "" if verdict is None else f"\n\nverdict: {verdict.word}. {verdict.summary}"
        click.echo(f"{markdown_table([place])}{said}\n\nrecord: {place}")


_ONLY_FOREIGN = (
    "weights",
    "data",
    "split",
    "image_column",
    "label_column",
    "image_size",
    "channels",
    "class_names",
    "mean",
    "std",
)


def _refuse(settings: EvaluateCommand, names: Sequence[str], why: str) -> None:
    """Options that would do nothing are errors."""
    for name in names:
        if getattr(settings, name) != EvaluateCommand.model_fields[name].default:
            raise RepulseError(f"--{name.replace('_', '-')} means nothing {why}")


def _place(model: str, settings: EvaluationSettings) -> Path:
    """Where the record of a model from outside is kept, if nothing is said."""
    from repulse.measuring import threat_name

    name = re.sub(r"[^A-Za-z0-9.-]+", "-", model).strip("-.")
    return Path("evaluations") / f"{name}-{threat_name(settings)}"


def report_command(settings: ReportCommand) -> None:
    """Write the report, and say where it is."""
    from repulse.report import write_report

    if not settings.runs:
        raise RepulseError("name at least one run folder: repulse report RUN")
    files = write_report(settings.runs, settings.output, title=settings.title)
    click.echo(f"report: {files.html}")


def demo_command(settings: DemoCommand) -> None:
    """Run the demo, and print its table and the path of its report."""
    from repulse.demo import run_demo

    click.echo(run_demo(settings.output, images=settings.images, progress=settings.progress))


def _command_line(settings: EvaluateCommand) -> str:
    """The command that repeats an evaluation: what differs from the defaults, without the user's own paths."""
    changed = settings.model_dump(mode="json", exclude_defaults=True, exclude=_PRIVATE)
    flags = [
        f"--{name.replace('_', '-')} {','.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in changed.items()
    ]
    what = "RUN" if settings.model is None else "--model MODEL --data FOLDER"
    return " ".join([f"repulse evaluate {what}", *flags])


_PRIVATE = {"run", "source", "model", "weights", "data", "output", "progress"}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _under_training(changes: dict[str, Any]) -> dict[str, Any]:
    """What lies under the file and the flags of `train`: the settings of the run to resume, or a preset."""
    output = changes.get("output")
    resumes = str(changes.get("resume", False)).lower() in ("true", "1", "yes", "on")
    if resumes and isinstance(output, (str, Path)) and (Path(output) / CONFIG_FILE).is_file():
        return read_config(Path(output)).model_dump()
    name = changes.get("preset")
    return {} if name is None else preset(str(name)).model_dump()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="repulse")
def cli() -> None:
    """Robust classifiers from repulsive class prototypes, and an honest measure of how robust a classifier is."""


cli.add_command(settings_command(PrototypesCommand, "prototypes", prototypes_command))
cli.add_command(settings_command(TrainCommand, "train", train_command, base=_under_training))
cli.add_command(settings_command(EvaluateCommand, "evaluate", evaluate_command, positional="run"))
cli.add_command(settings_command(ReportCommand, "report", report_command, positional="runs"))
cli.add_command(settings_command(DemoCommand, "demo", demo_command))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 2 a mistake the user can mend, 130 interrupted."""
    try:
        cli.main(args=None if argv is None else list(argv), prog_name="repulse", standalone_mode=False)
    except RepulseError as error:
        return _fail(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "repulse"
        return _fail(f"{error.format_message().rstrip('.')}; see {command} --help")
    except click.ClickException as error:
        return _fail(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted: what was finished is kept; go on with --resume", err=True)
        return 130
    return 0


def _fail(message: str) -> int:
    click.echo(f"repulse: error: {' '.join(message.split())}", err=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
