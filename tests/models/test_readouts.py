import math

import pytest
import torch

from repulse.common.errors import RepulseError
from repulse.models import READOUTS


@pytest.fixture
def points():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(5, 7, generator=generator), torch.randn(4, 7, generator=generator)


def by_loops(name, z, prototypes):
    """Every readout from its definition, one pair at a time."""
    logits = torch.empty(len(z), len(prototypes))
    for i, a in enumerate(z.tolist()):
        for j, b in enumerate(prototypes.tolist()):
            inner = math.fsum(x * y for x, y in zip(a, b, strict=True))
            difference = [x - y for x, y in zip(a, b, strict=True)]
            logits[i, j] = {
                "linear": inner,
                "dot": inner / max(abs(x) for x in a),
                "cosine": inner / math.hypot(*a) / math.hypot(*b),
                "l2": -math.fsum(x * x for x in difference),
                "linf": -max(abs(x) for x in difference),
                "code": math.fsum(math.tanh(x) * y for x, y in zip(a, b, strict=True)),
            }[name]
    return logits


@pytest.mark.parametrize("name", ["linear", "dot", "cosine", "l2", "linf", "code"])
def test_readout_agrees_with_its_definition(name, points):
    torch.testing.assert_close(READOUTS[name](*points), by_loops(name, *points), rtol=1e-5, atol=1e-5)


def test_every_readout_is_covered_above():
    assert set(READOUTS) == {"linear", "dot", "cosine", "l2", "linf", "code"}


@pytest.mark.parametrize("name", ["l2", "linf", "cosine"])
def test_a_prototype_is_classified_as_itself(name, points):
    _, prototypes = points
    assert READOUTS[name](prototypes, prototypes).argmax(1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["l2", "linf"])
def test_gradient_is_finite_at_distance_zero(name, points):
    _, prototypes = points
    z = prototypes.clone().requires_grad_()
    READOUTS[name](z, prototypes).sum().backward()
    assert torch.isfinite(z.grad).all()


def test_misspelt_readout_is_named_with_the_nearest():
    with pytest.raises(
        RepulseError,
        match=r"^unknown readout 'cosin'; did you mean 'cosine'\? known: code, cosine, dot, l2, linear, linf$",
    ):
        READOUTS["cosin"]
