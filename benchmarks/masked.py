"""Nets behind what hides a gradient: what each keeps, beside the same net without it.

    python benchmarks/masked.py --data FOLDER [--images 100] [--only NAME ...] [--output results/benchmarks/masked.json]

FOLDER holds Fashion-MNIST. A small convolutional net is trained twice on it, plainly and by FGSM-RS, in two minutes on
one core. Then each way to hide a gradient is put around it, and evaluated by `adaptive` at eps 0.1 on the same images.
The truth about a masked net is known by another route: the net inside, attacked openly. What a masked net keeps above
that is robustness which is not there. `first` is the attack that broke most of what PGD with 100 steps had left.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from passes import fgsm_rs, plain
from repulse import evaluate, load_data
from repulse.common.environment import environment
from repulse.common.files import write_atomically

EPS = 0.1


class Net(nn.Module):
    """Two convolutions and two linear layers, with an activation that may be exchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 4, stride=2, padding=1)
        self.second = nn.Conv2d(16, 32, 4, stride=2, padding=1)
        self.third = nn.Linear(32 * 49, 100)
        self.last = nn.Linear(100, 10)
        self.activation: Callable[[Tensor], Tensor] = F.relu

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.activation(self.first(x))
        x = self.activation(self.second(x)).flatten(1)
        logits: Tensor = self.last(self.activation(self.third(x)))
        return logits


class Masked(nn.Module):
    """A net behind a way to hide its gradient."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net


class Quantised(Masked):
    """Sixteen grey levels, cut off from the graph."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net((15 * x.detach()).round() / 15 + 0 * x)
        return logits


class Staircase(Masked):
    """Steps in place of the activations."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        self.net.activation = lambda z: torch.floor(8 * z.relu()) / 8
        logits: Tensor = self.net(x)
        return logits


class Sine(Masked):
    """A ripple in front: its slope is sixteen times that of the pixel below it."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net(x + 0.004 * torch.sin(4000 * x))
        return logits


class Winners(Masked):
    """Only the largest fifth of every layer passes (Xiao et al. 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""

        def winners(z: Tensor) -> Tensor:
            flat = z.flatten(1)
            least = flat.topk(max(1, flat.shape[1] // 5), dim=1).values[:, -1:]
            return (flat * (flat >= least)).reshape(z.shape)

        self.net.activation = winners
        logits: Tensor = self.net(x)
        return logits


class Median(Masked):
    """A median of 3x3 pixels in front."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net(median_of(x))
        return logits


def median_of(x: Tensor) -> Tensor:
    """Every pixel the median of its neighbourhood of 3x3."""
    patches = F.unfold(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3)
    return patches.reshape(len(x), 9, *x.shape[2:]).median(dim=1, keepdim=True).values


class Votes(Masked):
    """Nine shifts vote, each with its class only."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits: the number of votes."""
        shifts = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        votes = [F.one_hot(self.net(x.roll(shift, (2, 3))).argmax(1), 10) for shift in shifts]
        # The unmoved image decides between equals.
        votes[4] = votes[4] * 1.5
        return torch.stack([vote.float() for vote in votes]).sum(0)


class Detector(Masked):
    """Where a smoothed image gets another answer, the two best classes are swapped (after Xu et al. 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net(x)
        other = self.net(median_of(x))
        far = (logits.softmax(1) - other.softmax(1)).abs().sum(1, keepdim=True) > 0.9
        best, order = logits.topk(2, dim=1)
        swapped = logits.scatter(1, order, best.flip(1))
        return torch.where(far, swapped, logits)


class Purified(Masked):
    """Five signed steps that make the net surer of its first answer, before the answer that counts."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        moved = x.detach()
        with torch.enable_grad():
            for _ in range(5):
                asked = moved.clone().requires_grad_()
                logits = self.net(asked)
                (slope,) = torch.autograd.grad(F.cross_entropy(logits, logits.argmax(1)), asked)
                moved = (moved - 0.02 * slope.sign()).clamp(0, 1).detach()
        answer: Tensor = self.net(moved)
        return answer + 0 * x.flatten(1).sum(1, keepdim=True)


