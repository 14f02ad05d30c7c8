"""The copy that attacks see has the weights of now: the same answers, and nothing computed anew."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from repulse.attacks import APGD, OBJECTIVES, Threat
from repulse.attacks.folding import folded
from repulse.models import PrototypeClassifier, lipschitz
from repulse.models.linf_distance import LinfDistanceNet
from repulse.models.lipschitz import LipschitzCNN
from repulse.prototypes import make_prototypes


@pytest.fixture
def orthogonal():
    """An untrained 1-Lipschitz classifier, images, and the classes that it gives them."""
    torch.manual_seed(0)
    model = PrototypeClassifier(LipschitzCNN(1, 10, width=8, depth=1), make_prototypes("simplex", 10, 10), "l2").eval()
    x = torch.rand(6, 1, 8, 8)
    return model.requires_grad_(False), x, model(x).argmax(1)


@pytest.fixture
def calls(monkeypatch):
    """How often rows were made orthonormal so far: one entry for each."""
    made, honest = [], lipschitz.orthonormal
    monkeypatch.setattr(lipschitz, "orthonormal", lambda weight: made.append(weight.shape) or honest(weight))
    return made


def parametrised():
    """One layer of each parametrisation of PyTorch's, and an offset of its own kind."""

    class Squared(nn.Module):
        def forward(self, x):
            return x.square()

    torch.manual_seed(0)
    last = parametrizations.spectral_norm(nn.Linear(8, 3))
    parametrize.register_parametrization(last, "bias", Squared())
    return nn.Sequential(
        nn.Flatten(),
        parametrizations.orthogonal(nn.Linear(16, 12)),
        parametrizations.weight_norm(nn.Linear(12, 8)),
        last,
    ).eval()


def test_the_copy_of_an_orthogonal_network_answers_alike_and_keeps_its_embedding(orthogonal):
    model, x, y = orthogonal
    twin = folded(model, x)
    assert isinstance(twin, PrototypeClassifier)
    assert not any(map(parametrize.is_parametrized, twin.modules()))
    assert sum(map(parametrize.is_parametrized, model.modules())) == 8
    torch.testing.assert_close(twin.embed(x), model.embed(x), atol=1e-6, rtol=0)
    gradients = []
    for each in (model, twin):
        asked = x.clone().requires_grad_()
        gradients += torch.autograd.grad(each(asked).gather(1, y[:, None]).sum(), asked)
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


def test_an_attack_on_the_copy_finds_the_same_and_computes_no_weight(orthogonal, calls):
    model, x, y = orthogonal
    attack, threat = APGD(OBJECTIVES["margin"], steps=10), Threat("l2", 0.05)
    theirs = attack(model, x, y, threat)
    # All 8 layers at every pass: the 10 steps, where each starts, and the checks before and after.
    assert len(calls) >= 8 * 10
    calls.clear()
    twin = folded(model, x)
    assert len(calls) == 8 + 8  # To make the copy, and for the model's logits beside its own.
    calls.clear()
    ours = attack(twin, x, y, threat)
    assert not calls
    assert torch.equal(ours.fooled, theirs.fooled)
    torch.testing.assert_close(ours.adversarial, theirs.adversarial, atol=1e-5, rtol=0)


def test_parametrisations_of_pytorch_are_fixed_and_the_original_keeps_them():
    model, x = parametrised(), torch.rand(5, 1, 4, 4)
    before = model(x)
    twin = folded(model, x)
    assert not any(parametrize.is_parametrized(module) for module in twin.modules())
    assert [type(module) for module in twin] == [nn.Flatten, nn.Linear, nn.Linear, nn.Linear]
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    torch.testing.assert_close(twin(x), before, atol=1e-6, rtol=0)
    assert [parametrize.is_parametrized(module) for module in model] == [False, True, True, True]
    with torch.no_grad():
        model[3].parametrizations.bias.original.add_(1.0)
    assert not torch.allclose(model(x), before)
    torch.testing.assert_close(twin(x), before, atol=1e-6, rtol=0)


def test_fixed_convolutions_take_in_batch_norm():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    model = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(1, 4, 3)), norm, nn.ReLU(), nn.Flatten()).eval()
    x = torch.rand(5, 1, 6, 6)
    twin = folded(model.requires_grad_(False), x)
    kinds = {type(module) for module in twin.modules()}
    assert nn.Conv2d in kinds
    assert nn.BatchNorm2d not in kinds
    torch.testing.assert_close(twin(x), model(x), atol=1e-5, rtol=1e-5)


def test_a_step_that_would_change_the_model_is_left_out_and_the_other_stays():
    class Liar(nn.Module):
        """Batch norm after a convolution, whose weights another part uses as well."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm = parametrizations.weight_norm(nn.Conv2d(1, 4, 3)), nn.BatchNorm2d(4)
            self.norm.running_mean.fill_(3.0)

        def forward(self, x):
            return self.norm(self.conv(x)).mean((2, 3)) + self.conv(x).mean((2, 3))

    model, x = Liar().eval().requires_grad_(False), torch.rand(5, 1, 4, 4)
    twin = folded(model, x)
    assert type(twin.conv) is nn.Conv2d
    assert isinstance(twin.norm, nn.BatchNorm2d)
    torch.testing.assert_close(twin(x), model(x), atol=1e-5, rtol=1e-5)


def test_what_cannot_be_fixed_is_left_alone():
    class Dice(nn.Module):
        def forward(self, weight):
            return weight + torch.randn_like(weight)

    class Refusing(nn.Module):
        def forward(self, weight):
            return weight

        def __deepcopy__(self, memo):
            raise ValueError("not now")

    x = torch.rand(5, 16)
    random, refusing = nn.Linear(16, 3), nn.Linear(16, 3)
    parametrize.register_parametrization(random, "weight", Dice())
    parametrize.register_parametrization(refusing, "weight", Refusing())
    for layer in (random, refusing):
        model = nn.Sequential(layer).eval()
        assert folded(model, x) is model


def test_an_linf_distance_network_has_nothing_to_fix():
    """Its layers use their weights as they are."""
    net = LinfDistanceNet(1, 10, 12, depth=2, grid=4)
    model = PrototypeClassifier(net, torch.eye(10), "linf").eval()
    assert folded(model, torch.rand(3, 1, 8, 8)) is model
