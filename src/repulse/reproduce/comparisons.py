"""Which comparisons there are, and at which scale: data set, network, epochs, attacks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from repulse.common.registry import unknown_name
from repulse.common.settings import merge
from repulse.config.layers import FAST_ROBUST, FAST_TRAINING
from repulse.config.run import RunConfig
from repulse.evaluation.settings import AttackNames, EvaluationSettings
from repulse.reproduce.methods import METHODS

Scale = Literal["smoke", "cpu", "fast", "full"]


@dataclass(frozen=True)
class Comparison:
    """A data set, with what suits it.

    Args:
        title: what tables call the data.
        source: its id on the Hub.
        padding: training images are shifted by up to so many pixels.
        eps: radius of the L-inf ball, in pixels of [0, 1].
        flip: whether training images are mirrored.
        changes: of methods that need other settings on these data, by name.
    """

    title: str
    source: str
    padding: int
    eps: float
    flip: Literal["none", "random"] = "random"
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)


# The paper's dimension for 100 classes (section 4.1), and half as many dimensions as classes for `sphere`.
_HUNDRED_CLASSES: dict[str, dict[str, Any]] = {
    **{name: {"prototypes": {"dimension": 500}} for name, method in METHODS.items() if method.is_papers},
    "sphere": {"prototypes": {"dimension": 50}},
    "ecoc": {"prototypes": {"dimension": 128}},
}

COMPARISONS: dict[str, Comparison] = {
    "paper-cifar10": Comparison("CIFAR-10", "uoft-cs/cifar10", padding=4, eps=8 / 255),
    "paper-cifar100": Comparison("CIFAR-100", "uoft-cs/cifar100", padding=4, eps=8 / 255, changes=_HUNDRED_CLASSES),
    "fashion": Comparison("Fashion-MNIST", "zalando-datasets/fashion_mnist", padding=2, eps=8 / 255),
}

# What every comparison is tried out on. Digits are 8x8 and almost black and white, so a radius of 0.1 is for them what
# 8/255 is for photographs, and a digit in the mirror is none.
DIGITS = "digits"
_ON_DIGITS = Comparison("handwritten digits", DIGITS, padding=1, eps=0.1, flip="none")

# Squared and summed over a batch of 64, this loss has gradients some sixty times as long as a mean's.
_SUMMED = {"fit": {"optimiser": {"learning_rate": 0.001}}}

# Few attack steps, so that adversarial training costs about three times as much as plain training and not ten times:
# steps of three quarters of eps reach every corner of the ball from anywhere in it.
_FEW_STEPS = {"recipe": {"steps": 2, "step_size": 0.75 * 8 / 255}}

# Three passes per batch, so that free adversarial training costs as much as FGSM-RS; at the scale `full` as many as in
# the source, with the epochs divided by them.
_FEW_REPLAYS = {"recipe": {"replays": 3}}
_AS_FREE_AS_PLAIN = {"recipe": {"replays": 8}, "fit": {"epochs": 25}}

_SMALL_FIT = {"batch_size": 64, "optimiser": {"learning_rate": 0.1}, "accelerator": "cpu", "devices": "1"}

_CPU: dict[str, Any] = {
    "data": {"train_images": 24_000},
    "model": {"backbone": "small-cnn", "width": 0.5},
    "fit": {**_SMALL_FIT, "epochs": 2},
}
_CPU_METHODS: dict[str, dict[str, Any]] = {
    "paper-cosine-squared": _SUMMED,
    "hpn": _SUMMED,
    "fgsm-rs": {"fit": {"epochs": 3}},
    "fgsm-rs-simplex": {"fit": {"epochs": 3}},
    "pgd": _FEW_STEPS,
    "pgd-simplex": _FEW_STEPS,
    "trades": _FEW_STEPS,
    "trades-simplex": _FEW_STEPS,
    "free": _FEW_REPLAYS,
    "free-simplex": _FEW_REPLAYS,
}
_SMOKE_METHODS = {name: _CPU_METHODS[name] for name in ("paper-cosine-squared", "hpn", "free", "free-simplex")}
_FULL_METHODS = {"free": _AS_FREE_AS_PLAIN, "free-simplex": _AS_FREE_AS_PLAIN}

# Enough to see every part at work, and that a method learns at all.
_SMOKE: dict[str, Any] = {
    "model": {"backbone": "small-cnn", "width": 0.25},
    "fit": {**_SMALL_FIT, "epochs": 4},
}

# The paper's network and training (section 4.1), in the precision that recent GPUs are fast in.
_FULL: dict[str, Any] = {
    "model": {"backbone": "resnet18"},
    "fit": {
        "epochs": 200,
        "batch_size": 128,
        "precision": "bf16-mixed",
        "optimiser": {"learning_rate": 0.006, "nesterov": False, "weight_decay": 5e-5},
        "schedule": {"name": "cyclic", "start": 0.001 / 0.006, "half_cycle": 2000},
    },
}


# The network that passes 92 % in an hour or two of a CPU; prototypes a tenth as far out, which it learns sooner.
_FAST: dict[str, Any] = {
    **FAST_TRAINING,
    "model": {**FAST_TRAINING["model"], "width": 1.0},
    "fit": {**FAST_TRAINING["fit"], "epochs": 12, "precision": "auto"},
}
_FAST_METHODS: dict[str, dict[str, Any]] = {
    "paper-linf": {"prototypes": {"scale": 0.1}},
    "paper-cosine-squared": _SUMMED,
    "fgsm-rs": {**FAST_ROBUST, "recipe": {"name": "fgsm-rs"}, "fit": {**FAST_ROBUST["fit"], "epochs": 12}},
}
_CLAIMED = ("softmax", "paper-linf", "paper-cosine", "paper-cosine-squared", "simplex", "simplex-cosine", "fgsm-rs")


@dataclass(frozen=True)
class Size:
    """What a scale decides.

    Args:
        training: changes to all methods, under their own.
        changes: changes to some of them, over their own.
        seeds: of the runs.
        images: how many test images are attacked.
        attacks: with what.
        methods: the rows.
    """

    training: dict[str, Any]
    changes: dict[str, dict[str, Any]]
    seeds: tuple[int, ...]
    images: int
    attacks: AttackNames
    methods: tuple[str, ...] = tuple(METHODS)


SCALES: dict[Scale, Size] = {
    "smoke": Size(_SMOKE, _SMOKE_METHODS, seeds=(0,), images=20, attacks="quick"),
    "cpu": Size(_CPU, _CPU_METHODS, seeds=(0, 1, 2), images=200, attacks="adaptive"),
    "fast": Size(_FAST, _FAST_METHODS, seeds=(0,), images=1000, attacks="quick", methods=_CLAIMED),
    "full": Size(_FULL, _FULL_METHODS, seeds=(0, 1, 2), images=1000, attacks="adaptive"),
}


def comparison(name: str, data: str) -> Comparison:
    """The comparison of that name, as it is on these data: the embedded digits have settings of their own.

    Raises:
        RepulseError: if there is none; the nearest is suggested.
    """
    if name not in COMPARISONS:
        raise unknown_name("comparison", name, COMPARISONS)
    return _ON_DIGITS if data == DIGITS else COMPARISONS[name]


def measurement(name: str, data: str, scale: Scale, attacks: AttackNames | None = None) -> EvaluationSettings:
    """How every model of a comparison is attacked, by default as its scale says: the same for all."""
    eps = comparison(name, data).eps
    # Up to 32/255 for an eps of 8/255, as in the paper's figures.
    return EvaluationSettings(
        eps=eps,
        attacks=attacks or SCALES[scale].attacks,
        steps=(20, 100),
        curve=tuple(level * eps / 8 for level in (0, 2, 4, 8, 12, 16, 24, 32)),
        seed=0,
    )


def cell_config(
    name: str, method: str, seed: int, data: str, title: str | None = None, scale: Scale = "cpu"
) -> RunConfig:
    """The configuration of one training run.

    Args:
        name: of the comparison.
        method: one of `METHODS`.
        seed: of everything random.
        data: where the images lie.
        title: what tables call the data; None: the comparison's own name for it.
        scale: how large network, training and evaluation are.

    Raises:
        RepulseError: if there is no such comparison or method; the nearest is suggested.
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    on, size = comparison(name, data), SCALES[scale]
    config = merge(RunConfig(), {"name": method, "seed": seed}, method)
    layers: list[dict[str, Any]] = [
        {
            "data": {"source": data, "name": title or on.title},
            "augment": {"crop_padding": on.padding, "flip": on.flip},
        },
        size.training,
        *METHODS[method].changes,
        size.changes.get(method, {}),
        on.changes.get(method, {}),
    ]
    for changes in layers:
        config = merge(config, changes, method)
    if METHODS[method].family == "adversarial training":
        config = merge(config, {"recipe": {"eps": on.eps}}, method)
    return config
