"""Networks from images to embeddings, by name; each is a function `(channels, dimension, width) -> nn.Module`."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from repulse.common.errors import RepulseError
from repulse.common.registry import Registry
from repulse.models.fast import FastNet
from repulse.models.linf_distance import LinfDistanceNet
from repulse.models.lipschitz import LipschitzCNN
from repulse.models.resnet import PreActivationResNet, ResNet
from repulse.models.small_cnn import SmallCNN

BackboneFactory = Callable[[int, int, float], nn.Module]

BACKBONES: Registry[BackboneFactory] = Registry("backbone")


@BACKBONES.register("small-cnn")
def small_cnn(channels: int, dimension: int, width: float) -> nn.Module:
    """Four convolutions, for CPU: 27 MFLOP forward on 32x32 images at width 1."""
    return SmallCNN(channels, dimension, round(32 * width))


@BACKBONES.register("fast")
def fast(channels: int, dimension: int, width: float) -> nn.Module:
    """The CIFAR speed-record network (Jordan 2024): 0.24 GFLOP forward on 32x32 images at width 1."""
    return FastNet(channels, dimension, (round(64 * width), round(256 * width), round(256 * width)))


@BACKBONES.register("lipschitz-cnn")
def lipschitz_cnn(channels: int, dimension: int, width: float) -> nn.Module:
    """1-Lipschitz in L2, of orthogonal layers, for CPU: 4 MFLOP forward on 32x32 images at width 1."""
    return LipschitzCNN(channels, dimension, 2 * round(8 * width))


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
def linf_dist(channels: int, dimension: int, width: float) -> nn.Module:
    """Three layers of L-inf distances (Zhang et al. 2021), 256 wide at width 1, on a 14x14 image; for certificates."""
    return LinfDistanceNet(channels, dimension, round(256 * width))


def make_backbone(name: str, *, channels: int, dimension: int, width: float = 1.0) -> nn.Module:
    """The backbone called `name`, for images of `channels` channels and embeddings of `dimension`.

    Args:
        name: a name in `BACKBONES`, or `timm/NAME` for any network of the timm library (extra `repulse[timm]`).
        channels: C of the images.
        dimension: d of the embeddings.
        width: factor on the number of channels inside; timm networks take 1 only.

    Raises:
        RepulseError: if the name is unknown, or timm is not installed, or the width is impossible.
    """
    if not width > 0:
        raise RepulseError(f"width must be positive, got {width}")
    if name.startswith("timm/"):
        return _timm(name.removeprefix("timm/"), channels, dimension, width)
    return BACKBONES[name](channels, dimension, width)


def _timm(name: str, channels: int, dimension: int, width: float) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise RepulseError(f"backbone timm/{name} needs timm: pip install 'repulse[timm]'") from error
    if width != 1.0:
        raise RepulseError(f"backbone timm/{name} has one width; leave model.width at 1, got {width}")
    if not timm.is_model(name):
        near = timm.list_models(f"*{name}*")[:3]
        hint = f"; near: {', '.join(near)}" if near else ""
        raise RepulseError(f"timm has no model {name!r}{hint}")
    model: nn.Module = timm.create_model(name, pretrained=False, in_chans=channels, num_classes=dimension)
    return model
