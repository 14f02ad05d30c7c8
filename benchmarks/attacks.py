"""Our ensembles beside the AutoAttack of PyPI, torchattacks and ART: robust accuracy, time, passes, memory, in one run.

    python benchmarks/attacks.py --runs runs/cifar10-jpeg75/{softmax,paper,fgsm-rs} --data FOLDER
    python benchmarks/attacks.py --runs runs/paper-cifar10/cpu/simplex-cosine/seed-0 --linear --data FOLDER --update

Needs `pip install pyautoattack torchattacks adversarial-robustness-toolbox`; tools that are not installed are left out.
Each tool attacks each model in a process of its own, on the same images, all of which the model classifies right.
Robust accuracy is counted by the same code for all: inside the ball, and wrong under the model itself. Ours keep the
memory that they free, as the command line does; the others run as they are. `--memory` measures the peak of memory
alone, which other work on the machine does not change. `--linear` adds a linear model, trained on the data within
seconds. At the end stands how our ensembles compare with AutoAttack on each model.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repulse.attacks import Member, Square, Threat, ensemble
from repulse.common.allocator import keep_memory
from repulse.common.environment import environment
from repulse.common.files import load_tensors, save_tensors, write_atomically
from repulse.common.settings import merge
from repulse.config.run import read_config
from repulse.data import data_kept, load_data, subset
from repulse.evaluation.attack_runner import AttackRunner
from repulse.run_folder import load_run, load_splits
from repulse.subject import Subject

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
    "repulse Square, fewer queries": "repulse",
}

# Of all tools alike; and fewer of ours, which at 1,000 finds far more than another tool does.
SQUARE_QUERIES, FEWER_QUERIES = 1000, 200

AUTOATTACK = "pyautoattack"
ENSEMBLES = ("repulse standard", "repulse quick")


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
            "repulse Square, fewer queries": (Member("square", "Square", Square(queries=FEWER_QUERIES, rescale=True)),),
        }[name]
        runner = AttackRunner(Subject(model, x, y))
        outcome = None
        forward = backward = 0
        for member in members:
            outcome = runner.attack(member.attack, threat, member.label, after=outcome)
            spent = outcome.passes.total
            forward, backward = forward + spent[0], backward + spent[1]
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


def train_linear(data: str, path: Path, *, images: int = 20_000, epochs: int = 5) -> None:
    """Logistic regression on pixels about mid-grey; its weights, turned to pixels in [0, 1], go to a file."""
    train = load_data(data).train
    some = subset(train, min(images, len(train)), 0)
    x, y = some.fetch(torch.arange(len(some))).flatten(1).float() / 255, some.labels
    torch.manual_seed(0)
    model = linear(x.shape[1], len(train.class_names))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x)), 128):
            optimiser.zero_grad()
            F.cross_entropy(model(x[rows] - 0.5), y[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    with torch.no_grad():
        model[1].bias -= 0.5 * model[1].weight.sum(1)  # type: ignore[operator]
    save_tensors(path, model.state_dict())


def linear(pixels: int, classes: int) -> nn.Sequential:
    """Pixels in [0, 1] to logits by one matrix."""
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))


def peak_megabytes(*, anew: bool = False) -> float:
    """The most memory that this process has held, in MB; `anew`: since now, which is what it holds now (Linux only).

    Reading the images takes more than most attacks do, so that a peak since the start would be the same for all.
    """
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return float(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) / 1024


def label(run: Path) -> str:
    """What a model is called: by its folder, or the folder above if that only says the seed."""
    if run.is_file():
        return run.stem
    return run.parent.name if run.name.startswith("seed-") else run.name


def load_model(run: Path) -> nn.Module:
    """The model of a run folder, or of a file with the weights of a linear model."""
    model: nn.Module
    if run.is_file():
        weights = load_tensors(run)[0]
        model = linear(*weights["1.weight"].T.shape).eval()
        model.load_state_dict(weights)
    else:
        model = load_run(run)[0]
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def choose(run: Path, data: str, count: int, file: Path) -> None:
    """Put `count` test images that a model classifies right into a file, and how many of a larger sample it does.

    Args:
        run: a run folder, or the weights of a linear model.
        data: where the images lie.
        count: how many.
        file: what to write. Tools read it instead of the data, which would take more memory than they do.
    """
    if run.is_file():
        test = load_data(data).test
    else:
        config = merge(read_config(run), {"data": {"source": data, "validation": 0.0}}, "attacks")
        test = load_splits(config).test
    some = subset(test, min(4 * count, len(test)), 0)
    x, y = some.fetch(torch.arange(len(some))).float() / 255, some.labels
    model = load_model(run)
    with torch.inference_mode():
        right = torch.cat([model(part).argmax(1) for part in torch.split(x, 250)]) == y
    save_tensors(file, {"images": x[right][:count], "labels": y[right][:count], "right": right})


def measure(tool: str, run: Path, images: Path, eps: float) -> dict[str, Any]:
    """What one tool finds on one model, and what it takes."""
    # So that a comparison is with the tools as people run them, only ours keep their memory.
    kept = TOOLS[tool] == "repulse" and keep_memory()
    model, chosen = load_model(run).requires_grad_(False), load_tensors(images)[0]
    x, y = chosen["images"], chosen["labels"]
    if TOOLS[tool] != "repulse":
        # As other tools meet it: nobody converts a model's memory format for them.
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    threat = Threat("linf", eps)
    attack = ours(tool) if TOOLS[tool] == "repulse" else theirs(tool)
    gc.collect()
    before = peak_megabytes(anew=True)
    started = time.perf_counter()
    adversarial, forward, backward = attack(model, x, y, threat)
    seconds = time.perf_counter() - started
    peak = peak_megabytes()
    inside = (threat.distance(adversarial, x) <= eps + threat.tolerance) & (adversarial.flatten(1).amin(1) >= 0)
    with torch.inference_mode():
        wrong = torch.cat([model(part).argmax(1) for part in torch.split(adversarial, 250)]) != y
    return {
        "tool": tool,
        "model": label(run),
        "keeps_memory": kept,
        "images": len(x),
        "natural_accuracy": chosen["right"].double().mean().item(),
        "robust_of_right": 1 - (wrong & inside).double().mean().item(),
        "seconds": seconds,
        "images_per_second": len(x) / seconds,
        "forward_passes_per_image": forward / len(x),
        "backward_passes_per_image": backward / len(x),
        "peak_megabytes": peak,
        "megabytes_before": before,
    }


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Our ensembles beside AutoAttack, for each model that both were measured on in one run."""
    found = {(row["model"], row["tool"]): row for row in rows if "failed" not in row}
    compared = []
    for model in dict.fromkeys(row["model"] for row in rows):
        theirs = found.get((model, AUTOATTACK))
        for tool in ENSEMBLES:
            ours = found.get((model, tool))
            # Other images, or another number of them, are no comparison.
            if ours is None or theirs is None or ours["images"] != theirs["images"]:
                continue
            passes = [sum(row[f"{way}_passes_per_image"] for way in ("forward", "backward")) for row in (ours, theirs)]
            compared.append(
                {
                    "model": model,
                    "tool": tool,
                    "images": ours["images"],
                    "robust_of_right": ours["robust_of_right"],
                    "robust_of_right_autoattack": theirs["robust_of_right"],
                    "times_as_fast": ours["images_per_second"] / theirs["images_per_second"],
                    "share_of_passes": passes[0] / passes[1],
                    "share_of_peak_memory": ours["peak_megabytes"] / theirs["peak_megabytes"],
                }
            )
    return compared


