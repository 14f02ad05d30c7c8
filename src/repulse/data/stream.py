"""Sets too large for memory: images are decoded when they are asked for, ahead of the training step that needs them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from repulse.common.files import sha256_of
from repulse.data.decode import EncodedImages, Format, decode


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """One split of a data set whose images stay encoded, on disk, until they are needed.

    Args:
        rows: the undecoded images.
        form: channels and size that all are brought to.
        labels: classes 0 to n-1.
        class_names: one name per class.
        name: what tables call the data set.
        split: `train`, `validation` or `test`.
        places: rows of this source, if it is a part of the split.
    """

    rows: EncodedImages
    form: Format
    labels: Int64[Tensor, "N"]
    class_names: tuple[str, ...]
    name: str
    split: str
    places: Int64[Tensor, "N"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        height, width = self.form.size or (0, 0)
        return self.form.channels, height, width

    def fetch(self, indices: Int64[Tensor, "B"]) -> UInt8[Tensor, "B C H W"]:
        """Decode the images at these places."""
        rows = indices if self.places is None else self.places[indices]
        return decode(self.rows, rows.tolist(), self.form)

    def take(self, indices: Int64[Tensor, "M"]) -> StreamedImages:
        """Only the images at these places, in this order."""
        places = indices if self.places is None else self.places[indices]
        return StreamedImages(
            self.rows, self.form, self.labels[indices], self.class_names, self.name, self.split, places
        )

    def sha256(self) -> str:
        """A digest of labels, places and a hundred images spread evenly; reading all would take an epoch."""
        some = torch.linspace(0, len(self) - 1, min(100, len(self))).long()
        return sha256_of(
            self.labels, self.places if self.places is not None else torch.arange(len(self)), self.fetch(some)
        )
