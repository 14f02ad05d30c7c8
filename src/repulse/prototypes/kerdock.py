"""Mutually unbiased bases from the Kerdock set of quadratic forms.

Sources: Kerdock 1972; Cameron and Seidel 1973; Calderbank, Cameron, Kantor and Seidel, *Z4-Kerdock codes, orthogonal
spreads, and extremal Euclidean line-sets*, Proc. LMS 75 (1997); the forms as in MacWilliams and Sloane, chapter 15.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from repulse.prototypes.closed_form import orthoplex
from repulse.prototypes.galois import field_powers
from repulse.prototypes.hadamard import hadamard_matrix
from repulse.prototypes.methods import closed_form, impossible


@closed_form("kerdock", "cosine")
def kerdock(n: int, d: int) -> Float[Tensor, "n d"]:
    """The first `n` vectors of `d/2 + 1` mutually unbiased orthonormal bases of `R^d`, for `d` a power of 4.

    Cosines are 0 within a basis and `+-1/sqrt(d)` between bases. The order is: all vectors of one basis after the
    other, then all their negatives in the same order. So, for `n` up to `d (d/2 + 1)`, no two vectors are opposite
    and the coherence is `1/sqrt(d)` as well, which for the whole of them is Levenshtein's bound for lines. The
    smallest angle is `arccos(1/sqrt(d))` as soon as two bases are used; for `n <= 2 d` one basis and its negatives
    (the orthoplex) is better and is returned.

    Raises:
        RepulseError: if `d` is not a power of 4, or `n > d^2 + 2 d`.
    """
    m = d.bit_length() - 1
    if d < 4 or d != 1 << m or m % 2:
        near = kerdock_dimension(d)
        hint = f", such as {near} or {4 * near}" if near else ""
        raise impossible("kerdock", n, d, f"d must be a power of 4{hint}")
    if n > d * d + 2 * d:
        raise impossible("kerdock", n, d, f"it has at most d^2 + 2 d = {d * d + 2 * d} points")
    if n <= 2 * d:
        return orthoplex(n, d)
    lines = d * (d // 2 + 1)
    count = min(n, lines)
    points = torch.zeros(n, d)
    points[:d] = torch.eye(d)
    matrix = hadamard_matrix(d).float() / math.sqrt(d)
    # Basis a: every row of the (Sylvester) Hadamard matrix, a character of GF(2)^m, times the signs (-1)^Q_a.
    for start, signs in zip(range(d, count, d), kerdock_signs(m), strict=False):
        rows = min(d, count - start)
        torch.mul(matrix[:rows], signs, out=points[start : start + rows])
    if n > lines:
        torch.neg(points[: n - lines], out=points[lines:])
    return points


def kerdock_dimension(d: int) -> int:
    """The largest power of 4 that is at most `d` and at least 4; 0 if there is none."""
    return 4 ** ((d.bit_length() - 1) // 2) if d >= 4 else 0


def kerdock_signs(m: int) -> Int8[Tensor, "K d"]:
    """`(-1)^Q_a(v)` for the `K = 2^(m-1)` forms of a Kerdock set on `GF(2)^m`, `m` even, and all `d = 2^m` vectors `v`.

    With `v = (x, e)` in `GF(2^(m-1)) x GF(2)`: `Q_a(x, e) = sum_{i=1}^{(m-2)/2} tr((a x)^(2^i + 1)) + e tr(a x)`.
    The difference of any two of them has full rank `m`, which is what makes the bases unbiased.
    """
    k = m - 1
    size = 1 << k
    order = size - 1
    place = torch.tensor([1 << i for i in range(k)])
    # An element is its coefficients read as a binary number; addition is exclusive or.
    exp = torch.tensor(field_powers(2, k)) @ place
    log = torch.zeros(size, dtype=torch.int64)
    log[exp] = torch.arange(order)

    def power(exponent: int) -> Tensor:
        values = exp[log * exponent % order]
        values[0] = 0
        return values

    def trace(values: Tensor) -> Tensor:
        total = torch.zeros_like(values)
        for i in range(k):
            total ^= power(1 << i)[values]
        return total

    form = torch.zeros(size, dtype=torch.int64)
    for i in range(1, (m - 2) // 2 + 1):
        form ^= trace(power((1 << i) + 1))
    linear = trace(power(1))
    product = exp[(log[:, None] + log[None, :]) % order]
    product[0, :] = 0
    product[:, 0] = 0
    bits = torch.cat([form[product], form[product] ^ linear[product]], dim=1)
    return (1 - 2 * bits).to(torch.int8)
