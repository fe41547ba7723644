"""From the smallest modulus to a larger one: first steps of bootstrapping.

Coefficients modulo q_0 are taken as integers in (-q_0/2, q_0/2) and reduced modulo other primes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tacit.errors import InternalError
from tacit.kernels import elementwise, ntt
from tacit.kernels.ring import Limbs, Mods, Ring
from tacit.moduli import encapsulation_moduli
from tacit.params import CryptoParams, SecretDistribution


class ModulusRaising:
    """Raising the modulus for one parameter set, on the processor.

    Args:
        params: the parameters.
        ring: over their moduli first, whose tables are used; None makes a ring of its own.

    Raises:
        UnusableEnvironmentError: there are no compiled kernels.
    """

    def __init__(self, params: CryptoParams, ring: Ring | None = None) -> None:
        self._ring = Ring(params.log_n, params.moduli) if ring is None else ring
        self._small: Ring | None = None
        if params.secret is SecretDistribution.SPARSE_ENCAPSULATED:
            others = encapsulation_moduli(params.log_n, params.moduli)
            self._small = Ring(params.log_n, params.moduli[:1] + others)

    @property
    def encapsulated(self) -> bool:
        """Whether ciphertexts go to a sparse secret before."""
        return self._small is not None

    def to_sparse(self, a: Limbs, keys: Sequence[Limbs]) -> Limbs:
        """Switch a batch to sparse secrets.

        Args:
            a: shape (2, 1, batch, N), NTT form, modulo q_0.
            keys: of each entry, shape (2, 1, 3, N).

        Returns:
            Shape (2, 1, batch, N).

        Raises:
            InternalError: the secret is not encapsulated, or a shape does not fit.
        """
        if self._small is None or a.shape[:2] != (2, 1) or a.shape[2] != len(keys):
            raise InternalError(f"{len(keys)} keys of sparse secrets for limbs {a.shape}")
        out = np.empty_like(a)
        for entry, key in enumerate(keys):
            out[:, 0, entry] = switch_small(self._small, np.ascontiguousarray(a[:, 0, entry]), key)
        return out

    def raised(self, a: Limbs, limbs: int) -> Limbs:
        """Take coefficients modulo q_0 as integers.

        Args:
            a: shape (2, 1, batch, N), NTT form.
            limbs: of the result.

        Returns:
            Shape (2, limbs, batch, N).
        """
        return extend(self._ring, np.ascontiguousarray(a), 0, np.arange(limbs, dtype=np.uint32))


def extend(ring: Ring, a: Limbs, source: int, mods: Mods) -> Limbs:
    """Reduce polynomials modulo one prime, taken as small integers, modulo other primes.

    Args:
        ring: the primes.
        a: shape (blocks, 1, batch, N), NTT form, modulo prime `source`.
        source: index of its modulus.
        mods: indices of the target moduli.

    Returns:
        Shape (blocks, len(mods), batch, N), NTT form.
    """
    blocks, _, batch, n = a.shape
    out = np.empty((blocks, len(mods), batch, n), dtype=np.uint64)
    scratch = np.empty_like(a)
    ring.library.tacit_extend(
        ring.handle,
        blocks,
        batch,
        ring.address(a, blocks * batch),
        source,
        len(mods),
        ring.row_moduli(mods, len(mods)),
        ring.address(scratch, blocks * batch),
        ring.address(out, blocks * len(mods) * batch),
    )
    return out


def switch_small(ring: Ring, a: Limbs, key: Limbs) -> Limbs:
    """Switch a ciphertext modulo q to another secret, by a key of one digit modulo q p p'.

    Args:
        ring: over the primes q, p and p'.
        a: shape (2, N), NTT form, modulo q.
        key: shape (2, 1, 3, N), NTT form.

    Returns:
        Shape (2, N), modulo q; the division by p p' rounds to the nearest.

    Raises:
        InternalError: a shape does not fit.
    """
    if a.shape != (2, ring.n) or key.shape != (2, 1, 3, ring.n):
        raise InternalError(f"a ciphertext of one limb and a small key, not {a.shape}, {key.shape}")
    every = np.arange(3, dtype=np.uint32)
    second = extend(ring, a[1:, None, None], 0, every)[0, :, 0]
    parts = [elementwise.multiply(ring, second, np.ascontiguousarray(part)) for part in key[:, 0]]
    out = np.stack([_divide(ring, part) for part in parts])
    elementwise.add(ring, out[:1], a[:1], every[:1], out=out[:1])
    return out


def _divide(ring: Ring, x: Limbs) -> Limbs:
    """Return x / (p p') to the nearest, modulo q, shape (N,); x has shape (3, N), NTT form."""
    q, p, other = ring.moduli
    zeroth, mods = np.zeros(1, dtype=np.uint32), np.arange(1, 3, dtype=np.uint32)
    low = x[1:].copy()
    ntt.inverse(ring, low, mods)
    # The remainder is y p' + y' p - wraps p p', of magnitude below p p' / 2.
    inverses = np.array([pow(other, -1, p), pow(p, -1, other)], dtype=np.uint64)
    elementwise.scale(ring, low, inverses, mods, out=low)
    wraps = np.rint(low[0] / p + low[1] / other).astype(np.uint64)
    terms = [(low[0], other), (low[1], p), (wraps, -p * other)]
    remainder = np.zeros((1, ring.n), dtype=np.uint64)
    for numbers, factor in terms:
        reduced = (numbers % np.uint64(q))[None]
        factors = np.array([factor % q], dtype=np.uint64)
        elementwise.scale(ring, reduced, factors, zeroth, plus=remainder, out=remainder)
    ntt.forward(ring, remainder, zeroth)
    difference = elementwise.subtract(ring, x[:1], remainder, zeroth)
    inverse = np.array([pow(p * other, -1, q)], dtype=np.uint64)
    return elementwise.scale(ring, difference, inverse, zeroth).reshape(ring.n)
