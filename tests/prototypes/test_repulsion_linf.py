"""The paper's repulsion against a plain autograd implementation of it."""

from __future__ import annotations

import torch

from repulse.common.seeding import generator
from repulse.prototypes import make_prototypes, repulsion_linf
from repulse.prototypes.repulsion_linf import linf_repulsion


def plain_objective(points: torch.Tensor) -> torch.Tensor:
    total = torch.zeros((), dtype=points.dtype)
    for i in range(len(points)):
        for j in range(i):
            total = total + (points[i] - points[j]).abs().max()
    return total


def test_the_gradient_is_that_of_the_sum_of_distances(monkeypatch) -> None:
    points = torch.rand(9, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    (expected,) = torch.autograd.grad(plain_objective(points), points)
    torch.testing.assert_close(linf_repulsion(points.detach()), expected)
    # In blocks of two rows, and of one, the same.
    for numbers in (90, 1):
        monkeypatch.setattr(repulsion_linf, "_BLOCK_NUMBERS", numbers)
        torch.testing.assert_close(linf_repulsion(points.detach()), expected)


def test_it_follows_torch_sgd() -> None:
    ours = make_prototypes("repulsive-linf", 6, 4, seed=3, steps=40)
    start = 2 * torch.rand(6, 4, generator=generator(3, "repulsive-linf")) - 1
    points = start.requires_grad_()
    optimiser = torch.optim.SGD([points], lr=0.01, momentum=0.9, maximize=True)
    for _ in range(40):
        optimiser.zero_grad()
        plain_objective(points).backward()
        optimiser.step()
    torch.testing.assert_close(ours.points, points.detach(), atol=1e-4, rtol=0)


def test_distances_grow_with_the_steps() -> None:
    few, many = (make_prototypes("repulsive-linf", 10, 20, steps=steps) for steps in (50, 500))
    assert (few.metric, few.steps, many.steps) == ("linf", 50, 500)
    assert plain_objective(many.points) > 5 * plain_objective(few.points)
    assert make_prototypes("repulsive-linf", 3, 2).steps == 1000
