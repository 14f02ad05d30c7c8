"""Which network and readout."""

from __future__ import annotations

from pydantic import Field

from repulse.common.settings import Settings


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
