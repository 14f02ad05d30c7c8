"""Hadamard matrices: square matrices of signs with orthogonal rows."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from repulse.prototypes.galois import field_powers, prime_power
from repulse.prototypes.methods import closed_form, impossible


@closed_form("hadamard", "linf")
def hadamard(n: int, d: int) -> Float[Tensor, "n d"]:
    """Rows of a Hadamard matrix of order `d`, then their negatives: sign vectors, for use with the L-inf distance.

    Any two differ by 2 in some coordinate, the most possible in the box `[-1, 1]^d`; their cosines are 0 or -1.

    Raises:
        RepulseError: if `n > 2 d`, or if no matrix of order `d` is built here (see `hadamard_matrix`).
    """
    if n > 2 * d:
        raise impossible("hadamard", n, d, f"it has at most 2 d = {2 * d} points")
    if not is_constructible(d):
        below = next(k for k in range(d, 0, -1) if is_constructible(k))
        above = next(k for k in range(d, 4 * d) if is_constructible(k))
        near = below if d - below <= above - d and n <= 2 * below else above
        raise impossible("hadamard", n, d, f"no Hadamard matrix of order {d} is known here, the nearest is d={near}")
    matrix = hadamard_matrix(d)
    return torch.cat([matrix, -matrix])[:n].float()


@lru_cache(maxsize=4096)
def is_constructible(d: int) -> bool:
    """Whether `hadamard_matrix(d)` exists."""
    return _plan(d) is not None


def hadamard_matrix(d: int) -> Int8[Tensor, "d d"]:
    """A matrix `H` of signs with `H H^T = d I`.

    Built from the orders 1 and 2, Paley's constructions I (`d = q + 1`, `q = 3 mod 4` a prime power) and II
    (`d = 2 (q + 1)`, `q = 1 mod 4` a prime power), and Kronecker products of these (Sylvester 1867, Paley 1933).
    The smallest order that may be possible and is missing is 92.

    Raises:
        ValueError: if none of these gives order `d`.
    """
    plan = _plan(d)
    if plan is None:
        raise ValueError(f"no Hadamard matrix of order {d} by Sylvester's and Paley's constructions")
    kind, size = plan
    if kind == "product":
        return torch.kron(hadamard_matrix(size), hadamard_matrix(d // size))
    if kind == "trivial":
        return torch.ones(1, 1, dtype=torch.int8)
    core = _conference(size, symmetric=kind == "paley 2")
    identity = torch.eye(size + 1, dtype=torch.int8)
    if kind == "paley 1":
        return core + identity
    signs, shift = (
        torch.tensor([[1, 1], [1, -1]]).to(torch.int8),
        torch.tensor([[1, -1], [-1, -1]]).to(torch.int8),
    )
    return torch.kron(core, signs) + torch.kron(identity, shift)


@lru_cache(maxsize=4096)
def _plan(d: int) -> tuple[str, int] | None:
    """How to build order `d`: the construction, and the field or the left factor that it takes."""
    if d == 1:
        return "trivial", 1
    if d == 2:
        return "paley 1", 1
    if d < 1 or d % 4:
        return None
    for factor in (2, *range(4, int(d**0.5) + 1, 4)):
        if d % factor == 0 and _plan(factor) and _plan(d // factor):
            return "product", factor
    if prime_power(d - 1):
        return "paley 1", d - 1
    if d // 2 % 4 == 2 and prime_power(d // 2 - 1):
        return "paley 2", d // 2 - 1
    return None


def _conference(q: int, *, symmetric: bool) -> Int8[Tensor, "m m"]:
    """The matrix of order `q + 1` with zero diagonal, signs elsewhere, and orthogonal rows.

    Its core is `chi(a - b)` over the field of `q` elements, where `chi` is 1 for squares and -1 for the others.
    """
    result = torch.zeros(q + 1, q + 1, dtype=torch.int8)
    result[0, 1:] = 1
    result[1:, 0] = 1 if symmetric else -1
    if q == 1:
        return result
    factors = prime_power(q)
    assert factors is not None
    p, k = factors
    place = torch.tensor([p**i for i in range(k)])
    # A square is an even power of the generator.
    squares = torch.tensor(field_powers(p, k)[::2]) @ place
    chi = torch.full((q,), -1, dtype=torch.int8)
    chi[squares] = 1
    chi[0] = 0
    digits = torch.arange(q)[:, None] // place % p
    for i in range(q):
        result[i + 1, 1:] = chi[(digits[i] - digits) % p @ place]
    return result
