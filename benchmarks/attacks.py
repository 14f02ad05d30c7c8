"""Our ensembles beside the AutoAttack of PyPI, torchattacks and ART: robust accuracy, time, passes, memory, in one run.

    python benchmarks/attacks.py --runs runs/cifar10-jpeg75/{softmax,paper,fgsm-rs} --data FOLDER

Needs `pip install pyautoattack torchattacks adversarial-robustness-toolbox`; tools that are not installed are left out.
Each tool attacks each model in a process of its own, on the same images, all of which the model classifies right.
Robust accuracy is counted by the same code for all: inside the ball, and wrong under the model itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repulse.attacks import Member, Square, Threat, ensemble
from repulse.config import merge
from repulse.data import subset
from repulse.environment import environment
from repulse.evaluation.bench import Bench
from repulse.evaluation.journal import Journal
from repulse.files import write_atomically
from repulse.runs import load_run, load_splits

# Which package each tool needs; ours needs none.
TOOLS = {
    "repulse standard": "repulse",
    "repulse quick": "repulse",
    "pyautoattack": "pyautoattack",
    "torchattacks AutoAttack": "torchattacks",
    "torchattacks APGD": "torchattacks",
    "ART APGD": "art",
    "repulse APGD": "repulse",
    "torchattacks Square": "torchattacks",
    "ART Square": "art",
    "repulse Square": "repulse",
}

SQUARE_QUERIES = 1000


class Counted(nn.Module):
    """A model that counts the images it is asked about, and those that gradients come back through."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forward_passes = self.backward_passes = 0

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        self.forward_passes += len(x)
        logits: Tensor = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self._count)  # type: ignore[no-untyped-call]
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.backward_passes += len(gradient)


