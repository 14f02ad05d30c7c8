"""Square: random search with square-shaped changes; it never asks for a gradient.

Source: Andriushchenko, Croce, Flammarion & Hein, *Square attack: a query-efficient black-box adversarial attack via
random search*, ECCV 2020; algorithms 2 (L-inf) and 3 (L2), with the schedule of AutoAttack.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from repulse.attacks.ascent import ascend
from repulse.attacks.attack import ATTACKS, Attack
from repulse.attacks.noise import Noise
from repulse.attacks.objectives import OBJECTIVES
from repulse.attacks.standing import Climb, Standing
from repulse.attacks.threat import Threat, column
from repulse.common.errors import RepulseError

# After so many queries the share of pixels that a square covers is halved (section 4 of the source).
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

# Steps of PGD that a canary is compared with.
CANARY_STEPS = 20

# Random numbers are drawn for so many queries at a time, which bounds the memory that they take.
_DRAWN_AT_ONCE = 500


@ATTACKS.register("square")
@dataclass(frozen=True)
class Square(Attack):
    """Square attack on the margin, keeping a change only where the margin rises.

    Images (N, C, H, W) are changed in squares; other shapes (N, ..., L) in intervals of their last axis. Every image
    has its own positions and signs.

    Args:
        queries: forward passes per image, at most.
        share: share of the pixels that the first squares cover, in (0, 1].
        rescale: shrink squares by the share of the queries that is spent, as if there were 10,000 of them. AutoAttack
            does not; with few queries it finds more.
        canary: after so many queries, go on only with images where this search stands nearer to a wrong class than 20
            steps of PGD on the margin come. On a model whose gradients can be trusted that is hardly ever so; on one
            that hides them it nearly always is. None: go on with all.

    Raises:
        RepulseError: if queries or canary is below 1, or share is not in (0, 1].
    """

    black_box: ClassVar[bool] = True

    queries: int = 5000
    share: float = 0.8
    rescale: bool = False
    canary: int | None = None

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise RepulseError(f"queries must be at least 1, got {self.queries}")
        if self.canary is not None and self.canary < 1:
            raise RepulseError(f"canary must be at least 1, got {self.canary}")
        if not 0 < self.share <= 1:
            raise RepulseError(f"share must lie in (0, 1], got {self.share}")

    def search(self, standing: Standing) -> None:
        """Ask until fooled or out of queries."""
        threat, rows = standing.threat, standing.rows
        shape = standing.clean.shape[1:]
        clean = standing.clean[rows].reshape(len(rows), *_planes(shape))
        start, propose = (_start_linf, _propose_linf) if threat.norm == "linf" else (_start_l2, _propose_l2)
        best, values, drawn = clean, clean.new_full((len(rows),), -torch.inf), clean.new_empty(0)
        by_gradient = standing.margin.clone()
        for query in range(self.queries):
            if len(rows) == 0:
                return
            if query == 0:
                tried = start(clean, threat, standing.noise.take(rows))
            else:
                place = (query - 1) % _DRAWN_AT_ONCE
                if place == 0:
                    like = clean.new_empty(len(rows), min(_DRAWN_AT_ONCE, self.queries - query), 5 + clean.shape[1])
                    drawn = standing.noise.take(rows).uniform(like, "square", query)
                spent = (query - 1) * 10_000 // self.queries if self.rescale else query - 1
                tried = propose(best, clean, threat, drawn[:, place], _share_at(spent, self.share))
            answer = standing.ask(tried.reshape(-1, *shape), rows)
            better = answer.values > values
            values = torch.where(better, answer.values, values)
            best = torch.where(column(better, best), tried, best)
            stay = answer.stay
            if query + 1 == self.canary and len(stay):
                stay = stay[values[stay] > self._highest_by_gradient(standing, rows[stay], by_gradient[rows[stay]])]
            if len(stay) < len(rows):
                # What fell while the canary was asked has left the rows, too.
                rows, best, clean, values = rows[stay], best[stay], clean[stay], values[stay]
                drawn = drawn[stay] if len(drawn) else drawn

    def _highest_by_gradient(self, standing: Standing, rows: Tensor, known: Tensor) -> Tensor:
        """The largest margin that attacks met before or, without one, PGD from a random point; inf where it fools."""
        if bool(known.isfinite().all()):
            return known
        climb = Climb(standing, standing.value(OBJECTIVES["margin"]), rows)
        start, threat = standing.random_point(rows, "square", "canary"), standing.threat
        ascend(climb, start, standing.clean[rows], threat, CANARY_STEPS, threat.eps / 4, keep=climb.keep)
        return torch.where(standing.distance[rows] > standing.enough, climb.highest, torch.inf)


def _planes(shape: torch.Size) -> tuple[int, int, int]:
    """Any shape as channels of planes: (C, H, W) as it is, everything else as intervals (channels, 1, L)."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return shape[:-1].numel(), 1, shape[-1]


