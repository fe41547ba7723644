"""Division by the last modulus, to the nearest."""

from __future__ import annotations

from tacit.kernels.basis import Basis
from tacit.kernels.ring import Limbs


def rescale(basis: Basis, x: Limbs, out: Limbs, scratch: Limbs, *, batch: int = 1) -> None:
    """Divide polynomials by the last of the basis' moduli.

    Args:
        basis: the level, at least two limbs.
        x: shape (blocks, limbs, batch, N), NTT form.
        out: shape (blocks, limbs - 1, batch, N).
        scratch: shape (blocks, batch, N).
        batch: polynomials in a row.
    """
    ring = basis.ring
    blocks = ring.rows_of(x, batch) // basis.limbs
    ring.library.tacit_rescale(
        ring.handle,
        basis.address,
        blocks,
        batch,
        ring.address(x, blocks * basis.limbs * batch),
        ring.address(out, blocks * (basis.limbs - 1) * batch),
        ring.address(scratch, blocks * batch),
    )