def ours(name: str) -> Callable[[nn.Module, Tensor, Tensor, Threat], tuple[Tensor, int, int]]:
    """One of our ensembles, as an evaluation runs it: on the folded copy, every success confirmed on the model."""

    def run(model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> tuple[Tensor, int, int]:
        members = {
            "repulse standard": ensemble("standard").members,
            "repulse quick": ensemble("quick").members,
            "repulse APGD": ensemble("standard").members[:1],
            "repulse Square": (Member("square", "Square", Square(queries=SQUARE_QUERIES, rescale=True)),),
        }[name]
        bench = Bench(model, x, y, seed=0, journal=Journal(None, ""))
        outcome = None
        forward = backward = 0
        for member in members:
            outcome = bench.attack(member.attack, threat, member.label, after=outcome)
            forward, backward = forward + outcome.forward_passes, backward + outcome.backward_passes
        assert outcome is not None
        return outcome.adversarial, forward, backward

    return run


def theirs(name: str) -> Callable[[nn.Module, Tensor, Tensor, Threat], tuple[Tensor, int, int]]:
    """Another tool, with its own defaults for the same attack and budget."""

    def run(model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> tuple[Tensor, int, int]:
        counted = Counted(model)
        adversarial = _THEIRS[name](counted, x, y, threat.eps)
        return adversarial, counted.forward_passes, counted.backward_passes

    return run


def _pyautoattack(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    from pyautoattack import AutoAttack

    tool: Any = AutoAttack(model, eps=eps, norm="Linf", seed=0, version="standard")
    adversarial: Tensor = tool.run_standard_evaluation(x, y, batch_size=250)[0]
    return adversarial


def _torchattacks(name: str) -> Callable[[nn.Module, Tensor, Tensor, float], Tensor]:
    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        import torchattacks

        tool: Any = {
            "AutoAttack": lambda: torchattacks.AutoAttack(model, norm="Linf", eps=eps, version="standard", seed=0),
            "APGD": lambda: torchattacks.APGD(model, norm="Linf", eps=eps, steps=100, seed=0),
            "Square": lambda: torchattacks.Square(model, norm="Linf", eps=eps, n_queries=SQUARE_QUERIES, seed=0),
        }[name]()
        return torch.cat([tool(*pair).detach() for pair in zip(torch.split(x, 250), torch.split(y, 250), strict=True)])

    return run


def _art(name: str) -> Callable[[nn.Module, Tensor, Tensor, float], Tensor]:
    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        from art.attacks.evasion import AutoProjectedGradientDescent, SquareAttack
        from art.estimators.classification import PyTorchClassifier

        classes = model(x[:1]).shape[1]
        victim = PyTorchClassifier(
            model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), classes, clip_values=(0.0, 1.0), device_type="cpu"
        )
        tool: Any = (
            AutoProjectedGradientDescent(
                victim,
                norm=math.inf,
                eps=eps,
                eps_step=2 * eps,
                max_iter=100,
                nb_random_init=1,
                batch_size=250,
                loss_type="cross_entropy",
                verbose=False,
            )
            if name == "APGD"
            else SquareAttack(victim, eps=eps, max_iter=SQUARE_QUERIES, p_init=0.8, batch_size=250, verbose=False)
        )
        return torch.from_numpy(tool.generate(x.numpy(), y.numpy()))

    return run


_THEIRS = {
    "pyautoattack": _pyautoattack,
    "torchattacks AutoAttack": _torchattacks("AutoAttack"),
    "torchattacks APGD": _torchattacks("APGD"),
    "torchattacks Square": _torchattacks("Square"),
    "ART APGD": _art("APGD"),
    "ART Square": _art("Square"),
}


def victim(run: Path, data: str, count: int) -> tuple[nn.Module, Tensor, Tensor, float]:
    """The model of a run, `count` test images that it classifies right, and its natural accuracy on a larger sample."""
    model, config, _ = load_run(run)
    test = load_splits(merge(config, {"data": {"source": data, "validation": 0.0}}, "attacks")).test
    some = subset(test, min(4 * count, len(test)), 0)
    x, y = some.fetch(torch.arange(len(some))).float() / 255, some.labels
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        right = torch.cat([model(part).argmax(1) for part in torch.split(x, 250)]) == y
    return model, x[right][:count], y[right][:count], right.double().mean().item()


def measure(tool: str, run: Path, data: str, count: int, eps: float) -> dict[str, Any]:
    """What one tool finds on one model, and what it takes."""
    model, x, y, natural = victim(run, data, count)
    model.requires_grad_(False)
    if TOOLS[tool] != "repulse":
        # As other tools meet it: nobody converts a model's memory format for them.
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    threat = Threat("linf", eps)
    attack = ours(tool) if TOOLS[tool] == "repulse" else theirs(tool)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    adversarial, forward, backward = attack(model, x, y, threat)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    inside = (threat.distance(adversarial, x) <= eps + threat.tolerance) & (adversarial.flatten(1).amin(1) >= 0)
    with torch.inference_mode():
        wrong = torch.cat([model(part).argmax(1) for part in torch.split(adversarial, 250)]) != y
    return {
        "tool": tool,
        "model": run.name,
        "images": len(x),
        "natural_accuracy": natural,
        "robust_of_right": 1 - (wrong & inside).double().mean().item(),
        "seconds": seconds,
        "images_per_second": len(x) / seconds,
        "forward_passes_per_image": forward / len(x),
        "backward_passes_per_image": backward / len(x),
        "peak_megabytes": peak / 1024,
        "peak_megabytes_before": before / 1024,
    }


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The old rows, in their order, with those that were measured again in their places."""
    again = {(row["model"], row["tool"]): row for row in new}
    kept = [again.pop((row["model"], row["tool"]), row) for row in old]
    return kept + list(again.values())


def main() -> None:
    """Every tool on every model, one process each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="run folders of trained models")
    parser.add_argument("--data", required=True, help="folder of parquet files, or a Hub id")
    parser.add_argument("--images", type=int, default=100, help="images that the model classifies right")
    parser.add_argument("--eps", type=float, default=8 / 255)
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=list(TOOLS))
    parser.add_argument("--results", type=Path, default=Path("results/benchmarks/attacks.json"))
    parser.add_argument(
        "--update", action="store_true", help="keep what the results file has of other models and tools"
    )
    parser.add_argument("--one", action="store_true", help="one tool, one run, in this process; prints JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.tools[0], options.runs[0], options.data, options.images, options.eps)))
        return
    rows: list[dict[str, Any]] = []
    for run in options.runs:
        for tool in options.tools:
            if importlib.util.find_spec(TOOLS[tool]) is None:
                print(f"{tool}: not installed, left out", file=sys.stderr)
                continue
            command = [sys.executable, "-W", "ignore", __file__, "--one", "--runs", str(run), "--data", options.data]
            command += ["--images", str(options.images), "--eps", str(options.eps), "--tools", tool]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                reason = done.stderr.strip().splitlines()[-1]
                rows.append({"tool": tool, "model": run.name, "failed": reason})
                print(f"{run.name}, {tool}: failed: {reason}", file=sys.stderr, flush=True)
                continue
            rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
            row = rows[-1]
            print(f"{run.name}, {tool}: {100 * row['robust_of_right']:.1f} % in {row['seconds']:.1f} s", flush=True)
    if options.update and options.results.is_file():
        rows = merged(json.loads(options.results.read_text(encoding="utf-8"))["rows"], rows)
    result = {
        "command": f"python benchmarks/attacks.py --runs RUN ... --data FOLDER --images {options.images}",
        "environment": environment(),
        "eps": options.eps,
        "rows": rows,
    }
    write_atomically(options.results, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
