"""Residual networks for small images: ResNet in its CIFAR form, and Wide ResNet."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ResNet(nn.Module):
    """ResNet of basic blocks for 32x32 images: a 3x3 first convolution with stride 1 and no pooling (He et al. 2016).

    Args:
        channels: C of the images.
        dimension: d of the embeddings.
        blocks: basic blocks per stage; (2, 2, 2, 2) is ResNet-18.
        width: channels of the first stage; each later stage doubles them and halves the image.
    """

    def __init__(self, channels: int, dimension: int, blocks: Sequence[int], width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv3(channels, width), nn.BatchNorm2d(width), nn.ReLU())
        stages: list[nn.Module] = []
        inputs = width
        for stage, count in enumerate(blocks):
            outputs = width * 2**stage
            for index in range(count):
                stages.append(_BasicBlock(inputs, outputs, stride=2 if stage > 0 and index == 0 else 1))
                inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, dimension)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N d"]:
        """Normalised images to embeddings."""
        z: Tensor = self.head(self.stages(self.stem(x)).mean((2, 3)))
        return z


class PreActivationResNet(nn.Module):
    """Wide ResNet of pre-activation blocks (Zagoruyko & Komodakis 2016), without dropout.

    Args:
        channels: C of the images.
        dimension: d of the embeddings.
        depth: 6 k + 4, where k is the number of blocks in each of the three stages.
        width: channels of the first stage; 160 for the networks called "-10".
    """

    def __init__(self, channels: int, dimension: int, depth: int, width: int) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"the depth of a Wide ResNet is 6 k + 4 with k >= 1, got {depth}")
        self.stem = _conv3(channels, 16)
        stages: list[nn.Module] = []
        inputs = 16
        for stage in range(3):
            outputs = width * 2**stage
            for index in range((depth - 4) // 6):
                stages.append(_PreActivationBlock(inputs, outputs, stride=2 if stage > 0 and index == 0 else 1))
                inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(inputs)
        self.head = nn.Linear(inputs, dimension)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N d"]:
        """Normalised images to embeddings."""
        z: Tensor = self.head(F.relu(self.norm(self.stages(self.stem(x)))).mean((2, 3)))
        return z


class _BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3(inputs, outputs, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv3(outputs, outputs)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class _PreActivationBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv3(inputs, outputs, stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv3(outputs, outputs)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        # Where the shape changes, the shortcut starts after the activation, as in the authors' code.
        shortcut = x if self.shortcut is None else self.shortcut(active)
        y: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return y + shortcut


def _conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
