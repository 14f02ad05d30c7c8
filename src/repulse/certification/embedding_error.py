"""How far single precision may take an embedding from the exact one."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from repulse.common.fixed_weights import frozen
from repulse.models import PrototypeClassifier

ERROR_FACTOR = 4
"""How much larger than the error seen on clean images the error of an embedding may be on perturbed ones."""


def in_double(model: PrototypeClassifier) -> PrototypeClassifier:
    """A copy of a classifier with fixed weights, in double precision."""
    return cast(PrototypeClassifier, frozen(model)).double()


@torch.inference_mode()
def embedding_error(
    model: PrototypeClassifier, x: Float[Tensor, "N C H W"], exact: PrototypeClassifier | None = None
) -> float:
    """How far single precision may take an embedding from the exact one, in L2: measured, with a reserve.

    Four times the largest distance, over these images, between the embedding in single and in double precision. It is
    a measurement and not a bound: a perturbed image differs little from a clean one, so its rounding is of the same
    size, and the factor covers the rest. The worst case that a rounding analysis would allow is larger
    by far. The error of double precision is zero beside it.

    Args:
        model: in evaluation mode.
        x: images in [0, 1]; some hundred are enough.
        exact: what `in_double(model)` gives, for callers with many batches; None: made here.
    """
    exact = in_double(model) if exact is None else exact
    z, truth = model.embed(x), exact.embed(x.double())
    return ERROR_FACTOR * float((z.double() - truth).norm(dim=1).max())