def say(compared: list[dict[str, Any]]) -> str:
    """The ratios as lines of text."""
    lines = [
        f"{'model':16} {'ensemble':17} {'images':>6} {'robust':>8} {AUTOATTACK:>13} {'times as fast':>13} {'passes':>7}"
    ]
    for row in compared:
        lines.append(
            f"{row['model']:16} {row['tool']:17} {row['images']:6} {100 * row['robust_of_right']:7.1f}% "
            f"{100 * row['robust_of_right_autoattack']:12.1f}% {row['times_as_fast']:13.1f} "
            f"{100 * row['share_of_passes']:6.0f}%"
        )
    return "\n".join(lines)


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The old rows, in their order, with those that were measured again in their places."""
    again = {(row["model"], row["tool"]): row for row in new}
    kept = [again.pop((row["model"], row["tool"]), row) for row in old]
    return kept + list(again.values())


MEMORY = ("peak_megabytes", "megabytes_before")


def write_memory(path: Path, measured: list[dict[str, Any]]) -> None:
    """Put the memory of new measurements, which a busy machine does not change, into the rows that have the time."""
    content = json.loads(path.read_text(encoding="utf-8"))
    found = {(row["model"], row["tool"]): {key: row[key] for key in MEMORY} for row in measured if "failed" not in row}
    rows = [row | found.get((row["model"], row["tool"]), {}) for row in content["rows"]]
    content |= {"rows": rows, "beside_autoattack": ratios(rows)}
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def main() -> None:
    """Measure, keep the record, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="run folders of trained models")
    parser.add_argument("--linear", action="store_true", help="a linear model, too, trained on the data in place")
    parser.add_argument("--data", required=True, help="folder of parquet files, or a Hub id")
    parser.add_argument("--images", type=int, default=100, help="images that the model classifies right")
    parser.add_argument("--eps", type=float, default=8 / 255)
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=list(TOOLS))
    parser.add_argument("--results", type=Path, default=Path("results/benchmarks/attacks.json"))
    parser.add_argument(
        "--update", action="store_true", help="keep what the results file has of other models and tools"
    )
    parser.add_argument(
        "--memory", action="store_true", help="measure memory only, and put it beside what the results file has"
    )
    parser.add_argument("--one", type=Path, help="one tool, one run, these images, in this process; prints JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.tools[0], options.runs[0], options.one, options.eps)))
        return
    if not (options.runs or options.linear):
        parser.error("name run folders (--runs), or --linear")
    with tempfile.TemporaryDirectory() as folder:
        models = list(options.runs)
        if options.linear:
            models.append(Path(folder) / "linear.safetensors")
            train_linear(options.data, models[-1])
        with data_kept():
            rows = compare(models, options)
    if options.memory:
        write_memory(options.results, rows)
        return
    compared = ratios(rows)
    print(say(compared))
    if options.update and options.results.is_file():
        old = json.loads(options.results.read_text(encoding="utf-8"))
        rows, compared = merged(old["rows"], rows), merged(old.get("beside_autoattack", []), compared)
    flag = " --linear" if options.linear else ""
    result = {
        "command": f"python benchmarks/attacks.py --runs RUN ...{flag} --data FOLDER --images {options.images}",
        "environment": environment(),
        "eps": options.eps,
        "rows": rows,
        "beside_autoattack": compared,
    }
    write_atomically(options.results, json.dumps(result, indent=1) + "\n")


def compare(models: list[Path], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every tool on every model, one process each."""
    tools = [tool for tool in options.tools if importlib.util.find_spec(TOOLS[tool]) is not None]
    for tool in sorted(set(options.tools) - set(tools)):
        print(f"{tool}: not installed, left out", file=sys.stderr)
    rows: list[dict[str, Any]] = []
    for run in models:
        with tempfile.TemporaryDirectory() as folder:
            images = Path(folder) / "images.safetensors"
            choose(run, options.data, options.images, images)
            rows += [attacked(tool, run, images, options) for tool in tools]
    return rows


def attacked(tool: str, run: Path, images: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What one tool finds on one model, measured in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", str(images), "--runs", str(run)]
    command += ["--data", options.data, "--eps", str(options.eps), "--tools", tool]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1]
        print(f"{label(run)}, {tool}: failed: {reason}", file=sys.stderr, flush=True)
        return {"tool": tool, "model": label(run), "failed": reason}
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{label(run)}, {tool}: {100 * row['robust_of_right']:.1f} % in {row['seconds']:.1f} s", flush=True)
    return row


if __name__ == "__main__":
    main()
