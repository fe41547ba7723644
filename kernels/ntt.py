"""The negacyclic number-theoretic transform, in OpenFHE's order.

Forward takes coefficients a_0 ... a_(N-1) to a(psi^(2 bitrev(k) + 1)) at position k.
"""

from __future__ import annotations

from tacit.kernels.ring import Limbs, Mods, Ring


def forward(ring: Ring, x: Limbs, mods: Mods | None = None, *, batch: int = 1) -> None:
    """Transform coefficients to NTT form, in place.

    Args:
        ring: the primes.
        x: shape (..., batch, N), residues below their moduli.
        mods: index of each row's modulus; by default row i is of modulus i.
        batch: polynomials in a row.
    """
    rows = ring.rows_of(x, batch)
    ring.library.tacit_ntt_forward(
        ring.handle, rows, ring.row_moduli(mods, rows), batch, ring.address(x, rows * batch)
    )


def inverse(ring: Ring, x: Limbs, mods: Mods | None = None, *, batch: int = 1) -> None:
    """Transform NTT form to coefficients, in place; arguments as for `forward`."""
    rows = ring.rows_of(x, batch)
    ring.library.tacit_ntt_inverse(
        ring.handle, rows, ring.row_moduli(mods, rows), batch, ring.address(x, rows * batch)
    )