def _share_at(change: int, share: float) -> float:
    return share / float(2 ** sum(change > count for count in HALVED_AFTER))


def _sides(share: float, height: int, width: int, least: int) -> tuple[int, int]:
    """Height and width of a window that covers a share of a plane: a square, or an interval of a single row."""
    if height == 1:
        return 1, min(max(round(share * width), least), width)
    side = max(round(math.sqrt(share * height * width)), least)
    # In L2 a window has a centre, so its side is odd.
    side += least > 1 and side % 2 == 0
    return min(side, height), min(side, width)


def _signs(uniform: Tensor) -> Tensor:
    return torch.where(uniform < 0.5, -1.0, 1.0).to(uniform)


def _corner(uniform: Tensor, room: int) -> Tensor:
    """Positions 0 to `room`, both included, from uniform numbers in [0, 1)."""
    return (uniform * (room + 1)).long().clamp_max(room)


def _start_linf(clean: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """Vertical stripes, each pixel at an end of its interval."""
    signs = _signs(noise.uniform(clean[:, :, :1], "square", "stripes"))
    return (clean + threat.eps * signs).clamp(threat.low, threat.high)


def _propose_linf(best: Tensor, clean: Tensor, threat: Threat, drawn: Tensor, share: float) -> Tensor:
    """One square of one colour: inside it each pixel goes to an end of its interval."""
    height, width = clean.shape[2:]
    tall, wide = _sides(share, height, width, least=1)
    top, left = _corner(drawn[:, 0], height - tall), _corner(drawn[:, 1], width - wide)
    row = torch.arange(height, device=clean.device) - top.unsqueeze(1)
    column = torch.arange(width, device=clean.device) - left.unsqueeze(1)
    within = ((row >= 0) & (row < tall)).unsqueeze(2) & ((column >= 0) & (column < wide)).unsqueeze(1)
    colour = threat.eps * _signs(drawn[:, 5:])[:, :, None, None]
    return torch.where(within.unsqueeze(1), (clean + colour).clamp(threat.low, threat.high), best)


def _start_l2(clean: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """Five by five tiles, each a bump of random sign."""
    height, width = clean.shape[2:]
    tall, wide = max(height // 5, 1), max(width // 5, 1)
    rows, columns = height // tall, width // wide
    coin = noise.uniform(clean[:, :, : rows * columns].new_empty(len(clean), rows, columns), "square", "turned") < 0.5
    bump, turned = _bump(tall, wide, False).to(clean), _bump(tall, wide, True).to(clean)
    tiles = torch.where(coin[:, None, :, None, :, None], bump[:, None, :], turned[:, None, :])
    signs = _signs(noise.uniform(clean.new_empty(len(clean), clean.shape[1], rows, columns), "square", "signs"))
    tiled = (tiles * signs[:, :, :, None, :, None]).reshape(len(clean), -1, rows * tall, columns * wide)
    above, before = (height - rows * tall) // 2, (width - columns * wide) // 2
    delta = torch.zeros_like(clean)
    delta[:, :, above : above + rows * tall, before : before + columns * wide] = tiled
    return _scaled(clean, delta, threat)


def _propose_l2(best: Tensor, clean: Tensor, threat: Threat, drawn: Tensor, share: float) -> Tensor:
    """Empty one window, and move its budget to another, on top of what is there (algorithm 3 of the source)."""
    channels, height, width = clean.shape[1:]
    tall, wide = _sides(share, height, width, least=3)
    to, emptied = (
        _window(_corner(drawn[:, i], height - tall), _corner(drawn[:, i + 1], width - wide), tall, wide, width)
        .unsqueeze(1)
        .expand(-1, channels, -1)
        for i in (0, 2)
    )
    delta = (best - clean).flatten(2)
    total = delta.flatten(1).square().sum(1)[:, None, None]
    there = delta.gather(2, to)
    # The budget: what both windows hold, each pixel counted once, and the channel's part of what is not used yet.
    outside = delta.scatter(2, to, 0.0).scatter(2, emptied, 0.0)
    held = delta.square().sum(2, keepdim=True) - outside.square().sum(2, keepdim=True)
    budget = ((threat.eps**2 - total).clamp_min(0) / channels + held.clamp_min(0)).sqrt()
    bump = torch.where(
        drawn[:, 4, None] < 0.5,
        _bump(tall, wide, False).to(clean).flatten(),
        _bump(tall, wide, True).to(clean).flatten(),
    )
    new = bump.unsqueeze(1) * _signs(drawn[:, 5:]).unsqueeze(2)
    new = new + there / there.norm(dim=2, keepdim=True).clamp_min(1e-12)
    new = new / new.norm(dim=2, keepdim=True).clamp_min(1e-12) * budget
    return _scaled(clean, outside.scatter(2, to, new).reshape(clean.shape), threat)


def _window(top: Tensor, left: Tensor, tall: int, wide: int, width: int) -> Tensor:
    """Places (N, tall * wide) of a window's pixels in a flattened plane."""
    row = torch.arange(tall, device=top.device) + top.unsqueeze(1)
    column = torch.arange(wide, device=top.device) + left.unsqueeze(1)
    return (row.unsqueeze(2) * width + column.unsqueeze(1)).flatten(1)


def _scaled(clean: Tensor, delta: Tensor, threat: Threat) -> Tensor:
    length: Tensor = delta.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
    return (clean + threat.eps * delta / length).clamp(threat.low, threat.high)


@functools.lru_cache(maxsize=256)
def _bump(tall: int, wide: int, turned: bool) -> Float[Tensor, "tall wide"]:
    """A positive peak beside a negative one, of unit length; `turned`, or in a single row: side by side."""
    if turned or tall == 1:
        if wide == 1:
            return torch.ones(tall, wide) / math.sqrt(tall * wide)
        pair = torch.cat((_peak(tall, wide // 2), -_peak(tall, wide - wide // 2)), dim=1)
    else:
        pair = torch.cat((_peak(tall // 2, wide), -_peak(tall - tall // 2, wide)), dim=0)
    unit: Tensor = pair / pair.norm()
    return unit


def _peak(tall: int, wide: int) -> Float[Tensor, "tall wide"]:
    """Sum over `k` of `1 / (k + 1)^2` on ever larger rectangles around the centre, of unit length."""
    row = (torch.arange(tall) - tall // 2).abs()
    column = (torch.arange(wide) - wide // 2).abs()
    ring = torch.maximum(row.unsqueeze(1), column.unsqueeze(0))
    terms = 1 / torch.arange(1, max(tall, wide) // 2 + 2, dtype=torch.float32).square()
    peak = terms.flip(0).cumsum(0).flip(0)[ring]
    unit: Tensor = peak / peak.norm()
    return unit
