"""A curve that follows from smallest perturbations says what attacking every image at every radius says."""

import pytest
import torch
from torch import nn

from repulse.attacks import Threat
from repulse.evaluation import EvaluationSettings
from repulse.evaluation.attack_runner import AttackRunner
from repulse.evaluation.curve import robustness_curve
from repulse.evaluation.findings import run_attacks
from repulse.subject import Subject

RADII = (0.0, 0.02, 0.05, 0.1, 0.2)


def curve_of(model, x, y, attacks, norm="linf", eps=0.05):
    settings = EvaluationSettings(norm=norm, eps=eps, attacks=attacks, steps=(10,), curve=RADII, curve_steps=10)
    runner = AttackRunner(Subject(model, x, y))
    findings = run_attacks(runner, settings, Threat(norm, eps))
    asked = []
    attack = runner.attack

    def counted(*given, among=None, **how):
        asked.append(int(runner.right.sum() if among is None else among.sum()))
        return attack(*given, among=among, **how)

    runner.attack = counted
    return robustness_curve(runner, settings, findings), sum(asked)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_curve_is_the_same_at_a_fraction_of_the_attacks(norm):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4)).eval()
    x = 0.42 + 0.16 * torch.rand(60, 1, 4, 4)
    with torch.no_grad():
        # Four classes meet at mid-grey.
        model[3].bias.sub_(model(torch.full((1, 1, 4, 4), 0.5))[0])
    y = model(x).argmax(1)
    y[:5] = (y[:5] + 1) % 4
    whole, every = curve_of(model, x, y, "paper", norm)
    short, few = curve_of(model, x, y, "quick", norm)
    assert few < every / 2
    for one, other in zip(whole, short, strict=True):
        assert one.eps == other.eps
        for name, share in one.robust_accuracy.items():
            # An image or two lie so near a radius that one of two attacks misses them.
            assert other.robust_accuracy[name] == pytest.approx(share, abs=2.01 / 60), (one.eps, name)
        assert other.robust_accuracy["worst case"] <= min(other.robust_accuracy.values())
    assert short[0].robust_accuracy["worst case"] == 55 / 60
    assert short[1].robust_accuracy["worst case"] > short[-1].robust_accuracy["worst case"]


def test_images_that_no_walk_finds_anything_for_are_attacked_all_the_same():
    """Without a gradient of the margin a walk stands still; random starts of the curve's attacks still fool."""

    class Steps(nn.Module):
        def forward(self, x):
            score = (x.flatten(1).mean(1) > 0.5).float()
            return torch.stack([0.5 - score, score - 0.5], 1) + 0 * x.flatten(1)[:, :2]

    # Images alike would start at the same random points.
    x = 0.45 + 1e-3 * torch.rand(20, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    curve, _ = curve_of(Steps(), x, torch.zeros(20, dtype=torch.int64), "quick", eps=0.02)
    assert curve[1].robust_accuracy["worst case"] == 1
    assert curve[-1].robust_accuracy["worst case"] < 1
