"""Faults and load, as figures: killed processes, full disks, damaged inputs, memory.

    python benchmarks/faults.py [--parts kills disks inputs memory] [--seconds 600] [--kills 250] [--inputs 1500]
        [--only KIND ...] [--seed 0] [--output results/benchmarks/faults.json]

Every part is bounded by its count and by its share of the seconds, whichever comes first, and the record says how far
it came; parts that are left out stay in the record as they were. Run it again with another seed for other moments and
other inputs. Nothing is downloaded; the data are the embedded digits, and images that are made here.

- kills: `train`, `evaluate`, `certify` and `reproduce` on digits, killed by SIGKILL at random moments and started again
  until they end. Lost: a finished epoch or record that was there before and is not, or is another. Different: weights
  or records that are not the same bits as without kills, but for times.
- disks: the same commands on a disk that is full at a random point, on a file system that may only be read, and with a
  limit on the size of a file: one line of error, and afterwards, with room, the same end.
- inputs: damaged and odd YAML files, command lines, images, parquet files, labels, safetensors and pickles. A fault is
  a traceback, more than one line, an exit code other than 0 and 2, more than 20 seconds, or code of the input that ran.
- memory: the most that `evaluate` and `prototypes` take.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Forked processes must not share a pool of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from fault_disks import full_disk, small_disk
from fault_harness import prepare
from fault_inputs import all_cases, fuzz
from fault_kills import commands, kill_at_random

PARTS = ("kills", "disks", "inputs", "memory")


def main(argv: list[str] | None = None) -> None:
    """Run the parts, and keep what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--only", nargs="+", help="some of the commands, or of the kinds of input")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--kills", type=int, default=250, help="of each command")
    parser.add_argument("--disks", type=int, default=20, help="cases of each command")
    parser.add_argument("--inputs", type=int, default=1500, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/faults.json"))
    options = parser.parse_args(argv)
    record: dict[str, Any] = json.loads(options.output.read_text()) if options.output.is_file() else {}
    record.pop("totals", None)
    share = options.seconds / len(options.parts)
    said = "python benchmarks/faults.py " + shlex.join(sys.argv[1:] if argv is None else argv)
    run = prepare()
    from repulse.common.environment import environment

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if set(options.parts) - {"memory"}:
            chosen = commands(run, folder)
        for part in options.parts:
            begun = time.monotonic()
            found: dict[str, Any] = {}
            if part in ("kills", "disks"):
                some = [command for command in chosen if not options.only or command.name in options.only]
                for command in some:
                    each = {"seconds": share / len(some), "seed": options.seed}
                    if part == "kills":
                        found[command.name] = kill_at_random(run, command, folder, kills=options.kills, **each)
                    else:
                        each["seconds"] /= 2
                        found[command.name] = {
                            "file size limited": full_disk(run, command, folder, cases=options.disks, **each),
                            "full or read-only disk": small_disk(run, command, folder, cases=options.disks, **each),
                        }
                    print(part, command.name, found.get(command.name), flush=True)
            elif part == "inputs":
                cases = all_cases(run, folder, folder / "run")
                cases = {kind: case for kind, case in cases.items() if not options.only or kind in options.only}
                found = fuzz(cases, folder, count=options.inputs, seconds=share, seed=options.seed)
            else:
                found = memory(options.only)
                print(part, found, flush=True)
            before = record.get(part, {}) if options.only else {}
            record[part] = {**before, **{name: {**counted, "command": said} for name, counted in found.items()}}
            print(f"{part}: {time.monotonic() - begun:.0f} s", flush=True)
        record = {"totals": totals(record), **record, "environment": environment()}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(record, indent=1) + "\n")
    print(f"record: {options.output}")


def totals(record: dict[str, Any]) -> dict[str, int]:
    """What matters of all parts together: how much was tried, and how much of it went wrong."""
    kills, inputs, full = (list(record.get(part, {}).values()) for part in ("kills", "inputs", "disks"))
    disks = [case for command in full for case in command.values() if isinstance(case, dict)]
    return {
        "kills": sum(each["kills"] for each in kills),
        "lost": sum(each["lost"] for each in kills),
        "different": sum(each.get("different", 0) for each in (*kills, *disks)),
        "failed": sum(each["failed"] for each in kills),
        "disks": sum(each.get("cases", 0) + each.get("full", 0) + each.get("read-only", 0) for each in disks),
        "disks failed": sum(each.get("failed", 0) for each in disks),
        "inputs": sum(each["inputs"] for each in inputs),
        "inputs at fault": sum(each["fault"] for each in inputs),
    }


# Not getrusage, in which the peak of whoever started the process counts, too.
_MOST = """
def most():
    with open("/proc/self/status") as file:
        return int(file.read().split("VmHWM:")[1].split()[0])
"""

_EVALUATE = """
import torch
from repulse.evaluation import EvaluationSettings, evaluate
torch.set_num_threads(1)
torch.manual_seed(0)
images = torch.rand({count}, 3, 32, 32)
layers = torch.nn.Conv2d(3, 8, 3, stride=4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(512, 10)
model = torch.nn.Sequential(*layers)
labels = model(images).argmax(1)
before = most()
evaluate(model, images, labels, EvaluationSettings(attacks="paper", steps=(2,), curve=(4 / 255,), curve_steps=2))
print(before, most())
"""

_PROTOTYPES = """
import torch
from repulse.cli import main
torch.set_num_threads(1)
before = most()
assert main(["prototypes", "--classes", "{count}", "--dimension", "512", "--steps", "20"]) == 0
print(before, most())
"""


def memory(only: list[str] | None) -> dict[str, Any]:
    """The most memory, in MB, of an evaluation of 1,000 and 10,000 images, and of 1,000 and 10,000 prototypes in 512-d.

    `held` is what the images, or the prototypes, take themselves.
    """
    found: dict[str, Any] = {}
    for name, program, bytes_each in (("evaluate", _EVALUATE, 3 * 32 * 32 * 4), ("prototypes", _PROTOTYPES, 512 * 8)):
        for count in (1_000, 10_000) if not only or name in only else ():
            begun = time.monotonic()
            code = _MOST + program.format(count=count)
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            before, most = map(int, done.stdout.splitlines()[-1].split())
            found[f"{name} {count}"] = {
                "before": round(before / 1024),
                "most": round(most / 1024),
                "held": round(count * bytes_each / 2**20),
                "seconds": round(time.monotonic() - begun, 1),
            }
    return found


if __name__ == "__main__":
    main()
