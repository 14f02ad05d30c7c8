"""Images with their labels from whatever gives both: loaders, data sets, folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from repulse.common.arrays import as_images, as_labels
from repulse.common.errors import RepulseError, with_article
from repulse.data import load_test

# What data sets call an image and its class, the likeliest first.
_IMAGE_KEYS = ("pixel_values", "image", "img", "images", "x")
_LABEL_KEYS = ("label", "labels", "fine_label", "target", "y")


def images_and_labels(images: Any, labels: Any) -> tuple[Float[Tensor, "N *shape"], Int64[Tensor, "N"]]:
    """What stands for images and labels in a call, as tensors.

    Args:
        images: as `as_images` takes them; without labels, whatever gives both, see `pairs`.
        labels: as `as_labels` takes them; None: they come with the images.

    Raises:
        RepulseError: if they are something else.
    """
    if labels is None:
        images, labels = pairs(images)
    return as_images(images), as_labels(labels)


def pairs(data: object) -> tuple[Any, Any]:
    """The images and labels of a data set: a `DataLoader`, a `Dataset`, one of Hugging Face's, or a folder's path.

    Raises:
        RepulseError: if it is none of these, or gives no pairs.
    """
    if isinstance(data, str | Path):
        test = load_test(str(data), divide=False)
        return test.fetch(torch.arange(len(test))).float() / 255, test.labels
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not hasattr(data, "batch_sampler"):
        parts = [_pair(data[place]) for place in range(len(data))]
        if not parts:
            raise RepulseError("there are no images to measure")
        return torch.stack([_image(x) for x, _ in parts]), torch.stack([torch.as_tensor(y) for _, y in parts])
    if isinstance(data, Iterable) and not isinstance(data, Tensor):
        parts = [_pair(batch) for batch in data]
        if not parts:
            raise RepulseError("there are no images to measure")
        return torch.cat([_image(x) for x, _ in parts]), torch.cat([torch.as_tensor(y) for _, y in parts])
    raise RepulseError(f"images without labels: give labels, a DataLoader, Dataset or path, got {with_article(data)}")


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        image = next((item[key] for key in _IMAGE_KEYS if key in item), None)
        label = next((item[key] for key in _LABEL_KEYS if key in item), None)
        if image is None or label is None:
            raise RepulseError(f"found no image and label among {', '.join(map(str, item))}")
        return image, label
    if isinstance(item, Sequence) and len(item) >= 2:
        return item[0], item[1]
    raise RepulseError(f"a data set must give pairs of images and labels, got {with_article(item)}")


def _image(image: Any) -> Tensor:
    """One image as pixels in [0, 1]; PIL images and whole numbers of eight bits are grey levels."""
    if hasattr(image, "getbands"):
        import numpy as np

        found = torch.as_tensor(np.array(image))
        found = found[None] if found.ndim == 2 else found.permute(2, 0, 1)
    else:
        found = torch.as_tensor(image)
    return found.float() / 255 if found.dtype == torch.uint8 else found
