"""Auto-PGD, FAB and Square on models whose truth is known, and what every attack promises."""

import pytest
import torch
from known import digits, images, linear, radius
from torch import nn

from repulse.attacks import APGD, FAB, OBJECTIVES, Square, TargetedAPGD, Threat
from repulse.attacks.fab import to_hyperplane
from repulse.attacks.square import _bump, _share_at
from repulse.attacks.targets import dlr_targeted, margin_targeted, nearest_wrong_classes
from repulse.common.errors import RepulseError

EXACT = {
    "apgd-margin": APGD(OBJECTIVES["margin"], steps=30),
    "apgd-targeted": TargetedAPGD(targets=4, steps=30),
    "fab": FAB(targets=4, steps=30),
}
ALL = {
    **EXACT,
    "apgd-cross-entropy": APGD(OBJECTIVES["cross-entropy"], steps=20),
    "square": Square(queries=300, canary=200),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_gradient_attacks_find_the_closed_form_of_a_linear_model(name, norm, classes):
    model = linear(classes)
    x, y = images(model)
    truth = radius(model, x, y, norm)
    eps = truth.median().item()
    fooled = EXACT[name](model, x, y, Threat(norm, eps)).fooled
    assert not fooled[truth > 1.0001 * eps].any()
    # The margin may climb to a boundary that is not the nearest; aiming at each class in turn does not.
    missed = (~fooled & (truth < 0.98 * eps)).sum()
    assert missed <= (2 if name == "apgd-margin" else 0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_never_fools_inside_the_radius_and_comes_near_it(norm):
    model = linear()
    x, y = images(model)
    truth = radius(model, x, y, norm)
    eps = truth.median().item()
    fooled = Square(queries=1500)(model, x, y, Threat(norm, eps)).fooled
    assert not fooled[truth > 1.0001 * eps].any()
    assert fooled[truth < 0.5 * eps].all()
    assert fooled.sum() > 15


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_outcome_of_an_image_depends_on_nothing_but_itself(name, norm):
    """Shuffled, and in other batches: the same images are fooled, by the same pixels."""
    model, x, y = digits(epochs=2)
    x, y = x[:20], y[:20]
    threat = Threat(norm, 0.03 if norm == "linf" else 0.3)
    attack, ids = ALL[name], torch.arange(100, 120)
    whole = attack(model, x, y, threat, seed=3, ids=ids)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(5))
    assert 0 < whole.fooled.sum() < 20
    for rows in order.split(7):
        part = attack(model, x[rows], y[rows], threat, seed=3, ids=ids[rows])
        assert torch.equal(part.fooled, whole.fooled[rows])
        torch.testing.assert_close(
            part.adversarial[part.fooled], whole.adversarial[rows][part.fooled], atol=0.02, rtol=0
        )


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_adversarial_images_lie_in_the_ball_and_in_the_range_of_pixels(name, norm):
    model = linear()
    x, y = images(model)
    # Black and white images: every ball is cut by the range.
    x = x.round()
    y = model(x).argmax(1)
    threat = Threat(norm, 0.2)
    result = ALL[name](model, x, y, threat)
    assert (threat.distance(result.adversarial, x) <= 0.2 + threat.tolerance).all()
    assert result.adversarial.min() >= 0
    assert result.adversarial.max() <= 1
    assert torch.equal(result.fooled, model(result.adversarial).argmax(1) != y)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(16,), (2, 8), (2, 2, 2, 2)])
def test_signals_and_tables_are_attacked_as_well_as_images(name, shape):
    model = linear()
    x, y = images(model, shape=shape)
    for norm in ("linf", "l2"):
        eps = 2 * radius(model, x, y, norm).median().item()
        result = ALL[name](model, x, y, Threat(norm, eps))
        assert result.adversarial.shape == x.shape
        assert result.fooled.float().mean() > 0.4


@pytest.mark.parametrize("name", ALL)
def test_other_ranges_than_0_to_1_work(name):
    model = linear()
    x, y = images(model)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        wide[1].weight.copy_(model[1].weight / 255)
        wide[1].bias.copy_(model[1].bias)
    truth = radius(model, x, y, "linf")
    eps = truth.median().item()
    result = ALL[name](wide, 255 * x, y, Threat("linf", 255 * eps, 0.0, 255.0))
    assert not result.fooled[truth > 1.0001 * eps].any()
    assert result.fooled.any()


