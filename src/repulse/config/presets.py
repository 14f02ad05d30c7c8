"""Named configurations: whole methods, and the training that the paper or a speed record used."""

from __future__ import annotations

from typing import Any

from repulse.common.registry import unknown_name
from repulse.common.settings import merge
from repulse.config.layers import (
    CERTIFIED_L2,
    CERTIFIED_L2_TRAINING,
    CERTIFIED_LINF,
    CODES,
    CONFORMITY,
    FAST_PENALTY,
    FAST_ROBUST,
    FAST_TRAINING,
    FREE,
    HPN_TRAINING,
    HUNDREDTH,
    HYPERSPHERICAL,
    MAX_MAHALANOBIS,
    PAPER,
    PAPER_TRAINING,
    PGD,
    REPELLING,
    SIMPLEX,
    SMALL,
    SOFTMAX,
    SPHERE,
    SUMMED,
    TRADES,
)
from repulse.config.run import RunConfig

_FAST_SOFTMAX: dict[str, Any] = {"prototypes": {"method": "one-hot"}}
_FAST_SIMPLEX: dict[str, Any] = {"prototypes": {"method": "simplex"}}

_FAST_RECIPES: dict[str, dict[str, Any]] = {
    "fgsm-rs": {"recipe": {"name": "fgsm-rs"}},
    "n-fgsm": {"recipe": {"name": "n-fgsm"}},
    "n-fgsm-delayed": {"recipe": {"name": "n-fgsm", "delay": 0.2, "warmup": 0.2}},
    "pgd-2": {"recipe": {"name": "pgd", "steps": 2, "step_size": 6 / 255}},
    "trades": {"recipe": {"name": "fast-trades"}},
    "input-gradient": FAST_PENALTY,
}

# Each preset is a list of changes, one over the other, to the defaults.
_PRESETS: dict[str, list[dict[str, Any]]] = {
    "repulse": [SIMPLEX, {"name": "repulse", "recipe": {"name": "repulse"}}],
    "small": [SIMPLEX, SMALL, {"name": "small"}],
    "softmax": [SOFTMAX, {"name": "softmax"}],
    "label-smoothing": [SOFTMAX, {"name": "label-smoothing", "loss": {"label_smoothing": 0.1}}],
    "paper": [PAPER, {"name": "paper"}],
    "paper-cifar10": [PAPER, PAPER_TRAINING, {"name": "paper"}],
    "paper-cifar100": [PAPER, PAPER_TRAINING, {"name": "paper", "prototypes": {"dimension": 500}}],
    "paper-cosine": [PAPER, {"name": "paper-cosine", "loss": {"name": "cosine"}}],
    "paper-cosine-squared": [PAPER, SUMMED, {"name": "paper-cosine-squared", "loss": {"name": "cosine-squared"}}],
    "sphere": [SPHERE, {"name": "sphere"}],
    "simplex-cosine": [
        {"name": "simplex-cosine", "prototypes": {"method": "simplex"}, "loss": {"name": "cosine"}},
    ],
    "simplex": [SIMPLEX, {"name": "simplex"}],
    "hpn": [HYPERSPHERICAL, HPN_TRAINING, {"name": "hpn"}],
    "mmc": [MAX_MAHALANOBIS, HUNDREDTH, {"name": "mmc"}],
    "ecoc": [CODES, {"name": "ecoc"}],
    "pcl": [CONFORMITY, HUNDREDTH, {"name": "pcl"}],
    "learned": [REPELLING, {"name": "learned"}],
    "fast-softmax": [FAST_TRAINING, SOFTMAX, {"name": "fast-softmax"}],
    "fast-simplex": [FAST_TRAINING, {"name": "fast-simplex", "prototypes": {"method": "simplex"}}],
    "fast-paper": [FAST_TRAINING, PAPER, {"name": "fast-paper", "fit": {"optimiser": {"learning_rate": 0.1}}}],
    "fast-paper-cifar100": [
        FAST_TRAINING,
        PAPER,
        {"name": "fast-paper", "fit": {"optimiser": {"learning_rate": 0.1}}, "prototypes": {"dimension": 500}},
    ],
    **{
        f"fast-{name}{suffix}": [FAST_TRAINING, FAST_ROBUST, head, changes, {"name": f"fast-{name}{suffix}"}]
        for name, changes in _FAST_RECIPES.items()
        for suffix, head in {"": _FAST_SOFTMAX, "-simplex": _FAST_SIMPLEX}.items()
    },
    "fgsm-rs": [SOFTMAX, {"name": "fgsm-rs", "recipe": {"name": "fgsm-rs", "eps": 8 / 255}}],
    "fgsm-rs-simplex": [SIMPLEX, {"name": "fgsm-rs-simplex", "recipe": {"name": "fgsm-rs", "eps": 8 / 255}}],
    "pgd-at": [SOFTMAX, PGD, {"name": "pgd-at"}],
    "pgd-simplex": [SIMPLEX, PGD, {"name": "pgd-simplex"}],
    "trades": [SOFTMAX, TRADES, {"name": "trades"}],
    "trades-simplex": [SIMPLEX, TRADES, {"name": "trades-simplex"}],
    "free": [SOFTMAX, FREE, {"name": "free"}],
    "free-simplex": [SIMPLEX, FREE, {"name": "free-simplex"}],
    "noise": [SOFTMAX, {"name": "noise", "recipe": {"name": "noise", "sigma": 0.25}}],
    "smoothed": [SIMPLEX, {"name": "smoothed", "recipe": {"name": "noise", "sigma": 0.25}}],
    "certified-l2": [CERTIFIED_L2_TRAINING, CERTIFIED_L2, {"name": "certified-l2"}],
    "certified-l2-softmax": [CERTIFIED_L2_TRAINING, SOFTMAX, {"name": "certified-l2-softmax"}],
    "certified-l2-one-hot": [
        CERTIFIED_L2_TRAINING,
        SOFTMAX,
        {"name": "certified-l2-one-hot", "loss": {"name": "multi-class-hinge", "offset": 0.5}},
    ],
    "certified-linf": [CERTIFIED_LINF, {"name": "certified-linf"}],
    "certified-linf-cifar10": [
        CERTIFIED_LINF,
        {
            "name": "certified-linf",
            "augment": {"crop_padding": 3, "flip": "random"},
            "loss": {"radius": 16 / 255},
        },
    ],
    "input-gradient": [SOFTMAX, {"name": "input-gradient", "recipe": {"name": "input-gradient"}}],
    "jacobian": [SOFTMAX, {"name": "jacobian", "recipe": {"name": "jacobian", "strength": 0.01}}],
}

