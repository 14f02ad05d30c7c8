"""One registry, and `auto`, which is never worse than what it chooses from."""

from __future__ import annotations

import pytest
import torch

from repulse.common.errors import RepulseError
from repulse.prototypes import METHODS, make_prototypes, measure
from repulse.prototypes.bounds import angle_bound
from repulse.prototypes.separation import smallest_angle


def test_the_names() -> None:
    assert sorted(METHODS) == [
        "auto",
        "hadamard",
        "hyperspherical",
        "kerdock",
        "max-mahalanobis",
        "one-hot",
        "orthoplex",
        "polygon",
        "random",
        "repulsive-linf",
        "repulsive-sphere",
        "simplex",
    ]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_makes_what_was_asked(method: str) -> None:
    iterative = method in ("auto", "hyperspherical", "repulsive-linf", "repulsive-sphere")
    made = make_prototypes(method, 4, 4, seed=2, steps=5 if iterative else None)
    assert (made.n, made.d, made.method, made.points.dtype) == (4, 4, method, torch.float32)
    metric = {"hadamard": "linf", "repulsive-linf": "linf", "max-mahalanobis": "l2"}.get(method, "cosine")
    assert made.metric == metric
    if metric == "cosine":
        assert torch.allclose(made.points.norm(dim=1), torch.ones(4), atol=1e-6)


@pytest.mark.parametrize(("n", "d"), [(10, 100), (100, 500), (1000, 2048)])
def test_auto_reaches_the_simplex_where_the_paper_does_not(n: int, d: int) -> None:
    made = make_prototypes("auto", n, d)
    assert smallest_angle(made.points) == pytest.approx(angle_bound(n, d).value, abs=1e-4)
    assert made.provenance == {"chosen": "simplex", "because": "optimal for n <= d + 1"}
    if n < 1000:
        paper = measure(make_prototypes("repulsive-linf", n, d, steps=20).points)
        assert paper.smallest_angle.value < smallest_angle(made.points)


@pytest.mark.parametrize(
    ("n", "d", "chosen"), [(16, 15, "simplex"), (17, 15, "orthoplex"), (30, 15, "orthoplex"), (9, 2, "polygon")]
)
def test_auto_is_optimal_where_the_best_is_known(n: int, d: int, chosen: str) -> None:
    made = make_prototypes("auto", n, d)
    assert made.provenance["chosen"] == chosen
    assert smallest_angle(made.points) == pytest.approx(angle_bound(n, d).value, abs=1e-3)


def test_auto_takes_the_better_of_kerdock_and_the_search() -> None:
    bases = make_prototypes("auto", 288, 17, steps=30)
    assert bases.provenance["chosen"] == "kerdock"
    assert bases.provenance["because"].startswith("75.522 degrees of at most ")
    assert "; repulsive-sphere reached " in bases.provenance["because"]
    assert smallest_angle(bases.points) == pytest.approx(75.5225, abs=1e-4)
    searched = make_prototypes("auto", 9, 4)
    assert searched.provenance["chosen"] == "repulsive-sphere"
    assert smallest_angle(searched.points) > 80
    beyond = make_prototypes("auto", 30, 4, steps=50)
    assert beyond.provenance["chosen"] == "repulsive-sphere"
    # 82.819 degrees, with less than half a degree to gain: no search.
    assert make_prototypes("auto", 4224, 64).steps == 0


@pytest.mark.parametrize(
    ("method", "n", "d", "steps", "message"),
    [
        ("simplex", 1, 3, None, "a classifier needs at least 2 classes, got 1"),
        ("simplex", 2, 0, None, "prototypes need at least 1 dimension, got 0"),
        ("repulsive-linf", 2, 2, 0, "steps must be at least 1, got 0"),
        (
            "simplex",
            3,
            3,
            9,
            "method 'simplex' is a closed form and takes no steps, got steps=9: leave them out",
        ),
        ("random", 3, 3, 9, "method 'random' takes no steps, got steps=9: leave them out"),
        ("auto", 3, 1, None, "no 3 directions in d=1: a line has only two; use d >= 2"),
    ],
)
def test_mistakes_get_one_clear_line(method: str, n: int, d: int, steps: int | None, message: str) -> None:
    with pytest.raises(RepulseError) as error:
        make_prototypes(method, n, d, steps=steps)
    assert str(error.value) == message


def test_a_misspelt_method_is_told_its_neighbour() -> None:
    with pytest.raises(RepulseError, match=r"unknown prototype method 'simplx'; did you mean 'simplex'\?"):
        make_prototypes("simplx", 3, 3)
