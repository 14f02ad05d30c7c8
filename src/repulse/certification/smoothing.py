"""Randomised smoothing: what a classifier answers most often under Gaussian noise, and how far that is proved to hold.

The smoothed classifier gives an image `x` the class that the base classifier most often gives `x + e`, with `e` normal
of standard deviation `sigma` in every pixel. If it does so with probability `p_A > 1/2`, the class holds for every
image within `sigma * Phi^-1(p_A)` in L2. Nothing need be known of the base classifier, so this certifies any model.

Source: Cohen, Rosenfeld & Kolter, *Certified Adversarial Robustness via Randomized Smoothing*, ICML 2019, theorem 1 and
the algorithms PREDICT and CERTIFY of section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int64
from scipy import stats
from torch import Tensor, nn

from repulse.attacks.attack import attackable, checked_logits
from repulse.attacks.noise import Noise
from repulse.common.errors import RepulseError

ABSTAINED = -1
"""The prediction where the smoothed classifier says nothing."""

# Noise is drawn so many images at a time, whatever the batch: the draws of an image don't depend on its size.
_BLOCK = 50

# What noise is drawn for, and keyed by: these never see the same draws.
_For = Literal["selection", "estimation", "prediction"]


@dataclass(frozen=True)
class Smoothing:
    """How a classifier is smoothed, and how surely it is measured.

    Args:
        sigma: standard deviation of the noise, in pixels of [0, 1]; > 0.
        n0: draws that choose the class.
        n: draws that estimate how often it is given. The largest radius that can be proved grows slowly with it:
            0.8 at sigma 0.25 and 10,000 draws, 0.95 at 100,000, which the source uses.
        alpha: probability, per image, that a certificate is wrong because of the draws; in (0, 1).

    Raises:
        RepulseError: if a number is out of its range.
    """

    sigma: float = 0.25
    n0: int = 100
    n: int = 10_000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise RepulseError(f"sigma must be positive, got {self.sigma}")
        if self.n0 < 1 or self.n < 1:
            raise RepulseError(f"n0 and n must be at least 1, got {self.n0} and {self.n}")
        if not 0 < self.alpha < 1:
            raise RepulseError(f"alpha must lie between 0 and 1, got {self.alpha}")


@dataclass(frozen=True, eq=False)
class Smoothed:
    """What was found for each image."""

    prediction: Int64[Tensor, "N"]
    """The class of the smoothed classifier; `ABSTAINED` where the draws prove none."""
    count: Int64[Tensor, "N"]
    """How many of the n draws gave the chosen class."""
    radius: Float64[Tensor, "N"]
    """The L2 radius within which the prediction holds, with confidence 1 - alpha; 0 where it abstained."""


def clopper_pearson(successes: int, trials: int, alpha: float) -> float:
    """The lower bound of a probability, at confidence 1 - alpha, one-sided (Clopper & Pearson 1934).

    The `alpha` quantile of the beta distribution with parameters `k` and `n - k + 1`; 0 if nothing succeeded.

    Raises:
        RepulseError: if there are more successes than trials, or either is negative.
    """
    if not 0 <= successes <= trials:
        raise RepulseError(f"successes must lie between 0 and the {trials} trials, got {successes}")
    return float(stats.beta.ppf(alpha, successes, trials - successes + 1)) if successes else 0.0


def smoothed_radius(successes: int, smoothing: Smoothing) -> float:
    """The certified L2 radius, `sigma * Phi^-1(lower bound)`; 0 where the bound is no majority (source, theorem 1)."""
    lower = clopper_pearson(successes, smoothing.n, smoothing.alpha)
    return smoothing.sigma * float(stats.norm.ppf(lower)) if lower > 0.5 else 0.0


def smooth(
    model: nn.Module,
    images: Float[Tensor, "N *shape"],
    smoothing: Smoothing,
    *,
    ids: Int64[Tensor, "N"],
    seed: int = 0,
    batch_size: int = 500,
    callback: Callable[[int], None] | None = None,
) -> Smoothed:
    """Classify and certify images by smoothing (source, CERTIFY).

    `n0` draws choose a class; `n` others bound how often it is given. The noise of an image follows from the seed and
    its number alone. Cost: `n0 + n` forward passes per image.

    Args:
        model: the base classifier, from images to logits; used in evaluation mode.
        images: clean images, on the model's device.
        smoothing: the noise and the draws.
        ids: a number for each image, see `repulse.attacks.noise.Noise`.
        seed: of the noise.
        batch_size: noisy images sent forward at once.
        callback: called with the number of images done, after each.

    Raises:
        RepulseError: if the logits are not finite or not a matrix.
    """
    prediction = torch.full((len(images),), ABSTAINED)
    count = torch.zeros(len(images), dtype=torch.int64)
    radius = torch.zeros(len(images), dtype=torch.float64)
    for row in range(len(images)):
        noise = Noise(seed, ids[row : row + 1])
        chosen = int(_votes(model, images[row], smoothing.sigma, smoothing.n0, noise, "selection", batch_size).argmax())
        votes = _votes(model, images[row], smoothing.sigma, smoothing.n, noise, "estimation", batch_size)
        count[row] = votes[chosen]
        radius[row] = smoothed_radius(int(votes[chosen]), smoothing)
        if radius[row] > 0:
            prediction[row] = chosen
        if callback is not None:
            callback(row + 1)
    return Smoothed(prediction, count, radius)


def smoothed_prediction(
    model: nn.Module,
    images: Float[Tensor, "N *shape"],
    smoothing: Smoothing,
    *,
    ids: Int64[Tensor, "N"],
    seed: int = 0,
    batch_size: int = 500,
) -> Int64[Tensor, "N"]:
    """The class of the smoothed classifier, or `ABSTAINED`, without a radius (source, PREDICT).

    A class is given if `n` draws name it so much more often than the runner-up that this is no chance of one in
    `1 / alpha`: a two-sided binomial test (source, section 3.2.1).

    Args: as for `smooth`; `n0` is not used.
    """
    prediction = torch.full((len(images),), ABSTAINED)
    for row in range(len(images)):
        noise = Noise(seed, ids[row : row + 1])
        votes = _votes(model, images[row], smoothing.sigma, smoothing.n, noise, "prediction", batch_size)
        best = votes.topk(min(2, len(votes)))
        first, second = int(best.values[0]), int(best.values[1:].sum())
        if stats.binomtest(first, first + second, 0.5).pvalue <= smoothing.alpha:
            prediction[row] = best.indices[0]
    return prediction


class SmoothedModel(nn.Module):
    """The smoothed classifier as attacks see it: the logarithm of the mean softmax over fixed draws.

    The votes have no gradient; the mean of the softmax has, and names the same class where the base classifier is sure
    (Salman et al., *Provably Robust Deep Learning via Adversarially Trained Smoothed Classifiers*, NeurIPS 2019,
    equation 6). The draws are the same for all images and all calls, so that the model is an ordinary function.

    Args:
        model: the base classifier.
        smoothing: the noise.
        shape: of one image.
        draws: noisy images per answer, at least 1; each costs a pass.
        seed: of the draws.
    """

    noise: Tensor

    def __init__(
        self, model: nn.Module, smoothing: Smoothing, shape: tuple[int, ...], *, draws: int, seed: int
    ) -> None:
        super().__init__()
        self.model = model
        drawn = Noise(seed, torch.arange(draws)).normal(torch.empty(draws, *shape), "smoothing", "attack")
        self.register_buffer("noise", smoothing.sigma * drawn)

    def forward(self, x: Float[Tensor, "N *shape"]) -> Float[Tensor, "N n"]:
        """Logarithms of mean probabilities."""
        draws = len(self.noise)
        noisy = (x.unsqueeze(1) + self.noise.to(x)).flatten(0, 1)
        answers: Tensor = self.model(noisy).log_softmax(1).unflatten(0, (-1, draws))
        return answers.logsumexp(1) - math.log(draws)


def _votes(
    model: nn.Module, image: Tensor, sigma: float, draws: int, noise: Noise, what_for: _For, batch_size: int
) -> Int64[Tensor, "n"]:
    """How many of the noisy copies of one image the model gives each class."""
    votes: Tensor | None = None
    none = torch.empty(0, dtype=torch.int64, device=image.device)
    with attackable(model), torch.no_grad():
        for start in range(0, draws, per_batch := _BLOCK * max(1, batch_size // _BLOCK)):
            size = min(per_batch, draws - start)
            blocks = range(start // _BLOCK, -(-(start + size) // _BLOCK))
            like = image.expand(1, _BLOCK, *image.shape)
            drawn = torch.cat([noise.normal(like, "smoothing", what_for, block)[0] for block in blocks])[:size]
            logits = checked_logits(model(image + sigma * drawn), none)
            counted = torch.bincount(logits.argmax(1), minlength=logits.shape[1])
            votes = counted if votes is None else votes + counted
    assert votes is not None, "there is at least one draw"
    return votes.cpu()
