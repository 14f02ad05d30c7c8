"""PGD on models whose true robustness is known."""

import itertools

import pytest
import torch
from torch import nn

from repulse.attacks import OBJECTIVES, PGD, Threat, fgsm, through_embedding
from repulse.common.errors import RepulseError


class Linear(nn.Module):
    """A linear model with a known radius: margin over the dual norm of the weights' difference."""

    def __init__(self, classes, seed=0, pixels=12):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, pixels, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(0.3 * torch.randn(classes, generator=generator, dtype=torch.float64))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T + self.bias

    def radius(self, x, y, norm):
        """The distance to the nearest wrong class, in closed form, where pixels have no range."""
        logits = self(x).detach()
        margins = logits.gather(1, y.unsqueeze(1)) - logits
        difference = self.weight[y].unsqueeze(1) - self.weight
        dual = difference.abs().sum(2) if norm == "linf" else difference.norm(dim=2)
        return (margins / dual).scatter(1, y.unsqueeze(1), torch.inf).amin(1).detach()


def batch(model, count=200, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, 2, 2, generator=generator, dtype=torch.float64)
    return x, model(x).argmax(1)


WIDE = {"low": -100.0, "high": 100.0}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("objective", ["cross-entropy", "margin"])
def test_two_classes_are_fooled_exactly_outside_the_closed_form_radius(norm, objective):
    """With two classes both objectives point straight at the boundary, so even one step is exact."""
    model = Linear(2)
    x, y = batch(model)
    radius = model.radius(x, y, norm)
    eps = radius.median().item()
    decided = (radius - eps).abs() > 1e-9 * eps
    for attack in (PGD(OBJECTIVES[objective], steps=20), PGD(OBJECTIVES[objective], steps=1, step_size=eps)):
        result = attack(model, x, y, Threat(norm, eps, **WIDE))
        assert torch.equal(result.fooled[decided], (radius < eps)[decided])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_several_classes_are_never_fooled_inside_their_radius_and_nearly_always_outside(norm):
    model = Linear(5)
    x, y = batch(model)
    radius = model.radius(x, y, norm)
    eps = radius.median().item()
    fooled = torch.zeros(len(x), dtype=torch.bool)
    for objective in ("cross-entropy", "margin", "dlr"):
        attack = PGD(OBJECTIVES[objective], steps=50, step_size=eps / 8, restarts=3, random_start=True)
        fooled |= attack(model, x, y, Threat(norm, eps, **WIDE)).fooled
    assert not fooled[radius > eps * (1 + 1e-9)].any()
    assert fooled[radius < eps].double().mean() > 0.97


