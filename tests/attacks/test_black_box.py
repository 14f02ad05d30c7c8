"""Attacks that ask for no gradient of the victim: random points, another model's images, decisions only."""

import sys

import foolbox
import pytest
import torch
from known import digits, images, linear, radius
from torch import nn

from repulse.attacks import APGD, OBJECTIVES, HopSkipJump, RandomSearch, Threat, Transfer
from repulse.attacks.attack import Attack
from repulse.attacks.noise import Noise
from repulse.attacks.standing import Standing
from repulse.common.errors import RepulseError


class Staircase(nn.Module):
    """Linear classes of quantised pixels: no gradient leads anywhere."""

    def __init__(self, classes=3):
        super().__init__()
        self.inner = linear(classes)

    def forward(self, x):
        return self.inner((x * 64).round() / 64 + 0 * x)


def attacks(classes=3):
    return {
        "random": RandomSearch(tries=30),
        "transfer": Transfer(linear(classes), steps=25),
        "decision": HopSkipJump(steps=4),
    }


NAMES = tuple(attacks())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [2, 3])
def test_none_fools_inside_the_closed_form_and_all_fool_well_outside(name, norm, classes):
    model = linear(classes)
    x, y = images(model, count=30)
    truth = radius(model, x, y, norm)
    eps = truth.median().item()
    fooled = attacks(classes)[name](model, x, y, Threat(norm, eps)).fooled
    assert not fooled[truth > 1.0001 * eps].any()
    # A random direction is nearly orthogonal to the one that counts.
    assert fooled[truth < {"random": 0.1, "transfer": 0.95, "decision": 0.7}[name] * eps].all()
    assert fooled.any()


@pytest.mark.parametrize("name", NAMES)
def test_a_model_without_gradient_is_fooled(name):
    """A gradient attack gets nothing from it."""
    model = Staircase()
    x, y = images(model, count=20)
    threat = Threat("linf", 0.25)
    result = attacks()[name](model, x, y, threat)
    assert result.backward_passes == 0
    assert result.fooled.float().mean() > (0.5 if name == "random" else 0.9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_outcome_of_an_image_depends_on_nothing_but_itself(name, norm):
    """Shuffled, and in other batches: the same images are fooled, by the same pixels."""
    model, x, y = digits(epochs=2)
    x, y = x[:20], y[:20]
    threat = Threat(norm, 0.12 if norm == "linf" else 0.8)
    attack = {**attacks(), "transfer": Transfer(digits(epochs=1, seed=7)[0])}[name]
    ids = torch.arange(100, 120)
    whole = attack(model, x, y, threat, seed=3, ids=ids)
    torch.manual_seed(99)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(5))
    assert 0 < whole.fooled.sum() < 20
    for rows in order.split(7):
        part = attack(model, x[rows], y[rows], threat, seed=3, ids=ids[rows])
        assert torch.equal(part.fooled, whole.fooled[rows])
        torch.testing.assert_close(
            part.adversarial[part.fooled], whole.adversarial[rows][part.fooled], atol=0.02, rtol=0
        )


@pytest.mark.parametrize("name", ["random", "decision"])
def test_another_seed_gives_other_images_and_the_global_random_numbers_are_not_touched(name):
    model = linear()
    x, y = images(model, count=4)
    threat, attack = Threat("linf", 0.02), attacks()[name]
    before = torch.random.get_rng_state()
    first, again, other = (attack(model, x, y, threat, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.adversarial, again.adversarial)
    assert not torch.equal(first.adversarial, other.adversarial)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_adversarial_images_lie_in_the_ball_and_in_the_range_of_pixels(name, norm):
    model = linear()
    x, _ = images(model, count=20)
    x = x.round()
    y = model(x).argmax(1)
    threat = Threat(norm, 0.3)
    result = attacks()[name](model, x, y, threat)
    assert (threat.distance(result.adversarial, x) <= 0.3 + threat.tolerance).all()
    assert result.adversarial.min() >= 0
    assert result.adversarial.max() <= 1
    assert torch.equal(result.fooled, model(result.adversarial).argmax(1) != y)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(16,), (2, 8), (2, 2, 2, 2)])
