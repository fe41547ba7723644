"""Modular arithmetic, position by position: the same in both forms unless it says NTT form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tacit.errors import InternalError
from tacit.kernels.ring import Limbs, Mods, Ring


def add(
    ring: Ring, a: Limbs, b: Limbs, mods: Mods | None = None, out: Limbs | None = None
) -> Limbs:
    """Return a + b; `out` may be a or b."""
    return _binary(ring.library.tacit_add, ring, a, b, mods, out)


def subtract(
    ring: Ring, a: Limbs, b: Limbs, mods: Mods | None = None, out: Limbs | None = None
) -> Limbs:
    """Return a - b; `out` may be a or b."""
    return _binary(ring.library.tacit_subtract, ring, a, b, mods, out)


def negate(ring: Ring, a: Limbs, mods: Mods | None = None) -> Limbs:
    """Return -a."""
    out, rows = np.empty_like(a), ring.rows_of(a)
    where = ring.row_moduli(mods, rows)
    ring.library.tacit_negate(
        ring.handle, rows, where, ring.address(a, rows), ring.address(out, rows)
    )
    return out


def scale(
    ring: Ring,
    a: Limbs,
    constants: Limbs,
    mods: Mods | None = None,
    *,
    plus: Limbs | None = None,
    out: Limbs | None = None,
) -> Limbs:
    """Return a constants[row] + plus.

    Args:
        ring: the primes.
        a: shape (..., N).
        constants: one per row, below its modulus.
        mods: index of each row's modulus.
        plus: like `a`.
        out: may be `a` or `plus`.
    """
    out, rows = np.empty_like(a) if out is None else out, ring.rows_of(a)
    ring.library.tacit_scale(
        ring.handle,
        rows,
        ring.row_moduli(mods, rows),
        ring.address(a, rows),
        None,
        None if plus is None else ring.address(plus, rows),
        _constants(constants, rows),
        ring.address(out, rows),
    )
    return out


def add_constant(
    ring: Ring, a: Limbs, constants: Limbs, mods: Mods | None = None, out: Limbs | None = None
) -> Limbs:
    """Return a + constants[row] in every position: in NTT form, plus a constant polynomial."""
    out, rows = np.empty_like(a) if out is None else out, ring.rows_of(a)
    ring.library.tacit_add_constant(
        ring.handle,
        rows,
        ring.row_moduli(mods, rows),
        ring.address(a, rows),
        _constants(constants, rows),
        ring.address(out, rows),
    )
    return out


def dot(
    ring: Ring,
    a: Sequence[Limbs],
    b: Sequence[Limbs],
    mods: Mods | None = None,
    out: Limbs | None = None,
) -> Limbs:
    """Return sum_t a[t] b[t], with one reduction per 16 products (8 for primes above 2^50).

    Args:
        ring: the primes.
        a: arrays of one shape (..., N).
        b: as many.
        mods: index of each row's modulus.
        out: must not be one of the operands.
    """
    if len(a) != len(b) or not a:
        raise InternalError(f"{len(a)} and {len(b)} operands of a sum of products")
    out, rows = np.empty_like(a[0]) if out is None else out, ring.rows_of(a[0])
    places = np.stack([addresses(ring, a, rows), addresses(ring, b, rows)])
    ring.library.tacit_dot(
        ring.handle,
        rows,
        ring.row_moduli(mods, rows),
        len(a),
        places[0].ctypes.data,
        places[1].ctypes.data,
        ring.address(out, rows),
    )
    return out


def multiply(ring: Ring, a: Limbs, b: Limbs, mods: Mods | None = None) -> Limbs:
    """Return a b: in NTT form, the product of polynomials."""
    return dot(ring, [a], [b], mods)


def dot_pairs(
    ring: Ring,
    terms: Sequence[Sequence[tuple[Limbs, Limbs]]],
    out: Sequence[Limbs],
    mods: Mods | None = None,
) -> None:
    """Write out[o] = sum of a b over the pairs (a, b) in terms[o], piece by piece of all outputs.

    Args:
        ring: the primes.
        terms: for each output, a of shape (2, rows, N) and b of shape (rows, N).
        out: shape (2, rows, N) each; none of the operands.
        mods: index of each of `rows` rows' modulus.
    """
    if len(terms) != len(out) or not all(terms):
        raise InternalError(f"{len(terms)} sums for {len(out)} outputs, each of one term or more")
    rows = ring.rows_of(out[0]) // 2
    a = addresses(ring, [pair[0] for pairs in terms for pair in pairs], 2 * rows)
    b = addresses(ring, [pair[1] for pairs in terms for pair in pairs], rows)
    counts = np.array([len(pairs) for pairs in terms], dtype=np.uint32)
    targets = addresses(ring, out, 2 * rows)
    ring.library.tacit_dot_pairs(
        ring.handle,
        rows,
        ring.row_moduli(mods, rows),
        len(out),
        counts.ctypes.data,
        a.ctypes.data,
        b.ctypes.data,
        targets.ctypes.data,
    )


def combine(
    ring: Ring, a: Sequence[Limbs], weights: Limbs, mods: Mods | None = None
) -> list[Limbs]:
    """Return sum_t a[t] weights[row, o, t] for each output o.

    Args:
        ring: the primes.
        a: arrays of one shape (..., N).
        weights: shape (rows, outputs, terms), below the rows' moduli.
        mods: index of each row's modulus.
    """
    rows = ring.rows_of(a[0])
    if weights.ndim != 3 or weights.shape[0] != rows or weights.shape[2] != len(a):
        raise InternalError(f"weights (rows, outputs, terms) expected, got {weights.shape}")
    out = [np.empty_like(a[0]) for _ in range(weights.shape[1])]
    sources, targets = addresses(ring, a, rows), addresses(ring, out, rows)
    ring.library.tacit_combine(
        ring.handle,
        rows,
        ring.row_moduli(mods, rows),
        len(out),
        len(a),
        sources.ctypes.data,
        _constants(weights, weights.size),
        targets.ctypes.data,
    )
    return out


def tensor(ring: Ring, a: Limbs, b: Limbs, out: Limbs | None = None) -> Limbs:
    """Multiply two ciphertexts (2, limbs, N), NTT form, without relinearising: (3, limbs, N)."""
    limbs = a.shape[1]
    out = np.empty((3, limbs, ring.n), dtype=np.uint64) if out is None else out
    where = ring.address(a, 2 * limbs), ring.address(b, 2 * limbs)
    ring.library.tacit_tensor(ring.handle, limbs, *where, ring.address(out, 3 * limbs))
    return out


def addresses(ring: Ring, arrays: Sequence[Limbs], rows: int) -> NDArray[np.uint64]:
    """Return where arrays of `rows` rows lie."""
    return np.array([ring.address(array, rows) for array in arrays], dtype=np.uint64)


def _binary(
    function: object, ring: Ring, a: Limbs, b: Limbs, mods: Mods | None, out: Limbs | None
) -> Limbs:
    assert callable(function)
    out, rows = np.empty_like(a) if out is None else out, ring.rows_of(a)
    where = ring.row_moduli(mods, rows)
    operands = (ring.address(a, rows), ring.address(b, rows), ring.address(out, rows))
    function(ring.handle, rows, where, *operands)
    return out


def _constants(constants: Limbs, count: int) -> int:
    if constants.dtype != np.uint64 or constants.size != count or not constants.flags.c_contiguous:
        raise InternalError(f"{count} uint64 constants expected, got {constants.shape}")
    return int(constants.ctypes.data)
