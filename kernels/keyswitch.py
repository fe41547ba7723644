"""Hybrid key switching: sum over digits of digit times key, over QP, divided by P."""

from __future__ import annotations

from tacit.errors import InternalError
from tacit.kernels.basis import Basis
from tacit.kernels.ring import Limbs


def key_product(basis: Basis, a: Limbs, digits: Limbs, key: Limbs, out: Limbs) -> None:
    """Multiply the digits of a polynomial by a key.

    Args:
        basis: the level.
        a: shape (limbs, N), NTT form: the polynomial itself.
        digits: shape (digits, rows, N), from `mod_up`.
        key: shape (2, dnum, limbs of Q + limbs of P, N), NTT form, at the top level.
        out: shape (2, rows, N), NTT form.

    Raises:
        InternalError: a shape does not fit.
    """
    ring = basis.ring
    ring.library.tacit_key_product(
        ring.handle,
        basis.address,
        ring.address(a, basis.limbs),
        ring.address(digits, basis.digits * basis.rows),
        _key_address(basis, key),
        key.shape[1],
        ring.address(out, 2 * basis.rows),
    )


def switch(basis: Basis, a: Limbs, key: Limbs, out: Limbs, digits: Limbs, scratch: Limbs) -> None:
    """Extend the digits of a polynomial and multiply them by a key, while they are in cache.

    Args:
        basis: the level.
        a: shape (limbs, N), NTT form.
        key: as for `key_product`.
        out: shape (2, rows, N), NTT form.
        digits: shape (digits, rows, N): written as by `mod_up`.
        scratch: shape (limbs, N).

    Raises:
        InternalError: a shape does not fit.
    """
    ring = basis.ring
    ring.library.tacit_mod_up(
        ring.handle,
        basis.address,
        ring.address(a, basis.limbs),
        ring.address(digits, basis.digits * basis.rows),
        ring.address(scratch, basis.limbs),
        _key_address(basis, key),
        key.shape[1],
        ring.address(out, 2 * basis.rows),
    )


def _key_address(basis: Basis, key: Limbs) -> int:
    full = len(basis.ring.moduli)
    if key.ndim != 4 or key.shape[0] != 2 or key.shape[1] < basis.digits or key.shape[2] != full:
        raise InternalError(f"a key of shape (2, dnum, {full}, N) expected, got {key.shape}")
    return basis.ring.address(key, 2 * key.shape[1] * full)
