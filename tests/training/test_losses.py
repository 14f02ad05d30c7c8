import math
from dataclasses import dataclass

import pytest
import torch

from repulse.common.errors import RepulseError
from repulse.models import READOUTS
from repulse.prototypes import make_prototypes
from repulse.training import LOSSES


@dataclass
class PlainHead:
    prototypes: torch.Tensor

    def classify(self, z):
        return z @ self.prototypes.T


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(4, 3, generator=generator)
    head = PlainHead(torch.randn(5, 3, generator=generator))
    return z, torch.tensor([0, 4, 2, 2]), head


def by_hand(name, z, p, logits, y):
    """The loss of one example in plain Python."""
    distance = max(abs(a - b) for a, b in zip(z, p, strict=True))
    cosine = math.fsum(a * b for a, b in zip(z, p, strict=True)) / math.hypot(*z) / math.hypot(*p)
    return {
        "linf": distance,
        "linf-sum": distance,
        "linf-squared": distance**2,
        "cosine": 1 - cosine,
        "cosine-squared": (1 - cosine) ** 2,
        "l2-squared": math.fsum((a - b) ** 2 for a, b in zip(z, p, strict=True)),
        "mmc": math.fsum((a - b) ** 2 for a, b in zip(z, p, strict=True)) / 2,
        "code": math.fsum(-math.log(1 / (1 + math.exp(-a if b > 0 else a))) for a, b in zip(z, p, strict=True)) / 3,
        "code-hinge": math.fsum(max(0, 1 - (a if b > 0 else -a)) for a, b in zip(z, p, strict=True)) / 3,
        "cross-entropy": math.log(math.fsum(math.exp(v) for v in logits)) - logits[y],
    }[name]


PER_EXAMPLE = [
    "linf",
    "linf-sum",
    "linf-squared",
    "cosine",
    "cosine-squared",
    "l2-squared",
    "mmc",
    "code",
    "code-hinge",
    "cross-entropy",
]


@pytest.mark.parametrize("name", PER_EXAMPLE)
def test_loss_agrees_with_a_loop_over_examples(name, case):
    z, y, head = case
    logits = head.classify(z)
    expected = [
        by_hand(name, z[i].tolist(), head.prototypes[y[i]].tolist(), logits[i].tolist(), int(y[i])) for i in range(4)
    ]
    torch.testing.assert_close(LOSSES[name]().per_example(z, y, head), torch.tensor(expected))


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"cosine-batch-axis"}))
def test_an_example_is_not_moved_by_its_neighbours(name, case):
    z, y, head = case
    alone = torch.cat([LOSSES[name]().per_example(z[i : i + 1], y[i : i + 1], head) for i in range(4)])
    torch.testing.assert_close(LOSSES[name]().per_example(z, y, head), alone)


def test_the_published_cosine_runs_over_the_batch(case):
    z, y, head = case
    own = head.prototypes[y]
    columns = [
        1 - float(z[:, k] @ own[:, k]) / float(z[:, k].norm()) / float(own[:, k].norm()) for k in range(z.shape[1])
    ]
    values = LOSSES["cosine-batch-axis"]().per_example(z, y, head)
    torch.testing.assert_close(values, torch.full((4,), sum(columns) / 3))


def test_the_published_cosine_has_no_gradient_for_a_batch_of_one(case):
    z, y, head = case
    one = z[:1].clone().requires_grad_()
    LOSSES["cosine-batch-axis"]().per_example(one, y[:1], head).sum().backward()
    torch.testing.assert_close(one.grad, torch.zeros(1, 3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["linf", "linf-squared", "cosine", "cosine-squared", "l2-squared", "mmc"])
def test_the_own_prototype_costs_nothing(name, case):
    _, y, head = case
    values = LOSSES[name]().per_example(head.prototypes[y].clone(), y, head)
    torch.testing.assert_close(values, torch.zeros(4), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["linf", "linf-sum"])
def test_the_gradient_of_an_linf_distance_passes_through_one_coordinate(name, case):
    z, y, head = case
    z = z.clone().requires_grad_()
    LOSSES[name]().per_example(z, y, head).sum().backward()
    assert (z.grad != 0).sum(1).tolist() == [1, 1, 1, 1]
    torch.testing.assert_close(z.grad.abs().sum(1), torch.ones(4))


def test_the_max_mahalanobis_loss_is_the_papers_on_its_centres():
    """Ten centres of norm 10 in 10-d; from the origin each costs half its squared norm, 50."""
    head = PlainHead(make_prototypes("max-mahalanobis", 10, 10).points)
    y = torch.arange(10)
    torch.testing.assert_close(LOSSES["mmc"]().per_example(torch.zeros(10, 10), y, head), torch.full((10,), 50.0))
    to_the_next = LOSSES["mmc"]().per_example(head.prototypes.roll(1, 0), y, head)
    torch.testing.assert_close(to_the_next, torch.full((10,), 100 * (1 + 1 / 9)))


def test_soft_bits_that_agree_with_the_code_word_cost_nothing():
    """Bits far on the right side of zero; one bit of 16 on the wrong side costs its distance over 16."""
    head = PlainHead(make_prototypes("hadamard", 10, 16).points)
    y = torch.arange(10)
    z = 20 * head.prototypes[y]
    for name in ("code", "code-hinge"):
        torch.testing.assert_close(LOSSES[name]().per_example(z, y, head), torch.zeros(10), atol=1e-6, rtol=0)
    z[:, 3] *= -1
    torch.testing.assert_close(LOSSES["code"]().per_example(z, y, head), torch.full((10,), 20 / 16))
    torch.testing.assert_close(LOSSES["code-hinge"]().per_example(z, y, head), torch.full((10,), 21 / 16))
    assert READOUTS["code"]().logits(z, head.prototypes).argmax(1).tolist() == y.tolist()


def test_label_smoothing_blends_with_the_mean_over_classes(case):
    z, y, head = case
    log_p = head.classify(z).log_softmax(1)
    expected = -(0.8 * log_p[range(4), y] + 0.2 * log_p.mean(1))
    torch.testing.assert_close(LOSSES["cross-entropy"](label_smoothing=0.2).per_example(z, y, head), expected)


@pytest.mark.parametrize(
    ("name", "smoothing", "message"),
    [
        (
            "linf",
            0.1,
            "loss 'linf' has no setting 'label_smoothing'; leave out .* \\(it has: none\\)",
        ),
        ("cross-entropy", 1.0, r"loss 'cross-entropy': label_smoothing: input should be less than 1, got 1.0"),
        ("cross-entrpy", 0.0, "unknown loss 'cross-entrpy'; did you mean 'cross-entropy'?.*"),
    ],
)
def test_impossible_losses_are_refused(name, smoothing, message):
    with pytest.raises(RepulseError, match=f"^{message}$"):
        LOSSES[name](label_smoothing=smoothing)


def test_reductions_are_those_of_the_sources():
    assert {name for name, loss in LOSSES.items() if loss.reduction == "sum"} == {
        "linf-sum",
        "cosine-squared",
    }
