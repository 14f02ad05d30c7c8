"""Hyperspherical prototypes against PyTorch's own optimiser, and against the bound."""

from __future__ import annotations

import pytest
import torch

from repulse.common.errors import RepulseError
from repulse.common.seeding import generator
from repulse.prototypes import hyperspherical, make_prototypes
from repulse.prototypes.bounds import angle_bound
from repulse.prototypes.hyperspherical import cosine_crowding, crowding
from repulse.prototypes.separation import smallest_angle


def by_sgd(n: int, d: int, seed: int, steps: int, *, fresh: bool = False) -> torch.Tensor:
    """The source's search with PyTorch's SGD: one for all steps, or a fresh one in each, as its script has it."""
    start = torch.randn(n, d, generator=generator(seed, "hyperspherical"))
    points = torch.nn.functional.normalize(start, dim=1).requires_grad_()
    sgd = torch.optim.SGD([points], lr=0.1, momentum=0.9)
    for _ in range(steps):
        if fresh:
            sgd = torch.optim.SGD([points], lr=0.1, momentum=0.9)
        sgd.zero_grad()
        (points @ points.T - 2 * torch.eye(n)).amax(1).mean().backward()
        sgd.step()
        with torch.no_grad():
            points.copy_(torch.nn.functional.normalize(points, dim=1))
    return points.detach()


def test_it_is_the_papers_search_with_a_momentum_that_lasts() -> None:
    made = make_prototypes("hyperspherical", 9, 5, seed=3, steps=12)
    torch.testing.assert_close(made.points, by_sgd(9, 5, 3, 12))
    assert not torch.allclose(made.points, by_sgd(9, 5, 3, 12, fresh=True), atol=1e-2)
    assert (made.steps, made.seed, made.metric) == (12, 3, "cosine")
    assert make_prototypes("hyperspherical", 4, 3).steps == 1000


@pytest.mark.parametrize(("n", "d", "share"), [(4, 3, 0.95), (10, 10, 0.96), (10, 5, 0.94), (100, 100, 0.98)])
def test_the_smallest_angle_comes_near_the_bound(n: int, d: int, share: float) -> None:
    made = make_prototypes("hyperspherical", n, d)
    reached, bound = smallest_angle(made.points), angle_bound(n, d).value
    assert smallest_angle(make_prototypes("hyperspherical", n, d, steps=1).points) < 0.8 * bound
    assert share * bound < reached <= bound + 1e-3
    assert torch.allclose(made.points.norm(dim=1), torch.ones(n), atol=1e-6)


def test_the_gradient_is_that_of_the_crowding_in_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    points = make_prototypes("random", 23, 6, seed=1).points.requires_grad_()
    cosines = points @ points.T - 2 * torch.eye(23)
    cosines.amax(1).mean().backward()
    assert float(crowding(points.detach())) == pytest.approx(float(cosines.amax(1).mean().detach()), abs=1e-6)
    for numbers in (10**6, 23 * 4, 1):
        monkeypatch.setattr(hyperspherical, "_BLOCK_NUMBERS", numbers)
        torch.testing.assert_close(cosine_crowding(points.detach()), points.grad)


def test_a_line_holds_two_points() -> None:
    with pytest.raises(RepulseError) as error:
        make_prototypes("hyperspherical", 3, 1)
    assert str(error.value) == (
        "no hyperspherical prototypes with n=3, d=1: a line has two directions; method 'auto' takes any n with d >= 2"
    )
