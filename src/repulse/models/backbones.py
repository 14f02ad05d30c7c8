"""The backbones that come with the package; importing them enters them in `BACKBONES`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from repulse.models.backbone import BACKBONES
from repulse.models.fast import FastNet
from repulse.models.linf_distance import LinfDistanceNet
from repulse.models.lipschitz import LipschitzCNN
from repulse.models.resnet import PreActivationResNet, ResNet
from repulse.models.small_cnn import SmallCNN


@BACKBONES.register("small-cnn")
def small_cnn(channels: int, dimension: int, width: float) -> nn.Module:
    """Four convolutions, for CPU: 27 MFLOP forward on 32x32 images at width 1."""
    return SmallCNN(channels, dimension, round(32 * width))


Floor = Annotated[
    float, Field(gt=0, description="What whitening adds to variances; a perturbation's square for defences.")
]


@BACKBONES.register("fast")
def fast(channels: int, dimension: int, width: float, *, floor: Floor = 5e-4) -> nn.Module:
    """The CIFAR speed-record network (Jordan 2024): 0.24 GFLOP forward on 32x32 images at width 1."""
    return FastNet(channels, dimension, _fast_widths(width), floor=floor)


@BACKBONES.register("fast-silu")
def fast_silu(channels: int, dimension: int, width: float, *, floor: Floor = 5e-4) -> nn.Module:
    """`fast` with SiLU in place of GELU, which adversarial training likes (Pang et al. 2021)."""
    return FastNet(channels, dimension, _fast_widths(width), nn.SiLU, floor=floor)


def _fast_widths(width: float) -> tuple[int, int, int]:
    return round(64 * width), round(256 * width), round(256 * width)


@BACKBONES.register("lipschitz-cnn")
def lipschitz_cnn(
    channels: int,
    dimension: int,
    width: float,
    *,
    depth: Annotated[int, Field(ge=0, description="Shifts at each of the first two sizes.")] = 3,
) -> nn.Module:
    """1-Lipschitz in L2, of orthogonal layers, for CPU: 4 MFLOP forward on 32x32 images at width 1."""
    return LipschitzCNN(channels, dimension, 2 * round(8 * width), depth)


@BACKBONES.register("resnet18")
def resnet18(channels: int, dimension: int, width: float) -> nn.Module:
    """ResNet-18 in its CIFAR form (He et al. 2016; stride 1 and no pooling at the start): the paper's network."""
    return ResNet(channels, dimension, blocks=(2, 2, 2, 2), width=round(64 * width))


@BACKBONES.register("wrn-28-10")
def wrn_28_10(channels: int, dimension: int, width: float) -> nn.Module:
    """Wide ResNet 28-10 (Zagoruyko & Komodakis 2016), the usual large network of robustness tables."""
    return PreActivationResNet(channels, dimension, depth=28, width=round(160 * width))


@BACKBONES.register("wrn-34-10")
def wrn_34_10(channels: int, dimension: int, width: float) -> nn.Module:
    """Wide ResNet 34-10 (Madry et al. 2018; Zhang et al. 2019)."""
    return PreActivationResNet(channels, dimension, depth=34, width=round(160 * width))


@BACKBONES.register("linf-dist")
def linf_dist(
    channels: int,
    dimension: int,
    width: float,
    *,
    depth: Annotated[int, Field(ge=1, description="Layers.")] = 3,
    grid: Annotated[int, Field(ge=1, description="Side of the image that averages bring all images to.")] = 14,
) -> nn.Module:
    """Layers of L-inf distances (Zhang et al. 2021), 256 wide at width 1; for certificates."""
    return LinfDistanceNet(channels, dimension, round(256 * width), depth=depth, grid=grid)
