"""The commands: parse, call, print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from pydantic import Field
from rich.console import Console
from rich.table import Table

from repulse.cli.options import settings_command
from repulse.common.errors import RepulseError
from repulse.config.presets import PRESETS, preset
from repulse.config.run import CONFIG_FILE, RunConfig, read_config
from repulse.config.settings import CertificationSettings, EvaluationSettings, Settings
from repulse.reproduce.comparisons import COMPARISONS, DIGITS
from repulse.reproduce.slurm import SlurmSettings

if TYPE_CHECKING:
    from repulse.measuring import Foreign


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

    Settings come in layers: the defaults below, a preset, the YAML file, the flags. The preset `repulse` is taken if
    none is named: simplex prototypes, and adversarial training with one step in the L-inf ball of 8/255. The folder
    holds the resolved configuration, the environment, the prototypes, one row of metrics per epoch, and checkpoints.

    Examples:
      repulse train --output runs/digits
      repulse train --preset paper --data.source PATH/fashion-mnist --output runs/fashion-paper
      repulse train --config my.yaml --fit.epochs 20 --output runs/mine
      repulse train --output runs/mine --resume
    """

    output: Path = Field(description="The run folder.")
    preset: str = Field("repulse", description=f"Start from a named configuration: {', '.join(PRESETS)}.")
    resume: bool = Field(False, description="Go on with the run in the folder, with its own settings.")
    progress: Literal["rich", "json", "quiet"] = Field(
        "rich", description="A progress bar, a JSON line per epoch, or nothing."
    )


class _MeasuringCommand(Settings):
    """What the commands that measure share: a run, or a model from outside with its images, and how to go about it."""

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
    output: Path | None = Field(None, description="Folder for the record.")
    device: str = Field("auto", description="cpu, cuda or auto.")
    progress: Literal["rich", "quiet"] = Field("rich", description="A progress bar, or nothing.")


class EvaluateCommand(_MeasuringCommand, EvaluationSettings):
    """Attack the model of a run, or any other PyTorch model, and say what holds and which number to quote.

    The paper's protocol, attacks that don't give up, and a verdict: believable, overstated, or not established. The
    record and the outcome of every image are kept in a folder; an evaluation that was stopped goes on there.

    Examples:
      repulse evaluate runs/digits --eps 0.1
      repulse evaluate runs/fashion-paper --eps 8/255 --images 1000 --attacks adaptive
      repulse evaluate --model package.module:factory --weights net.safetensors --data FOLDER --eps 8/255
      torchrun --nproc-per-node 4 -m repulse evaluate runs/mine --norm l2 --eps 0.5
    """

    output: Path | None = Field(None, description="Folder for the record; none: in the run, or evaluations/NAME.")


class CertifyCommand(_MeasuringCommand, CertificationSettings):
    """Prove for each test image within which radius the answer of a model cannot change, and count what is proved.

    Networks whose layers have known Lipschitz constants prove it in L2, L-inf-distance networks in L-inf; any other
    model can be smoothed. A run is smoothed by --method smoothing only, a model from outside also by auto, if it was
    not built to prove anything. With --attack the proofs themselves are attacked: if one is broken, the exit code is 2.

    Examples:
      repulse certify runs/lipschitz --attack
      repulse certify runs/smoothed --method smoothing --images 500 --n 10000
      repulse certify runs/lipschitz --radii 0,36/255,72/255,108/255 --images 1000
      repulse certify --model package.module:factory --weights net.safetensors --data FOLDER --images 100
    """

    output: Path | None = Field(None, description="Folder for the record; none: in the run, or certificates/NAME.")


class ReportCommand(Settings):
    """Write one self-contained HTML page, and the same figures as Markdown and JSON, for one run or for several.

    Examples:
      repulse report runs/digits
      repulse report runs/fashion-paper runs/fashion-softmax --output fashion.html
    """

    runs: tuple[Path, ...] = Field((), description="Run folders, evaluation folders, or folders that hold some.")
    output: Path = Field(Path("report.html"), description="The page; the other files take its name.")
    title: str | None = Field(None, description="Title of the page.")


