"""In tests, every call of the rooms that pyproject.toml names has its types and shapes checked."""

import jaxtyping
import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float

from repulse.attacks import Threat
from repulse.attacks.objectives import margin


def test_a_wrong_type_is_refused_by_functions_and_dataclasses():
    with pytest.raises(BeartypeCallHintViolation, match="not int64"):
        margin(torch.rand(2, 3), torch.rand(2))
    with pytest.raises(BeartypeCallHintViolation, match="not instance of float"):
        Threat("linf", "8/255")


def test_sizes_of_axes_agree_between_arguments_of_one_call_and_are_forgotten_after_it():
    threat = Threat("linf", 0.1)
    with pytest.raises(BeartypeCallHintViolation, match="size of dimension N is 4 which does not equal"):
        threat.distance(torch.rand(2, 3), torch.rand(4, 3))
    assert threat.distance(torch.rand(4, 3), torch.rand(4, 3)).shape == (4,)


def test_what_is_returned_has_the_sizes_that_the_arguments_had():
    @jaxtyping.jaxtyped(typechecker=beartype)
    def transposed(x: Float[torch.Tensor, "N d"]) -> Float[torch.Tensor, "N d"]:
        return x.T

    assert transposed(torch.rand(3, 3)).shape == (3, 3)
    with pytest.raises(BeartypeCallHintViolation, match="size of dimension N is 3 which does not equal"):
        transposed(torch.rand(2, 3))
