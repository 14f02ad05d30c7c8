"""Typed configuration: one definition serves the flags, the YAML files, the checks and the saved record of a run."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from repulse.common.errors import RepulseError
from repulse.common.registry import unknown_name
from repulse.common.units import Number
from repulse.config.settings import FitSettings, RecipeSettings, Settings

S = TypeVar("S", bound=Settings)

CONFIG_FILE = "config.yaml"


class DataSettings(Settings):
    """Which images."""

    source: str = Field("digits", description="'digits', a folder of parquet files or of images, or a Hub id.")
    name: str | None = Field(None, description="What tables call the data; none: taken from the source.")
    image_column: str | None = Field(None, description="Column of the images; none: found by itself.")
    label_column: str | None = Field(None, description="Column of the labels; none: found by itself.")
    train_split: str | None = Field(None, description="Split to train on; none: found by itself.")
    test_split: str | None = Field(None, description="Split to measure on; none: found by itself.")
    validation: float = Field(0.05, ge=0, lt=1, description="Share of the training images kept for validation.")
    image_size: int | None = Field(None, ge=4, description="Resize and crop to this side; none: as they are.")
    channels: Literal[1, 3] | None = Field(None, description="Grey or colour; none: as they are.")
    class_names: tuple[str, ...] | None = Field(None, description="Names of the classes; none: from the data.")
    train_images: int | None = Field(None, ge=2, description="Train on a balanced subset of this size; none: all.")


class AugmentSettings(Settings):
    """Random changes to training images."""

    crop_padding: int = Field(0, ge=0, description="Shift by up to this many pixels in each direction.")
    padding_mode: Literal["zeros", "reflect"] = Field("zeros", description="What moves in from outside.")
    flip: Literal["none", "random", "alternating"] = Field(
        "none", description="Mirror at random, or each image in every other epoch (Jordan 2024)."
    )
    cutout: int = Field(0, ge=0, description="Side of a square that is greyed out; 0: none.")


class PrototypeSettings(Settings):
    """Where the classes have their places in the output space."""

    method: str = Field("auto", description="Name of a method; `repulse prototypes --help` lists them.")
    dimension: int | None = Field(None, ge=1, description="d; none: the number of classes.")
    seed: int | None = Field(None, description="Seed of the method; none: the run's seed.")
    steps: int | None = Field(None, ge=1, description="Steps of an iterative method; none: its default.")
    scale: float = Field(1.0, gt=0, description="Factor on the prototypes, once they are made or read.")
    file: Path | None = Field(None, description="Take prototypes from this safetensors file instead.")


class ModelSettings(Settings):
    """The network."""

    backbone: str = Field(
        "small-cnn",
        description="small-cnn, fast, resnet18, wrn-28-10, wrn-34-10, lipschitz-cnn, linf-dist or timm/NAME.",
    )
    width: float = Field(1.0, gt=0, description="Factor on the number of channels.")
    mirror: bool = Field(False, description="Average the embeddings of image and mirror image (not in training).")
    shift: int = Field(0, ge=0, description="Average with images moved so many pixels (not in training).")
    readout: str = Field("cosine", description="linear, dot, cosine, l2, linf or code.")
    temperature: float = Field(0.1, gt=0, description="Divides the readout to give the logits.")
    standardise: bool = Field(
        True, description="Divide by the deviation of each channel; off: a 1-Lipschitz backbone is that in pixels too."
    )
    learn_prototypes: bool = Field(False, description="Train the prototypes too, from where their method puts them.")


class LossSettings(Settings):
    """What training minimises."""

    name: str = Field("cross-entropy", description="cross-entropy, linf, cosine, l2-squared, ...")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="For cross-entropy only.")
    radius: Number | None = Field(
        None, gt=0, description="Certified radius that linf-margin and linf-hinge ask for, in embeddings; none: 0.3."
    )
    offset: float | None = Field(
        None, ge=0, description="Margin that certified losses ask for, as a distance of embeddings; none: 0.5."
    )
    margin_temperature: float | None = Field(
        None, gt=0, description="How softly certified-cross-entropy asks, as a distance of embeddings; none: 0.25."
    )
    pull: float | None = Field(
        None, ge=0, description="Weight of the distance to the own prototype (prototype-conformity); none: 1."
    )
    push: float | None = Field(
        None, ge=0, description="Weight of the distances to the others (prototype-conformity); none: 0.00001."
    )
    repulsion: float | None = Field(
        None, ge=0, description="Weight of the prototypes' largest cosines (repelling-prototypes); none: 1."
    )


class RunConfig(Settings):
    """Everything that decides what a training run computes."""

    name: str = Field("repulse", description="What tables call this model.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    data: DataSettings = DataSettings()
    augment: AugmentSettings = AugmentSettings()
    prototypes: PrototypeSettings = PrototypeSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    recipe: RecipeSettings = RecipeSettings()
    fit: FitSettings = FitSettings()


def to_yaml(settings: Settings) -> str:
    """The settings as YAML, every key written out."""
    text: str = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


def read_config(folder: Path) -> RunConfig:
    """The configuration of a run folder.

    Raises:
        RepulseError: if the folder is no run folder, or its configuration is not one.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise RepulseError(f"{folder} is no run folder (it has no {CONFIG_FILE}); make one with `repulse train`")
    return merge(RunConfig(), read_yaml(path), str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        RepulseError: if the file is absent, is not YAML, or holds something else than a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RepulseError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise RepulseError(f"{path}{where} is not YAML: {getattr(error, 'problem', None) or error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise RepulseError(f"{path} must hold keys and values, got {type(content).__name__}")
    return content


def merge(base: S, changes: Mapping[str, Any], origin: str) -> S:
    """The settings `base` with nested `changes` over them.

    Args:
        base: the settings to start from.
        changes: a nested mapping, as from YAML.
        origin: where the changes come from, for error messages.

    Raises:
        RepulseError: on an unknown key (the nearest known one is suggested) or a value that does not fit.
    """
    return validate(type(base), overlay(base.model_dump(), changes), origin)


def validate(settings: type[S], values: Mapping[str, Any], origin: str, *, partial: bool = False) -> S:
    """Settings from nested values.

    Args:
        settings: the settings class.
        values: a nested mapping.
        origin: where the values come from, for error messages.
        partial: let required values be missing; what is returned then must not be used.

    Raises:
        RepulseError: on an unknown key (the nearest known one is suggested), a missing one, or a wrong value.
    """
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        problems = [item for item in error.errors() if not (partial and item["type"] == "missing")]
        if not problems:
            return typing.cast(S, settings.model_construct())
        raise explain(problems[0], settings, origin) from error


def explain(problem: ErrorDetails, model: type[BaseModel], origin: str) -> RepulseError:
    """A problem that validation found as one line, with the nearest name for an unknown key."""
    location = [str(part) for part in problem["loc"]]
    path = ".".join(location)
    if problem["type"] == "extra_forbidden":
        for part in location[:-1]:
            inner = model.model_fields[part].annotation
            model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else model
        return unknown_name(f"key in {origin}:", path, _keys(model, location[:-1]))
    if problem["type"] == "missing":
        return RepulseError(f"{origin}: {path} is required; give it as --{path.replace('_', '-')} or in the YAML file")
    message = problem["msg"].removeprefix("Value error, ")
    return RepulseError(f"{origin}: {path}: {message[0].lower() + message[1:]}, got {problem['input']!r}")


def _keys(model: type[BaseModel], heads: list[str]) -> list[str]:
    return [".".join([*heads, name]) for name in model.model_fields]


def overlay(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested `changes` over a nested `base`; neither is changed."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = overlay(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result
