"""Random numbers for attacks, keyed by seed, image and names: batch size, order and neighbours don't matter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from repulse.common.seeding import generator


@dataclass(frozen=True)
class Noise:
    """Noise for the images of a batch.

    Args:
        seed: of the evaluation.
        ids: a number for each image that stays the same whatever batch it is in.
    """

    seed: int
    ids: Int64[Tensor, "N"]

    def take(self, index: Int64[Tensor, "M"]) -> Noise:
        """The noise of some of the images."""
        return Noise(self.seed, self.ids[index.to(self.ids.device)])

    def uniform(self, like: Float[Tensor, "N *shape"], *key: str | int) -> Float[Tensor, "N *shape"]:
        """Uniform in [0, 1), shaped like a batch; another key, such as `"square", query`, gives other numbers."""
        return self._draw(torch.rand, like, key)

    def normal(self, like: Float[Tensor, "N *shape"], *key: str | int) -> Float[Tensor, "N *shape"]:
        """Standard normal, shaped like a batch; another key gives other numbers."""
        return self._draw(torch.randn, like, key)

    def _draw(self, draw, like: Tensor, key: tuple[str | int, ...]) -> Tensor:  # type: ignore[no-untyped-def]
        drawn = [draw(like.shape[1:], generator=generator(self.seed, "attack", *key, i)) for i in self.ids.tolist()]
        return torch.stack(drawn).to(like) if drawn else torch.empty_like(like)
