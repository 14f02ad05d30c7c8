"""Models whose truth is known: honest ones, and ones that only look robust."""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from records import attack_record
from torch import nn

from repulse.attacks import OBJECTIVES, PGD, Threat, fgsm, through_embedding
from repulse.attacks.attack import Attack
from repulse.attacks.targets import margin_targeted
from repulse.data import load_data
from repulse.evaluation.attack_runner import AttackRunner
from repulse.evaluation.checks import examine
from repulse.evaluation.verdict import judge
from repulse.models import PrototypeClassifier
from repulse.prototypes import make_prototypes
from repulse.subject import Subject
from repulse.training import LOSSES

EPS = 0.1
IMAGES = 200


@cache
def digit_images():
    """Training images and labels, then those to measure on, in [0, 1]."""
    splits = load_data("digits")
    return tuple(
        part
        for source in (splits.train, splits.test)
        for part in (source.fetch(torch.arange(len(source))).float() / 255, source.labels)
    )


def shown():
    """The digits that the verdicts are about."""
    x, y = digit_images()[2:]
    return x[:IMAGES], y[:IMAGES]


@dataclass(frozen=True)
class RandomPoints(Attack):
    """Random points of the ball, the last attack of the stand-in for the group 'standard'."""

    black_box: ClassVar[bool] = True

    tries: int = 50

    def search(self, standing):
        for key in range(self.tries):
            standing.ask(standing.random_point(standing.rows, "zoo", key), standing.rows)


def measure(model, x, y, eps=EPS, *, norm="linf", training_loss=None, extra=(), claim=None, standard=True):
    """Verdict, checks and outcomes of a model, with a small stand-in for the attacks of an evaluation."""
    threat = Threat(norm, eps)
    runner = AttackRunner(Subject(model, x, y, batch_size=128))
    training = OBJECTIVES["cross-entropy"] if training_loss is None else through_embedding(training_loss)
    margin, cross_entropy = OBJECTIVES["margin"], OBJECTIVES["cross-entropy"]
    attacks = [
        ("fgsm-cross-entropy", "logits", fgsm(cross_entropy, threat)),
        ("pgd-20-training-loss", "paper", PGD(training, 20)),
        ("pgd-20-cross-entropy", "logits", PGD(cross_entropy, 20, random_start=True)),
        ("pgd-20-margin", "logits", PGD(margin, 20, random_start=True)),
    ]
    if standard:
        attacks += [
            *(("exact", "standard", attack) for attack in extra),
            ("pgd-50-margin", "standard", PGD(margin, 50, restarts=2, random_start=True)),
            ("random-search", "standard", RandomPoints()),
        ]
    found, last = {}, None
    for name, group, attack in attacks:
        found[name] = runner.attack(attack, threat, name, after=last if group == "standard" else None)
        last = found[name] if last is None else found[name].after(last)
    worst = last.robust.double().mean().item()
    left = {name: outcome.robust.double().mean().item() for name, outcome in found.items()}
    records = [
        attack_record(name, group, left[name], objective=attack.climbs, black_box=attack.black_box)
        for name, group, attack in attacks
    ]
    checks = examine(runner, threat, found, records)
    verdict = judge(
        natural=runner.right.double().mean().item(),
        attacks=records,
        worst=worst,
        count=len(x),
        checks=checks,
        claim=claim,
    )
    return verdict, {check.name: check for check in checks}, found


class Exact(Attack):
    """On a linear model, exact: the best point of the ball towards each class is a corner, clipped to the pixels."""

    def search(self, standing):
        x, threat = standing.clean, standing.threat
        for target in range(standing.clean_logits().shape[1]):
            rows, aim = standing.rows, torch.full_like(standing.labels, target)
            slope = standing.ask(x[rows], rows, standing.towards(aim, margin_targeted), gradient=True).gradient
            standing.ask(threat.project(x[rows] + threat.steepest_step(slope, threat.eps), x[rows]), rows)


