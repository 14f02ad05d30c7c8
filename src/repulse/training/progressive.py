"""Smaller images in the first epochs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.common.evaluation_mode import evaluation_mode
from repulse.models import PrototypeClassifier
from repulse.training.settings import ProgressiveSettings


def size_in_epoch(settings: ProgressiveSettings, epoch: int, epochs: int) -> int | None:
    """The side in pixels that images of this epoch, counted from 0, are scaled to; None: they keep their own."""
    return settings.size if epoch < settings.share * epochs else None


def smaller(images: Tensor, size: int) -> Tensor:
    """Images of shape (N, C, H, W) in [0, 1] at `size` x `size` pixels, each the mean of those it covers.

    Source: Tan & Le, *EfficientNetV2: Smaller Models and Faster Training*, ICML 2021, section 4, for training that
    begins with small images: a convolutional network learns much of what it needs there, for a fraction of the passes'
    cost. The source also strengthens regularisation as images grow; that is left to the configuration.
    """
    # The antialiasing filter may overshoot by its last bit.
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


@torch.no_grad()
def check_size(model: PrototypeClassifier, settings: ProgressiveSettings, image_shape: tuple[int, int, int]) -> None:
    """Make sure that small images are smaller, and that the model takes them.

    Args:
        model: the classifier; left as it is.
        settings: the small images.
        image_shape: (C, H, W) of the training images.

    Raises:
        RepulseError: if they are not smaller, or the model takes images of one size only.
    """
    size = settings.size
    if size is None:
        return
    channels, height, width = image_shape
    if size >= min(height, width):
        raise RepulseError(
            f"fit.progressive.size={size} is not smaller than the images, which are {height}x{width}; "
            "choose a smaller one"
        )
    try:
        with evaluation_mode(model):
            model(model.mean.new_zeros(1, channels, size, size))
    except (RuntimeError, ValueError) as error:
        raise RepulseError(
            f"this network does not take images of {size}x{size} ({str(error).splitlines()[0]}); leave out "
            "fit.progressive.size"
        ) from error
