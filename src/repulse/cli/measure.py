"""What the commands that measure a model share: how the model and its images are named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from repulse.common.errors import RepulseError
from repulse.common.settings import Settings

if TYPE_CHECKING:
    from repulse.measuring import Foreign


class MeasuringCommand(Settings):
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


def measured_command(settings: MeasuringCommand, name: str) -> str:
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


def of_run(settings: MeasuringCommand) -> dict[str, Any]:
    """The options that tell of a run, as `evaluate_run` and `certify_run` take them."""
    names = ("checkpoint", "images", "source", "output", "device")
    return {name: getattr(settings, name) for name in names}


def of_foreign(settings: MeasuringCommand) -> Foreign:
    """The model from outside, and its images."""
    from repulse.measuring import Foreign

    # `measured_command` has made sure of both.
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


_PRIVATE = {"run", "source", "model", "weights", "data", "output", "progress"}
