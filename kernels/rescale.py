"""Division by the last modulus, to the nearest."""

from __future__ import annotations

from tacit.kernels.basis import Basis
from tacit.kernels.ring import Limbs


def rescale(basis: Basis, x: Limbs, out: Limbs, scratch: Limbs) -> None:
    """Divide polynomials by the last of the basis' moduli.

    Args:
        basis: the level, at least two limbs.
        x: shape (blocks, limbs, N), NTT form.
        out: shape (blocks, limbs - 1, N).
        scratch: shape (blocks, N).
    """
    ring, blocks = basis.ring, basis.ring.rows_of(x) // basis.limbs
    ring.library.tacit_rescale(
        ring.handle,
        basis.address,
        blocks,
        ring.address(x, blocks * basis.limbs),
        ring.address(out, blocks * (basis.limbs - 1)),
        ring.address(scratch, blocks),
    )
