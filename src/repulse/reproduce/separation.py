"""What became of the separation: where a trained network puts the classes, against where it should."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from repulse.data import ImageSource
from repulse.models import PrototypeClassifier

_AT_ONCE = 500


def learned_separation(
    z: Float[Tensor, "N d"], labels: Int64[Tensor, "N"], prototypes: Float[Tensor, "n d"]
) -> dict[str, float | None]:
    """How far apart the classes lie in a learned embedding, and how tightly each lies together.

    With `m_k` the mean embedding of class k, and `m` the mean of these:

    - `angle`: the smallest angle between `m_k - m` and `m_l - m`, in degrees; `prototype_angle`: the same of the
      prototypes. Seen from the centre, as in the study of neural collapse (Papyan, Han & Donoho 2020), since a softmax
      does not feel what is added to all logits alike. `angle_at_origin` and `prototype_angle_at_origin` are seen from
      the origin instead, as a cosine readout sees them.
    - `spread`: the root mean square distance of embeddings to the mean of their class, over the mean distance between
      two class means. 0: every class is one point; about 1: classes lie in each other.

    None stands for what is not defined: an angle at a point of length 0.

    Args:
        z: embeddings.
        labels: true classes; each must have an image.
        prototypes: where the classes should lie.
    """
    # Learnt prototypes are parameters, and ask for gradients.
    z, prototypes = z.double(), prototypes.detach().double()
    means = torch.stack([z[labels == label].mean(0) for label in range(len(prototypes))])
    within = (z - means[labels]).square().sum(1).mean().sqrt()
    between = torch.pdist(means).mean()
    return {
        "angle": smallest_angle(means - means.mean(0)),
        "prototype_angle": smallest_angle(prototypes - prototypes.mean(0)),
        "angle_at_origin": smallest_angle(means),
        "prototype_angle_at_origin": smallest_angle(prototypes),
        "spread": float(within / between) if between > 0 else None,
    }


def smallest_angle(points: Float[Tensor, "n d"]) -> float | None:
    """The smallest angle between two of the points, seen from the origin, in degrees; None if one lies there."""
    length = points.norm(dim=1, keepdim=True)
    if not bool((length > 1e-12 * length.max().clamp_min(1e-300)).all()):
        return None
    unit = points / length
    cosines = (unit @ unit.T).fill_diagonal_(-1)
    return math.degrees(math.acos(float(cosines.max().clamp(-1, 1))))


def embeddings(model: PrototypeClassifier, images: ImageSource) -> Float[Tensor, "N d"]:
    """The embeddings of all images, on the CPU."""
    device = model.mean.device
    parts = torch.split(torch.arange(len(images)), _AT_ONCE)
    with torch.inference_mode():
        whole = [model.embed(images.fetch(part).to(device).float() / 255).float().cpu() for part in parts]
    return torch.cat(whole).clone()
