"""Models whose true robustness is known, and small trained ones."""

from copy import deepcopy
from functools import cache

import torch
from torch import nn

from repulse.attacks import Threat


def linear(classes=3, pixels=16, seed=0):
    """Classes that meet at mid-grey, so that images around it lie near their boundaries."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(pixels, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, pixels, generator=generator))
        layer.bias.copy_(-0.5 * layer.weight.sum(1))
    return nn.Sequential(nn.Flatten(), layer)


def images(model, count=60, shape=(1, 4, 4), seed=1):
    """Images around mid-grey, so that the range of pixels cuts no small ball, with the model's own labels."""
    x = 0.35 + 0.3 * torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))
    return x, model(x).argmax(1)


def radius(model, x, y, norm):
    """The exact distance to the nearest boundary where the range of pixels does not cut: margin over dual norm."""
    weight = model[1].weight.detach()
    difference = weight[y].unsqueeze(1) - weight
    dual = difference.abs().sum(2) if norm == "linf" else difference.norm(dim=2)
    logits = model(x).detach()
    margins = logits.gather(1, y.unsqueeze(1)) - logits
    return (margins / dual).scatter(1, y.unsqueeze(1), torch.inf).amin(1)


def digits(norm="linf", eps=0.0, epochs=12, seed=0):
    """A small network trained on digits, adversarially if eps > 0 (Wong et al. 2020), and 150 test images."""
    return deepcopy(_digits(norm, eps, epochs, seed))


@cache
def _digits(norm, eps, epochs, seed):
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.tensor(data.images).float().unsqueeze(1) / 16, torch.tensor(data.target).long()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 10),
        )
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    threat = Threat(norm, eps)
    for _ in range(epochs):
        for rows in torch.randperm(1200, generator=generator).split(64):
            clean, labels = x[rows], y[rows]
            moved = clean
            if eps:
                start = threat.project(clean + eps * (2 * torch.rand(clean.shape, generator=generator) - 1), clean)
                start.requires_grad_()
                (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(start), labels), start)
                moved = threat.project(start.detach() + threat.steepest_step(gradient, 1.25 * eps), clean)
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(moved), labels).backward()
            optimiser.step()
    return model.eval(), x[1200:1350], y[1200:1350]