class ReproduceCommand(Settings):
    """Remake the paper's comparison beside its rivals: train every method, attack every model, report honestly.

    Each cell, a method with a seed, is a run folder OUTPUT/NAME/SCALE/METHOD/seed-S. What is done is never done again:
    the same command goes on where it was stopped, and may run on several machines that share the folder.

    Examples:
      repulse reproduce fashion --scale smoke
      repulse reproduce paper-cifar10 --scale cpu --data FOLDER --title "CIFAR-10 (JPEG 75)" --jobs 2
      repulse reproduce paper-cifar100 --scale full --dry-run
      repulse reproduce paper-cifar10 --scale full --slurm.workers 8 --slurm.partition gpu
    """

    name: str | None = Field(None, description=f"Which comparison: {', '.join(COMPARISONS)}.")
    scale: Literal["smoke", "cpu", "full"] = Field(
        "smoke", description="Digits in a minute; small networks in hours; the paper's settings, on a GPU."
    )
    data: str | None = Field(None, description="Folder or Hub id of the images; none: digits (smoke), or the Hub's.")
    title: str | None = Field(None, description="What tables call the data, such as 'CIFAR-10 (JPEG 75)'.")
    output: Path = Field(Path("runs"), description="Folder for all comparisons.")
    methods: tuple[str, ...] = Field((), description="Some of the methods; none: all.")
    seeds: tuple[int, ...] = Field((), description="Seeds of the runs; none: 0 (smoke), 0,1,2.")
    images: int | None = Field(
        None, ge=1, description="Test images to attack; none: 20 (smoke), 200 (cpu), 1000 (full)."
    )
    attacks: Literal["quick", "standard", "adaptive"] | None = Field(
        None, description="With what; none: quick (smoke), adaptive (cpu, full)."
    )
    stages: tuple[Literal["train", "measure", "report"], ...] = Field(
        ("train", "measure", "report"), description="What to do; without train, runs that have not ended are left out."
    )
    jobs: int = Field(1, ge=1, description="Processes side by side on this machine, one thread each.")
    processes: int = Field(1, ge=1, description="Processes, or GPUs, that torchrun starts for each cell.")
    dry_run: bool = Field(False, description="Only say what is left to do, and about what it costs.")
    keep: Path | None = Field(None, description="Copy the results, without weights and paths, to this folder.")
    slurm: SlurmSettings = SlurmSettings()


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
    from repulse.measuring import evaluate_foreign, evaluate_run, threat_name
    from repulse.report import markdown_table
    from repulse.runs import is_first_process
    from repulse.training.console import progress_bar

    command = _measuring(settings, "evaluate")
    chosen = EvaluationSettings(**{name: getattr(settings, name) for name in EvaluationSettings.model_fields})
    with progress_bar(settings.progress == "rich" and is_first_process()) as progress:
        if settings.run is not None:
            evaluation, place = evaluate_run(
                settings.run, chosen, **_of_run(settings), command=command, progress=progress
            )
        else:
            foreign = _of_foreign(settings)
            place = settings.output or Path("evaluations") / f"{foreign.name}-{threat_name(chosen)}"
            evaluation = evaluate_foreign(foreign, chosen, output=place, command=command, progress=progress)
    if is_first_process():
        verdict = evaluation.record.verdict
        said = "" if verdict is None else f"\n\nverdict: {verdict.word}. {verdict.summary}"
        click.echo(f"{markdown_table([place])}{said}\n\nrecord: {place}")


def certify_command(settings: CertifyCommand) -> None:
    """Certify a run or a model from outside, print the table, and say where the record is.

    Raises:
        RepulseError: if attacks broke a certificate.
    """
    from repulse.certifying import certify_foreign, certify_run
    from repulse.report import certificate_summary
    from repulse.runs import is_first_process
    from repulse.training.console import progress_bar

    command = _measuring(settings, "certify")
    chosen = CertificationSettings(**{name: getattr(settings, name) for name in CertificationSettings.model_fields})
    with progress_bar(settings.progress == "rich" and is_first_process()) as progress:
        if settings.run is not None:
            certification, place = certify_run(
                settings.run, chosen, **_of_run(settings), command=command, progress=progress
            )
        else:
            certification, place = certify_foreign(
                _of_foreign(settings), chosen, output=settings.output, command=command, progress=progress
            )
    if is_first_process():
        click.echo(f"{certificate_summary(certification.record)}\n\nrecord: {place}")
    certification.record.check_sound()


def _measuring(settings: _MeasuringCommand, name: str) -> str:
    """The command line for the record, once it is clear that it names one model and says nothing idle.

    Raises:
        RepulseError: if it names none or two, no images for a model from outside, or has options of the other kind.
    """
    if (settings.run is None) == (settings.model is None):
        raise RepulseError(f"name a run folder (repulse {name} RUN), or a model from outside (--model), and not both")
    if settings.run is not None:
        _refuse(settings, _ONLY_FOREIGN, "with a run folder; it knows its own")
        return _command_line(settings, f"repulse {name} RUN")
    _refuse(settings, ("source", "checkpoint"), "with --model; use --data and --weights")
    if settings.data is None:
        raise RepulseError("a model from outside needs images: name them by --data FOLDER_OR_ID")
    return _command_line(settings, f"repulse {name} --model MODEL --data FOLDER")


