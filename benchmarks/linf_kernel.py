"""The kernel of L-inf-distance nets against other ways to compute the same: time and memory, forward and backward.

    python benchmarks/linf_kernel.py --output results/benchmarks/linf_kernel.json

- *ours*: `repulse.models.pairwise_distance`, blocks in place.
- *broadcast*: all N x M x D differences as one tensor, scaled by the largest and left to autograd.
- *compiled*: the broadcast through `torch.compile`, left out where no compiler is found.
- *cdist*: `torch.cdist`. It does not scale: at p = 1000 its distances overflow or vanish, which the record says.

Each is timed in turns, so that a machine that slows down slows all of them; the least of the rounds counts. On one CPU
thread the time is what the processor spent, so that other programs do not count. Memory is what the process holds at
its peak beyond what it held before (Linux); on a GPU, what PyTorch allocated.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repulse.common.environment import environment
from repulse.common.files import write_atomically
from repulse.models.pairwise_distance import pairwise_distance

Kernel = Callable[[Tensor, Tensor, float], Tensor]

# N images, M points, D inputs: the layers of `linf-dist` at width 1, and one of the width that the source has.
SIZES = {"last layer": (256, 10, 256), "first layer": (256, 256, 196), "wide layer": (16, 1280, 1024)}
POWERS = (8.0, 1000.0, math.inf)


def broadcast(x: Tensor, w: Tensor, p: float) -> Tensor:
    """The plain way."""
    difference = (x.unsqueeze(1) - w).abs()
    if math.isinf(p):
        return difference.amax(2)
    largest = difference.detach().amax(2)
    return largest * (difference / largest.unsqueeze(2)).pow(p).sum(2).pow(1 / p)


def cdist(x: Tensor, w: Tensor, p: float) -> Tensor:
    """PyTorch's own."""
    return torch.cdist(x, w, p=p)


KERNELS: dict[str, Kernel] = {"ours": pairwise_distance, "broadcast": broadcast, "cdist": cdist}


def points(size: tuple[int, int, int], device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Images, points and a gradient, the same every time."""
    n, m, d = size
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, d, generator=generator).to(device).requires_grad_()
    w = torch.randn(m, d, generator=generator).to(device).requires_grad_()
    return x, w, torch.randn(n, m, generator=generator).to(device)


def step(kernel: Kernel, x: Tensor, w: Tensor, pull: Tensor, p: float) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Forward and backward."""
    distances = kernel(x, w, p)
    gradients = torch.autograd.grad(distances, (x, w), pull)
    if x.is_cuda:
        torch.cuda.synchronize()
    return distances, gradients


def error(kernel: Kernel, size: tuple[int, int, int], p: float, device: str) -> dict[str, float]:
    """The largest relative error of distances, and of gradients against their largest, from float64."""
    x, w, pull = points(size, device)
    distances, gradients = step(kernel, x, w, pull, p)
    # The reference takes few images at a time, and its own kernel: the tests hold it against brute force.
    exact, references = step(pairwise_distance, x.double(), w.double(), pull.double(), p)
    off = [
        ((ours.double() - theirs).abs().amax() / theirs.abs().amax()).item()
        for ours, theirs in zip(gradients, references, strict=True)
    ]
    return {"distances": ((distances.double() - exact) / exact).abs().amax().item(), "gradients": max(off)}


def peak_memory(kernel: Kernel, size: tuple[int, int, int], p: float, device: str) -> float:
    """Peak memory of one step in MiB, beyond what was held before it."""
    if device == "cuda":
        x, w, pull = points(size, device)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(kernel, x, w, pull, p)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ends = multiprocessing.Pipe()
    # A forked process holds what this one holds, so that only the step itself is seen.
    process = multiprocessing.get_context("fork").Process(target=_peak, args=(ends[1], kernel, size, p))
    process.start()
    peak: float = ends[0].recv()
    process.join()
    return peak


def _peak(end: Connection, kernel: Kernel, size: tuple[int, int, int], p: float) -> None:
    step(kernel, *points((2, 3, 4), "cpu"), p)
    x, w, pull = points(size, "cpu")
    # Linux and glibc only: give freed memory back, and start the high-water mark anew.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _high_water()
    step(kernel, x, w, pull, p)
    end.send((_high_water() - before) / 2**10)


def _high_water() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def milliseconds(
    kernels: dict[str, Kernel], size: tuple[int, int, int], p: float, device: str, rounds: int
) -> dict[str, float]:
    """The least time of a step of each, taken in turns."""
    # The compiler makes a program for each size and p, and falls back to plain PyTorch after eight.
    torch.compiler.reset()
    x, w, pull = points(size, device)
    least = dict.fromkeys(kernels, math.inf)
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    for number in range(rounds + 1):
        for name, kernel in kernels.items():
            started = clock()
            step(kernel, x, w, pull, p)
            # The first round warms up, and compiles.
            if number > 0:
                least[name] = min(least[name], 1000 * (clock() - started))
    return least


def compiled() -> Kernel | None:
    """The broadcast through the compiler, or None where there is no compiler."""
    kernel: Kernel = torch.compile(broadcast, dynamic=False)
    try:
        step(kernel, *points((2, 3, 4), "cpu"), 8.0)
    except Exception as failure:
        print(f"torch.compile is left out: {str(failure).splitlines()[0]}")
        return None
    return kernel


def main() -> None:
    """Run the benchmark, print its table, and write its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/linf_kernel.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    memory = {
        (label, p, name): peak_memory(kernel, size, p, options.device)
        for label, size in SIZES.items()
        for p in POWERS
        for name, kernel in KERNELS.items()
    }
    kernels = dict(KERNELS)
    # After the memory: the compiler starts threads, and a process with threads should not be forked.
    if (extra := compiled()) is not None:
        kernels["compiled"] = extra
    rows: list[dict[str, Any]] = []
    for label, size in SIZES.items():
        for p in POWERS:
            took = milliseconds(kernels, size, p, options.device, options.rounds)
            for name, kernel in kernels.items():
                # As text: what overflowed is infinite or no number, which JSON has not.
                off = {key: f"{value:.1e}" for key, value in error(kernel, size, p, options.device).items()}
                held = memory.get((label, p, name))
                rows.append(
                    {
                        "layer": label,
                        "size": size,
                        "p": f"{p:g}",
                        "kernel": name,
                        "milliseconds": took[name],
                        "peak_mebibytes": held,
                        "relative_error": off,
                    }
                )
                text = "" if held is None else f"{held:.1f} MiB"
                print(f"{label:12} p {p:6g} {name:10} {took[name]:9.2f} ms {text:>10}  {off}", flush=True)
    record = {
        "command": f"python benchmarks/linf_kernel.py --device {options.device} --threads {options.threads} "
        f"--rounds {options.rounds}",
        "environment": environment(),
        "rows": rows,
    }
    write_atomically(options.output, json.dumps(record, indent=1) + "\n")
    print(f"record: {options.output}")


if __name__ == "__main__":
    main()
