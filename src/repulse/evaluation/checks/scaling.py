"""Whether the model gets its images in the range that it was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from repulse.common.units import in_percent
from repulse.evaluation.checks.check import OWN_SOURCE, Finding, check, share_of
from repulse.evaluation.checks.readings import explained_by_labels, far_better
from repulse.evaluation.checks.usage import BATCH, Usage, surely_more

# Another scaling is the better one if it is right so much more often, and a quarter more often or with half the errors,
# and surely so: 3.5 standard deviations are 1 in 4,000 for one scaling, and several are tried.
GAIN = 0.08
_DEVIATIONS = 3.5

# Scalings within so much of the best are all named: a few hundred images don't tell them apart.
_NEAR = 0.04


@dataclass(frozen=True)
class Scaling:
    """Another way to scale the inputs: `(x - mean) / std`, with the channels turned round or not."""

    name: str
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    reversed_channels: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """The images, scaled so."""
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        x = x.flip(1) if self.reversed_channels else x
        return (x - x.new_tensor(self.mean).view(shape)) / x.new_tensor(self.std).view(shape)

    @property
    def remedy(self) -> str:
        """What the user does to get it."""
        flags = [
            f"--{flag} {','.join(f'{value:.6g}' for value in values)}"
            for flag, values, plain in (("mean", self.mean, 0.0), ("std", self.std, 1.0))
            if set(values) != {plain}
        ]
        steps = ["turn the channels round inside the model (RGB to BGR: `x.flip(1)`)"] if self.reversed_channels else []
        steps += [f"use `{' '.join(flags)}`"] if flags else []
        return " and ".join(steps)


_CENTRED = Scaling("in [-1, 1]", (0.5,), (0.5,))
_GREY_LEVELS = Scaling("from 0 to 255", std=(1 / 255,))
_SHRUNK = Scaling("divided by 255 once more", std=(255.0,))
_IMAGENET = Scaling("normalised as for ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR = Scaling("normalised as for CIFAR-10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_BGR = Scaling("in the order blue, green, red", reversed_channels=True)
# The mean of ImageNet in grey levels and BGR: what networks trained with Caffe want.
_CAFFE = Scaling(
    "as Caffe's (BGR, 0 to 255, centred)",
    (103.939 / 255, 116.779 / 255, 123.68 / 255),
    (1 / 255,) * 3,
    reversed_channels=True,
)


def scalings(images: Tensor) -> tuple[Scaling, ...]:
    """The other ways to try, the plainest first; none for what is not a batch of images."""
    if images.ndim != 4:
        return ()
    found = [_CENTRED, _GREY_LEVELS, _SHRUNK]
    if images.shape[1] == 3:
        found += [_IMAGENET, _CIFAR, _BGR, _CAFFE]
    channels = images.transpose(0, 1).flatten(1)
    mean, std = channels.mean(1), channels.std(1, correction=0)
    if bool((std > 0).all()):
        own = [tuple(round(value, 4) for value in values.tolist()) for values in (mean, std.clamp_min(1e-4))]
        found.append(Scaling("normalised by their own mean and standard deviation", own[0], own[1]))
    return tuple(found)


@check(
    "inputs-scaled-right",
    Usage,
    question="Does the model get its images in the range that it was trained on?",
    source=f"{OWN_SOURCE}; paired test: McNemar 1947",
    serious=True,
    threshold=GAIN,
)
def scaled_right(seen: Usage) -> Finding:
    """How many more of the images are right under the best of the other scalings."""
    right = seen.right[: len(seen.images)]
    tried = {scaling: _right_when(seen, scaling) for scaling in scalings(seen.images)}
    if not tried:
        return Finding(None, "The inputs are not images, so other ways to scale them were not tried.")
    # The first of several that are as good is the plainest.
    ranked = sorted(tried, key=lambda scaling: share_of(tried[scaling]), reverse=True)
    best = share_of(tried[ranked[0]])
    gain = max(best - share_of(right), 0.0)
    better = [each for each in ranked if share_of(tried[each]) >= best - _NEAR and _better(tried[each], right, seen)]
    if not better:
        return Finding(gain, f"None of {len(tried)} other ways to scale the images fits the model much better.", True)
    if explained_by_labels(seen) > best + _NEAR:
        return Finding(None, "The labels explain what is wrong better than any other scaling would: see labels-fit.")
    start = f"The model is right on {in_percent(share_of(right))} of the images as they are, but on "
    ways = [f"{in_percent(share_of(tried[each]))} when they are {each.name}" for each in better]
    if len(better) == 1:
        return Finding(gain, f"{start}{ways[0]}: {better[0].remedy}.", False)
    several = ", on ".join(f"{way} ({each.remedy})" for way, each in zip(ways, better, strict=True))
    return Finding(gain, f"{start}{several}. So many images don't tell these apart: ask the model's author.", False)


def _better(other: Bool[Tensor, "m"], given: Bool[Tensor, "m"], seen: Usage) -> bool:
    if seen.stochastic:
        # More contrast drowns the noise that a model adds itself, however it was trained.
        return far_better(other, given)
    ours, theirs = share_of(other), share_of(given)
    much = ours >= 1.25 * theirs or 2 * (1 - ours) <= 1 - theirs
    return ours - theirs > GAIN and much and surely_more(other, given, _DEVIATIONS)


def _right_when(seen: Usage, scaling: Scaling) -> Bool[Tensor, "m"]:
    found = []
    try:
        for part in torch.split(seen.images, BATCH):
            logits = seen.model(scaling(part)).float().cpu()
            found.append(torch.where((logits.isnan() | (logits == torch.inf)).any(1), -1, logits.argmax(1)))
    except Exception:  # A model may refuse what is out of its range in any way it likes.
        return torch.zeros(len(seen.images), dtype=torch.bool)
    return torch.cat(found) == seen.labels[: len(seen.images)]
