"""Which images, and what is changed about them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from repulse.common.settings import OneOf, Settings
from repulse.data.sources import SOURCES, Auto, Source


class DataSettings(Settings):
    """Which images."""

    source: str = Field(
        "digits",
        description="'digits', a folder of images or of parquet files, a Hub id, or a registered reader's name.",
    )
    reader: Annotated[Source, OneOf(SOURCES)] = Field(
        Auto(), description="How to read the source; auto: by its name, or as such a folder or id is read."
    )
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
