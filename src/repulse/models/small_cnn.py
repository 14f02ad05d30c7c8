"""A small convolutional network that two CPU cores train in minutes."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Four 3x3 convolutions with batch norm and ReLU, halving the image after each of the first three.

    Any image of at least 8x8 pixels works: the last map is averaged. Widths are w, 2w, 4w, 4w.

    Args:
        channels: C of the images.
        dimension: d of the embeddings.
        width: w, channels after the first convolution.
    """

    def __init__(self, channels: int, dimension: int, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_halving_block(channels, width),
            *_halving_block(width, 2 * width),
            *_halving_block(2 * width, 4 * width),
            *_normed(4 * width, 4 * width),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(4 * width, dimension)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N d"]:
        """Normalised images to embeddings."""
        z: Tensor = self.head(self.features(x))
        return z


def _normed(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)


def _halving_block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    # The largest of ReLUs is the ReLU of the largest: behind the pooling there are a quarter as many to compute.
    return *_normed(inputs, outputs), nn.MaxPool2d(2), nn.ReLU(inplace=True)
