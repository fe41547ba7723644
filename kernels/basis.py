"""Residue number systems: constants for extending digits of Q to QP and for dividing by P.

Conversion between bases is the fast, approximate one (Bajard, Eynard, Hasan and Zucca 2016): the
result is off by a small multiple of the source's product, as in OpenFHE. Digits follow Han and Ki,
"Better bootstrapping for approximate homomorphic encryption" (2020).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from math import prod

import numpy as np

from tacit.errors import InternalError
from tacit.kernels.ring import Limbs, Mods, Ring
from tacit.moduli import digit_limbs


class _Constants(ctypes.Structure):
    """tacit_basis of csrc/tacit_kernels.h."""

    _fields_ = (
        ("limbs", ctypes.c_uint32),
        ("first_special", ctypes.c_uint32),
        ("specials", ctypes.c_uint32),
        ("alpha", ctypes.c_uint32),
        ("up_inverse", ctypes.c_void_p),
        ("up_factor", ctypes.c_void_p),
        ("down_inverse", ctypes.c_void_p),
        ("down_factor", ctypes.c_void_p),
        ("p_inverse", ctypes.c_void_p),
        ("last_inverse", ctypes.c_void_p),
    )


class Basis:
    """The basis QP with `limbs` limbs of Q.

    Args:
        ring: over the primes of Q, all of them, and then those of P.
        limbs: of Q, in use: level + 1.
        full_limbs: of Q, at the top.
        dnum: digits of the key switch at the top.

    Attributes:
        rows: limbs and special primes.
        digits: of the key switch, at this level.
        p_product: P modulo each limb's prime.
    """

    def __init__(self, ring: Ring, limbs: int, full_limbs: int, dnum: int) -> None:
        moduli = ring.moduli[:limbs]
        special = ring.moduli[full_limbs:]
        alpha = digit_limbs(full_limbs, dnum)
        self.ring = ring
        self.limbs = limbs
        self.specials = len(special)
        self.rows = limbs + self.specials
        self.digits = -(-limbs // alpha)
        self.alpha = alpha
        self.mods = _indices(range(limbs), range(full_limbs, full_limbs + len(special)))
        p = prod(special)
        self.p_product = _words([p % q for q in moduli])
        starts = [i - i % alpha for i in range(limbs)]
        products = [prod(moduli[s : min(s + alpha, limbs)]) for s in starts]
        others = [d // q for d, q in zip(products, moduli, strict=True)]
        every = (*moduli, *special)
        self._arrays = {
            "up_inverse": _words([pow(o, -1, q) for o, q in zip(others, moduli, strict=True)]),
            "up_factor": _words([[o % r for r in every] for o in others]),
            "down_inverse": _words([pow(p // k, -1, k) for k in special]),
            "down_factor": _words([[p // k % q for q in moduli] for k in special]),
            "p_inverse": _words([pow(p, -1, q) for q in moduli]),
            "last_inverse": _words([pow(moduli[-1], -1, q) for q in moduli[:-1]]),
        }
        self._constants = _Constants(
            limbs,
            full_limbs,
            len(special),
            alpha,
            **{name: array.ctypes.data for name, array in self._arrays.items()},
        )
        self.address = ctypes.addressof(self._constants)


def mod_up(basis: Basis, a: Limbs, digits: Limbs, scratch: Limbs, *, batch: int = 1) -> None:
    """Extend each digit of `a` to QP.

    Args:
        basis: the level.
        a: shape (limbs, batch, N), NTT form.
        digits: shape (digits, rows, batch, N); a digit's own rows are not written, they are those
            of `a`.
        scratch: shape (limbs, batch, N).
        batch: polynomials in a row.
    """
    ring = basis.ring
    ring.library.tacit_mod_up(
        ring.handle,
        basis.address,
        batch,
        ring.address(a, basis.limbs * batch),
        ring.address(digits, basis.digits * basis.rows * batch),
        ring.address(scratch, basis.limbs * batch),
    )


def mod_down(
    basis: Basis,
    x: Limbs,
    plus: Sequence[Limbs | None],
    out: Limbs,
    *,
    shared: Limbs | None = None,
    batch: int = 1,
) -> None:
    """Divide polynomials over QP by P, rounding down up to the conversion's error, as OpenFHE does.

    Args:
        basis: the level.
        x: shape (blocks, rows, batch, N), NTT form; the special rows are overwritten.
        plus: for each block what to add, shape (limbs, batch, N), or None.
        out: shape (blocks, limbs, batch, N).
        shared: shape (limbs or more, N), added to every block and entry.
        batch: polynomials in a row.

    Raises:
        InternalError: a shape does not fit.
    """
    ring, blocks = basis.ring, basis.ring.rows_of(x, batch) // basis.rows
    if len(plus) != blocks:
        raise InternalError(f"{blocks} polynomials, but {len(plus)} to add")
    limbs = basis.limbs * batch
    added = [0 if part is None else ring.address(part, limbs) for part in plus]
    places = np.array(added, dtype=np.uint64)
    ring.library.tacit_mod_down(
        ring.handle,
        basis.address,
        blocks,
        batch,
        ring.address(x, blocks * basis.rows * batch),
        places.ctypes.data,
        None if shared is None else ring.address(shared[: basis.limbs], basis.limbs),
        ring.address(out, blocks * limbs),
    )


def _indices(*ranges: range) -> Mods:
    return np.array([i for part in ranges for i in part], dtype=np.uint32)


def _words(values: list[int] | list[list[int]]) -> Limbs:
    return np.array(values, dtype=np.uint64)
