"""Finite fields, as far as Paley's and Kerdock's constructions need them."""

from __future__ import annotations

from functools import lru_cache


def prime_power(q: int) -> tuple[int, int] | None:
    """`(p, k)` with `q = p^k` and `p` prime, or None if `q` is no prime power."""
    if q < 2:
        return None
    p = next((p for p in range(2, int(q**0.5) + 1) if q % p == 0), q)
    k, rest = 0, q
    while rest % p == 0:
        rest, k = rest // p, k + 1
    return (p, k) if rest == 1 else None


@lru_cache(maxsize=16)
def field_powers(p: int, k: int) -> tuple[tuple[int, ...], ...]:
    """The powers `x^0, x^1, ..., x^(q-2)` of a generator `x` of the field with `q = p^k` elements.

    Elements are polynomials of degree below `k` over the integers modulo the prime `p`, as `k` coefficients, lowest
    degree first; they add coefficient by coefficient. The list holds every element but zero once: it is a table of
    logarithms, so that element number `i` times element number `j` is element number `i + j` modulo `q - 1`.
    """
    q = p**k
    for code in range(1, q):
        # x^k equals this polynomial: the reduction rule of the candidate field (for k = 1, the generator itself).
        rule = tuple(code // p**i % p for i in range(k))
        powers = _cycle(rule, p, q)
        if powers is not None:
            return powers
    raise ValueError(f"{p} is not a prime")


def _cycle(rule: tuple[int, ...], p: int, q: int) -> tuple[tuple[int, ...], ...] | None:
    """The powers of `x` under `rule`, if there are `q - 1` of them; then the rule makes a field (it is primitive)."""
    one = (1,) + (0,) * (len(rule) - 1)
    powers = [one]
    while len(powers) < q:
        *low, top = powers[-1]
        element = tuple((a + top * b) % p for a, b in zip((0, *low), rule, strict=True))
        if element == one:
            return tuple(powers) if len(powers) == q - 1 else None
        powers.append(element)
    return None
