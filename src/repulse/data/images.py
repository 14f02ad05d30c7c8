"""Images and labels as tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from repulse.common.errors import RepulseError
from repulse.common.files import sha256_of
from repulse.common.seeding import generator


@runtime_checkable
class ImageSource(Protocol):
    """A split of a data set, in memory or streamed: what training and evaluation ask of it."""

    @property
    def labels(self) -> Int64[Tensor, "N"]:
        """Classes 0 to n-1."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class."""

    @property
    def name(self) -> str:
        """What tables call the data set."""

    @property
    def split(self) -> str:
        """`train`, `validation` or `test`."""

    def __len__(self) -> int:
        """The number of images, N."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""

    def fetch(self, indices: Int64[Tensor, "B"]) -> UInt8[Tensor, "B C H W"]:
        """The images at these places."""

    def take(self, indices: Int64[Tensor, "M"]) -> ImageSource:
        """A source of only the images at these places, in this order."""

    def sha256(self) -> str:
        """A digest of what the source holds."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of a data set, in memory.

    Args:
        images: grey levels 0 to 255.
        labels: classes 0 to n-1, where n is the number of class names.
        class_names: one name per class, in the order of the labels.
        name: what tables call the data set.
        split: `train`, `validation` or `test`.

    Raises:
        RepulseError: if there are no images, the lengths differ, or a label has no class name.
    """

    images: UInt8[Tensor, "N C H W"]
    labels: Int64[Tensor, "N"]
    class_names: tuple[str, ...]
    name: str
    split: str

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise RepulseError(f"{self.name} {self.split}: {len(self.images)} images but {len(self.labels)} labels")
        check_labels(self.labels, len(self.class_names), f"{self.name} {self.split}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def fetch(self, indices: Int64[Tensor, "B"]) -> UInt8[Tensor, "B C H W"]:
        """The images at these places."""
        return self.images.index_select(0, indices)

    def take(self, indices: Int64[Tensor, "M"]) -> ImageSet:
        """Only the images at these places, in this order."""
        return ImageSet(self.images[indices], self.labels[indices], self.class_names, self.name, self.split)

    def sha256(self) -> str:
        """The SHA-256 of images and labels."""
        return sha256_of(self.images, self.labels)


@dataclass(frozen=True, eq=False)
class DataSplits:
    """The splits of one data set; `validation` is held out of the training images, or None."""

    train: ImageSource
    validation: ImageSource | None
    test: ImageSource

    def limit(self, *, train: int, seed: int) -> DataSplits:
        """The same with a balanced subset of `train` training images."""
        return DataSplits(subset(self.train, train, seed), self.validation, self.test)


def subset(source: ImageSource, count: int, seed: int) -> ImageSource:
    """A random subset of `count` images, classes in equal shares as nearly as possible, in the source's order.

    Raises:
        RepulseError: if there are fewer images than that.
    """
    if count > len(source):
        raise RepulseError(f"{source.name} {source.split} has {len(source)} images; {count} were asked for")
    return source.take(balanced_indices(source.labels, count, seed, "subset"))


def balanced_indices(labels: Int64[Tensor, "N"], count: int, *keys: int | str) -> Int64[Tensor, "count"]:
    """Sorted places of `count` examples, drawn at random from `keys`, classes in equal shares as nearly as possible."""
    order, rank, _ = _shuffled(labels, *keys)
    # Taking examples by rank takes one of each class before a second of any.
    return order[torch.argsort(rank, stable=True)[:count]].sort().values


def stratified_indices(labels: Int64[Tensor, "N"], count: int, *keys: int | str) -> Int64[Tensor, "count"]:
    """Sorted places of `count` examples, drawn at random from `keys`, each class in proportion to its size.

    Where all classes have one size, these are the places that `balanced_indices` draws.
    """
    order, rank, size = _shuffled(labels, *keys)
    # Equal shares would take all of a rare class; by the fraction of its class that precedes it, none is used up first.
    return order[torch.argsort((rank + 0.5) / size, stable=True)[:count]].sort().values


def _shuffled(labels: Tensor, *keys: int | str) -> tuple[Tensor, Tensor, Tensor]:
    """A random order of the examples, and for each in that order: its rank within its class, and the class's size."""
    order = torch.randperm(len(labels), generator=generator(*keys))
    shuffled = labels[order]
    by_class = torch.argsort(shuffled, stable=True)
    sizes = torch.bincount(shuffled)
    starts = sizes.cumsum(0) - sizes
    rank = torch.empty_like(order)
    rank[by_class] = torch.arange(len(labels)) - starts[shuffled[by_class]]
    return order, rank, sizes[shuffled].double()


def check_labels(labels: Tensor, classes: int, where: str) -> None:
    """Refuse labels that are not classes 0 to `classes - 1`.

    Raises:
        RepulseError: in one line that names the first such row.
    """
    if len(labels) == 0:
        raise RepulseError(f"{where}: no images")
    wrong = ((labels < 0) | (labels >= classes)).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        raise RepulseError(
            f"{where} row {row}: label {int(labels[row])} is not one of the {classes} classes 0 to {classes - 1}"
        )


def check_classes(labels: Tensor, class_names: Sequence[str], where: str) -> None:
    """Refuse training labels of one class only, or that leave a class without an example.

    Raises:
        RepulseError: in one line that names the classes.
    """
    if len(class_names) < 2:
        raise RepulseError(f"{where}: there is one class only ({', '.join(class_names)}); a classifier needs two")
    empty = (torch.bincount(labels, minlength=len(class_names)) == 0).nonzero().flatten().tolist()
    if empty:
        raise RepulseError(
            f"{where}: no image of class {_listed(f'{i} ({class_names[i]})' for i in empty)}; labels must have no gaps"
        )


def _listed(items: Iterable[str]) -> str:
    items = list(items)
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
