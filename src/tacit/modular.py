"""Modular products and the number-theoretic transform in numpy, for moduli below 2^61.

Slow next to the compiled kernels, and independent of them: clients use it for a few polynomials,
where noise is added to a share or a share is looked at. The form is OpenFHE's (see
`tacit.openfhe_bytes`): position k holds the polynomial at psi^(2 bitrev(k) + 1).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tacit.moduli import smallest_root

Words = NDArray[np.uint64]

_HALF = np.uint64(30)
_LOW = np.uint64((1 << 30) - 1)


def times(a: Words, b: Words, modulus: int) -> Words:
    """Multiply residues below the modulus; shapes broadcast."""
    high = _times_short(a, b >> _HALF, modulus)
    shifted = _times_short(high, np.uint64(1) << _HALF, modulus)
    total = shifted + _times_short(a, b & _LOW, modulus)
    return np.where(total >= np.uint64(modulus), total - np.uint64(modulus), total)


def forward(a: Words, modulus: int) -> Words:
    """Transform coefficients, shape (..., N), to NTT form."""
    shape, n = a.shape, a.shape[-1]
    roots = _roots(modulus, n.bit_length() - 1)
    q = np.uint64(modulus)
    groups = 1
    a = a.reshape(-1, n)
    while groups < n:
        pairs = a.reshape(len(a), groups, 2, -1)
        twiddles = roots[groups : 2 * groups, None]
        odd = times(pairs[:, :, 1], twiddles, modulus)
        even = pairs[:, :, 0]
        added, less = even + odd, even + (q - odd)
        a = np.stack([_once(added, q), _once(less, q)], axis=2).reshape(len(a), n)
        groups *= 2
    return a.reshape(shape)


def inverse(a: Words, modulus: int) -> Words:
    """Transform NTT form, shape (..., N), to coefficients."""
    shape, n = a.shape, a.shape[-1]
    roots = _inverse_roots(modulus, n.bit_length() - 1)
    q = np.uint64(modulus)
    groups = n // 2
    a = a.reshape(-1, n)
    while groups:
        pairs = a.reshape(len(a), groups, 2, -1)
        even, odd = pairs[:, :, 0], pairs[:, :, 1]
        added, less = _once(even + odd, q), _once(even + (q - odd), q)
        less = times(less, roots[groups : 2 * groups, None], modulus)
        a = np.stack([added, less], axis=2).reshape(len(a), n)
        groups //= 2
    factor = np.uint64(pow(n, -1, modulus))
    return times(a, np.broadcast_to(factor, a.shape), modulus).reshape(shape)


def centred(a: Words, modulus: int) -> NDArray[np.int64]:
    """Return residues as integers from -modulus/2 to modulus/2."""
    signed = a.astype(np.int64)
    return np.where(signed > modulus // 2, signed - modulus, signed)


def residues(values: NDArray[np.int64], modulus: int) -> Words:
    """Return integers modulo the modulus."""
    return np.mod(values, modulus).astype(np.uint64)


def _times_short(a: Words, b: Words | np.uint64, modulus: int) -> Words:
    """Multiply by b <= 2^30: the quotient is below 2^31 and a double tells it to within 1."""
    quotient = (a.astype(np.float64) * np.asarray(b, dtype=np.float64) / modulus).astype(np.uint64)
    # Products wrap around 2^64; the difference does not, being between -modulus and 2 modulus.
    rest = (a * b - quotient * np.uint64(modulus)).astype(np.int64)
    rest = np.where(rest < 0, rest + modulus, rest)
    return np.where(rest >= modulus, rest - modulus, rest).astype(np.uint64)


def _once(a: Words, q: np.uint64) -> Words:
    return np.where(a >= q, a - q, a)


@lru_cache(maxsize=128)
def _roots(modulus: int, log_n: int) -> Words:
    """psi^bitrev(i) for i from 0 to N - 1."""
    return _powers(smallest_root(modulus, log_n), modulus, log_n)


@lru_cache(maxsize=128)
def _inverse_roots(modulus: int, log_n: int) -> Words:
    return _powers(pow(smallest_root(modulus, log_n), -1, modulus), modulus, log_n)


def _powers(root: int, modulus: int, log_n: int) -> Words:
    power, powers = 1, []
    for _ in range(1 << log_n):
        powers.append(power)
        power = power * root % modulus
    order: NDArray[np.intp] = np.zeros(1, dtype=np.intp)
    for _ in range(log_n):
        order = np.concatenate([2 * order, 2 * order + 1])
    table: Words = np.array(powers, dtype=np.uint64)[order]
    table.flags.writeable = False
    return table