def test_signals_and_tables_are_attacked_as_well_as_images(name, shape):
    model = linear()
    x, y = images(model, count=20, shape=shape)
    for norm in ("linf", "l2"):
        eps = 4 * radius(model, x, y, norm).median().item()
        result = attacks()[name](model, x, y, Threat(norm, eps))
        assert result.adversarial.shape == x.shape
        assert result.fooled.float().mean() > 0.4


@pytest.mark.parametrize("name", NAMES)
def test_other_ranges_than_0_to_1_work(name):
    model, wide = linear(), nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x, y = images(model, count=30)
    with torch.no_grad():
        wide[1].weight.copy_(model[1].weight / 255)
        wide[1].bias.copy_(model[1].bias + model[1].weight.sum(1) / 255)
    truth = radius(model, x, y, "linf")
    eps = truth.median().item()
    attack = {**attacks(), "transfer": Transfer(wide)}[name]
    # Pixels from -1 to 254.
    result = attack(wide, 255 * x - 1, y, Threat("linf", 255 * eps, -1.0, 254.0))
    assert not result.fooled[truth > 1.0001 * eps].any()
    assert result.fooled.any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("eps", [0.02, 0.2])
def test_passes_are_counted_truly(name, eps):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.count = linear(), 0

        def forward(self, x):
            self.count += len(x)
            return self.inner(x)

    model = Counting()
    x, y = images(model.inner, count=10)
    result = attacks()[name](model, x, y, Threat("linf", eps))
    # One image first and all of them last are the checks of the base class.
    assert model.count == result.forward_passes + 1 + len(x)


