"""The same attacks, written by others: foolbox ends at the same images, step for step."""

import foolbox
import pytest
import torch
from torch import nn

from repulse.attacks import OBJECTIVES, PGD, Threat, fgsm


@pytest.fixture
def case():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.Tanh(), nn.Linear(32, 5)).eval()
    x = torch.rand(40, 3, 4, 4)
    return model, x, model(x).argmax(1)


def theirs(attack, model, x, y, eps):
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    return attack(wrapped, x, y, epsilons=[eps])[1][0]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_walks_the_same_way(case, norm):
    """Balls so small that nobody is fooled: then neither of the two stops early, and the last images must agree."""
    model, x, y = case
    eps = {"linf": 0.002, "l2": 0.02}[norm]
    peer = {"linf": foolbox.attacks.LinfBasicIterativeAttack, "l2": foolbox.attacks.L2BasicIterativeAttack}[norm]
    ours = PGD(OBJECTIVES["cross-entropy"], steps=12, step_size=eps / 5)(model, x, y, Threat(norm, eps))
    steady = ~ours.fooled
    assert steady.double().mean() > 0.8
    other = theirs(peer(abs_stepsize=eps / 5, steps=12, random_start=False), model, x, y, eps)
    torch.testing.assert_close(ours.adversarial[steady], other[steady], atol=2e-6, rtol=0)


def test_fgsm_takes_the_same_step(case):
    model, x, y = case
    threat = Threat("linf", 0.05)
    ours = fgsm(OBJECTIVES["cross-entropy"], threat)(model, x, y, threat)
    other = theirs(foolbox.attacks.LinfFastGradientAttack(), model, x, y, 0.05)
    torch.testing.assert_close(ours.adversarial, other, atol=2e-6, rtol=0)


def test_stopping_at_the_first_success_never_finds_less(case):
    model, x, y = case
    eps = 0.06
    ours = PGD(OBJECTIVES["cross-entropy"], steps=20, step_size=eps / 5)(model, x, y, Threat("linf", eps))
    attack = foolbox.attacks.LinfBasicIterativeAttack(abs_stepsize=eps / 5, steps=20, random_start=False)
    fooled_by_them = model(theirs(attack, model, x, y, eps)).argmax(1) != y
    assert 0.1 < fooled_by_them.double().mean() < 1
    assert not (fooled_by_them & ~ours.fooled).any()
