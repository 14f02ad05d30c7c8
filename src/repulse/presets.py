"""Named configurations: whole methods, and the training that the paper or a speed record used."""

from __future__ import annotations

from typing import Any

from repulse.config import RunConfig, merge
from repulse.registry import unknown_name

_SOFTMAX: dict[str, Any] = {
    "prototypes": {"method": "one-hot"},
    "model": {"readout": "linear", "temperature": 1.0},
    "loss": {"name": "cross-entropy"},
}

_SIMPLEX: dict[str, Any] = {"prototypes": {"method": "simplex"}, "loss": {"name": "cross-entropy"}}

# The paper's method (sections 3 and 4): L-inf repulsive prototypes, mean L-inf distance, normalised inner products.
_PAPER: dict[str, Any] = {
    # 50 steps, the least that the paper uses: coordinates stay small enough to be learnt at usual learning rates.
    "prototypes": {"method": "repulsive-linf", "dimension": 100, "steps": 50},
    "model": {"readout": "dot", "temperature": 1.0},
    "loss": {"name": "linf"},
}

# The paper's training (section 4.1).
_PAPER_TRAINING: dict[str, Any] = {
    "augment": {"crop_padding": 4, "padding_mode": "zeros", "flip": "random"},
    "model": {"backbone": "resnet18"},
    "fit": {
        "epochs": 200,
        "batch_size": 128,
        "optimiser": {
            "name": "sgd",
            "learning_rate": 0.006,
            "momentum": 0.9,
            "nesterov": False,
            "weight_decay": 5e-5,
        },
        "schedule": {"name": "cyclic", "start": 0.001 / 0.006, "half_cycle": 2000},
    },
}

# Jordan 2024, airbench94. The source sums its loss over the batch of 1024 and takes weight decay per step; here the
# loss is a mean and PyTorch multiplies the decay by the learning rate, so 11.5 / (1 + 1 / (1 - 0.85)) = 1.5 and
# 0.0153 / 7.667 / 1.5 = 0.00133.
_FAST_TRAINING: dict[str, Any] = {
    "data": {"validation": 0.02},
    "augment": {"crop_padding": 2, "padding_mode": "reflect", "flip": "alternating"},
    "model": {"backbone": "fast", "readout": "linear", "temperature": 1.0},
    "loss": {"name": "cross-entropy", "label_smoothing": 0.2},
    "fit": {
        "epochs": 10,
        "batch_size": 1024,
        "optimiser": {
            "name": "sgd",
            "learning_rate": 1.5,
            "momentum": 0.85,
            "nesterov": True,
            "weight_decay": 0.00133,
            "bias_factor": 64.0,
        },
        "schedule": {"name": "one-cycle", "start": 0.2, "peak": 0.23, "end": 0.07},
        "averaging": {"name": "lookahead"},
    },
}

# Each preset is a list of changes, one over the other, to the defaults.
_PRESETS: dict[str, list[dict[str, Any]]] = {
    "softmax": [_SOFTMAX, {"name": "softmax"}],
    "paper": [_PAPER, {"name": "paper"}],
    "paper-cifar10": [_PAPER, _PAPER_TRAINING, {"name": "paper"}],
    "paper-cifar100": [_PAPER, _PAPER_TRAINING, {"name": "paper", "prototypes": {"dimension": 500}}],
    "simplex-cosine": [
        {"name": "simplex-cosine", "prototypes": {"method": "simplex"}, "loss": {"name": "cosine"}},
    ],
    "simplex": [_SIMPLEX, {"name": "simplex"}],
    "fast-softmax": [_FAST_TRAINING, _SOFTMAX, {"name": "fast-softmax"}],
    "fast-simplex": [_FAST_TRAINING, {"name": "fast-simplex", "prototypes": {"method": "simplex"}}],
    "fgsm-rs": [_SOFTMAX, {"name": "fgsm-rs", "recipe": {"name": "fgsm-rs", "eps": 8 / 255}}],
    "fgsm-rs-simplex": [_SIMPLEX, {"name": "fgsm-rs-simplex", "recipe": {"name": "fgsm-rs", "eps": 8 / 255}}],
    "pgd-at": [_SOFTMAX, {"name": "pgd-at", "recipe": {"name": "pgd", "eps": 8 / 255, "steps": 10}}],
    "trades": [_SOFTMAX, {"name": "trades", "recipe": {"name": "trades", "eps": 8 / 255, "beta": 6.0}}],
    "input-gradient": [_SOFTMAX, {"name": "input-gradient", "recipe": {"name": "input-gradient"}}],
}

PRESETS = tuple(_PRESETS)


def preset(name: str) -> RunConfig:
    """The configuration called `name`.

    - `softmax`: no defence; cross-entropy on a softmax layer.
    - `paper`: the paper's method with our default training; `paper-cifar10` and `paper-cifar100`: with the paper's.
    - `simplex-cosine`, `simplex`: simplex prototypes, trained with one minus the cosine or with cross-entropy.
    - `fast-softmax`, `fast-simplex`: the speed-record network and its training, for CIFAR-10 on a CPU.

    - `fgsm-rs`, `pgd-at`, `trades`: adversarial training of a softmax layer, L-inf 8/255; `fgsm-rs-simplex`: the first
      with simplex prototypes.
    - `input-gradient`: a softmax layer with small gradients in the image; no adversarial examples.

    Raises:
        RepulseError: if there is no such preset; the nearest is suggested.
    """
    if name not in _PRESETS:
        raise unknown_name("preset", name, _PRESETS)
    config = RunConfig()
    for changes in _PRESETS[name]:
        config = merge(config, changes, f"preset {name}")
    return config
