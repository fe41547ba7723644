"""What key switches must give, by the CPU engine's own steps, one batch entry at a time."""

from __future__ import annotations

import numpy as np

from tacit.kernels import elementwise
from tacit.kernels.automorphism import apply, automorphism
from tacit.kernels.basis import mod_down, mod_up
from tacit.kernels.keyswitch import key_product
from tests.kernels.cuda.engines import Engines
from tests.kernels.residues import Limbs


def empty(*shape: int) -> Limbs:
    """Return an array of undefined content."""
    return np.empty(shape, dtype=np.uint64)


def product(engines: Engines, a: Limbs, key: Limbs) -> Limbs:
    """Return digits of `a`, shape (limbs, N), times a key: (2, rows, N)."""
    basis, n = engines.basis(len(a) - 1), engines.params.n
    digits = np.zeros((basis.digits, basis.rows, n), dtype=np.uint64)
    out = empty(2, basis.rows, n)
    mod_up(basis, a, digits, empty(basis.limbs, n))
    key_product(basis, a, digits, key, out)
    return out


def moved(engines: Engines, a: Limbs, element: int, mods: Limbs | None = None) -> Limbs:
    """Return a(X^element), rows in `mods` or over Q."""
    if element == 1:
        return a
    return apply(engines.ring, automorphism(engines.ring, element), a, mods)  # type: ignore[arg-type]


def extended_mods(engines: Engines, rows: int) -> Limbs:
    """Return moduli of two components over QP."""
    basis = engines.basis(rows - len(engines.params.special_moduli) - 1)
    return np.tile(basis.mods, 2)


def divided(engines: Engines, x: Limbs, element: int) -> Limbs:
    """Return x(X^element) / P, shape (2, limbs, N), x over QP."""
    limbs = x.shape[1] - len(engines.params.special_moduli)
    basis = engines.basis(limbs - 1)
    source = moved(engines, x.copy(), element, extended_mods(engines, x.shape[1]))
    out = empty(2, limbs, engines.params.n)
    mod_down(basis, source, (None, None), out)
    return out


def with_sums(engines: Engines, x: Limbs, plus: Limbs | None, shared: Limbs | None) -> Limbs:
    """Add something to the first component, and something to both."""
    ring = engines.ring
    first = x[0] if plus is None else elementwise.add(ring, x[0], plus)
    both = [first, np.ascontiguousarray(x[1])]
    if shared is not None:
        both = [elementwise.add(ring, part, shared) for part in both]
    return np.stack(both)
