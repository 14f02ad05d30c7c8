"""The paper's evaluation as its published script does it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class AsPublished(nn.Module):
    """A model as the published script attacks it: on images that are normalised already.

    The script normalises images by mean and standard deviation, then clips the result to [0, 1] and perturbs it by eps
    there. Everything darker than the mean is lost to the clipping, as is everything brighter than one deviation above
    it; and eps in normalised units is eps times the deviation in pixels, about 2/255 where 8/255 is said.

    Args:
        model: a classifier with `embed`, `classify`, `mean` and `std`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def normalise(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Images in [0, 1] to what the script calls images."""
        normalised: Tensor = (x - self.model.mean) / self.model.std
        return normalised.clamp(0, 1)

    def embed(self, u: Float[Tensor, "N C H W"]) -> Float[Tensor, "N d"]:
        """The embedding of the script's images."""
        z: Tensor = self.model.embed(u * self.model.std + self.model.mean)
        return z

    def classify(self, z: Float[Tensor, "N d"]) -> Float[Tensor, "N n"]:
        """The logits of embeddings."""
        logits: Tensor = self.model.classify(z)
        return logits

    def forward(self, u: Float[Tensor, "N C H W"]) -> Float[Tensor, "N n"]:
        """The logits of the script's images."""
        return self.classify(self.embed(u))

    @staticmethod
    def fits(model: nn.Module) -> bool:
        """Whether the script's way can be repeated for a model: it must tell its normalisation."""
        tensors = all(isinstance(getattr(model, name, None), torch.Tensor) for name in ("mean", "std", "prototypes"))
        return tensors and all(callable(getattr(model, name, None)) for name in ("embed", "classify"))
