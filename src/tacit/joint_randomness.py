"""Public random polynomials that several parties derive alike from one seed.

Each limb is SHAKE-256 of the seed, a label and the limb's number, cut into little-endian 64-bit
words; of each word the low bits are kept, as many as the modulus has, and words that are not below
the modulus are passed over. Residues are therefore uniform, and nobody can choose them: the seed is
fixed by all parties together (`tacit.party_entry`), so no party can give the polynomials a
trapdoor, as it could if it drew them itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_DOMAIN = b"tacit joint polynomial 1\0"
_WORD_BYTES = 8


def joint_polynomial(
    seed: bytes, label: str, moduli: tuple[int, ...], n: int
) -> NDArray[np.uint64]:
    """Return a uniform polynomial: shape (len(moduli), n), uint64, in NTT form as much as in any.

    Args:
        seed: 32 bytes.
        label: what the polynomial is for; different labels give independent ones.
        moduli: one per limb, each below 2^62.
        n: residues of a limb.
    """
    limbs = np.empty((len(moduli), n), dtype=np.uint64)
    for index, modulus in enumerate(moduli):
        prefix = b"".join([_DOMAIN, seed, index.to_bytes(4, "little"), label.encode()])
        limbs[index] = _residues(hashlib.shake_256(prefix).digest, modulus, n)
    return limbs


def _residues(digest: Callable[[int], bytes], modulus: int, n: int) -> NDArray[np.uint64]:
    """Take the first n words below the modulus; a longer digest begins with the shorter one."""
    mask = np.uint64((1 << modulus.bit_length()) - 1)
    words = n + n // 8
    while True:
        drawn = np.frombuffer(digest(_WORD_BYTES * words), dtype="<u8") & mask
        accepted = drawn[drawn < np.uint64(modulus)]
        if len(accepted) >= n:
            return accepted[:n]
        words *= 2
