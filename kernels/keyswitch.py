"""Hybrid key switching: sum over digits of digit times key, over QP, divided by P."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tacit.errors import InternalError
from tacit.kernels.automorphism import Automorphism
from tacit.kernels.basis import Basis
from tacit.kernels.ring import Limbs, Ring


class KeyPointers:
    """Where the switching key of each batch entry lies.

    Args:
        ring: the primes of Q and P.
        keys: all of one shape (2, digits, limbs of Q + primes of P, N), NTT form; trimmed ones
            have fewer limbs of Q than the ring, and fewer digits.
        specials: primes of P.

    Raises:
        InternalError: a shape does not fit.

    Attributes:
        batch: how many.
        digits: of a key.
        limbs: of Q, of a key.
        address: of the pointers.
    """

    __slots__ = ("_keys", "_places", "address", "batch", "digits", "limbs")

    def __init__(self, ring: Ring, keys: Sequence[Limbs], specials: int) -> None:
        if not keys:
            raise InternalError("a batch has at least one key")
        full, shape = len(ring.moduli), keys[0].shape
        if len(shape) != 4 or shape[0] != 2 or not specials < shape[2] <= full:
            raise InternalError(
                f"a key of shape (2, digits, {specials + 1} to {full}, N) expected, got {shape}"
            )
        if any(key.shape != shape for key in keys):
            raise InternalError(f"keys of shape {shape} expected, got {[k.shape for k in keys]}")
        self._keys = tuple(keys)  # alive as long as their addresses are in use
        self._places = np.array([ring.address(k, 2 * shape[1] * shape[2]) for k in keys], np.uint64)
        self.address = int(self._places.ctypes.data)
        self.batch = len(keys)
        self.digits = shape[1]
        self.limbs = shape[2] - specials


class _TurnWords(ctypes.Structure):
    """tacit_turn of csrc/tacit_kernels.h."""

    _fields_ = (
        ("table", ctypes.c_void_p),
        ("element", ctypes.c_uint64),
        ("plus_rows", ctypes.c_uint32),
        ("plus", ctypes.c_void_p),
        ("accumulate", ctypes.c_int),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """What becomes of a product with keys: (product + plus)(X^element), or that added to `out`.

    Attributes:
        moved: the automorphism.
        plus: shape (rows, batch, N), or only the first of these rows; added to the first half.
        accumulate: add the result to what is in `out`.
    """

    moved: Automorphism
    plus: Limbs | None = None
    accumulate: bool = False

    def words(self, ring: Ring, rows: int, batch: int) -> _TurnWords:
        """Return it as the kernels take it, for a product of `rows` rows in each half."""
        added = 0 if self.plus is None else min(rows, ring.rows_of(self.plus, batch))
        return _TurnWords(
            self.moved.table.ctypes.data,
            self.moved.element,
            added,
            None if self.plus is None else ring.address(self.plus, added * batch),
            self.accumulate,
        )


def switch_scratch(basis: Basis) -> int:
    """Return how many rows of `batch` polynomials `switch` needs as scratch."""
    return basis.limbs + basis.ring.threads * (basis.digits + 2)


def key_product(
    basis: Basis,
    a: Limbs,
    digits: Limbs,
    key: Limbs | KeyPointers,
    out: Limbs,
    *,
    turn: Turn | None = None,
    scratch: Limbs | None = None,
) -> None:
    """Multiply the digits of polynomials by keys.

    Args:
        basis: the level.
        a: shape (limbs, batch, N), NTT form: the polynomials themselves.
        digits: shape (digits, rows, batch, N), from `mod_up`.
        key: one per entry of the batch, or one key for a batch of one.
        out: shape (2, rows, batch, N), NTT form.
        turn: permutes the product.
        scratch: with a turn, 2 rows for each of the ring's threads.

    Raises:
        InternalError: a shape does not fit.
    """
    ring, keys = basis.ring, _pointers(basis, key)
    batch = keys.batch
    words = None if turn is None else turn.words(ring, basis.rows, batch)
    if turn is not None and scratch is None:
        raise InternalError("a turn needs scratch")
    ring.library.tacit_key_product(
        ring.handle,
        basis.address,
        batch,
        ring.address(a, basis.limbs * batch),
        ring.address(digits, basis.digits * basis.rows * batch),
        keys.address,
        keys.digits,
        keys.limbs,
        None if words is None else ctypes.addressof(words),
        None if scratch is None else ring.address(scratch, 2 * ring.threads * batch),
        ring.address(out, 2 * basis.rows * batch),
    )


def switch(
    basis: Basis,
    a: Limbs,
    key: Limbs | KeyPointers,
    out: Limbs,
    scratch: Limbs,
    *,
    turn: Turn | None = None,
) -> None:
    """Extend the digits of polynomials and multiply them by keys, while they are in cache.

    Args:
        basis: the level.
        a: shape (limbs, batch, N), NTT form.
        key: as for `key_product`.
        out: shape (2, rows, batch, N), NTT form.
        scratch: `switch_scratch` rows.
        turn: permutes the product.

    Raises:
        InternalError: a shape does not fit.
    """
    ring, keys = basis.ring, _pointers(basis, key)
    batch = keys.batch
    words = None if turn is None else turn.words(ring, basis.rows, batch)
    ring.library.tacit_switch(
        ring.handle,
        basis.address,
        batch,
        ring.address(a, basis.limbs * batch),
        ring.address(scratch, switch_scratch(basis) * batch),
        keys.address,
        keys.digits,
        keys.limbs,
        None if words is None else ctypes.addressof(words),
        ring.address(out, 2 * basis.rows * batch),
    )


def _pointers(basis: Basis, key: Limbs | KeyPointers) -> KeyPointers:
    keys = key if isinstance(key, KeyPointers) else KeyPointers(basis.ring, [key], basis.specials)
    if keys.digits < basis.digits or keys.limbs < basis.limbs:
        raise InternalError(
            f"a key of {basis.digits} digits and {basis.limbs} limbs of Q, or more, expected, got "
            f"{keys.digits} and {keys.limbs}"
        )
    return keys
