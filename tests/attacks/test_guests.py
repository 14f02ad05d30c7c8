"""Somebody else's model is a guest: whatever it does inside, images, runs and figures stay whole."""

import re
from dataclasses import dataclass

import pytest
import torch
from known import images, linear, radius
from torch import nn

from repulse.attacks import (
    APGD,
    ATTACKS,
    FAB,
    FMN,
    OBJECTIVES,
    PGD,
    Attack,
    Ensemble,
    Member,
    RandomSearch,
    Square,
    Threat,
    Transfer,
    ensemble,
    make_attack,
)
from repulse.attacks.attack import attackable
from repulse.attacks.decision import decide
from repulse.attacks.folding import folded
from repulse.common.errors import RepulseError

ALL = {
    "pgd": PGD(OBJECTIVES["margin"], steps=10),
    "apgd": APGD(OBJECTIVES["margin"], steps=10),
    "fab": FAB(targets=2, steps=10),
    "fmn": FMN(steps=10, targets=1),
    "square": Square(queries=40, canary=20),
    "random": RandomSearch(tries=10),
    "transfer": Transfer(linear(), steps=10),
}


class InPlace(nn.Module):
    """A linear model that normalises what it is given where it lies."""

    def __init__(self):
        super().__init__()
        self.inner = linear()

    def forward(self, x):
        return self.inner(x.sub_(0.0).mul_(0.5).mul_(2.0).add_(1.0).sub_(1.0))


def relu_first():
    return nn.Sequential(nn.ReLU(inplace=True), *linear())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("make", [InPlace, relu_first])
def test_a_model_that_works_in_place_changes_nobodys_images(name, make):
    x, y = images(linear(), count=20)
    before = x.clone()
    eps = radius(linear(), x, y, "linf").median().item()
    theirs = ALL[name](make(), x, y, Threat("linf", eps))
    assert torch.equal(x, before)
    ours = ALL[name](linear(), x, y, Threat("linf", eps))
    torch.testing.assert_close(theirs.adversarial, ours.adversarial, atol=1e-3, rtol=0)
    assert (theirs.fooled != ours.fooled).sum() <= 1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_attacks_work_without_gradients_around_them_and_with_inference_tensors(name, context):
    model = linear()
    x, y = images(model, count=20)
    threat = Threat("linf", 0.02)
    expected = ALL[name](model, x, y, threat)
    with context():
        # Weights made in inference mode, too.
        twin = linear()
        found = ALL[name](twin, x.clone(), y.clone(), threat)
    outside = ALL[name](twin, x, y, threat)
    for other in (found, outside):
        assert torch.equal(other.adversarial, expected.adversarial)
        assert torch.equal(other.fooled, expected.fooled)


class Keeping(nn.Module):
    """Keeps a tensor from its first call in evaluation mode, as rotary positions and masks are kept."""

    def __init__(self):
        super().__init__()
        self.inner, self.scale = linear(), None

    def forward(self, x):
        if self.scale is None:
            self.scale = torch.ones(x.shape[1:]) * self.inner[1].weight.sum().sign().abs()
        return self.inner(x * self.scale)


def test_a_tensor_kept_from_the_first_call_is_no_obstacle():
    model = Keeping()
    x, y = images(model.inner, count=20)
    with torch.inference_mode():
        model(x)
    found = ALL["pgd"](model, x, y, Threat("linf", 0.02))
    assert torch.equal(found.fooled, ALL["pgd"](linear(), x, y, Threat("linf", 0.02)).fooled)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ALL)
def test_half_precision_images_and_models_work(name, dtype):
    model = linear()
    x, y = images(model, count=20)
    half = x.to(dtype)
    y = model(half.float()).argmax(1)
    eps = radius(model, half.float(), y, "linf").median().item()
    result = ALL[name](linear().to(dtype), half, y, Threat("linf", eps))
    assert result.adversarial.dtype == torch.float32
    assert (result.adversarial - half.float()).abs().max() <= eps + 2.5e-7
    exact = ALL[name](model, half.float(), y, Threat("linf", eps))
    assert (result.fooled != exact.fooled).sum() <= 4


class Masked(nn.Module):
    """Rules one class out, as models of a part of ImageNet's classes do."""

    def forward(self, x):
        logits = linear(4)(x)
        return logits.masked_fill(torch.tensor([False, False, False, True]), -torch.inf)


@pytest.mark.parametrize("name", ALL)
def test_logits_of_ruled_out_classes_may_be_minus_infinity(name):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        full = linear(4)[1]
        model[1].weight.copy_(full.weight[:3])
        model[1].bias.copy_(full.bias[:3])
    x, y = images(model, count=20)
    eps = radius(model, x, y, "linf").median().item()
    attack = Transfer(model, steps=10) if name == "transfer" else ALL[name]
    found = attack(Masked(), x, y, Threat("linf", eps))
    assert (found.prediction < 3).all()
    assert not found.broken.any()
    assert torch.equal(found.fooled, attack(model, x, y, Threat("linf", eps)).fooled)


class Breaking(nn.Module):
    """Not a number for one image, as soon as it is perturbed."""

    def __init__(self, image):
        super().__init__()
        self.inner, self.image = linear(), image

    def forward(self, x):
        far = (x - self.image).flatten(1).abs().amax(1)
        logits = self.inner(x)
        return torch.where(((far > 0) & (far < 0.015)).unsqueeze(1), torch.nan, logits)


