"""Losses for prototypes that are trained with the network (`model.learn_prototypes`): each holds them apart."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from repulse.prototypes.hyperspherical import crowding
from repulse.training.losses import Head, enter_loss


@enter_loss("prototype-conformity", "mean")
def prototype_conformity(
    z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head, *, pull: float = 1.0, push: float = 1e-5
) -> Float[Tensor, "N"]:
    """Cross-entropy, plus a pull to the own prototype and a push from the others, mean over the batch.

    `CE + pull |z - w_y|^2 - push mean_{j != y} (|z - w_j|^2 + |w_y - w_j|^2)`: the prototype conformity loss (Mustafa
    et al., ICCV 2019), on the final embedding. The source adds it at inner layers too. In the paper's
    equation pull and push weigh the same, which has no lower bound; 1 and 1e-5 are the weights of its published script.
    There a softmax layer of its own gives the logits of the cross-entropy; here the readout of the same prototypes
    does, and one optimiser moves both.
    """
    others = ~F.one_hot(y, len(head.prototypes)).bool()
    between = _squared_distances(head.prototypes, head.prototypes)[y]
    away = ((_squared_distances(z, head.prototypes) + between) * others).sum(1) / (len(head.prototypes) - 1)
    near = (z - head.prototypes[y]).square().sum(1)
    return F.cross_entropy(head.classify(z), y, reduction="none") + pull * near - push * away


@enter_loss("repelling-prototypes", "mean")
def repelling_prototypes(
    z: Float[Tensor, "N d"], y: Int64[Tensor, "N"], head: Head, *, repulsion: float = 1.0
) -> Float[Tensor, "N"]:
    """Cross-entropy, plus the mean over classes of the largest cosine to another prototype; mean over the batch.

    `CE + repulsion mean_i max_{j != i} cos(w_i, w_j)`: what `hyperspherical` prototypes minimise beforehand (Mettes et
    al. 2019) is minimised during training. The penalty is the same for every example, and moves learned prototypes
    only.
    """
    return F.cross_entropy(head.classify(z), y, reduction="none") + repulsion * crowding(head.prototypes)


def _squared_distances(a: Float[Tensor, "N d"], b: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
    return (a.unsqueeze(1) - b).square().sum(2)
