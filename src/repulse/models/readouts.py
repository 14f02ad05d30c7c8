"""From an embedding to logits: how near is it to each prototype?

A readout compares embeddings `z` (N, d) with prototypes `P` (n, d). A new one is a class with `logits` and one
registration line; what else it has (`distances` that attacks can climb, margins that certify) it says itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from repulse.attacks import Norm
from repulse.common.errors import RepulseError
from repulse.common.registry import Registry
from repulse.models.margins import DistancesInLinf, Margin, PlanesInL2, PlanesInLinf


class Readout(ABC):
    """How embeddings become logits, and what follows from it for attacks and for certificates."""

    margins: ClassVar[dict[Norm, Margin]] = {}
    """By norm, how far an embedding may move before the class changes; a norm without an entry certifies nothing."""

    @abstractmethod
    def logits(self, z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
        """The logits before the temperature: the class is the largest."""

    def distances(self, z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
        """What attacks on the geometry climb: the smallest is the class, and gradients do not vanish.

        Minus the logits; a readout overrides it where these saturate or bend without need.
        """
        return -self.logits(z, prototypes)


READOUTS: Registry[type[Readout]] = Registry("readout")


def margin_of(readout: str, norm: Norm) -> Margin:
    """The margin of a readout in a norm.

    Raises:
        RepulseError: if the readout is unknown, or its margins in this norm are; those that have one are named.
    """
    margins = READOUTS[readout]().margins
    if norm not in margins:
        known = sorted(name for name, each in READOUTS.items() if norm in each.margins)
        name = {"linf": "L-inf", "l2": "L2"}[norm]
        raise RepulseError(f"no {name} radius for readout {readout!r}; known: {', '.join(known)}")
    return margins[norm]


@READOUTS.register("linear")
class Linear(Readout):
    """Inner products `z · p_j`; with one-hot prototypes this is the usual softmax layer's output."""

    margins: ClassVar[dict[Norm, Margin]] = {"l2": PlanesInL2(), "linf": PlanesInLinf()}

    def logits(self, z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
        """`z · p_j`."""
        return z @ prototypes.T


@READOUTS.register("dot")
class Dot(Readout):
    """Inner products of the L-inf-normalised embedding, `z / |z|_inf · p_j` (Serban et al. 2021, section 3)."""

    margins: ClassVar[dict[Norm, Margin]] = {"l2": PlanesInL2()}

    def logits(self, z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
        """`z / |z|_inf · p_j`."""
        return F.normalize(z, p=float("inf"), dim=1) @ prototypes.T

    def distances(self, z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
        """`-z · p_j`: the norm has no say in the class, and its gradient passes through one coordinate."""
        return -z @ prototypes.T


@READOUTS.register("cosine")
class Cosine(Readout):
    """Cosines of the angles between embedding and prototypes, in [-1, 1]."""

    margins: ClassVar[dict[Norm, Margin]] = {"l2": PlanesInL2(unit=True)}

    def logits(self, z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
        """`z · p_j / (|z| |p_j|)`."""
        return F.normalize(z, dim=1) @ F.normalize(prototypes, dim=1).T


@READOUTS.register("l2")
class L2(Readout):
    """Minus the squared L2 distances, `-|z - p_j|^2`: the logits of Gaussian classes of equal variance."""

    margins: ClassVar[dict[Norm, Margin]] = {"l2": PlanesInL2(halfway=True)}

    def logits(self, z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
        """`-|z - p_j|^2`."""
        # Expanded rather than cdist: the square root inside cdist has no gradient at distance zero.
        return 2 * z @ prototypes.T - z.square().sum(1, keepdim=True) - prototypes.square().sum(1)

    def distances(self, z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
        """`|z - p_j|^2 - |z|^2`: without the term that all prototypes share, differences are linear in z."""
        return prototypes.square().sum(1) - 2 * z @ prototypes.T


@READOUTS.register("linf")
class Linf(Readout):
    """Minus the L-inf distances, `-max_k |z_k - p_jk|`. The gradient passes through the largest coordinate only."""

    margins: ClassVar[dict[Norm, Margin]] = {"linf": DistancesInLinf()}

    def logits(self, z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
        """`-|z - p_j|_inf`, in single precision at least: PyTorch has no such distance of half precision."""
        wide = torch.promote_types(z.dtype, torch.float32)
        return -torch.cdist(z.to(wide), prototypes.to(wide), p=torch.inf)


@READOUTS.register("code")
class Code(Readout):
    """Correlations of soft bits with code words, `tanh(z) · p_j` (Verma & Swami 2019, before normalisation).

    The source divides the positive correlations by their sum to give probabilities, which orders classes the same.
    """

    def logits(self, z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
        """`tanh(z) · p_j`."""
        return z.tanh() @ prototypes.T

    def distances(self, z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
        """`-z · p_j`, before the tanh: soft bits saturate and hide their gradient."""
        return -z @ prototypes.T
