"""Hybrid key switching: sum over digits of digit times key, over QP, divided by P."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tacit.errors import InternalError
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


def key_product(
    basis: Basis, a: Limbs, digits: Limbs, key: Limbs | KeyPointers, out: Limbs
) -> None:
    """Multiply the digits of polynomials by keys.

    Args:
        basis: the level.
        a: shape (limbs, batch, N), NTT form: the polynomials themselves.
        digits: shape (digits, rows, batch, N), from `mod_up`.
        key: one per entry of the batch, or one key for a batch of one.
        out: shape (2, rows, batch, N), NTT form.

    Raises:
        InternalError: a shape does not fit.
    """
    ring, keys = basis.ring, _pointers(basis, key)
    ring.library.tacit_key_product(
        ring.handle,
        basis.address,
        keys.batch,
        ring.address(a, basis.limbs * keys.batch),
        ring.address(digits, basis.digits * basis.rows * keys.batch),
        keys.address,
        keys.digits,
        keys.limbs,
        ring.address(out, 2 * basis.rows * keys.batch),
    )


def switch(
    basis: Basis,
    a: Limbs,
    key: Limbs | KeyPointers,
    out: Limbs,
    digits: Limbs,
    scratch: Limbs,
) -> None:
    """Extend the digits of polynomials and multiply them by keys, while they are in cache.

    Args:
        basis: the level.
        a: shape (limbs, batch, N), NTT form.
        key: as for `key_product`.
        out: shape (2, rows, batch, N), NTT form.
        digits: shape (digits, rows, batch, N): written as by `mod_up`.
        scratch: shape (limbs, batch, N).

    Raises:
        InternalError: a shape does not fit.
    """
    ring, keys = basis.ring, _pointers(basis, key)
    ring.library.tacit_mod_up(
        ring.handle,
        basis.address,
        keys.batch,
        ring.address(a, basis.limbs * keys.batch),
        ring.address(digits, basis.digits * basis.rows * keys.batch),
        ring.address(scratch, basis.limbs * keys.batch),
        keys.address,
        keys.digits,
        keys.limbs,
        ring.address(out, 2 * basis.rows * keys.batch),
    )


def _pointers(basis: Basis, key: Limbs | KeyPointers) -> KeyPointers:
    keys = key if isinstance(key, KeyPointers) else KeyPointers(basis.ring, [key], basis.specials)
    if keys.digits < basis.digits or keys.limbs < basis.limbs:
        raise InternalError(
            f"a key of {basis.digits} digits and {basis.limbs} limbs of Q, or more, expected, got "
            f"{keys.digits} and {keys.limbs}"
        )
    return keys