def test_a_tiny_network_is_fooled_wherever_brute_force_fools_it():
    """Two pixels: the whole L-inf ball can be searched on a grid."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    x = torch.rand(60, 1, 1, 2, dtype=torch.float64)
    y = model(x).argmax(1)
    eps = 0.2
    steps = torch.linspace(-eps, eps, 41, dtype=torch.float64)
    grid = torch.tensor(list(itertools.product(steps.tolist(), repeat=2)), dtype=torch.float64).view(1, -1, 1, 1, 2)
    candidates = (x.unsqueeze(1) + grid).clamp(0, 1)
    found = (model(candidates.flatten(0, 1)).argmax(1).view(60, -1) != y.unsqueeze(1)).any(1)
    assert 0.1 < found.double().mean() < 0.9
    attack = PGD(OBJECTIVES["margin"], steps=40, restarts=5, random_start=True)
    result = attack(model, x, y, Threat("linf", eps))
    assert not (found & ~result.fooled).any()


def test_outcomes_do_not_depend_on_order_or_batch():
    model = Linear(5)
    x, y = batch(model)
    threat = Threat("linf", 0.15)
    attack = PGD(OBJECTIVES["cross-entropy"], steps=3, restarts=2, random_start=True)
    whole = attack(model, x, y, threat, seed=7)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    for part in order.split(17):
        result = attack(model, x[part], y[part], threat, seed=7, ids=part)
        assert torch.equal(result.fooled, whole.fooled[part])
        torch.testing.assert_close(result.adversarial, whole.adversarial[part])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nothing_is_left_to_attack_when_all_are_fooled(norm):
    model = Linear(3)
    x, y = batch(model, 10)
    attack = PGD(OBJECTIVES["margin"], steps=5, restarts=3, random_start=True)
    result = attack(model, x, (y + 1) % 3, Threat(norm, 1e-6))
    assert result.fooled.all()
    assert result.forward_passes == 10


def test_another_seed_starts_elsewhere():
    model = Linear(5)
    x, y = batch(model, 5)
    attack = PGD(OBJECTIVES["margin"], steps=1, step_size=1e-6, random_start=True)
    first, second = (attack(model, x, y, Threat("linf", 0.01), seed=seed).adversarial for seed in (0, 1))
    assert not torch.allclose(first, second, atol=1e-4)


def test_results_are_inside_the_ball_and_the_range_and_said_to_be_fooled_rightly():
    model = Linear(5)
    x, y = batch(model)
    for norm in ("linf", "l2"):
        threat = Threat(norm, 0.3)
        result = fgsm(OBJECTIVES["cross-entropy"], threat)(model, x, y, threat)
        assert (threat.distance(result.adversarial, x) <= threat.eps + threat.tolerance).all()
        assert result.adversarial.min() >= 0
        assert result.adversarial.max() <= 1
        assert torch.equal(result.prediction, model(result.adversarial).argmax(1))
        assert torch.equal(result.fooled, result.prediction != y)


def test_fgsm_is_one_signed_step():
    model = Linear(3)
    x, y = batch(model, 10)
    threat = Threat("linf", 0.01, **WIDE)
    gradient_of = x.clone().requires_grad_()
    nn.functional.cross_entropy(model(gradient_of), y, reduction="sum").backward()
    result = fgsm(OBJECTIVES["cross-entropy"], threat)(model, x, y, threat)
    torch.testing.assert_close(result.adversarial, x + 0.01 * gradient_of.grad.sign())


def test_fooled_images_leave_the_batch_at_once():
    """Passes are counted: images that are misclassified from the start cost one forward pass and one backward pass."""
    model = Linear(3)
    x, y = batch(model, 50)
    wrong = (y + 1) % 3
    result = PGD(OBJECTIVES["margin"], steps=20)(model, x, wrong, Threat("linf", 0.01))
    assert (result.forward_passes, result.backward_passes) == (50, 50)
    result = PGD(OBJECTIVES["margin"], steps=20)(model, x, y, Threat("linf", 1e-9))
    assert (result.forward_passes, result.backward_passes) == (50 * 21, 50 * 20)


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Dropout(0.5), nn.BatchNorm1d(4)).double()
    model[1].bias.requires_grad_(False)
    model[3].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.rand(6, 3, 2, 2, dtype=torch.float64)
    PGD(OBJECTIVES["margin"], steps=2)(model, x, torch.zeros(6, dtype=torch.long), Threat("linf", 0.1))
    assert [module.training for module in model] == [True, True, True, False]
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False, True, True]
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_training_loss_can_be_climbed_through_the_embedding():
    class Embedding(Linear):
        embed = Linear.forward

        def classify(self, z):
            return z

    model = Embedding(3)
    x, y = batch(model, 40)
    threat = Threat("linf", 0.1)
    loss = nn.CrossEntropyLoss(reduction="none")
    through = PGD(through_embedding(loss), steps=5)(model, x, y, threat)
    direct = PGD(OBJECTIVES["cross-entropy"], steps=5)(model, x, y, threat)
    torch.testing.assert_close(through.adversarial, direct.adversarial)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps and restarts must be at least 1, got 0 and 1"),
        ({"step_size": 0.0}, "step_size must be positive, got 0.0"),
        ({"restarts": 3}, "restarts from the clean image all end alike; set random_start"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(RepulseError, match=f"^{message}$"):
        PGD(OBJECTIVES["margin"], **changes)


def broken(**changes):
    model = Linear(3).float()
    model.weight.data, model.bias.data = model.weight.data.float(), model.bias.data.float()
    x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    return {"model": model, "x": x, "y": y, **changes}


def nan_image():
    x = torch.rand(4, 3, 2, 2)
    x[2, 0, 0, 0] = torch.nan
    return x


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": nan_image()}, "an image holds a pixel that is not a finite number"),
        (
            {"x": torch.linspace(-2, 2, 48).view(4, 3, 2, 2)},
            r"pixels must lie in \[0, 1\], got -2 to 2; give images before.*",
        ),
        ({"y": torch.tensor([0, 1, 3, 0])}, "the model gives 3 classes, but there is a label 3"),
        ({"y": torch.tensor([0, -1, 2, 0])}, "labels must not be negative, got -1"),
        ({"model": nn.Identity()}, r"the model must give logits of shape \(N, classes\), got \(1, 3, 2, 2\)"),
    ],
)
def test_impossible_inputs_are_refused(changes, message):
    arguments = broken(**changes)
    with pytest.raises(RepulseError, match=f"^{message}$"):
        PGD(OBJECTIVES["cross-entropy"])(*arguments.values(), Threat("linf", 0.1))


def test_logits_that_are_no_numbers_are_refused():
    arguments = broken()
    arguments["model"].bias.data[0] = torch.nan
    with pytest.raises(RepulseError, match=r"^the model's logits are not finite numbers"):
        PGD(OBJECTIVES["cross-entropy"])(*arguments.values(), Threat("linf", 0.1))


def test_dlr_needs_three_classes():
    model = Linear(2)
    x, y = batch(model, 4)
    with pytest.raises(RepulseError, match=r"^the DLR objective needs at least 3 classes, got 2; use 'margin'$"):
        PGD(OBJECTIVES["dlr"])(model, x, y, Threat("linf", 0.1))


def test_objectives_on_a_case_worked_by_hand():
    model = nn.Identity()
    logits, y = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 1.0]]), torch.tensor([0, 2])
    expected = {
        "cross-entropy": -logits.log_softmax(1)[[0, 1], y],
        "margin": torch.tensor([-1.0, 2.0]),
        "probability-margin": logits.softmax(1)[[0, 1], [1, 1]] - logits.softmax(1)[[0, 1], y],
        "dlr": torch.tensor([-1.0 / 3.0, 2.0 / 3.0]),
    }
    # Those that are named for a scale or a prototype have tests of their own.
    assert expected.keys() == {name for name in OBJECTIVES if "prototype" not in name and "rescaled" not in name}
    for name, values in expected.items():
        found, same = OBJECTIVES[name](model, logits, y)
        torch.testing.assert_close(found, values)
        assert same is logits
