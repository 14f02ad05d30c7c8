"""What the commands that measure a model share: how the model and its images are named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field

from repulse.common.environment import is_first_process
from repulse.common.errors import RepulseError
from repulse.common.progress import progress_bar
from repulse.common.settings import Settings
from repulse.opening import open_foreign, open_run
from repulse.subject import Progress, Subject


class MeasuringCommand(Settings):
    """What the commands that measure share: a run, or a model from outside with its images, and how to go about it."""

    run: Path | None = Field(None, description="The run folder, or zoo:NAME, or hub:ORG/NAME.")
    checkpoint: Literal["last", "best"] = Field("last", description="Weights of the last epoch, or of the best.")
    images: int | None = Field(None, ge=1, description="How many test images, classes balanced; none: all.")
    source: str | None = Field(None, description="Where the data lies now; none: where the run found it.")
    model: str | None = Field(
        None, description="From outside: module:factory, file.py:factory, timm/NAME, hf:NAME, a file."
    )
    weights: Path | None = Field(None, description="Its weights: .safetensors, or a .pt state dict.")
    weights_key: str | None = Field(None, description="Which set of weights of the file, such as model_ema.")
    data: str | None = Field(None, description="Its images: 'digits', a folder of parquet files or images, a Hub id.")
    split: str | None = Field(None, description="Split to measure on; none: found by itself.")
    image_column: str | None = Field(None, description="Column of the images; none: found by itself.")
    label_column: str | None = Field(None, description="Column of the labels; none: found by itself.")
    image_size: int | None = Field(None, ge=1, description="Resize and crop to this side; none: as they are.")
    channels: Literal[1, 3] | None = Field(None, description="Grey or colour; none: as they are.")
    class_names: tuple[str, ...] | None = Field(None, description="Names of the classes; none: from the data.")
    mean: tuple[float, ...] | None = Field(None, description="Mean that the model wants subtracted; none: pixels.")
    std: tuple[float, ...] | None = Field(None, description="Deviation that it wants pixels divided by.")
    anyway: bool = Field(False, description="Go on although the model is not used as it was meant to be.")
    output: Path | None = Field(None, description="Folder for the record.")
    device: str = Field("auto", description="cpu, cuda or auto.")
    progress: Literal["rich", "quiet"] = Field("rich", description="A progress bar, or nothing.")
    format: Literal["auto", "table", "markdown", "json"] = Field(
        "auto", description="What to print; auto: a table in a terminal, Markdown in a file or a pipe."
    )


def open_subject(settings: MeasuringCommand, name: str, progress: Progress) -> Subject:
    """Open what a command names: a run, or a model from outside with its images.

    Args:
        settings: of the command.
        name: of the command.
        progress: called after each batch.

    Raises:
        RepulseError: if it names none or both, no images for a model from outside, or has options of the other kind;
            or as opening says.
    """
    if (settings.run is None) == (settings.model is None):
        raise RepulseError(f"name a run folder (repulse {name} RUN), or a model from outside (--model), and not both")
    how = {each: getattr(settings, each) for each in ("images", "seed", "device")} | {"progress": progress}
    if settings.run is not None:
        _refuse(settings, _ONLY_FOREIGN, "with a run folder; it knows its own")
        command = _command_line(settings, f"repulse {name} RUN")
        return open_run(settings.run, checkpoint=settings.checkpoint, source=settings.source, command=command, **how)
    _refuse(settings, ("source", "checkpoint"), "with --model; use --data and --weights")
    if settings.data is None:
        raise RepulseError("a model from outside needs images: name them by --data FOLDER_OR_ID")
    assert settings.model is not None
    columns = ("image_column", "label_column", "image_size", "channels", "class_names")
    return open_foreign(
        settings.model,
        settings.data,
        weights=settings.weights,
        weights_key=settings.weights_key,
        data={"test_split": settings.split} | {each: getattr(settings, each) for each in columns},
        mean=settings.mean,
        std=settings.std,
        command=_command_line(settings, f"repulse {name} --model MODEL --data FOLDER"),
        **how,
    )


@contextmanager
def shown_progress(settings: MeasuringCommand, title: str) -> Iterator[Progress]:
    """A progress bar, if the settings want one and this is the process that prints."""
    with progress_bar(settings.progress == "rich" and is_first_process(), title=title) as progress:
        yield progress


_ONLY_FOREIGN = (
    "weights",
    "weights_key",
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


def _refuse(settings: MeasuringCommand, names: Sequence[str], why: str) -> None:
    """Options that would do nothing are errors."""
    for name in names:
        if getattr(settings, name) != type(settings).model_fields[name].default:
            raise RepulseError(f"--{name.replace('_', '-')} means nothing {why}")


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


_PRIVATE = {"run", "source", "model", "weights", "data", "output", "progress", "format", "fail_under", "fail_on"}
