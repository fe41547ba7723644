"""Raising the modulus, and the switch to a sparse secret before it, against plain integers."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from tacit.kernels import ntt
from tacit.kernels.library import InstructionSet
from tacit.kernels.modulus_raising import extend, switch_small
from tacit.kernels.ring import Limbs, Ring
from tacit.moduli import choose_moduli, encapsulation_moduli

LOG_N = 6
N = 1 << LOG_N


def _ring(
    library: ctypes.CDLL, instructions: InstructionSet, log_first: int
) -> tuple[Ring, list[int]]:
    moduli = choose_moduli(LOG_N, 3, log_first - 1, log_first, 2).moduli
    return Ring(LOG_N, moduli, instructions=instructions, library=library), list(moduli)


def _edges(modulus: int, seed: int) -> Limbs:
    row = np.random.default_rng(seed).integers(0, modulus, N, dtype=np.uint64)
    row[:6] = (0, 1, modulus - 1, modulus // 2, modulus // 2 + 1, 2)
    return row


def _signed(value: int, modulus: int) -> int:
    return value - modulus if value > modulus // 2 else value


@pytest.mark.parametrize("log_first", [31, 41, 51, 60])
def test_coefficients_become_the_same_small_integers(
    library: ctypes.CDLL, instructions: InstructionSet, log_first: int
) -> None:
    ring, moduli = _ring(library, instructions, log_first)
    coefficients = np.stack([_edges(moduli[0], seed) for seed in (0, 1)])
    a = coefficients.copy()
    ntt.forward(ring, a, np.zeros(2, dtype=np.uint32))
    every = np.arange(len(moduli), dtype=np.uint32)
    raised = extend(ring, a[:, None, None], 0, every)[:, :, 0]
    batched = extend(ring, a[None, None], 0, every)[0].transpose(1, 0, 2)
    np.testing.assert_array_equal(raised, batched)
    ntt.inverse(ring, raised, np.tile(np.arange(len(moduli), dtype=np.uint32), 2))
    for block, source in zip(raised, coefficients, strict=True):
        for row, q in zip(block, moduli, strict=True):
            assert row.tolist() == [_signed(int(c), moduli[0]) % q for c in source]


@pytest.mark.parametrize("log_first", [31, 41, 51, 60])
def test_a_small_switch_is_the_rounded_quotient(
    library: ctypes.CDLL, instructions: InstructionSet, log_first: int
) -> None:
    _, (q, *others) = _ring(library, instructions, log_first)
    p, r = encapsulation_moduli(LOG_N, (q, *others))
    ring = Ring(LOG_N, (q, p, r), instructions=instructions, library=library)
    every = np.arange(3, dtype=np.uint32)
    a = np.stack([_edges(q, 0), _edges(q, 1)])
    key = np.stack([[[_edges(m, 7 * part + m % 5) for m in (q, p, r)]] for part in (0, 1)])
    zeroth = np.zeros(2, dtype=np.uint32)
    a_ntt, key_ntt = a.copy(), key.copy()
    ntt.forward(ring, a_ntt, zeroth)
    ntt.forward(ring, key_ntt.reshape(6, N), np.tile(every, 2))
    found = switch_small(ring, a_ntt, key_ntt)
    ntt.inverse(ring, found, zeroth)
    small = [_signed(int(c), q) for c in a[1]]
    for part in (0, 1):
        product = _product(small, [_lift(key[part, 0, :, i], (q, p, r)) for i in range(N)])
        wanted = [round_half(value % (q * p * r), p * r) for value in product]
        plus = a[0].tolist() if part == 0 else [0] * N
        assert found[part].tolist() == [(w + c) % q for w, c in zip(wanted, plus, strict=True)]


def round_half(value: int, divisor: int) -> int:
    """Divide to the nearest; the divisor is odd, so there is no tie."""
    return (2 * value + divisor) // (2 * divisor)


def _lift(residues: Limbs, moduli: tuple[int, ...]) -> int:
    total, product = 0, int(np.prod([int(m) for m in moduli], dtype=object))
    for residue, modulus in zip(residues, moduli, strict=True):
        other = product // modulus
        total += int(residue) * other * pow(other, -1, modulus)
    return total % product


def _product(a: list[int], b: list[int]) -> list[int]:
    """Multiply modulo X^N + 1, in integers."""
    out = [0] * N
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            out[(i + j) % N] += x * y if i + j < N else -x * y
    return out
