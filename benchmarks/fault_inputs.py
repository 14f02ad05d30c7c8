"""Inputs that no tool should ever be given: each must be taken, or refused in one line, and never run as code."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import shutil
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from fault_harness import in_child
from repulse.common.errors import RepulseError

Main = Callable[[list[str]], int]
Case = Callable[[random.Random, Path], str]
"""Makes one input in an empty folder and gives it to the program: `taken`, or `refused`."""

# Longer than anything that is asked for here takes, even on a busy machine.
LIMIT_SECONDS = 20.0
PER_PROCESS = 50

_CANARY = "code-was-run"


class FaultError(Exception):
    """What an input did that it must not."""


class TookTooLong(BaseException):
    """An input that was still at work at the limit. No Exception, so that nothing on the way catches it."""


def fuzz(cases: dict[str, Case], folder: Path, *, count: int, seconds: float, seed: int) -> dict[str, Any]:
    """Give the program `count` inputs of each kind, or as many as the time allows, in processes that are forked.

    Returns:
        For each kind: inputs, taken, refused, faults (with up to ten of them in words).
    """
    found = {}
    for kind, case in cases.items():
        stop = time.monotonic() + seconds / len(cases)
        counts: Counter[str] = Counter()
        faults: list[str] = []
        first = 0
        while first < count and time.monotonic() < stop:
            numbers = range(first, min(first + PER_PROCESS, count))
            first = numbers.stop
            journal = folder / "journal.jsonl"
            journal.unlink(missing_ok=True)
            work = partial(_some, case, kind, numbers, seed, folder, journal)
            end = in_child(work, kill_after=LIMIT_SECONDS * PER_PROCESS)
            outcomes = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
            for outcome in outcomes:
                counts[outcome["outcome"]] += 1
                if outcome["outcome"] == "fault":
                    faults.append(f"case {outcome['case']}: {outcome['why']}")
            if end.code != 0:
                counts["fault"] += 1
                faults.append(
                    f"case {numbers.start + len(outcomes)}: the process ended with {end.code}: {end.err[-200:]}"
                )
                first = numbers.start + len(outcomes) + 1
        named = {key: counts[key] for key in ("taken", "refused", "fault")}
        found[kind] = {"inputs": counts.total(), **named, "seed": seed, "notes": faults[:10]}
        print(kind, found[kind], flush=True)
    return found


def _some(case: Case, kind: str, numbers: range, seed: int, folder: Path, journal: Path) -> int:
    import datasets

    place, home = folder / "case", folder / "canary"
    home.mkdir(exist_ok=True)
    os.chdir(home)
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    signal.signal(signal.SIGALRM, _late)
    for number in numbers:
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(folder / "cache", ignore_errors=True)
        place.mkdir()
        outcome: dict[str, Any] = {"case": number}
        signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
        try:
            outcome["outcome"] = case(random.Random(f"{kind} {seed} {number}"), place)
        except TookTooLong:
            outcome |= {"outcome": "fault", "why": f"still at work after {LIMIT_SECONDS:.0f} s"}
        except FaultError as error:
            outcome |= {"outcome": "fault", "why": str(error)}
        except BaseException as error:
            where = _where(error)
            outcome |= {"outcome": "fault", "why": f"{type(error).__name__} {where}: {str(error)[:300]}"}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if (home / _CANARY).exists():
            outcome |= {"outcome": "fault", "why": "code of the input was run"}
            (home / _CANARY).unlink()
        with journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(outcome) + "\n")
    return 0


def _late(*_: object) -> None:
    raise TookTooLong


def _where(error: BaseException) -> str:
    steps = []
    trace = error.__traceback__
    while trace is not None:
        steps.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " > ".join(steps[-4:])


def by_command(main: Main, line: list[str]) -> str:
    """Give the program a command line: exit code 0, or 2 with one line of error and nothing else but notes."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("always")
        code = main(line)
    lines = [line for line in err.getvalue().splitlines() if line.strip() and not line.startswith("repulse: note: ")]
    if code == 0:
        return "taken"
    if code != 2 or len(lines) != 1 or not lines[0].startswith("repulse: error: "):
        raise FaultError(f"exit code {code}, {len(lines)} lines: {err.getvalue()[-300:]!r} for {' '.join(line)[:300]}")
    return "refused"