def test_a_model_without_gradient_is_fooled_by_square_alone():
    class Staircase(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()

        def forward(self, x):
            return self.inner((x * 16).round() / 16 + 0 * x)

    model = Staircase()
    x, y = images(model)
    threat = Threat("linf", 0.2)
    # What gradient attacks fool here they fool by their random start.
    assert FAB(steps=5)(model, x, y, threat).fooled.sum() == 0
    assert Square(queries=500)(model, x, y, threat).fooled.all()


def test_a_canary_ends_square_where_gradients_lead_further_and_lets_it_go_on_where_they_do_not():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()

        def forward(self, x):
            return self.inner(x.detach()) + 0 * x.sum()

    x, y = images(linear())
    threat = Threat("linf", 0.01)
    honest = Square(queries=200, canary=20)(linear(), x, y, threat)
    masked = Square(queries=200, canary=20)(Flat(), x, y, threat)
    assert honest.forward_passes < 0.4 * masked.forward_passes
    # What the canary's own gradient fools counts as well.
    assert honest.fooled.sum() >= masked.fooled.sum() >= Square(queries=20)(linear(), x, y, threat).fooled.sum()
    everything = Square(queries=200)(Flat(), x, y, threat)
    assert masked.fooled.sum() >= 0.8 * everything.fooled.sum() > 0


def test_fooled_images_leave_the_batch_at_once():
    model = linear()
    x, y = images(model)
    result = APGD(OBJECTIVES["margin"])(model, x, y, Threat("linf", 1.0))
    assert result.fooled.all()
    assert result.forward_passes <= 3 * len(x)


def test_passes_are_counted_truly():
    model = linear()
    x, y = images(model)

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.count = model, 0

        def forward(self, x):
            self.count += len(x)
            return self.inner(x)

    for attack in ALL.values():
        counting = Counting()
        result = attack(counting, x, y, Threat("linf", 0.02))
        # One image first and all of them last are the checks of the base class.
        assert counting.count == result.forward_passes + 1 + len(x)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_step_to_a_hyperplane_is_the_shortest_that_the_range_allows(norm):
    """Against bisection on the size of the step, in double precision."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(50, 30, generator=generator, dtype=torch.float64)
    normal = torch.randn(50, 30, generator=generator, dtype=torch.float64)
    normal[:, :3] = 0
    reachable = (normal.clamp_min(0)).sum(1), (normal.clamp_max(0)).sum(1)
    level = reachable[1] + torch.rand(50, generator=generator, dtype=torch.float64) * (reachable[0] - reachable[1])
    threat = Threat(norm, 1.0)
    step = to_hyperplane(points, normal, level, threat)
    moved = points + step
    assert moved.min() >= -1e-9
    assert moved.max() <= 1 + 1e-9
    torch.testing.assert_close((normal * moved).sum(1), level, atol=1e-5, rtol=1e-5)
    sign = (level - (normal * points).sum(1)).sign().unsqueeze(1)
    low, high = torch.zeros(50, 1, dtype=torch.float64), torch.full((50, 1), 1e4, dtype=torch.float64)
    for _ in range(100):
        middle = (low + high) / 2
        direction = sign * (normal.sign() if norm == "linf" else normal)
        tried = (points + middle * direction).clamp(0, 1)
        short = (sign * ((normal * tried).sum(1, keepdim=True) - level.unsqueeze(1))) < 0
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    best = (points + high * direction).clamp(0, 1)
    torch.testing.assert_close(threat.distance(moved, points), threat.distance(best, points), atol=1e-4, rtol=1e-4)


def test_where_the_range_ends_before_the_hyperplane_all_of_it_is_used():
    points, normal = torch.full((1, 4), 0.5), torch.tensor([[1.0, -1.0, 2.0, 0.0]])
    step = to_hyperplane(points, normal, torch.tensor([100.0]), Threat("linf", 1.0))
    assert torch.equal(step, torch.tensor([[0.5, -0.5, 0.5, 0.0]]))


def test_targeted_dlr_by_hand():
    logits = torch.tensor([[5.0, 3.0, 2.0, 0.0, -1.0]])
    value = dlr_targeted(logits, torch.tensor([0]), torch.tensor([2]))
    torch.testing.assert_close(value, torch.tensor([(2.0 - 5.0) / (5.0 - (2.0 + 0.0) / 2)]))


@pytest.mark.parametrize("classes", [2, 3])
def test_below_four_classes_the_targeted_margin_stands_in_for_the_ratio(classes):
    logits = torch.tensor([[5.0, 3.0, 2.0][:classes]])
    y, target = torch.tensor([0]), torch.tensor([1])
    assert dlr_targeted(logits, y, target) == margin_targeted(logits, y, target) == -2


def test_targets_are_the_likeliest_wrong_classes():
    logits = torch.tensor([[1.0, 5.0, 3.0, 4.0], [9.0, 0.0, 1.0, 2.0]])
    y = torch.tensor([1, 2])
    assert nearest_wrong_classes(logits, y, 2).tolist() == [[3, 2], [0, 3]]
    assert nearest_wrong_classes(logits, y, 9).shape == (2, 3)


def test_squares_shrink_as_the_source_says():
    assert [_share_at(query, 0.8) for query in (0, 10, 11, 51, 201, 5000)] == [0.8, 0.8, 0.4, 0.2, 0.1, 0.8 / 128]


@pytest.mark.parametrize("sides", [(3, 3), (7, 7), (1, 6), (5, 3), (1, 1)])
def test_a_bump_has_unit_length_and_two_signs(sides):
    for turned in (False, True):
        bump = _bump(*sides, turned)
        assert bump.shape == sides
        assert bump.norm() == pytest.approx(1, abs=1e-6)
        if bump.numel() > 1:
            assert bump.min() < 0 < bump.max()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: APGD(OBJECTIVES["margin"], steps=0), "steps must be at least 1, got 0"),
        (lambda: TargetedAPGD(targets=0), "targets must be at least 1, got 0"),
        (lambda: FAB(steps=-1), "steps must be at least 1, got -1"),
        (lambda: Square(queries=0), "queries must be at least 1, got 0"),
        (lambda: Square(share=1.5), r"share must lie in \(0, 1\], got 1.5"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(RepulseError, match=f"^{message}$"):
        make()
