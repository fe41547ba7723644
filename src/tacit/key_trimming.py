"""From full evaluation keys to trimmed ones, and back to the full shape.

The restriction of a key to q_0 .. q_l and P is a key for levels up to l: b_d + a_d t = e + P g_d s'
holds modulo each prime apart, and a ciphertext of such a level has no other limbs, nor digits of
other limbs. It is made from the full key by leaving residues out; nothing is computed, and it tells
nothing that the full key does not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ParameterMismatchError
from tacit.moduli import digit_limbs
from tacit.params import CryptoParams
from tacit.wire_key import EvaluationKey, KeyKind

Words = NDArray[np.uint64]


def trimmed(key: EvaluationKey, limbs: int, params: CryptoParams) -> EvaluationKey:
    """Return a key for fewer limbs of Q; the array is copied, so that the full one can go.

    Args:
        key: full or trimmed; the one to a sparse secret is returned as it is.
        limbs: of Q that are kept: one more than the highest level of use.
        params: of the key.

    Raises:
        ParameterMismatchError: the key covers fewer limbs, or is of other parameters.
    """
    held = covered_limbs(key, params)
    if key.kind is KeyKind.TO_SPARSE or limbs == held:
        return key
    if not 1 <= limbs <= held:
        raise ParameterMismatchError(f"a key of {held} limbs cannot be trimmed to {limbs}")
    digits = _digits(limbs, params)
    special = key.limbs[:, :digits, held:]
    return replace(key, limbs=np.concatenate([key.limbs[:, :digits, :limbs], special], axis=2))


def padded(key: EvaluationKey, params: CryptoParams) -> Words:
    """Return limbs of the full shape, with zeros where a trimmed key has none.

    Such a key gives wrong results above its own level: whoever pads it must refuse them.

    Raises:
        ParameterMismatchError: the key is of other parameters.
    """
    held, full = covered_limbs(key, params), len(params.moduli)
    if key.kind is KeyKind.TO_SPARSE or held == full:
        return key.limbs
    special = len(params.special_moduli)
    limbs = np.zeros((2, params.dnum, full + special, params.n), dtype=np.uint64)
    digits = key.limbs.shape[1]
    limbs[:, :digits, :held] = key.limbs[:, :, :held]
    limbs[:, :digits, full:] = key.limbs[:, :, held:]
    return limbs


def covered_limbs(key: EvaluationKey, params: CryptoParams) -> int:
    """Return how many limbs of Q a key covers; 1 to a sparse secret.

    Raises:
        ParameterMismatchError: its shape fits no trimmed or full key of these parameters.
    """
    small, shape = key.kind is KeyKind.TO_SPARSE, key.limbs.shape
    special = 2 if small else len(params.special_moduli)
    limbs = shape[2] - special if len(shape) == 4 else 0
    if 1 <= limbs <= (1 if small else len(params.moduli)):
        expected = (2, 1 if small else _digits(limbs, params), limbs + special, params.n)
        if shape == expected:
            return limbs
    raise ParameterMismatchError(
        f"a key of shape (2, digits, limbs + {special}, {params.n}) with 1 to "
        f"{1 if small else len(params.moduli)} limbs and the digits these fill expected, "
        f"got {shape}"
    )


def _digits(limbs: int, params: CryptoParams) -> int:
    return -(-limbs // digit_limbs(len(params.moduli), params.dnum))