def by_call(call: Callable[[], object]) -> str:
    """Give the program an input from Python: it is taken, or refused by a `RepulseError` of one line."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except RepulseError as error:
            if "\n" in str(error) or not str(error).strip():
                raise FaultError(f"a message of several lines: {error}") from error
            return "refused"
    return "taken"


def damaged(data: bytes, dice: random.Random) -> bytes:
    """Bytes with some of them changed, cut off, doubled or put in."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 5, 20))):
        place = dice.randrange(len(changed) + 1)
        match dice.randrange(6):
            case 0 if place < len(changed):
                changed[place] = dice.randrange(256)
            case 1 if place < len(changed):
                changed[place] ^= 1 << dice.randrange(8)
            case 2 if dice.random() < 0.3:
                del changed[place:]
            case 3:
                del changed[place : place + dice.randrange(1, 9)]
            case 4:
                changed[place:place] = dice.randbytes(dice.randrange(1, 9))
            case _:
                changed[place:place] = changed[place : place + dice.randrange(1, 64)]
    return bytes(changed)


_ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 7, 0.5, -0.5, 1.0, float("nan"), float("inf"), float("-inf"), 1e308, 1e-308),
    *(
        "",
        "x",
        "none",
        "auto",
        "8/255",
        "1/0",
        "nan",
        "-1",
        "../..",
        "/",
        "\0",
        "é",
        "a" * 300,
        "!!python/name:os.system",
    ),
    *([], [1], [[]], {}, {"name": "x"}, {"x": {}}, ["a", "a"]),
)


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield from _leaves(below, (*path, key))


def changed_tree(tree: Any, dice: random.Random) -> Any:
    """A nested value with one to four places changed, renamed or taken away."""
    tree = json.loads(json.dumps(tree))
    for _ in range(dice.choice((1, 1, 2, 4))):
        *heads, last = dice.choice([path for path in _leaves(tree) if path] or [("",)])
        inner = tree
        for head in heads:
            inner = inner[head]
        action = dice.randrange(5)
        if not isinstance(inner, (dict, list)) or last == "":
            continue
        if action == 0 and isinstance(inner, dict):
            inner[str(last) + dice.choice("sx_")] = inner.pop(last)
        elif action == 1:
            del inner[last]
        else:
            inner[last] = dice.choice(_ODD)
    return tree


def yaml_files(main: Main, valid: dict[str, Any]) -> Case:
    """Configurations of training: the tree changed, the text damaged, or both; the training loop itself is left out."""

    def case(dice: random.Random, place: Path) -> str:
        tree = changed_tree(valid, dice)
        text = yaml.safe_dump(tree, allow_unicode=True).encode()
        if dice.random() < 0.4:
            # Digits stay as they are: a run of ten thousand epochs is a wish like any other.
            text = damaged(text, dice).translate(None, b"") if dice.random() < 0.5 else text.replace(b":", b"", 1)
        if dice.random() < 0.05:
            text = dice.choice(
                (b"!!python/object/apply:os.system ['touch code-was-run']\n", b"&a [*a]\n", b"- 1\n", b"\xff")
            )
        (place / "config.yaml").write_bytes(text)
        line = ["train", "--config", str(place / "config.yaml"), "--output", str(place / "run"), "--progress", "quiet"]
        return by_command(main, line)

    return case


_WORDS = (
    "",
    "-",
    "--",
    "x",
    "-1",
    "0",
    "1",
    "2",
    "nan",
    "inf",
    "8/255",
    "1/0",
    "none",
    "é",
    "linf",
    "digits",
    "a,b",
    "=",
    "--x",
)


def command_lines(main: Main, run: Path) -> Case:
    """Commands with flags of their own and others, and values that fit and don't."""
    from repulse.cli import cli
    from repulse.cli.group import COMMANDS

    flags = {}
    for name in COMMANDS:
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        with command.make_context(name, [], resilient_parsing=True):
            flags[name] = [
                option for parameter in command.params for option in parameter.opts if option.startswith("-")
            ]
    # A demonstration has nothing to refuse, and takes a minute.
    names = sorted(set(flags) - {"demo"})

    def case(dice: random.Random, place: Path) -> str:
        name = dice.choice(names)
        line = [name]
        if name in ("evaluate", "certify") and dice.random() < 0.5:
            line += [str(run), "--images", "1"]
        if name == "certify" and dice.random() < 0.5:
            # By default 10,000 draws of each image are taken: legal, and longer than the limit.
            line += ["--method", "smoothing", "--n", "20", "--n0", "5"]
        if name == "evaluate":
            line += ["--attacks", "paper", "--steps", "1", "--curve", "0.1"]
        if name in ("train", "reproduce") and dice.random() < 0.8:
            line += ["--output", str(place / "out")]
        if name == "reproduce":
            line += ["--dry-run"]
        for _ in range(dice.randrange(1, 4)):
            flag = dice.choice(flags[name] if dice.random() < 0.85 else flags[dice.choice(names)])
            if flag in ("--output", "--keep", "--device", "--plugin", "--slurm.workers", "--attack"):
                continue
            line.append(flag)
            if dice.random() < 0.9:
                line.append(dice.choice(_WORDS) if dice.random() < 0.9 else damaged(b"value", dice).decode("latin1"))
        return by_command(main, line)

    return case


