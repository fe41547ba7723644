"""Primes and residues for the tests: the edges and random ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tacit.moduli import is_prime

Limbs = NDArray[np.uint64]


def primes(bits: int, log_n: int, count: int = 1) -> tuple[int, ...]:
    """Return the largest primes of exactly `bits` bits that are 1 modulo 2N."""
    step = 2 << log_n
    candidate = (1 << bits) // step * step + 1
    found: list[int] = []
    while len(found) < count:
        candidate -= step
        assert candidate.bit_length() == bits, "no such primes"
        if is_prime(candidate):
            found.append(candidate)
    return tuple(found)


def residues(rng: np.random.Generator, moduli: tuple[int, ...], n: int) -> Limbs:
    """Return one row per modulus: random residues, with 0, 1, q - 1 and q / 2 sprinkled in."""
    rows = []
    for q in moduli:
        row = rng.integers(0, q, n, dtype=np.uint64)
        edges = np.array([0, 1, q - 1, q // 2, q // 2 + 1], dtype=np.uint64)
        chosen = rng.uniform(size=n) < 0.3
        row[chosen] = rng.choice(edges, int(chosen.sum()))
        rows.append(row)
    return np.array(rows)


def extreme(moduli: tuple[int, ...], n: int, kind: str) -> Limbs:
    """Return rows of one value: "zero", "one", "top" (q - 1), or "sawtooth" (0 and q - 1)."""
    value = {"zero": (0, 0), "one": (1, 1), "top": (-1, -1), "sawtooth": (0, -1)}[kind]
    return np.array([[(value[i % 2]) % q for i in range(n)] for q in moduli], dtype=np.uint64)
