"""Models that no gradient comes out of: measured all the same, and said to be so."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from repulse.attacks.attack import attackable


def has_gradient(model: nn.Module, x: Float[Tensor, "N *shape"]) -> bool:
    """Whether the logits depend on the image as far as autograd can see."""
    with attackable(model), torch.enable_grad():
        asked = x.detach().clone().requires_grad_()
        logits = model(asked)
        if not logits.requires_grad:
            return False
        # Quantised layers cut the image off, and leave a graph of something else.
        (gradient,) = torch.autograd.grad(logits.sum(), asked, allow_unused=True)
        return gradient is not None


class GradientFree(nn.Module):
    """The same logits with a gradient of zero, for models that run outside autograd.

    Attacks by gradients then stand still instead of failing, those without gradients work, and the verdict's checks say
    what is wrong.

    Args:
        model: maps images to logits.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Float[Tensor, "N *shape"]) -> Float[Tensor, "N n"]:
        """The model's logits."""
        logits: Tensor = self.model(x.detach())
        return logits + 0 * x.flatten(1).sum(1, keepdim=True)
