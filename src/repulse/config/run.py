"""Everything that decides what a training run computes, and its file in the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from repulse.common.errors import RepulseError
from repulse.common.run_files import CONFIG_FILE
from repulse.common.settings import OneOf, Settings, merge, read_yaml
from repulse.data.augment import Augment
from repulse.data.settings import DataSettings
from repulse.models.settings import ModelSettings
from repulse.prototypes.settings import PrototypeSettings
from repulse.training import LOSSES, RECIPES, CrossEntropy, Loss, Recipe, Standard
from repulse.training.settings import FitSettings


class RunConfig(Settings):
    """Everything that decides what a training run computes."""

    name: str = Field("repulse", description="What tables call this model.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    data: DataSettings = DataSettings()
    augment: Augment = Augment()
    prototypes: PrototypeSettings = PrototypeSettings()
    model: ModelSettings = ModelSettings()
    loss: Annotated[Loss, OneOf(LOSSES)] = Field(CrossEntropy(), description="What training minimises.")
    recipe: Annotated[Recipe, OneOf(RECIPES)] = Field(
        Standard(), description="How a batch becomes what training minimises."
    )
    fit: FitSettings = FitSettings()

    @model_validator(mode="before")
    @classmethod
    def _from_older_files(cls, values: Any) -> Any:
        """Files from before losses had settings of their own say `label_smoothing: 0.0` for each of them."""
        loss = values.get("loss") if isinstance(values, Mapping) else None
        if not isinstance(loss, Mapping) or loss.get("label_smoothing") != 0 or loss.get("name") not in LOSSES:
            return values
        if "label_smoothing" in LOSSES[loss["name"]].model_fields:
            return values
        return {**values, "loss": {key: value for key, value in loss.items() if key != "label_smoothing"}}


def read_config(folder: str | Path) -> RunConfig:
    """The configuration of a run folder.

    Raises:
        RepulseError: if the folder is no run folder, or its configuration is not one.
    """
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        raise RepulseError(f"{folder} is no run folder (it has no {CONFIG_FILE}); make one with `repulse train`")
    return merge(RunConfig(), read_yaml(path), str(path))
