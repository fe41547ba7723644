"""Encoding against numpy's own evaluation of polynomials, and rounding against exact integers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tacit.errors import CircuitError
from tacit.kernels import encode, ntt
from tacit.kernels.library import InstructionSet
from tacit.kernels.ring import Ring
from tests.kernels.residues import primes


@pytest.mark.parametrize("log_n", [3, 6, 11])
def test_slots_are_values_at_powers_of_five(log_n: int) -> None:
    n = 1 << log_n
    values = np.random.default_rng(log_n).uniform(-1, 1, n // 2)
    transform = encode.SlotTransform(log_n)
    coefficients = transform.coefficients(values)
    zeta = np.exp(1j * np.pi / n)
    points = [zeta ** pow(5, j, 2 * n) for j in range(n // 2)]
    found = np.polynomial.polynomial.polyval(np.array(points), coefficients)
    np.testing.assert_allclose(found, values, atol=1e-11)
    turned = values * np.exp(1j * np.arange(n // 2))
    found = np.polynomial.polynomial.polyval(np.array(points), transform.coefficients(turned))
    np.testing.assert_allclose(found, turned, atol=1e-11)
    with pytest.raises(CircuitError, match="slots expected"):
        transform.coefficients(values[1:])
    np.testing.assert_allclose(transform.slots(coefficients), values, atol=1e-12)


@pytest.mark.parametrize("log_scale", [36, 59, 110])
def test_plaintexts_of_real_slots_mirror_themselves(
    instructions: InstructionSet, log_scale: int
) -> None:
    log_n = 10
    ring = Ring(log_n, primes(45, log_n) + primes(60, log_n), instructions=instructions)
    slots = np.random.default_rng(log_scale).normal(size=ring.n // 2)
    coefficients = encode.SlotTransform(log_n).coefficients(slots)
    assert np.array_equal(coefficients[1:], -coefficients[:0:-1])
    found = encode.encode(ring, coefficients, 2.0**log_scale, None, 2)
    assert np.array_equal(found, found[:, ::-1])


@pytest.mark.parametrize("scale", [2.0**20, 2.0**50 + 12345.0, 2.0**100, 3.0**70])
def test_coefficients_are_rounded_and_reduced_exactly(
    instructions: InstructionSet, scale: float
) -> None:
    log_n = 8
    moduli = primes(30, log_n) + primes(50, log_n) + primes(60, log_n)
    ring = Ring(log_n, moduli, instructions=instructions)
    coefficients = np.random.default_rng(0).uniform(-3, 3, ring.n)
    coefficients[:3] = 0.0, 1.0, -1.0
    found = encode.encode(ring, coefficients, scale, None, 3)
    ntt.inverse(ring, found)
    for row, q in zip(found, moduli, strict=True):
        wanted = [round(Fraction(float(c * scale))) % q for c in coefficients]
        assert row.tolist() == wanted


def test_ties_go_to_even_and_residues_stay_below_their_prime(
    instructions: InstructionSet,
) -> None:
    log_n = 8
    moduli = primes(30, log_n) + primes(45, log_n)
    ring = Ring(log_n, moduli, instructions=instructions)
    for largest in (2.5, moduli[0] - 0.5, moduli[0] + 1.5, 2.0**50, 2.0**50 + 2.0, 2.0**52 + 1.0):
        coefficients = np.arange(ring.n, dtype=np.float64) - ring.n / 2 + 0.5
        coefficients = np.minimum(np.maximum(coefficients, -largest), largest)
        coefficients[:2] = largest, -largest
        found = encode.encode(ring, coefficients, 1.0, None, 2)
        ntt.inverse(ring, found)
        for row, q in zip(found, moduli, strict=True):
            assert row.tolist() == [round(float(c)) % q for c in coefficients]


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 0.1, -1 / 3, 1e-9])
@pytest.mark.parametrize("scale", [2.0**30, 2.0**59 + 1024.0, 2.0**110])
def test_one_number_for_all_slots_is_rounded_to_the_nearest(value: float, scale: float) -> None:
    moduli = primes(40, 4, 2)
    found = encode.constant(value, scale, moduli)
    exact = Fraction(value * scale)
    for residue, q in zip(found.tolist(), moduli, strict=True):
        distance = min(abs(exact - k) for k in (exact.__floor__(), exact.__ceil__()))
        assert residue in {
            k % q for k in (exact.__floor__(), exact.__ceil__()) if abs(exact - k) == distance
        }


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(instructions: InstructionSet, bad: float) -> None:
    ring = Ring(4, primes(40, 4), instructions=instructions)
    coefficients = np.zeros(16)
    coefficients[3] = bad
    with pytest.raises(CircuitError, match="not finite"):
        encode.encode(ring, coefficients, 2.0**40, None, 1)
    with pytest.raises(CircuitError, match="not finite"):
        encode.constant(bad, 2.0**40, primes(40, 4))
    with pytest.raises(CircuitError, match="16 coefficients"):
        encode.encode(ring, np.zeros(8), 1.0, None, 1)
