"""Passes of our ensembles beside the AutoAttack of PyPI, on six small models trained here in minutes on one core.

    python benchmarks/passes.py --data ../shared/data

Needs `pip install pyautoattack`. Models: digits undefended, trained long by a perceptron, and by FGSM-RS; CIFAR-10 by
FGSM-RS and by a penalty on the input gradient; CIFAR-100 by FGSM-RS. Each is attacked on 100 images that it classifies
right; robust accuracy is counted by the same code for all. The models are small: the figures are about passes, and
about which images fall, not about defences.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from repulse.attacks import Threat, ensemble
from repulse.common.environment import environment
from repulse.common.files import sha256_of, write_atomically
from repulse.data import load_data

IMAGES = 100
Loss = Callable[[nn.Module, Tensor, Tensor, float], Tensor]


def plain(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:  # noqa: ARG001
    """Cross-entropy."""
    return F.cross_entropy(model(x), y)


def fgsm_rs(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Cross-entropy of images moved one step from a random start (Wong et al. 2020)."""
    start = (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(start), y), start)
    return plain(model, Threat("linf", eps).project(start.detach() + 1.25 * eps * gradient.sign(), x), y, eps)


def penalty(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:  # noqa: ARG001
    """Cross-entropy, and the squared L1 norm of its input gradient (Finlay & Oberman 2021)."""
    x = x.clone().requires_grad_()
    values = F.cross_entropy(model(x), y, reduction="none")
    (gradient,) = torch.autograd.grad(values.sum(), x, create_graph=True)
    return (values + 0.002 * gradient.flatten(1).abs().sum(1).square()).mean()


def convolutions(channels: int, classes: int, width: int, side: int) -> nn.Sequential:
    """Three convolutions and two linear layers."""
    last = 2 * width * (side // 8) ** 2
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(last, 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


def perceptron() -> nn.Sequential:
    """256 and 256 hidden units: many of its gradients vanish once it is sure."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )


# Data, network, training loss, eps, epochs.
MODELS: dict[str, tuple[str, Callable[[], nn.Module], Loss, float, int]] = {
    "digits-undefended": ("digits", lambda: convolutions(1, 10, 16, 8), plain, 0.06, 20),
    "digits-perceptron": ("digits", perceptron, plain, 0.08, 150),
    "digits-fgsm-rs": ("digits", lambda: convolutions(1, 10, 16, 8), fgsm_rs, 0.15, 40),
    "cifar10-fgsm-rs": ("cifar10", lambda: convolutions(3, 10, 12, 32), fgsm_rs, 8 / 255, 12),
    "cifar10-gradient-penalty": ("cifar10", lambda: convolutions(3, 10, 12, 32), penalty, 4 / 255, 12),
    "cifar100-fgsm-rs": ("cifar100", lambda: convolutions(3, 100, 12, 32), fgsm_rs, 4 / 255, 12),
}


def images_of(data: str, folder: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, and those to measure on, in [0, 1]."""
    if data == "digits":
        digits = load_digits()
        x, y = torch.tensor(digits.images).float().unsqueeze(1) / 16, torch.tensor(digits.target).long()
        return x[:1200], y[:1200], x[1200:], y[1200:]
    found = load_data(str(folder / data))
    some, rest = torch.arange(10_000 if data == "cifar100" else 6000), torch.arange(1500)
    train, test = found.train, found.test
    return train.fetch(some).float() / 255, train.labels[some], test.fetch(rest).float() / 255, test.labels[rest]


def trained(name: str, folder: Path) -> tuple[nn.Module, Tensor, Tensor, float, float]:
    """A model, images that it classifies right, their labels, eps, and its natural accuracy."""
    data, network, loss, eps, epochs = MODELS[name]
    x, y, test, labels = images_of(data, folder)
    torch.manual_seed(0)
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=epochs * (len(x) // 100))
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x))[: len(x) // 100 * 100], 100):
            optimiser.zero_grad()
            torch.autograd.backward(loss(model, x[rows], y[rows], eps))
            optimiser.step()
            schedule.step()
    model.eval().requires_grad_(False)
    right = model(test).argmax(1) == labels
    return model, test[right][:IMAGES], labels[right][:IMAGES], eps, right.double().mean().item()


def autoattack(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, float]:
    """What the standard AutoAttack makes of the images, and its passes per image."""
    from pyautoattack import AutoAttack

    spent = 0

    def counted(batch: Tensor) -> Tensor:
        nonlocal spent
        spent += len(batch)
        logits: Tensor = model(batch)
        if logits.requires_grad:
            logits.register_hook(back)  # type: ignore[no-untyped-call]
        return logits

    def back(gradient: Tensor) -> None:
        nonlocal spent
        spent += len(gradient)

    tool: Any = AutoAttack(counted, eps=eps, norm="Linf", seed=0, version="standard")
    return tool.run_standard_evaluation(x, y, batch_size=250)[0], spent / len(x)


def measure(name: str, folder: Path) -> dict[str, Any]:
    """AutoAttack and ours on one model."""
    model, x, y, eps, natural = trained(name, folder)
    threat = Threat("linf", eps)
    started = time.process_time()
    adversarial, passes = autoattack(model, x, y, eps)
    seconds = time.process_time() - started
    inside = threat.distance(adversarial, x) <= eps + threat.tolerance
    fooled = (model(adversarial).argmax(1) != y) & inside
    row: dict[str, Any] = {
        "model": name,
        "weights_sha256": sha256_of(*model.state_dict().values()),
        "natural_accuracy": natural,
        "images": len(x),
        "eps": eps,
        "autoattack": {
            "robust_of_right": 1 - fooled.double().mean().item(),
            "passes_per_image": passes,
            "cpu_seconds": seconds,
        },
    }
    started = time.process_time()
    result = ensemble("quick")(model, x, y, threat)
    ours = sum(result.passes.total) / len(x)
    row["repulse quick"] = {
        "robust_of_right": 1 - result.fooled.double().mean().item(),
        "passes_per_image": ours,
        "cpu_seconds": time.process_time() - started,
        "share_of_passes": ours / passes,
        "fooled_by_us_only": int((result.fooled & ~fooled).sum()),
        "fooled_by_autoattack_only": int((fooled & ~result.fooled).sum()),
    }
    return row


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds cifar10/ and cifar100/")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--results", type=Path, default=Path("results/benchmarks/passes.json"))
    options = parser.parse_args()
    rows = []
    for name in options.models:
        rows.append(measure(name, options.data))
        theirs, ours = rows[-1]["autoattack"], rows[-1]["repulse quick"]
        print(
            f"{name:26} AutoAttack {theirs['robust_of_right']:6.1%} {theirs['passes_per_image']:7.0f}   quick "
            f"{ours['robust_of_right']:6.1%} {ours['passes_per_image']:5.0f} ({ours['share_of_passes']:.1%} of passes)",
            flush=True,
        )
        command = f"python benchmarks/passes.py --data DATA --models {' '.join(row['model'] for row in rows)}"
        content = {"command": command, "environment": environment(), "rows": rows}
        write_atomically(options.results, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
