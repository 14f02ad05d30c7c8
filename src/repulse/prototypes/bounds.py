"""How far apart `n` points in `d` dimensions can be at best: closed forms where known, upper bounds elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import eval_gegenbauer, roots_jacobi


@dataclass(frozen=True)
class Bound:
    """The best value that any `n` points in `d` dimensions can have, or a limit to it, and who says so."""

    value: float
    source: str


def angle_bound(n: int, d: int) -> Bound:
    """Upper bound on the smallest pairwise angle, in degrees.

    >>> round(angle_bound(240, 8).value, 6)
    60.0

    Reached for `n <= 2 d` and for `d <= 2`; beyond, Levenshtein's bound, in 3-d the smaller of it and Fejes Toth's.
    """
    if n <= d + 1:
        return Bound(math.degrees(math.acos(-1 / (n - 1))), "simplex")
    if n <= 2 * d:
        return Bound(90.0, "orthoplex (Rankin 1955)")
    if d == 1:
        return Bound(0.0, "two directions on a line")
    if d == 2:
        return Bound(360 / n, "polygon")
    bound = Bound(math.degrees(math.acos(levenshtein_cosine(n, d))), "Levenshtein 1979")
    if d == 3:
        omega = n * math.pi / (6 * (n - 2))
        toth = math.degrees(math.acos((1 / math.tan(omega) ** 2 - 1) / 2))
        bound = min(bound, Bound(toth, "Fejes Toth 1943"), key=lambda each: each.value)
    return bound


def l2_bound(n: int, d: int) -> Bound:
    """Upper bound on the smallest pairwise L2 distance of points in the unit ball.

    Beyond `n = 2 d` points may do better inside the ball than on its surface; lifted to the unit sphere of one more
    dimension they are no closer, so the bound is the chord of `angle_bound(n, d + 1)`.
    """
    if n <= d + 1:
        return Bound(math.sqrt(2 * n / (n - 1)), "simplex")
    if d == 1:
        return Bound(2 / (n - 1), "even spacing")
    if n <= 2 * d:
        return Bound(math.sqrt(2), "orthoplex (Rankin 1955)")
    lifted = angle_bound(n, d + 1)
    return Bound(2 * math.sin(math.radians(lifted.value) / 2), f"{lifted.source}, in d + 1")


def mean_l2_bound(n: int) -> Bound:
    """Upper bound on the mean pairwise L2 distance of points in the unit ball: that of a simplex, in any dimension.

    The squares of all `n^2` distances add up to `2 n sum |p|^2 - 2 |sum p|^2 <= 2 n^2`, and no mean exceeds the root of
    the mean square.
    """
    return Bound(math.sqrt(2 * n / (n - 1)), "mean square")


def linf_bound(n: int, d: int) -> Bound:
    """The largest possible smallest L-inf distance of points in the box `[-1, 1]^d`: sign vectors, then a grid."""
    side = 2
    while side**d < n:
        side += 1
    return Bound(2 / (side - 1), "sign vectors" if side == 2 else f"grid, {side} values a coordinate")


def mean_linf_bound(n: int, d: int) -> Bound:
    """The largest possible mean L-inf distance of points in the box `[-1, 1]^d`.

    The sum is convex in each point, so it is largest at corners: 2 for two corners, 0 within one; by Turan's theorem
    the `n` points then spread evenly over the `2^d` corners.
    """
    corners = min(n, 2**d)
    each, more = divmod(n, corners)
    together = more * math.comb(each + 1, 2) + (corners - more) * math.comb(each, 2)
    return Bound(2 * (1 - together / math.comb(n, 2)), "sign vectors")


def coherence_bound(n: int, d: int) -> Bound:
    """Lower bound on the largest absolute cosine."""
    if n <= d:
        return Bound(0.0, "orthogonal basis")
    if d == 1:
        return Bound(1.0, "one line")
    if d == 2:
        return Bound(math.cos(math.pi / n), "polygon")
    welch = math.sqrt((n - d) / (d * (n - 1)))
    if n <= d * (d + 1) // 2:
        return Bound(welch, "Welch 1974")
    return Bound(math.sqrt((3 * n - d * d - 2 * d) / ((d + 2) * (n - d))), "Levenshtein 1982, lines")


def frame_potential_bound(n: int, d: int) -> Bound:
    """The least possible sum of squared cosines over all `n^2` ordered pairs: that of a tight frame."""
    return Bound(max(float(n), n * n / d), "tight frame (Benedetto and Fickus 2003)" if n > d else "orthogonal basis")


def levenshtein_cosine(n: int, d: int) -> float:
    """The least possible largest cosine of `n` points on the sphere in `d >= 3` dimensions, by Levenshtein's bound.

    Levenshtein bounds the number of points at largest cosine `s` by `L_m(d, s)`, each `m` on an interval of `s`
    (Levenshtein, *Universal bounds for codes and designs*, Handbook of Coding Theory 1998, section 5); this inverts
    it by bisection. Tight, for instance, for 12 points in 3-d, 240 in 8-d and 196,560 in 24-d.
    """
    m = 1
    while _design_size(d, m + 1) < n:
        m += 1
    k = (m + 1) // 2
    half = (d - 3) / 2
    if m % 2:
        low, high = _jacobi_zero(k - 1, half + 1, half + 1), _jacobi_zero(k, half + 1, half)
    else:
        low, high = _jacobi_zero(k, half + 1, half), _jacobi_zero(k, half + 1, half + 1)
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if _levenshtein(m, d, middle) < n:
            low = middle
        else:
            high = middle


def _levenshtein(m: int, d: int, s: float) -> float:
    k = (m + 1) // 2
    below, here, above = (_gegenbauer(i, d, s) for i in (k - 1, k, k + 1))
    if m % 2:
        return math.comb(k + d - 3, k - 1) * ((2 * k + d - 3) / (d - 1) - (below - here) / ((1 - s) * here))
    rest = (1 + s) * (here - above) / ((1 - s) * (here + above))
    return math.comb(k + d - 2, k) * ((2 * k + d - 1) / (d - 1) - rest)


def _design_size(d: int, m: int) -> int:
    """The least number of points of a spherical m-design (Delsarte, Goethals, Seidel 1977): where L_m begins."""
    k = m // 2
    if m % 2:
        return 2 * math.comb(k + d - 1, d - 1)
    return math.comb(k + d - 1, d - 1) + math.comb(k + d - 2, d - 1)


def _gegenbauer(k: int, d: int, s: float) -> float:
    """The Gegenbauer polynomial of degree `k` for the sphere in `d` dimensions, with value 1 at 1."""
    order = (d - 2) / 2
    return float(eval_gegenbauer(k, order, s) / eval_gegenbauer(k, order, 1.0))


def _jacobi_zero(k: int, a: float, b: float) -> float:
    """The largest zero of the Jacobi polynomial of degree `k`; -1 if `k = 0`."""
    return float(roots_jacobi(k, a, b)[0][-1]) if k else -1.0
