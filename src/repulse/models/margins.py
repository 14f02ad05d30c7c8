"""How far an embedding may move, in a norm, before another class's logit reaches its label's.

Behind a network that is L-Lipschitz from pixels to embeddings in that norm, the smallest margin over L is a radius in
which the answer cannot change: with prototypes, separation is robustness.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

Embeddings = Float[Tensor, "N d"]
Points = Float[Tensor, "n d"]
Labels = Int64[Tensor, "N"]
Margins = Float[Tensor, "N n"]
"""From each embedding to each class: positive where the label wins, infinity in the label's own column."""


def plane_margins(z: Embeddings, prototypes: Points, labels: Labels, *, halfway: bool = True) -> Margins:
    """The signed L2 distance of each embedding to the plane between its label's prototype and each other one.

    With i the label and j the other class, for planes halfway between two prototypes
    `(|z - p_j|^2 - |z - p_i|^2) / (2 |p_i - p_j|)` (Tsuzuku et al. 2018, prop. 1, for prototypes); for planes through
    the origin `(z · p_i - z · p_j) / |p_i - p_j|`. For prototypes of equal norm the two are one.

    Returns:
        Positive where the label wins against j; infinity in the label's own column.
    """
    scores = z @ prototypes.T
    if halfway:
        scores = scores - prototypes.square().sum(1) / 2
    difference = scores.gather(1, labels.unsqueeze(1)) - scores
    own = F.one_hot(labels, len(prototypes)).bool()
    margins: Tensor = (difference / _apart(prototypes, labels, 2).masked_fill(own, 1.0)).masked_fill(own, torch.inf)
    return margins


class Margin(ABC):
    """The margins of a readout in one norm, and what rounding does to them."""

    @abstractmethod
    def distances(self, z: Embeddings, prototypes: Points, labels: Labels) -> Margins:
        """How far each embedding may move before class j wins over the label; infinity in the label's own column."""

    @abstractmethod
    def rounding(
        self, z: Embeddings, prototypes: Points, labels: Labels, margins: Margins, epsilon: float
    ) -> Float[Tensor, "N _"]:
        """A bound on how far rounding may move these margins: that of the logits, anywhere within the margin.

        Args:
            z: embeddings.
            prototypes: of the n classes.
            labels: the class of each embedding.
            margins: what `distances` gives.
            epsilon: distance from 1 to the next number of the type in which the logits are computed.
        """


@dataclass(frozen=True)
class PlanesInL2(Margin):
    """Classes are divided by planes, as those of inner products and of L2 distances are.

    Args:
        halfway: planes lie halfway between two prototypes; else they pass through the origin.
        unit: prototypes are brought to norm 1 first, whose order of classes is that of cosines.
    """

    halfway: bool = False
    unit: bool = False

    def distances(self, z: Embeddings, prototypes: Points, labels: Labels) -> Margins:
        """The distances to the planes: see `plane_margins`."""
        return plane_margins(z, self._points(prototypes), labels, halfway=self.halfway)

    def rounding(
        self, z: Embeddings, prototypes: Points, labels: Labels, margins: Margins, epsilon: float
    ) -> Float[Tensor, "N n"]:
        """That of a logit over `|p_i - p_j|`, twice for planes through the origin, with `u` half of epsilon.

        On an embedding at most m_j longer than z, a logit is off by at most `(d + 8) u (|z| + m_j + |p|)^2` (halfway)
        or `(d + 8) u (|z| + m_j) |p|` (Higham 2002, section 3.1, with the division by the temperature and by norms).
        """
        points = self._points(prototypes)
        reach = z.norm(dim=1, keepdim=True) + margins.abs()
        longest = points.norm(dim=1).max()
        size = (reach + longest).square() if self.halfway else 2 * reach * longest
        bound = (points.shape[1] + 8) * epsilon / 2 * size / _apart(points, labels, 2)
        return torch.where(margins.isinf(), torch.zeros_like(margins), bound)

    def _points(self, prototypes: Tensor) -> Tensor:
        return F.normalize(prototypes, dim=1) if self.unit else prototypes


class PlanesInLinf(Margin):
    """`z · (p_i - p_j) / |p_i - p_j|_1`, as L1 is dual to L-inf; with one-hot prototypes half the margin of logits."""

    def distances(self, z: Embeddings, prototypes: Points, labels: Labels) -> Margins:
        """The L-inf distances to the planes."""
        products = z @ prototypes.T
        margins = (_own(products, labels) - products) / _apart(prototypes, labels, 1)
        return _without_own(margins, labels)

    def rounding(
        self, z: Embeddings, prototypes: Points, labels: Labels, margins: Margins, epsilon: float
    ) -> Float[Tensor, "N 1"]:
        """That of d products and sums, and of the division by the temperature."""
        sizes = (z.abs() + margins.amin(1, keepdim=True).abs()) @ prototypes.abs().T
        nearest = _without_own(_apart(prototypes, labels, 1), labels).amin(1, keepdim=True)
        return 2 * (z.shape[1] + 4) * epsilon * sizes.amax(1, keepdim=True) / nearest


class DistancesInLinf(Margin):
    """`(|z - p_j|_inf - |z - p_i|_inf) / 2`: each distance changes by no more than z does (Zhang et al., ICML 2021)."""

    def distances(self, z: Embeddings, prototypes: Points, labels: Labels) -> Margins:
        """Half the differences of L-inf distances."""
        distances = torch.cdist(z, prototypes, p=torch.inf)
        return _without_own((distances - _own(distances, labels)) / 2, labels)

    def rounding(
        self,
        z: Embeddings,
        prototypes: Points,
        labels: Labels,  # noqa: ARG002
        margins: Margins,
        epsilon: float,
    ) -> Float[Tensor, "N 1"]:
        """Four epsilons of the largest distance that any prototype can have within the margin.

        A difference, and a division by the temperature, which must not round two logits to one.
        """
        largest = torch.cdist(z, prototypes, p=torch.inf).amax(1, keepdim=True)
        return 4 * epsilon * (largest + margins.amin(1, keepdim=True).abs())


def _apart(prototypes: Tensor, labels: Tensor, p: int) -> Tensor:
    """The distances of every prototype to each label's own, (N, n)."""
    distances: Tensor = (prototypes[labels].unsqueeze(1) - prototypes).norm(p=p, dim=2)
    return distances


def _own(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(1, labels.unsqueeze(1))


def _without_own(values: Tensor, labels: Tensor) -> Tensor:
    return values.scatter(1, labels.unsqueeze(1), torch.inf)