def test_random_search_reaches_the_corners_of_a_ball_and_its_inside():
    """Two pixels: a corner is one of four, so 20 draws of them miss one with probability 1 in 300."""
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append(x)
            return torch.stack((torch.ones(len(x)), x.sum(1) * 0), 1)

    x, y = torch.full((1, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    RandomSearch(tries=40)(Watching(), x, y, Threat("linf", 0.25))
    tried = torch.cat(seen[1:-1])
    corners = (tried - 0.5).abs().amin(1) == 0.25
    assert len(tried) == 40
    assert corners.sum() == 20
    assert len(tried[corners].unique(dim=0)) == 4
    seen.clear()
    RandomSearch(tries=40)(Watching(), x, y, Threat("l2", 0.25))
    length = (torch.cat(seen[1:-1]) - 0.5).norm(dim=1)
    assert (length > 0.2499).sum() == 20


def test_transfer_from_the_victim_itself_is_a_white_box_attack():
    model, x, y = digits(epochs=4)
    threat = Threat("linf", 0.1)
    own = Transfer(model)(model, x, y, threat).fooled.sum()
    best = APGD(OBJECTIVES["margin"], steps=50)(model, x, y, threat).fooled.sum()
    assert own >= 0.9 * best


def test_transfer_never_stops_for_the_surrogate_and_asks_the_victim_only_now_and_then():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.asked = []

        def forward(self, x):
            self.asked.append(x)
            return torch.tensor([1.0, 0.0]).expand(len(x), 2) + 0 * x.flatten(1)[:, :1]

    surrogate, victim = linear(2).train(), Stubborn()
    x, _ = images(surrogate, count=5)
    result = Transfer(surrogate, steps=25, ask_every=10)(victim, x, torch.zeros(5).long(), Threat("linf", 0.4))
    # The check, 10, 20 and 25 steps, and the check at the end.
    assert len(victim.asked) == 5
    assert result.forward_passes == 15
    # After ten steps of a tenth of eps every pixel is at an end of its interval, though the surrogate fell long before.
    torch.testing.assert_close((victim.asked[1] - x).abs(), torch.where(victim.asked[1] > x, 1 - x, x).clamp_max(0.4))
    assert surrogate.training
    assert surrogate[1].weight.requires_grad


def test_momentum_carries_on_where_the_gradient_turns():
    """Dong et al. 2018, eq. 6 and 7, by hand: gradients +1, then -1/2 of unit length, with mu = 2."""

    class Turning(nn.Module):
        def forward(self, x):
            # The margin's slope is +1 below 0.55 and -3 above.
            value = torch.where(x < 0.55, x, 0.55 - 3 * (x - 0.55))
            return torch.cat((0 * value + 10, value), 1)

    x, y = torch.tensor([[0.5]]), torch.tensor([0])
    for momentum, end in ((2.0, 0.7), (0.5, 0.5)):
        attack = Transfer(Turning(), steps=2, momentum=momentum, step_size=0.1)
        result = attack(Turning(), x, y, Threat("linf", 0.4))
        torch.testing.assert_close(result.adversarial, torch.tensor([[end]]))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_hop_skip_jump_comes_as_near_as_foolbox_on_its_own(norm):
    """Ours differs in its start and in asking for many points at once; the distance reached must not suffer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3)).eval()
    x = torch.rand(8, 1, 4, 4)
    y = model(x).argmax(1)
    threat = Threat(norm, 0.0)
    standing = Standing(model, x, y, threat, Noise(0, torch.arange(8)))
    settings = {"steps": 8, "initial_gradient_eval_steps": 50, "max_gradient_eval_steps": 100}
    HopSkipJump(**settings).search(standing)
    ours = standing.nearest
    peer = foolbox.attacks.HopSkipJumpAttack(constraint=norm, **settings)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    theirs = torch.cat(
        [peer.run(wrapped, x[i : i + 1], foolbox.criteria.Misclassification(y[i : i + 1])) for i in range(8)]
    )
    # One by one, as they were asked: on the boundary itself rounding in a larger batch may tip the scales.
    assert all(model(one).argmax(1) != label for one, label in zip(ours.split(1), y, strict=True))
    assert threat.distance(ours, x).mean() <= 1.15 * threat.distance(theirs, x).mean()


def test_hop_skip_jump_calls_robust_what_has_no_start_unless_one_is_given():
    class Corner(nn.Module):
        """Another class in one far corner only."""

        def forward(self, x):
            inside = (x.flatten(1) > 0.95).all(1).to(x)
            return torch.stack((1 - inside, inside), 1)

    x, y = torch.full((2, 16), 0.8), torch.zeros(2, dtype=torch.int64)
    threat = Threat("linf", 0.17)
    none = HopSkipJump()(Corner(), x, y, threat)
    assert not none.fooled.any()
    assert torch.equal(none.adversarial, x)
    assert HopSkipJump(start=torch.ones(1, 16))(Corner(), x, y, threat).fooled.all()


def test_hop_skip_jump_ends_on_a_model_that_changes_its_mind():
    class Fickle(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator = torch.Generator().manual_seed(0)

        def forward(self, x):
            return torch.rand(len(x), 2, generator=self.generator)

    x, y = torch.full((3, 16), 0.5), torch.zeros(3, dtype=torch.int64)
    result = HopSkipJump(queries=300)(Fickle(), x, y, Threat("linf", 0.0))
    assert result.forward_passes <= 900


def test_without_foolbox_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "foolbox", None)
    model = linear()
    x, y = images(model, count=2)
    with pytest.raises(RepulseError, match=r"HopSkipJump needs foolbox: pip install 'repulse\[blackbox\]'"):
        HopSkipJump()(model, x, y, Threat("linf", 0.1))


@pytest.mark.parametrize(
    ("attack", "settings"),
    [
        (RandomSearch, {"tries": 0}),
        (HopSkipJump, {"steps": 0}),
        (HopSkipJump, {"queries": 0}),
    ],
)
def test_counts_below_1_are_refused(attack: type[Attack], settings):
    with pytest.raises(RepulseError, match=f"{next(iter(settings))} must be at least 1, got 0"):
        attack(**settings)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"ask_every": 0}, {"step_size": 0.0}, {"momentum": -1.0}])
def test_transfer_refuses_impossible_settings(settings):
    with pytest.raises(RepulseError, match=next(iter(settings))):
        Transfer(linear(), **settings)
