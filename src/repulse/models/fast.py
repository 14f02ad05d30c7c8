"""A fast network for small images, after the CIFAR speed records.

Source: Jordan, *94% on CIFAR-10 in 3.29 Seconds on a Single GPU*, arXiv 2404.00498 (2024): a frozen whitening first
layer, Dirac initialisation, pooling before normalisation, and batch norm whose scale is not trained.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FastNet(nn.Module):
    """Whitening convolution, then three blocks of two 3x3 convolutions, then one linear layer.

    `initialise` computes the whitening filters from training images; call it once, before training. Until then the
    first layer is random. Images must be at least 9x9 pixels, so that three poolings leave something.

    Args:
        channels: C of the images.
        dimension: d of the embeddings.
        widths: channels of the three blocks; (64, 256, 256) in the paper.
        activation: between layers; GELU in the paper.
        floor: what whitening adds to the variances, in normalised pixels squared. The paper's, 5e-4, keeps directions
            that hold only rounding noise from being blown up; one as large as the square of a perturbation keeps
            directions in which images differ less than the perturbation from being blown up.
    """

    def __init__(
        self,
        channels: int,
        dimension: int,
        widths: tuple[int, int, int] = (64, 256, 256),
        activation: type[nn.Module] = nn.GELU,
        floor: float = 5e-4,
    ) -> None:
        super().__init__()
        self.floor = floor
        patch = channels * 4
        self.whiten = nn.Conv2d(channels, 2 * patch, 2)
        self.whiten.weight.requires_grad_(False)
        self.blocks = nn.Sequential(
            activation(),
            _Block(2 * patch, widths[0], activation),
            _Block(widths[0], widths[1], activation),
            _Block(widths[1], widths[2], activation),
        )
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.head = nn.Linear(widths[2], dimension, bias=False)
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]

    @torch.no_grad()
    def initialise(self, images: Float[Tensor, "M C H W"]) -> None:
        """Set the first layer to whiten 2x2 patches of training images.

        The filters are the eigenvectors of the patch covariance over the square roots of its eigenvalues and the
        floor, each with both signs (section 3.1 of the source).

        Args:
            images: a few thousand training images, normalised as in training.
        """
        channels = images.shape[1]
        patches = images.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, channels * 4)
        # Centring is left out, as in the source: the filters have no offset to subtract a mean with.
        covariance = (patches.double().T @ patches.double()) / len(patches)
        eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
        filters = (eigenvectors / (eigenvalues + self.floor).sqrt()).T.flip(0).reshape(-1, channels, 2, 2)
        self.whiten.weight.copy_(torch.cat((filters, -filters)).to(self.whiten.weight.dtype))

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N d"]:
        """Normalised images to embeddings."""
        # 1/9: the source's factor, with which the head starts at the scale that its learning rate expects.
        z: Tensor = self.head(self.pool(self.blocks(self.whiten(x))).flatten(1)) / 9
        return z


class _Block(nn.Module):
    """Convolution, pooling, norm, activation; convolution, norm, activation."""

    def __init__(self, inputs: int, outputs: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = _dirac(inputs, outputs)
        self.norm1 = _norm(outputs)
        self.conv2 = _dirac(outputs, outputs)
        self.norm2 = _norm(outputs)
        self.pool = nn.MaxPool2d(2)
        self.active = activation()

    def forward(self, x: Tensor) -> Tensor:
        x = self.active(self.norm1(self.pool(self.conv1(x))))
        y: Tensor = self.active(self.norm2(self.conv2(x)))
        return y


def _dirac(inputs: int, outputs: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    # The first `inputs` filters pass their input on, so that every layer starts by losing nothing.
    nn.init.dirac_(conv.weight[: min(inputs, outputs)])
    return conv


def _norm(channels: int) -> nn.BatchNorm2d:
    # Momentum 0.4 in PyTorch's sense (the source's 0.6): the statistics follow a schedule of few, large steps.
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm
