import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repulse.common.errors import RepulseError
from repulse.prototypes import make_prototypes
from repulse.training import LOSSES

NAMES = ["certified-cross-entropy", "certified-hinge", "multi-class-hinge"]


@dataclass
class Head:
    prototypes: torch.Tensor

    def classify(self, z):
        raise AssertionError("margins are those of the prototypes, whatever the readout's temperature")


def by_hand(name, z, points, y, offset, t):
    """The loss of one example in plain Python, from distances to prototypes."""

    def distance(p):
        return math.dist(z, p)

    own = points[y]
    margins = [
        (distance(p) ** 2 - distance(own) ** 2) / (2 * math.dist(own, p)) for j, p in enumerate(points) if j != y
    ]
    if name == "certified-hinge":
        return max(0.0, offset - min(margins))
    if name == "multi-class-hinge":
        return math.fsum(max(0.0, offset - m) for m in margins) / len(margins)
    return t * math.log(1 + math.fsum(math.exp((offset - m) / t) for m in margins))


@pytest.mark.parametrize("name", NAMES)
def test_loss_agrees_with_a_loop_over_examples(name):
    generator = torch.Generator().manual_seed(1)
    z, points = torch.randn(6, 3, generator=generator), torch.randn(5, 3, generator=generator)
    y = torch.tensor([0, 4, 2, 2, 1, 3])
    given_settings = {"offset": 0.4} | ({"margin_temperature": 0.3} if name == "certified-cross-entropy" else {})
    values = LOSSES[name](**given_settings).per_example(z, y, Head(points))
    expected = [by_hand(name, z[i].tolist(), points.tolist(), int(y[i]), 0.4, 0.3) for i in range(6)]
    torch.testing.assert_close(values, torch.tensor(expected))


def test_scores_of_one_hot_classes_are_those_of_the_source():
    """Prach & Lampert: `t * cross_entropy((scores - offset onehot) / t)`, whose margins are sqrt(2) times ours."""
    scores, y = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 5
    t, offset, root = 0.25, math.sqrt(2), math.sqrt(2)
    shifted = scores - offset * torch.nn.functional.one_hot(y, 5)
    expected = t * torch.nn.functional.cross_entropy(shifted / t, y, reduction="none")
    loss = LOSSES["certified-cross-entropy"](offset=offset / root, margin_temperature=t / root)
    torch.testing.assert_close(root * loss.per_example(scores, y, Head(torch.eye(5))), expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_scale_of_equal_prototypes_does_not_matter_nor_does_a_rotation(name):
    generator = torch.Generator().manual_seed(1)
    z, y = torch.randn(6, 4, generator=generator), torch.arange(6) % 4
    one_hot = LOSSES[name]().per_example(z, y, Head(torch.eye(4)))
    simplex = make_prototypes("simplex", 4, 4).points
    # The rotation that takes the corners less their centre, scaled to norm 1, to the simplex.
    corners = torch.nn.functional.normalize(torch.eye(4) - 0.25, dim=1)
    u, _, v = torch.linalg.svd(corners.T @ simplex)
    for scale in (0.5, 3.0):
        turned = LOSSES[name]().per_example(z @ u @ v, y, Head(scale * simplex))
        torch.testing.assert_close(turned, one_hot, atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999))
def test_a_small_temperature_is_the_hinge(seed):
    generator = torch.Generator().manual_seed(seed)
    z, points = torch.randn(4, 3, generator=generator), torch.randn(5, 3, generator=generator)
    y = torch.randint(5, (4,), generator=generator)
    soft = LOSSES["certified-cross-entropy"](margin_temperature=1e-3).per_example(z, y, Head(points))
    hard = LOSSES["certified-hinge"]().per_example(z, y, Head(points))
    assert (soft >= hard - 1e-5).all()
    assert (soft <= hard + 1e-3 * math.log(5) + 1e-5).all()


def test_the_multi_class_hinge_of_one_hot_classes_is_that_of_pytorch():
    """PyTorch counts the own class in the mean; its margins, differences of scores, are sqrt(2) times ours."""
    scores, y = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 5
    theirs = torch.nn.functional.multi_margin_loss(scores, y, margin=1.0, reduction="none")
    root = math.sqrt(2)
    ours = LOSSES["multi-class-hinge"](offset=1 / root).per_example(scores, y, Head(torch.eye(5)))
    torch.testing.assert_close(root * ours * 4 / 5, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_exist_at_the_prototypes(name):
    points = torch.eye(3)
    z = points.clone().requires_grad_()
    LOSSES[name](offset=2.0).per_example(z, torch.arange(3), Head(points)).sum().backward()
    assert torch.isfinite(z.grad).all()
    # Downhill is away from the other prototypes.
    assert (z.grad.diagonal() < 0).all()


@pytest.mark.parametrize(
    ("name", "given_settings", "message"),
    [
        ("linf", {"offset": 0.1}, r"loss 'linf' has no setting 'offset'; leave out loss.offset \(it has: none\)"),
        (
            "certified-hinge",
            {"margin_temperature": 0.1},
            r"loss 'certified-hinge' has no setting 'margin_temperature'; leave out loss.margin_temperature "
            r"\(it has: offset\)",
        ),
    ],
)
def test_settings_that_a_loss_lacks_are_refused(name, given_settings, message):
    with pytest.raises(RepulseError, match=f"^{message}$"):
        LOSSES[name](**given_settings)
