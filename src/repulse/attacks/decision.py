"""Whether logits mean that an image fools the model: ties, rounding and what is not a number included."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from repulse.attacks.objectives import margin

# So many units in the last place of the largest logit are rounding, which another runtime may round otherwise.
UNITS = 8


class Decision(NamedTuple):
    """What the logits of some images say about them."""

    prediction: Int64[Tensor, "N"]
    """The class given; where logits are not numbers, some wrong one."""
    fooled: Bool[Tensor, "N"]
    """Where a wrong class is ahead by more than rounding, or the logits are not numbers."""
    tied: Bool[Tensor, "N"]
    """Where a wrong class is ahead, but by no more than rounding: not fooled."""
    broken: Bool[Tensor, "N"]
    """Where logits are not numbers."""
    margin: Float[Tensor, "N"]
    """Largest wrong logit minus the true one."""


def decide(logits: Float[Tensor, "N n"], y: Int64[Tensor, "N"]) -> Decision:
    """Read logits as decisions; a logit of -inf is a class that is ruled out.

    A lead of at most 8 units in the last place of the largest logit is rounding, unless all logits of the image are
    whole numbers, such as votes, whose ties are exact and go to the first class.

    Args:
        logits: of the images.
        y: true classes.
    """
    broken = logits.isnan().any(1) | (logits == torch.inf).any(1) | (logits == -torch.inf).all(1)
    lead = margin(logits, y)
    prediction = logits.argmax(1)
    if bool(broken.any()):
        wrong = logits.nan_to_num(-torch.inf).scatter(1, y.unsqueeze(1), -torch.inf)
        aside = torch.where(wrong.isneginf().all(1), (y + 1) % logits.shape[1], wrong.argmax(1))
        prediction = torch.where(broken, aside, prediction)
    finite = logits.masked_fill(logits.isinf(), 0.0)
    rounding = UNITS * torch.finfo(logits.dtype).eps * finite.abs().amax(1)
    exact = (finite == finite.round()).all(1)
    wrong_class = prediction != y
    fooled = wrong_class & ((lead > rounding) | exact | broken)
    return Decision(prediction, fooled, wrong_class & ~fooled, broken, lead)