def mlp(outputs=10, width=64):
    layers = nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    return nn.Sequential(nn.Flatten(), *layers)


def train(model, loss, seed, *, epochs=15, eps=0.0, learning_rate=3e-3):
    """Adam in batches of 64; with eps, on images perturbed as by FGSM-RS (Wong et al. 2020)."""
    x, y = digit_images()[:2]
    threat = Threat("linf", eps)
    optimiser = torch.optim.Adam(model.parameters(), learning_rate)
    steps = epochs * (len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2 * learning_rate, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator)[: len(x) // 64 * 64].split(64):
            clean = x[rows]
            if eps:
                noisy = clean + eps * (2 * torch.rand(clean.shape, generator=generator) - 1)
                noisy = noisy.clamp(0, 1).requires_grad_()
                (gradient,) = torch.autograd.grad(loss(model, noisy, y[rows]), noisy)
                clean = threat.project(noisy.detach() + threat.steepest_step(gradient, 1.25 * eps), clean)
            optimiser.zero_grad()
            loss(model, clean, y[rows]).backward()
            optimiser.step()
            schedule.step()
    return model.eval().requires_grad_(False)


def softmax_loss(model, x, y):
    return F.cross_entropy(model(x), y)


@cache
def undefended(seed):
    torch.manual_seed(seed)
    return train(mlp(), softmax_loss, seed)


@cache
def linear(seed):
    torch.manual_seed(seed)
    return train(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), softmax_loss, seed)


@cache
def adversarially_trained(seed):
    torch.manual_seed(seed)
    return train(mlp(), softmax_loss, seed, epochs=30, eps=EPS)


@cache
def paper(seed):
    """The paper's: L-inf distance to L-inf repulsive prototypes, of which 50 steps are the least that it uses."""
    torch.manual_seed(seed)
    prototypes = make_prototypes("repulsive-linf", 10, 100, seed=seed, steps=50)
    model = PrototypeClassifier(mlp(100, 128), prototypes, "dot", mean=(0.3,), std=(0.37,))
    value = LOSSES["linf"]().per_example
    return train(model, lambda m, x, y: value(m.embed(x), y, m).mean(), seed, epochs=30, learning_rate=2e-3)


def linf_loss(model):
    return lambda z, y: LOSSES["linf"]().per_example(z, y, model)


class Through(nn.Module):
    """A model behind something that spoils the attacks on it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner


class Scaled(Through):
    """Logits times 1e4: cross-entropy is exactly 0, and has no gradient."""

    def forward(self, x):
        return 1e4 * self.inner(x)


class Quantised(Through):
    """Four grey levels: a staircase without gradients."""

    def forward(self, x):
        return self.inner((3 * x).round() / 3)


class SoftlyQuantised(Through):
    """The same with a gradient that is not the staircase's: a thousandth of the honest one, and elsewhere."""

    def forward(self, x):
        return self.inner((3 * x).round() / 3 + 1e-3 * torch.sin(300 * x))


class Staircase(Through):
    """Steps in place of the activations: no gradient reaches the input."""

    def forward(self, x):
        for layer in self.inner:
            x = (4 * x.relu()).round() / 4 if isinstance(layer, nn.ReLU) else layer(x)
        return x


class Noisy(Through):
    """Random noise at inference."""

    def forward(self, x):
        return self.inner(x + 0.2 * torch.randn_like(x))


class Detached(Through):
    """Honest logits whose gradient is cut off."""

    def forward(self, x):
        return self.inner(x.detach()) + 0 * x.sum()


class Misled(Through):
    """Honest logits with a gradient that points nowhere in particular."""

    def forward(self, x):
        wrong = torch.sin(1e3 * x.flatten(1)).sum(1, keepdim=True) * torch.linspace(-1, 1, 10)
        return self.inner(x.detach()) + (wrong - wrong.detach())


class Silent(Through):
    """Honest logits behind a backward pass that gives zero."""

    def forward(self, x):
        return _Zero.apply(self.inner(x))


class _Zero(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits):
        return logits.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)