class Decision(Masked):
    """The class and nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits: one for the class, zero for the others."""
        return F.one_hot(self.net(x).argmax(1), 10).to(x)


class Clamped(Masked):
    """Logits against their mean, hardly any of which lie inside what is let through."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net(x)
        best = logits.max(1, keepdim=True).values
        return (logits - best + 1e-2).clamp(0, 1e-2)


class Scaled(Masked):
    """Logits times 1e4: cross-entropy is exactly zero."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = 1e4 * self.net(x)
        return logits


MASKS: dict[str, type[Masked]] = {
    "quantiser, detached": Quantised,
    "staircase activations": Staircase,
    "sine": Sine,
    "k-winners-take-all": Winners,
    "median filter": Median,
    "hard votes over shifts": Votes,
    "detector that swaps logits": Detector,
    "purification by signed steps": Purified,
    "class only": Decision,
    "clamped logits": Clamped,
    "logits times 1e4": Scaled,
}


def trained(x: Tensor, y: Tensor, *, eps: float, epochs: int = 3) -> Net:
    """A net after Adam in batches of 100; with eps, on images moved as by FGSM-RS (Wong et al. 2020)."""
    torch.manual_seed(0)
    net = Net()
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * (len(x) // 100) + 1)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x))[: len(x) // 100 * 100], 100):
            optimiser.zero_grad()
            (fgsm_rs if eps else plain)(net, x[rows], y[rows], eps).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return net.eval().requires_grad_(False)


def measured(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """An evaluation by everything, and what broke it."""
    started = time.process_time()
    evaluation = evaluate(model, x, y, eps=EPS, attacks="adaptive", steps=(100,), curve=(EPS,), gallery=0)
    record, outcomes = evaluation.record, evaluation.outcomes
    # The routes by which images fell that PGD on cross-entropy left.
    left = outcomes["robust/pgd-100-cross-entropy"].bool() & ~outcomes["robust/worst-case"].bool()
    routes = Counter(record.attacks[place].label for place in outcomes["fooled_by"][left].tolist())
    return {
        "natural_accuracy": record.natural_accuracy,
        "pgd_100": next(a.robust_accuracy for a in record.attacks if a.name == "pgd-100-cross-entropy"),
        "robust_accuracy": record.worst_case_accuracy,
        "smooth_backward": outcomes["robust/through-masking"].double().mean().item(),
        "verdict": None if record.verdict is None else record.verdict.word,
        "failed_checks": [check.name for check in record.checks if check.passed is False and check.serious],
        "routes": dict(routes.most_common(3)),
        "cpu_seconds": time.process_time() - started,
    }


def main(argv: list[str] | None = None) -> None:
    """Measure every net and mask that is not in the record yet, and keep what was found after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--only", nargs="+", choices=list(MASKS), default=list(MASKS))
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/masked.json"))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    splits = load_data(options.data)
    rows = torch.arange(30_000)
    images, labels = splits.train.fetch(rows).float() / 255, splits.train.labels[rows]
    x, y = splits.test.fetch(torch.arange(options.images)).float() / 255, splits.test.labels[: options.images]
    record: dict[str, Any] = json.loads(options.output.read_text()) if options.output.is_file() else {"nets": {}}
    for name, eps in {"plain": 0.0, "fgsm-rs": EPS}.items():
        net = trained(images, labels, eps=eps)
        at = record["nets"].setdefault(name, {"masks": {}})
        for mask in (None, *options.only):
            if mask in at["masks"] or (mask is None and "open" in at):
                continue
            found = measured(net if mask is None else MASKS[mask](copy.deepcopy(net)).eval(), x, y)
            if mask is None:
                at["open"] = found
            else:
                above = found["robust_accuracy"] - at["open"]["robust_accuracy"]
                at["masks"][mask] = {**found, "above_open": above}
            print(name, mask, found, flush=True)
            record |= {"images": options.images, "eps": EPS, "environment": environment()}
            write_atomically(options.output, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
