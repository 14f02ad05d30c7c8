"""From an embedding to logits: how near is it to each prototype?

A readout maps embeddings `z` (N, d) and prototypes `P` (n, d) to logits (N, n); the class is the largest logit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, cdist

from repulse.common.registry import Registry

Readout = Callable[[Float[Tensor, "N d"], Float[Tensor, "n d"]], Float[Tensor, "N n"]]

READOUTS: Registry[Readout] = Registry("readout")


@READOUTS.register("linear")
def linear(z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
    """Inner products `z · p_j`; with one-hot prototypes this is the usual softmax layer's output."""
    return z @ prototypes.T


@READOUTS.register("dot")
def dot(z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
    """Inner products of the L-inf-normalised embedding, `z / |z|_inf · p_j` (Serban et al. 2021, section 3)."""
    return F.normalize(z, p=float("inf"), dim=1) @ prototypes.T


@READOUTS.register("cosine")
def cosine(z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
    """Cosines of the angles between embedding and prototypes, in [-1, 1]."""
    return F.normalize(z, dim=1) @ F.normalize(prototypes, dim=1).T


@READOUTS.register("l2")
def l2(z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
    """Minus the squared L2 distances, `-|z - p_j|^2`: the logits of Gaussian classes of equal variance."""
    # Expanded rather than cdist: the square root inside cdist has no gradient at distance zero.
    return 2 * z @ prototypes.T - z.square().sum(1, keepdim=True) - prototypes.square().sum(1)


@READOUTS.register("linf")
def linf(z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
    """Minus the L-inf distances, `-max_k |z_k - p_jk|`. The gradient passes through the largest coordinate only."""
    return -cdist(z.float(), prototypes.float(), p=float("inf"))


@READOUTS.register("code")
def code(z: Float[Tensor, "N d"], prototypes: Float[Tensor, "n d"]) -> Float[Tensor, "N n"]:
    """Correlations of soft bits with code words, `tanh(z) · p_j` (Verma & Swami 2019, before normalisation).

    The source divides the positive correlations by their sum to give probabilities, which orders classes the same.
    """
    return z.tanh() @ prototypes.T
