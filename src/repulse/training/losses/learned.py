"""Losses for prototypes that are trained with the network (`model.learn_prototypes`): each holds them apart."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from repulse.prototypes.hyperspherical import crowding
from repulse.training.loss import LOSSES, Embeddings, Head, Labels, Loss, Values


@LOSSES.register("prototype-conformity")
class PrototypeConformity(Loss):
    """Cross-entropy, plus a pull to the own prototype and a push from the others, mean over the batch.

    `CE + pull |z - w_y|^2 - push mean_{j != y} (|z - w_j|^2 + |w_y - w_j|^2)`: the prototype conformity loss (Mustafa
    et al., ICCV 2019), on the final embedding. The source adds it at inner layers too. In the paper's
    equation pull and push weigh the same, which has no lower bound; 1 and 1e-5 are the weights of its published script.
    There a softmax layer of its own gives the logits of the cross-entropy; here the readout of the same prototypes
    does, and one optimiser moves both.
    """

    pull: float = Field(1.0, ge=0, description="Weight of the distance to the own prototype.")
    push: float = Field(1e-5, ge=0, description="Weight of the distances to the other prototypes.")

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """The three terms' sums."""
        points = head.prototypes
        others = ~F.one_hot(y, len(points)).bool()
        between = _squared_distances(points, points)[y]
        away = ((_squared_distances(z, points) + between) * others).sum(1) / (len(points) - 1)
        near = (z - points[y]).square().sum(1)
        return F.cross_entropy(head.classify(z), y, reduction="none") + self.pull * near - self.push * away


@LOSSES.register("repelling-prototypes")
class RepellingPrototypes(Loss):
    """Cross-entropy, plus the mean over classes of the largest cosine to another prototype; mean over the batch.

    `CE + repulsion mean_i max_{j != i} cos(w_i, w_j)`: what `hyperspherical` prototypes minimise beforehand (Mettes et
    al. 2019) is minimised during training. The penalty is the same for every example, and moves learned prototypes
    only.
    """

    repulsion: float = Field(1.0, ge=0, description="Weight of the prototypes' largest cosines.")

    def per_example(self, z: Embeddings, y: Labels, head: Head) -> Values:
        """The cross-entropies, and the same penalty for each."""
        return F.cross_entropy(head.classify(z), y, reduction="none") + self.repulsion * crowding(head.prototypes)


def _squared_distances(a: Float[Tensor, "N d"], b: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
    return (a.unsqueeze(1) - b).square().sum(2)