def _of_run(settings: _MeasuringCommand) -> dict[str, Any]:
    names = ("checkpoint", "images", "source", "output", "device")
    return {name: getattr(settings, name) for name in names}


def _of_foreign(settings: _MeasuringCommand) -> Foreign:
    from repulse.measuring import Foreign

    # `_measuring` has made sure of both.
    assert settings.model is not None
    assert settings.data is not None
    columns = ("image_column", "label_column", "image_size", "channels", "class_names")
    return Foreign(
        settings.model,
        settings.data,
        weights=settings.weights,
        data={"test_split": settings.split} | {name: getattr(settings, name) for name in columns},
        mean=settings.mean,
        std=settings.std,
        images=settings.images,
        device=settings.device,
    )


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


def _refuse(settings: _MeasuringCommand, names: Sequence[str], why: str) -> None:
    """Options that would do nothing are errors."""
    for name in names:
        if getattr(settings, name) != type(settings).model_fields[name].default:
            raise RepulseError(f"--{name.replace('_', '-')} means nothing {why}")


def report_command(settings: ReportCommand) -> None:
    """Write the report, and say where it is."""
    from repulse.report import write_report

    if not settings.runs:
        raise RepulseError("name at least one run folder: repulse report RUN")
    files = write_report(settings.runs, settings.output, title=settings.title)
    click.echo(f"report: {files.html}")


def reproduce_command(settings: ReproduceCommand) -> None:
    """Make the grid of a comparison, and plan it, hand it to Slurm, or work through it and report."""
    from repulse.reproduce.command import hand_to_slurm, reproduce, show_plan
    from repulse.reproduce.grid import make_grid
    from repulse.reproduce.run import tell_on_stderr

    if settings.name is None:
        raise RepulseError(f"name a comparison: repulse reproduce {' | '.join(COMPARISONS)}")
    usual = COMPARISONS[settings.name].source if settings.name in COMPARISONS else ""
    grid = make_grid(
        settings.name,
        settings.scale,
        settings.data or (DIGITS if settings.scale == "smoke" else usual),
        settings.output,
        methods=settings.methods,
        seeds=settings.seeds,
        images=settings.images,
        title=settings.title,
        processes=settings.processes,
        attacks=settings.attacks,
    )
    if settings.dry_run:
        show_plan(grid, settings.stages, Console())
    elif settings.slurm.workers:
        hand_to_slurm(grid, settings.stages, settings.slurm, tell_on_stderr)
    else:
        said = reproduce(grid, settings.stages, jobs=settings.jobs, keep_in=settings.keep, tell=tell_on_stderr)
        click.echo(said, nl=bool(said))


def demo_command(settings: DemoCommand) -> None:
    """Run the demo, and print its table and the path of its report."""
    from repulse.cli.demo import run_demo

    click.echo(run_demo(settings.output, images=settings.images, progress=settings.progress))


def _command_line(settings: Settings, head: str) -> str:
    """The command that repeats a measurement: what differs from the defaults, without the user's own paths."""
    changed = settings.model_dump(mode="json", exclude_defaults=True, exclude=_PRIVATE)
    flags = []
    for name, value in changed.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags.append(f"--{flag} {','.join(map(str, value)) if isinstance(value, list) else value}")
    return " ".join([head, *flags])


_PRIVATE = {"run", "source", "model", "weights", "data", "output", "progress"}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _under_training(changes: dict[str, Any]) -> dict[str, Any]:
    """What lies under the file and the flags of `train`: the settings of the run to resume, or a preset."""
    output = changes.get("output")
    resumes = str(changes.get("resume", False)).lower() in ("true", "1", "yes", "on")
    if resumes and isinstance(output, (str, Path)) and (Path(output) / CONFIG_FILE).is_file():
        return read_config(Path(output)).model_dump()
    return preset(str(changes.get("preset", TrainCommand.model_fields["preset"].default))).model_dump()


def commands() -> dict[str, click.Command]:
    """Every command by its name."""
    made = (
        settings_command(PrototypesCommand, "prototypes", prototypes_command),
        settings_command(TrainCommand, "train", train_command, base=_under_training),
        settings_command(EvaluateCommand, "evaluate", evaluate_command, positional="run"),
        settings_command(CertifyCommand, "certify", certify_command, positional="run"),
        settings_command(ReportCommand, "report", report_command, positional="runs"),
        settings_command(ReproduceCommand, "reproduce", reproduce_command, positional="name"),
        settings_command(DemoCommand, "demo", demo_command),
    )
    return {command.name or "": command for command in made}
