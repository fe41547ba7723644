"""Galois automorphisms X -> X^k in NTT form: a permutation that moves blocks of eight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ParameterError
from tacit.kernels.ring import Limbs, Mods, Ring


@dataclass(frozen=True, slots=True, eq=False)
class Automorphism:
    """X -> X^element.

    Attributes:
        element: odd, 1 to 2N - 1.
        table: for each block of eight positions, 8 times the block it comes from, plus which of
            eight orders its positions take.
    """

    element: int
    table: NDArray[np.uint32]


def rotation_element(log_n: int, steps: int) -> int:
    """Return the k for which X -> X^k rotates the slots to the left by `steps`."""
    return pow(5, steps % (1 << (log_n - 1)), 2 << log_n)


def automorphism(ring: Ring, element: int) -> Automorphism:
    """Prepare X -> X^element.

    Raises:
        ParameterError: the element is even or out of range.
    """
    if element % 2 == 0 or not 0 < element < 2 * ring.n:
        raise ParameterError(f"{element} is not an odd number below {2 * ring.n}")
    table = np.empty(ring.n // 8, dtype=np.uint32)
    ring.library.tacit_galois_table(ring.log_n, element, table.ctypes.data)
    return Automorphism(element, table)


def apply(
    ring: Ring,
    moved: Automorphism,
    a: Limbs,
    mods: Mods | None = None,
    *,
    plus: Limbs | None = None,
    accumulate: bool = False,
    out: Limbs | None = None,
    batch: int = 1,
) -> Limbs:
    """Return (a + plus)(X^element), NTT form.

    Args:
        ring: the primes.
        moved: the automorphism.
        a: shape (..., batch, N).
        mods: index of each row's modulus; it matters only if something is added.
        plus: as many rows as `a` or fewer, added to the first ones.
        accumulate: add the result to what is in `out`.
        out: must not be `a` nor `plus`.
        batch: polynomials in a row.
    """
    assert out is not None or not accumulate
    out, rows = np.empty_like(a) if out is None else out, ring.rows_of(a, batch)
    added = 0 if plus is None else min(rows, ring.rows_of(plus, batch))
    ring.library.tacit_automorphism(
        ring.handle,
        rows,
        ring.row_moduli(mods, rows),
        batch,
        moved.table.ctypes.data,
        moved.element,
        ring.address(a, rows * batch),
        added,
        None if plus is None else ring.address(plus, added * batch),
        accumulate,
        ring.address(out, rows * batch),
    )
    return out
