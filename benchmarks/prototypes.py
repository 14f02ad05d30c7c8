"""Prototypes at scale, and side by side with a plain implementation of the paper's procedure.

    python benchmarks/prototypes.py [--quick] [--case NAME] [--output results/benchmarks/prototypes.json]

Each case runs in a process of its own, so that its peak memory is its own (with that of Python and PyTorch, which is
stated). Seconds are wall time of making the prototypes; measuring their separation is not counted. The plain procedure
is timed for a few steps and its time multiplied up to the 1,000 steps of the default, where it is not run whole; its
separation is then that after the steps that were run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repulse.common.environment import environment
from repulse.common.seeding import generator
from repulse.prototypes import make_prototypes, measure
from repulse.prototypes.bounds import angle_bound
from repulse.prototypes.separation import smallest_angle

Result = dict[str, Any]

PAPER_STEPS = 1000
# The plain procedure holds all n x n x d differences up to this many, and goes row by row in blocks beyond.
PLAIN_NUMBERS = 100_000_000


def scale(method: str, n: int, d: int, limit: float) -> Result:
    """Make many prototypes once: seconds, peak memory, the angle reached and the bound."""
    start = time.perf_counter()
    made = make_prototypes(method, n, d)
    seconds = time.perf_counter() - start
    memory = peak_gigabytes()
    angle, bound = smallest_angle(made.points), angle_bound(n, d)
    return {
        "method": method,
        "n": n,
        "d": d,
        "steps": made.steps,
        "seconds": seconds,
        "limit_seconds": limit,
        "peak_gigabytes": memory,
        "smallest_angle": angle,
        "angle_bound": bound.value,
        "bound_source": bound.source,
        "random_angle": smallest_angle(make_prototypes("random", n, d).points),
    }


def ours(method: str, n: int, d: int) -> Result:
    """A method of this package: the median time of five calls after a first one."""
    made = make_prototypes(method, n, d)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        make_prototypes(method, n, d)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    return {"method": method, "n": n, "d": d, "seconds": seconds, **separation(made.points)}


def plain(n: int, d: int, steps: int) -> Result:
    """The paper's procedure as one would write it down: autograd through all pairwise differences, and torch's SGD."""
    points = 2 * torch.rand(n, d, generator=generator(0, "repulsive-linf")) - 1
    points.requires_grad_()
    optimiser = torch.optim.SGD([points], lr=0.01, momentum=0.9)
    rows = max(1, min(n, PLAIN_NUMBERS // (n * d)))
    start = time.perf_counter()
    for _ in range(steps):
        optimiser.zero_grad()
        for first in range(0, n, rows):
            block = points[first : first + rows]
            # Each pair appears twice in the n x n x d tensor.
            loss = -(block[:, None, :] - points[None, :, :]).abs().amax(2).sum() / 2
            torch.autograd.backward(loss)
        optimiser.step()
    per_step = (time.perf_counter() - start) / steps
    return {
        "method": "plain implementation of the paper",
        "n": n,
        "d": d,
        "steps_run": steps,
        "seconds_per_step": per_step,
        "seconds": per_step * PAPER_STEPS,
        "extrapolated": steps < PAPER_STEPS,
        "peak_gigabytes": peak_gigabytes(),
        **separation(points.detach()),
    }


def separation(points: Tensor) -> Result:
    """The two separations that the comparison looks at, with their bounds."""
    found = measure(points)
    return {
        "smallest_angle": found.smallest_angle.value,
        "angle_bound": found.smallest_angle.bound,
        "smallest_linf_in_box": found.smallest_linf.value,
        "linf_bound": found.smallest_linf.bound,
    }


def peak_gigabytes() -> float:
    """The most memory that this process has held, in 10^9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def cases(quick: bool) -> dict[str, tuple[Callable[..., Result], tuple[Any, ...]]]:
    """All cases by name."""
    chosen: dict[str, tuple[Callable[..., Result], tuple[Any, ...]]] = {
        "scale-1000-128": (scale, ("repulsive-sphere", 1000, 128, 30.0)),
        "scale-21841-256": (scale, ("kerdock", 21_841, 256, 10.0)),
    }
    if not quick:
        chosen["scale-10000-512"] = (scale, ("repulsive-sphere", 10_000, 512, 300.0))
    for n, d, steps in ((10, 100, 1000), (100, 500, 100), (1000, 2048, 5)):
        name = f"paper-{n}-{d}"
        chosen[f"{name}-plain"] = (plain, (n, d, max(1, steps // 20) if quick else steps))
        chosen[f"{name}-auto"] = (ours, ("auto", n, d))
        chosen[f"{name}-hadamard"] = (ours, ("hadamard", n, d))
    return chosen


def alone(work: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    """Run one case in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def line(name: str, result: Result, plain_seconds: float | None) -> str:
    """One line for the console."""
    text = f"{name:26} {result['seconds']:10.4g} s"
    if result.get("extrapolated"):
        text += f" (x {PAPER_STEPS} / {result['steps_run']} steps)"
    text += f"   angle {result['smallest_angle']:.3f} of at most {result['angle_bound']:.3f}"
    if "smallest_linf_in_box" in result:
        text += f"   L-inf in the box {result['smallest_linf_in_box']:.3f} of {result['linf_bound']:.0f}"
    if "peak_gigabytes" in result:
        text += f"   {result['peak_gigabytes']:.2f} GB"
    if plain_seconds is not None:
        text += f"   {plain_seconds / result['seconds']:.3g} times as fast"
    return text


def main() -> None:
    """Run the cases, print a line each, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps of the plain procedure, no 10,000 classes")
    parser.add_argument("--case", action="append", help="run only this case (may be repeated)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    available = cases(options.quick)
    unknown = set(options.case or ()) - set(available)
    if unknown:
        parser.error(f"unknown case {sorted(unknown)[0]}; known: {', '.join(available)}")

    results: dict[str, Result] = {"baseline": {"peak_gigabytes": alone(baseline, ())["peak_gigabytes"]}}
    print(f"Python and PyTorch alone: {results['baseline']['peak_gigabytes']:.2f} GB")
    for name, (work, arguments) in available.items():
        if options.case and name not in options.case:
            continue
        result = alone(work, arguments)
        other = results.get(f"{name.rpartition('-')[0]}-plain") if work is ours else None
        if other is not None:
            result["times_as_fast_as_plain"] = other["seconds"] / result["seconds"]
        results[name] = result
        print(line(name, result, None if other is None else other["seconds"]), flush=True)
    if options.output:
        content = {"environment": environment(), "quick": options.quick, "cases": results}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def baseline() -> Result:
    """What a process holds that has imported everything and made nothing."""
    return {"peak_gigabytes": peak_gigabytes()}


if __name__ == "__main__":
    main()
