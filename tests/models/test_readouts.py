import math
from typing import ClassVar

import pytest
import torch
from torch import nn

from repulse.attacks import OBJECTIVES, PGD, Threat
from repulse.common.errors import RepulseError
from repulse.models import READOUTS, PrototypeClassifier, Readout
from repulse.models.readouts import margin_of


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
    torch.testing.assert_close(READOUTS[name]().logits(*points), by_loops(name, *points), rtol=1e-5, atol=1e-5)


def test_every_readout_is_covered_above():
    assert set(READOUTS) == {"linear", "dot", "cosine", "l2", "linf", "code"}


@pytest.mark.parametrize("name", ["l2", "linf", "cosine"])
def test_a_prototype_is_classified_as_itself(name, points):
    _, prototypes = points
    assert READOUTS[name]().logits(prototypes, prototypes).argmax(1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["l2", "linf"])
def test_gradient_is_finite_at_distance_zero(name, points):
    _, prototypes = points
    z = prototypes.clone().requires_grad_()
    READOUTS[name]().logits(z, prototypes).sum().backward()
    assert torch.isfinite(z.grad).all()


def test_misspelt_readout_is_named_with_the_nearest():
    with pytest.raises(
        RepulseError,
        match=r"^unknown readout 'cosin'; did you mean 'cosine'\? known: code, cosine, dot, l2, linear, linf$",
    ):
        READOUTS["cosin"]


class Manhattan(Readout):
    """A readout of somebody else's: minus the L1 distances."""

    margins: ClassVar = {}

    def logits(self, z, prototypes):
        return -torch.cdist(z, prototypes, p=1.0)


def test_a_readout_of_ones_own_is_one_class_and_one_registration(monkeypatch):
    monkeypatch.setattr(READOUTS, "_entries", dict(READOUTS._entries))
    READOUTS.register("l1")(Manhattan)
    prototypes = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    model = PrototypeClassifier(nn.Flatten(), prototypes, "l1", temperature=0.5).eval()
    x = torch.tensor([[0.5, 0, 0, 0], [0, 0.9, 0.1, 0]]).view(2, 1, 2, 2)
    torch.testing.assert_close(model(x), -2 * torch.tensor([[0.5, 1.5], [2.0, 0.2]]))
    y = torch.tensor([0, 1])
    found = PGD(OBJECTIVES["prototype-distance"], steps=20)(model, x, y, Threat("linf", 0.9))
    assert found.fooled[0]
    with pytest.raises(RepulseError, match=r"^no L2 radius for readout 'l1'; known: cosine, dot, l2, linear$"):
        margin_of("l1", "l2")