def image_files(dice: random.Random, place: Path) -> str:
    """A folder of images, of which one is damaged."""
    from repulse.data import load_data

    kind = dice.choice(("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"))
    mode = dice.choice(("RGB", "L"))
    for name in ("a", "b"):
        (place / name).mkdir()
        for k in range(3):
            file = io.BytesIO()
            Image.new(mode, (9, 7), dice.randrange(256)).save(file, kind)
            data = damaged(file.getvalue(), dice) if (name, k) == ("b", 1) else file.getvalue()
            (place / name / f"{k}.{kind.lower()}").write_bytes(data)
    size = dice.choice((None, 8))
    return by_call(lambda: load_data(str(place), image_size=size))


def parquet_files(valid: bytes) -> Case:
    """A parquet file of images and labels, damaged."""
    from repulse.data import load_data

    def case(dice: random.Random, place: Path) -> str:
        (place / "train-00000-of-00001.parquet").write_bytes(damaged(valid, dice))
        return by_call(lambda: load_data(str(place)))

    return case


def label_columns(dice: random.Random, place: Path) -> str:
    """Labels of every kind, of the wrong number, missing or out of range, beside images that are fine."""
    import datasets

    from repulse.data import load_data

    count = dice.randrange(1, 8)
    pool = dice.choice(
        (
            [0, 1],
            [0, 1, None],
            [-1, 0, 1],
            [0, 2**62],
            [0.0, 1.0, 0.5, float("nan")],
            ["a", "b", None, ""],
            ["1", "10", "2"],
            [True, False],
            [[0, 1], [1, 0]],
        )
    )
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "PNG")
    columns = {
        "image": [
            {
                "bytes": dice.choice((file.getvalue(), b"", None)) if dice.random() < 0.1 else file.getvalue(),
                "path": None,
            }
        ]
        * count,
        dice.choice(("label", "labels", "y", "weight")): [dice.choice(pool) for _ in range(count)],
    }
    data = datasets.Dataset.from_dict(columns)
    with contextlib.suppress(Exception):
        data = data.cast_column("image", datasets.Image())
    with contextlib.redirect_stderr(io.StringIO()):
        data.to_parquet(place / "train.parquet")
    return by_call(lambda: load_data(str(place), class_names=dice.choice((None, ["a", "b"], ["b", "a", "c"], ["x"]))))


def label_tensors(dice: random.Random, _: Path) -> str:
    """Labels and images as people hold them in Python, given to `evaluate`."""
    from repulse.evaluation import EvaluationSettings, evaluate

    count = dice.randrange(0, 4)
    labels: Any = torch.tensor([dice.choice((0, 1, 2)) for _ in range(count)], dtype=torch.long)
    changes: list[Callable[[Any], Any]] = [
        lambda y: y,
        lambda y: y.float() + dice.choice((0.0, 0.5)),
        lambda y: y.to(torch.uint8),
        lambda y: y.bool(),
        lambda y: y.view(-1, 1),
        lambda y: y.tolist(),
        lambda y: y.numpy(),
        lambda y: torch.nn.functional.one_hot(y, 3),
        lambda y: y - 1,
        lambda y: y + 10,
        lambda y: y[:-1],
        lambda y: y.numpy().astype(dice.choice(("int8", "uint16", "float64", "str", "object"))),
        lambda _: dice.choice((None, "labels", {}, 3)),
    ]
    images: Any = torch.rand(count, 1, 4, 4)
    shapes: list[Callable[[Any], Any]] = [
        lambda x: x,
        lambda x: x,
        lambda x: x.numpy(),
        lambda x: x.double(),
        lambda x: x.half(),
        lambda x: x * 255,
        lambda x: (x * 255).to(torch.uint8),
        lambda x: x.squeeze(1),
        lambda x: x.flatten(),
        lambda x: x - 1,
        lambda x: torch.full_like(x, float("nan")),
        lambda _: dice.choice((None, "images", [], 3.0)),
    ]
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    settings = EvaluationSettings(attacks="paper", steps=(1,), curve=(), gallery=0)
    x, y = dice.choice(shapes)(images), dice.choice(changes)(labels)
    return by_call(lambda: evaluate(model, x, y, settings))


