"""Products and transforms modulo primes, against Python's integers."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.kernels import reference
from tacit.modular import centred, forward, inverse, residues, times
from tacit.moduli import choose_moduli, smallest_root

LOG_N = 6
CHOSEN = choose_moduli(LOG_N, 3, 40, 60, 2)
MODULI = (CHOSEN.moduli[0], CHOSEN.moduli[1], CHOSEN.special_moduli[0])


def edge_residues(q: int, seed: int) -> np.ndarray:  # type: ignore[type-arg]
    drawn = np.random.default_rng(seed).integers(0, q, 1 << LOG_N, dtype=np.uint64)
    drawn[:4] = (0, 1, q - 1, q // 2)
    return drawn


@pytest.mark.parametrize("q", MODULI)
def test_products_are_those_of_integers(q: int) -> None:
    a, b = edge_residues(q, 1), edge_residues(q, 2)[::-1].copy()
    assert times(a, b, q).tolist() == [int(x) * int(y) % q for x, y in zip(a, b, strict=True)]
    square = times(a[:4, None], a[None, :4], q)
    assert square.tolist() == [[int(x) * int(y) % q for y in a[:4]] for x in a[:4]]


@pytest.mark.parametrize("q", MODULI)
def test_transforms_are_the_reference_and_undo_each_other(q: int) -> None:
    a = np.stack([edge_residues(q, 3), edge_residues(q, 4)])
    found = forward(a, q)
    for row, wanted in zip(found, a, strict=True):
        expected = reference.forward(reference.integers(wanted), q, smallest_root(q, LOG_N))
        assert row.tolist() == expected.tolist()
    assert np.array_equal(inverse(found, q), a)


def test_signed_integers_and_residues() -> None:
    values = np.array([-3, 0, 2, -(1 << 61), (1 << 61) - 1])
    for q in MODULI:
        assert residues(values, q).tolist() == [int(v) % q for v in values.tolist()]
        small = values[:3]
        assert centred(residues(small, q), q).tolist() == small.tolist()