@pytest.mark.parametrize("name", ["pgd", "apgd", "fab", "fmn", "square", "random"])
def test_an_adversarial_image_without_numbers_counts_as_fooled_and_the_run_goes_on(name, monkeypatch):
    x, y = images(linear(), count=12)
    said = []
    monkeypatch.setattr("repulse.attacks.attack.notice", said.append)
    found = ALL[name](Breaking(x[7].clone()), x, y, Threat("linf", 0.01))
    (line,) = said
    assert re.search(rf"logits are not numbers .* of image 7 of the batch \(class {int(y[7])}\)", line)
    others = torch.arange(12) != 7
    assert found.fooled[7]
    assert found.prediction[7] != y[7]
    assert found.broken.tolist() == (~others).tolist()
    plain = ALL[name](linear(), x, y, Threat("linf", 0.01))
    assert torch.equal(found.fooled[others], plain.fooled[others])


class InPlaceBeforeBatchNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))

    def forward(self, x):
        return self.net(x.mul_(0.5))


def test_comparing_a_folded_copy_changes_nobodys_images():
    images = torch.rand(5, 1, 8, 8)
    before = images.clone()
    model = InPlaceBeforeBatchNorm().eval()
    twin = folded(model, images)
    assert torch.equal(images, before)
    assert twin is not model
    torch.testing.assert_close(twin(images.clone()), model(images.clone()))


def test_the_model_itself_is_left_without_hooks():
    model = InPlace()
    with attackable(model):
        assert model._forward_pre_hooks
    assert not model._forward_pre_hooks
    assert not model._forward_hooks


def test_torchscript_gets_a_copy_of_its_own_as_well():
    class Overwriting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = linear()[1]

        def forward(self, x):
            return self.layer(x.mul_(1.0).add_(1.0).sub_(1.0).flatten(1))

    model = torch.jit.script(Overwriting())
    x, y = images(linear(), count=10)
    before = x.clone()
    ALL["pgd"](model, x, y, Threat("linf", 0.02))
    assert torch.equal(x, before)


def test_rounding_and_ties_are_told_from_successes():
    y = torch.zeros(5, dtype=torch.int64)
    nan, inf = torch.nan, torch.inf
    logits = torch.tensor([[1.5, 1.5000005], [1.5, 1.51], [3.0, 3.0], [nan, 1.0], [-inf, 0.5]])
    found = decide(logits, y)
    assert found.fooled.tolist() == [False, True, False, True, True]
    assert found.tied.tolist() == [True, False, False, False, False]
    assert found.broken.tolist() == [False, False, False, True, False]
    # Votes are exact: a tie goes to the first class.
    assert decide(torch.tensor([[4.0, 4.0]]), torch.ones(1, dtype=torch.int64)).fooled.tolist() == [True]


@dataclass(frozen=True)
class Corner(Attack):
    """A third party's attack: one corner of the ball."""

    share: float = 1.0

    def search(self, standing):
        rows = standing.rows
        moved = standing.clean[rows] + self.share * standing.threat.eps
        standing.ask(standing.threat.project(moved, standing.clean[rows]), rows)


def test_a_third_partys_attack_needs_one_registration_and_is_known_by_name(monkeypatch):
    monkeypatch.setitem(ATTACKS._entries, "corner", Corner)
    model = linear()
    x, y = images(model, count=40)
    threat = Threat("linf", 0.1)
    truth = model(x + 0.1).argmax(1) != y
    assert 0 < truth.sum() < 40
    both = Ensemble((Member("corner", "a corner", make_attack("corner", share=1.0)),))
    for attack in (Corner(), ensemble("corner"), both):
        result = attack(model, x, y, threat)
        assert torch.equal(result.fooled, truth)
        assert result.forward_passes == 40


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("pdg", {}, "unknown attack 'pdg'; did you mean 'pgd'"),
        ("pgd", {"objective": "margin", "step": 3}, "unknown setting of attack 'pgd' 'step'; did you mean 'steps'"),
        ("pgd", {"objective": "margn"}, "unknown objective 'margn'; did you mean 'margin'"),
        ("pgd", {}, "attack 'pgd' needs a setting 'objective'"),
    ],
)
def test_an_attack_by_name_says_what_is_wrong(name, settings, message):
    with pytest.raises(RepulseError, match=message):
        make_attack(name, **settings)


@pytest.mark.parametrize("attack", [PGD(OBJECTIVES["cross-entropy"], steps=3), Square(queries=20), FMN(steps=5)])
def test_attacks_take_images_and_labels_as_people_hold_them(attack):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    levels = torch.randint(0, 256, (5, 1, 4, 4))
    x = levels.float() / 255
    y = model(x).argmax(1)
    threat = Threat("linf", 0.1)
    expected = attack(model, x, y, threat)
    for given in (x.numpy(), x.tolist(), levels, levels.to(torch.uint8).numpy()):
        for labels in (y.tolist(), y.int().numpy(), y[:, None].float(), nn.functional.one_hot(y, 3)):
            found = attack(lambda batch: model(batch), given, labels, threat)
            assert torch.equal(found.adversarial, expected.adversarial)
            assert torch.equal(found.fooled, expected.fooled)
    with pytest.raises(RepulseError, match=r"^labels must be a tensor, an array or a list of numbers, got str$"):
        attack(model, x, "cats", threat)
