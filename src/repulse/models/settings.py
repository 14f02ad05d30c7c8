"""Which network and readout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from repulse.common.settings import OneOf, Settings
from repulse.models import BACKBONES, READOUTS, Backbone


class ModelSettings(Settings):
    """The network."""

    backbone: Annotated[Backbone, OneOf(BACKBONES)] = Field(
        BACKBONES.make("small-cnn"), description="The network from images to embeddings, or timm/NAME."
    )
    pretrained: bool | Path = Field(
        False, description="Begin with other weights of this backbone: true: those that timm has; or a file."
    )
    width: float = Field(1.0, gt=0, description="Factor on the number of channels.")
    mirror: bool = Field(False, description="Average the embeddings of image and mirror image (not in training).")
    shift: int = Field(0, ge=0, description="Average with images moved so many pixels (not in training).")
    readout: str = Field("cosine", description=f"One of {', '.join(sorted(READOUTS))}.")
    temperature: float = Field(0.1, gt=0, description="Divides the readout to give the logits.")
    standardise: bool = Field(
        True, description="Divide by the deviation of each channel; off: a 1-Lipschitz backbone is that in pixels too."
    )
    learn_prototypes: bool = Field(False, description="Train the prototypes too, from where their method puts them.")
