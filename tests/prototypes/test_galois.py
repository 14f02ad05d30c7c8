"""Finite fields against the axioms."""

from __future__ import annotations

import pytest

from repulse.prototypes.galois import field_powers, prime_power


@pytest.mark.parametrize(("p", "k"), [(2, 1), (2, 3), (2, 5), (3, 1), (3, 2), (3, 3), (5, 2), (7, 1), (7, 2)])
def test_powers_hold_every_element_once_and_distribute_over_sums(p: int, k: int) -> None:
    powers = field_powers(p, k)
    order = p**k - 1
    zero = (0,) * k
    assert len(set(powers) - {zero}) == order == len(powers)
    log = {element: i for i, element in enumerate(powers)}

    def times(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        return zero if zero in (a, b) else powers[(log[a] + log[b]) % order]

    def plus(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        return tuple((x + y) % p for x, y in zip(a, b, strict=True))

    for a in powers:
        for b in powers[:6]:
            for c in powers[-6:]:
                assert times(a, plus(b, c)) == plus(times(a, b), times(a, c))


def test_prime_powers() -> None:
    found = {q: prime_power(q) for q in range(30) if prime_power(q)}
    assert found[8] == (2, 3)
    assert found[27] == (3, 3)
    assert sorted(found) == [2, 3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 19, 23, 25, 27, 29]


def test_a_number_that_is_no_prime_has_no_field() -> None:
    with pytest.raises(ValueError, match="6 is not a prime"):
        field_powers(6, 1)