PRESETS = tuple(_PRESETS)


def preset(name: str) -> RunConfig:
    """The configuration called `name`.

    - `repulse`: what `repulse train` does by default: simplex prototypes, and single-step adversarial training in the
      L-inf ball of 8/255 (recipe `repulse`).

    - `small`: the same for a few hundred images: longer, with augmentation; plain at first, then a radius that grows.

    No defence:

    - `softmax`: cross-entropy on a softmax layer; `label-smoothing`: with 0.1 of the target spread over all classes
      (Szegedy et al. 2016).
    - `fast-softmax`, `fast-simplex`: the speed-record network and its training, for CIFAR-10 on a CPU (Jordan 2024).

    Fixed prototypes:

    - `paper`: the paper's method with our default training; `paper-cifar10` and `paper-cifar100`: with the paper's;
      `paper-cosine`, `paper-cosine-squared`: with its other losses (Serban et al. 2021).
    - `simplex`, `simplex-cosine`: simplex prototypes, trained with cross-entropy (Kasarla et al. 2022) or with one
      minus the cosine; `sphere`: ten classes repelled in five dimensions.
    - `hpn`: hyperspherical prototype networks (Mettes, van der Pol & Snoek 2019).
    - `mmc`: max-Mahalanobis centre loss (Pang et al. 2020).
    - `ecoc`: Hadamard codes as error-correcting output codes (Verma & Swami 2019), for up to 32 classes.

    Learned prototypes:

    - `pcl`: prototype conformity loss (Mustafa et al. 2019).
    - `learned`: prototypes that repel each other as those of `hpn` do, while they are trained with the network.

    Adversarial training, L-inf 8/255, of a softmax layer, or with simplex prototypes if the name ends so:

    - `fgsm-rs`, `fgsm-rs-simplex` (Wong et al. 2020); `pgd-at`, `pgd-simplex` (Madry et al. 2018);
      `trades`, `trades-simplex` (Zhang et al. 2019); `free`, `free-simplex` (Shafahi et al. 2019).

    - `fast-fgsm-rs`, `fast-n-fgsm` (de Jorge et al. 2022), `fast-n-fgsm-delayed` (plain at first, then a radius that
      grows), `fast-pgd-2`, `fast-trades` (one step): on the fast network, with averaged weights; `-simplex` as above.

    Without adversarial examples:

    - `fast-paper`, `fast-paper-cifar100`: the paper's prototypes and loss on the fast network; `fast-input-gradient`,
      `fast-input-gradient-simplex`: `input-gradient` there, against L-inf.
    - `noise` (Cohen et al. 2019) and `jacobian` (Hoffman et al. 2019): a softmax layer trained on noisy images, or with
      small derivatives in the image.
    - `smoothed`: simplex prototypes, trained with Gaussian noise of deviation 0.25 to be certified by smoothing.
    - `certified-l2`: a 1-Lipschitz network, simplex prototypes and a loss on margins, for certified L2 radii;
      `certified-l2-softmax` and `certified-l2-one-hot`: the same network and training with softmax cross-entropy, or
      with one-hot classes and a hinge on the margin.
    - `certified-linf`: an L-inf-distance network with certified radii, trained for 0.1 on Fashion-MNIST;
      `certified-linf-cifar10`: the same for 8/255 (for 2/255 set `loss.radius` to 4/255).
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
