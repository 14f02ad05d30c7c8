"""The embedded data set: scikit-learn's handwritten digits, real data without a download."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from repulse.data.images import balanced_indices
from repulse.data.sources import SOURCES, Columns, Source, Split

TEST_IMAGES = 359


@SOURCES.register("digits")
class Digits(Source):
    """1,797 grey images of 8x8 pixels, divided into 1,438 to train on and 359 to measure on, always the same way.

    Source: Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI (1998), the test part, as in scikit-learn.
    The 17 grey levels 0 to 16 become 0 to 255.
    """

    def read(self, place: str, name: str, columns: Columns) -> Mapping[str, Split]:  # noqa: ARG002
        """The two splits."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(bunch.target).long()
        held = torch.zeros(len(labels), dtype=torch.bool)
        held[balanced_indices(labels, TEST_IMAGES, 0, "digits")] = True
        return {
            split: Split(images[rows], labels[rows].tolist(), f"{name} {split}")
            for split, rows in (("train", ~held), ("test", held))
        }
