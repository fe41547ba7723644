"""Modular arithmetic, position by position: the same in both forms unless it says NTT form."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tacit.errors import InternalError
from tacit.kernels.ring import Limbs, Mods, Ring


def add(
    ring: Ring,
    a: Limbs,
    b: Limbs,
    mods: Mods | None = None,
    out: Limbs | None = None,
    *,
    batch: int = 1,
) -> Limbs:
    """Return a + b; `out` may be a or b.

    Args:
        ring: the primes.
        a: shape (..., batch, N).
        b: like `a`, or shape (..., N), the same for all entries of the batch.
        mods: index of each row's modulus.
        out: like `a`.
        batch: polynomials in a row.
    """
    rows = ring.rows_of(a, batch)
    shared = batch > 1 and b.size * batch == a.size
    more = (ring.address(b, rows if shared else rows * batch), shared)
    return _by_rows(ring, ring.library.tacit_add, a, more, mods, out, batch)


def subtract(
    ring: Ring,
    a: Limbs,
    b: Limbs,
    mods: Mods | None = None,
    out: Limbs | None = None,
    *,
    batch: int = 1,
) -> Limbs:
    """Return a - b; `out` may be a or b."""
    more = (ring.address(b, ring.rows_of(a, batch) * batch),)
    return _by_rows(ring, ring.library.tacit_subtract, a, more, mods, out, batch)


def negate(
    ring: Ring, a: Limbs, mods: Mods | None = None, out: Limbs | None = None, *, batch: int = 1
) -> Limbs:
    """Return -a; `out` may be a."""
    return _by_rows(ring, ring.library.tacit_negate, a, (), mods, out, batch)


def scale(
    ring: Ring,
    a: Limbs,
    constants: Limbs,
    mods: Mods | None = None,
    *,
    plus: Limbs | None = None,
    out: Limbs | None = None,
    batch: int = 1,
) -> Limbs:
    """Return a constants[row] + plus.

    Args:
        ring: the primes.
        a: shape (..., batch, N).
        constants: one per row, below its modulus.
        mods: index of each row's modulus.
        plus: like `a`.
        out: may be `a` or `plus`.
        batch: polynomials in a row.
    """
    rows = ring.rows_of(a, batch)
    added = None if plus is None else ring.address(plus, rows * batch)
    more = (None, added, _constants(constants, rows))
    return _by_rows(ring, ring.library.tacit_scale, a, more, mods, out, batch)


def add_constant(
    ring: Ring,
    a: Limbs,
    constants: Limbs,
    mods: Mods | None = None,
    out: Limbs | None = None,
    *,
    batch: int = 1,
) -> Limbs:
    """Return a + constants[row] in every position: in NTT form, plus a constant polynomial."""
    more = (_constants(constants, ring.rows_of(a, batch)),)
    return _by_rows(ring, ring.library.tacit_add_constant, a, more, mods, out, batch)


def dot(
    ring: Ring,
    a: Sequence[Limbs],
    b: Sequence[Limbs],
    mods: Mods | None = None,
    out: Limbs | None = None,
) -> Limbs:
    """Return sum_t a[t] b[t], with one reduction per 14 products or more.

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
    *,
    batch: int = 1,
) -> None:
    """Write out[o] = sum of a b over the pairs (a, b) in terms[o], piece by piece of all outputs.

    Args:
        ring: the primes.
        terms: for each output, a of shape (2, rows, batch, N) and b of shape (rows, N), or all b
            of shape (rows, N / 2), which their mirror images complete.
        out: shape (2, rows, batch, N) each; none of the operands.
        mods: index of each of `rows` rows' modulus.
        batch: polynomials in a row.
    """
    if len(terms) != len(out) or not all(terms):
        raise InternalError(f"{len(terms)} sums for {len(out)} outputs, each of one term or more")
    rows = ring.rows_of(out[0], 2 * batch)
    a = addresses(ring, [pair[0] for pairs in terms for pair in pairs], 2 * rows * batch)
    length: int = terms[0][0][1].shape[-1]
    if length not in (ring.n, ring.n // 2):
        raise InternalError(f"rows of {ring.n} or {ring.n // 2} residues expected, got {length}")
    b = addresses(ring, [pair[1] for pairs in terms for pair in pairs], rows, length)
    counts = np.array([len(pairs) for pairs in terms], dtype=np.uint32)
    targets = addresses(ring, out, 2 * rows * batch)
    ring.library.tacit_dot_pairs(
        ring.handle,
        rows,
        ring.row_moduli(mods, rows),
        batch,
        len(out),
        counts.ctypes.data,
        a.ctypes.data,
        b.ctypes.data,
        length < ring.n,
        targets.ctypes.data,
    )


def combine(
    ring: Ring,
    a: Sequence[Limbs],
    weights: Limbs,
    mods: Mods | None = None,
    out: Sequence[Limbs] | None = None,
    *,
    batch: int = 1,
) -> Sequence[Limbs]:
    """Return sum_t a[t] weights[row, o, t] for each output o.

    Args:
        ring: the primes.
        a: arrays of one shape (..., batch, N).
        weights: shape (rows, outputs, terms), below the rows' moduli; or (rows, 2, outputs,
            terms), for the two halves of the positions.
        mods: index of each row's modulus.
        out: one array like those of `a` per output.
        batch: polynomials in a row.
    """
    rows, halves = ring.rows_of(a[0], batch), weights.ndim == 4
    shape = (rows, *((2,) if halves else ()), weights.shape[-2], len(a))
    if weights.shape != shape:
        raise InternalError(
            f"weights of {rows} rows and {len(a)} terms expected, got {weights.shape}"
        )
    outputs = weights.shape[-2]
    out = [np.empty_like(a[0]) for _ in range(outputs)] if out is None else out
    if len(out) != outputs:
        raise InternalError(f"{outputs} outputs expected, got {len(out)}")
    sources = addresses(ring, a, rows * batch)
    targets = addresses(ring, out, rows * batch)
    ring.library.tacit_combine(
        ring.handle,
        rows,
        ring.row_moduli(mods, rows),
        batch,
        len(out),
        len(a),
        sources.ctypes.data,
        _constants(weights, weights.size),
        halves,
        targets.ctypes.data,
    )
    return out


def tensor(ring: Ring, a: Limbs, b: Limbs, out: Limbs | None = None, *, batch: int = 1) -> Limbs:
    """Multiply two ciphertexts (2, limbs, batch, N), NTT form: three components."""
    out = np.empty((3, *a.shape[1:]), dtype=np.uint64) if out is None else out
    return tensor_sum(ring, [(a, b)], out, batch=batch)


def tensor_sum(
    ring: Ring, pairs: Sequence[tuple[Limbs, Limbs]], out: Limbs, *, batch: int = 1
) -> Limbs:
    """Write the sum of the products of pairs of ciphertexts: three components.

    Args:
        ring: the primes.
        pairs: shape (2, limbs, batch, N) each, NTT form; limbs beyond those of `out` are left out.
        out: shape (3, limbs, batch, N).
        batch: polynomials in a row.
    """
    limbs = ring.rows_of(out, 3 * batch)
    rows = [[ring.rows_of(x, 2 * batch) for x in side] for side in zip(*pairs, strict=True)]
    if not pairs or min(map(min, rows)) < limbs:
        raise InternalError(f"operands of {limbs} limbs or more expected, got {rows}")
    places = [
        np.array(
            [ring.address(x, 2 * r * batch) for x, r in zip(side, counts, strict=True)], np.uint64
        )
        for side, counts in zip(zip(*pairs, strict=True), rows, strict=True)
    ]
    counts = np.array(rows, dtype=np.uint32)
    ring.library.tacit_tensor(
        ring.handle,
        limbs,
        batch,
        len(pairs),
        places[0].ctypes.data,
        counts[0].ctypes.data,
        places[1].ctypes.data,
        counts[1].ctypes.data,
        ring.address(out, 3 * limbs * batch),
    )
    return out


def addresses(
    ring: Ring, arrays: Sequence[Limbs], rows: int, length: int = 0
) -> NDArray[np.uint64]:
    """Return where arrays of `rows` rows of N residues, or of `length`, lie."""
    return np.array([ring.address(array, rows, length) for array in arrays], dtype=np.uint64)


def _by_rows(
    ring: Ring,
    kernel: Callable[..., object],
    a: Limbs,
    more: tuple[int | None, ...],
    mods: Mods | None,
    out: Limbs | None,
    batch: int,
) -> Limbs:
    """Call a kernel on the rows of `a`; its other arguments stand before the result."""
    out, rows = np.empty_like(a) if out is None else out, ring.rows_of(a, batch)
    kernel(
        ring.handle,
        rows,
        ring.row_moduli(mods, rows),
        batch,
        ring.address(a, rows * batch),
        *more,
        ring.address(out, rows * batch),
    )
    return out


def _constants(constants: Limbs, count: int) -> int:
    if constants.dtype != np.uint64 or constants.size != count or not constants.flags.c_contiguous:
        raise InternalError(f"{count} uint64 constants expected, got {constants.shape}")
    return int(constants.ctypes.data)