def safetensors_files(main: Main, prototypes: bytes, run: Path) -> Case:
    """Prototypes, or the weights of a run, damaged."""

    def case(dice: random.Random, place: Path) -> str:
        if dice.random() < 0.5:
            (place / "p.safetensors").write_bytes(damaged(prototypes, dice))
            return by_command(main, ["prototypes", "--file", str(place / "p.safetensors")])
        from repulse.run_folder import load_run

        shutil.copytree(run, place / "run")
        name = dice.choice(("checkpoints/last.safetensors", "classes.json", "config.yaml", "prototypes.safetensors"))
        file = place / "run" / name
        file.write_bytes(damaged(file.read_bytes(), dice))
        return by_call(lambda: load_run(place / "run"))

    return case


class _Payload:
    """What a pickle runs when it is loaded the careless way."""

    def __init__(self, how: int) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        if self.how == 0:
            return (os.system, (f"touch {_CANARY}",))
        if self.how == 1:
            return (open, (_CANARY, "w"))
        if self.how == 2:
            return (eval, (f"open({_CANARY!r}, 'w')",))
        return (Path.touch, (Path(_CANARY),))


_NET = """
import torch

def make():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
"""


def pickles(dice: random.Random, place: Path) -> str:
    """Checkpoints that hold code, strange objects or other weights, whole and damaged."""
    from repulse.models.foreign.load import load_foreign

    (place / "net.py").write_text(_NET, encoding="utf-8")
    good: dict[str, Any] = {"1.weight": torch.zeros(3, 16), "1.bias": torch.zeros(3)}
    payload = _Payload(dice.randrange(4))
    trees: list[Any] = [
        good,
        {**good, "1.bias": payload},
        {"state_dict": good, "optimizer": payload},
        {"model": good, "args": dice.choice((None, 3, [1], {"x": np.float64(1)}, np.zeros(3)))},
        payload,
        [good, payload],
        {payload_key(dice): good},
        {"1.weight": torch.zeros(3, 15), "1.bias": torch.zeros(3)},
        {"1.weight": torch.full((3, 16), float("nan")), "1.bias": torch.zeros(3)},
        {},
        3,
        "text",
    ]
    file = io.BytesIO()
    tree = dice.choice(trees)
    match dice.randrange(3):
        case 0:
            torch.save(tree, file)
        case 1:
            torch.save(tree, file, _use_new_zipfile_serialization=False)
        case _:
            pickle.dump(tree, file, protocol=dice.randrange(2, 6))
    data = damaged(file.getvalue(), dice) if dice.random() < 0.5 else file.getvalue()
    weights = place / dice.choice(("w.pt", "w.pth", "w.bin", "w.safetensors", "w.ckpt"))
    weights.write_bytes(data)
    return by_call(lambda: load_foreign(f"{place / 'net.py'}:make", weights))


def _no_training(*_: object, **__: object) -> None:
    """In place of the training loop."""


def payload_key(dice: random.Random) -> Any:
    """A key of a state dict that is no name."""
    return dice.choice((1, (1, 2), None, "", "a" * 1000, 1.5))


def all_cases(main: Main, folder: Path, run: Path) -> dict[str, Case]:
    """Every kind of input, with valid ones to start from."""
    import datasets

    import repulse.runs
    from repulse.common.settings import to_yaml
    from repulse.config.presets import preset
    from repulse.prototypes import make_prototypes

    # Everything up to the training loop runs; what it would do is the wish of whoever wrote the file.
    repulse.runs.fit = _no_training  # type: ignore[attr-defined]
    config = yaml.safe_load(to_yaml(preset("repulse")))
    config["data"]["train_images"] = 60
    config["model"]["width"] = 0.25
    make_prototypes("simplex", 5, 8).save(folder / "p.safetensors")
    file = io.BytesIO()
    images = [Image.new("RGB", (5, 5), (k, 2 * k, 3)) for k in range(6)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stderr(io.StringIO()):
        table = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 3}, features=features)
        table.to_parquet(Path(place) / "x.parquet")
        file.write((Path(place) / "x.parquet").read_bytes())
    return {
        "yaml files": yaml_files(main, config),
        "command lines": command_lines(main, run),
        "image files": image_files,
        "parquet files": parquet_files(file.getvalue()),
        "label columns": label_columns,
        "labels and images in Python": label_tensors,
        "safetensors and run folders": safetensors_files(main, (folder / "p.safetensors").read_bytes(), run),
        "pickled checkpoints": pickles,
    }
