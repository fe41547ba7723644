"""What levels cost, before a circuit exists: the price by which degrees are chosen.

Levels are paid twice. Every operation works on one more limb, and so does each digit of its key
switches, so time grows with the square of the limbs. And the modulus grows until it needs a ring of
twice the size, which doubles time, ciphertexts and keys at once: those steps matter most.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tacit.model_compiler.choose_params import LARGEST_RING, SMALLEST_RING, secure_params
from tacit.params import MAX_LOG_QP_128

# Bits of scale lost to encryption and key switching before the first bit of precision, and by each
# level; a fit to what the noise model says of perceptrons of 5 to 33 levels.
_NOISE_BITS = 20.0
_NOISE_BITS_PER_LEVEL = 0.6


def level_price(depth: int, precision_bits: float) -> float:
    """Price a circuit of some depth, in arbitrary units proportional to seconds.

    Args:
        depth: levels, at least 1.
        precision_bits: bits that the outputs must be right to.

    Returns:
        Ring size times the square of the number of limbs; inf when no ring is large enough.
    """
    log_n = _smallest_ring(depth, precision_bits)
    return np.inf if log_n is None else float((1 << log_n) * (depth + 1) ** 2)


@lru_cache(maxsize=1024)
def _smallest_ring(depth: int, precision_bits: float) -> int | None:
    needed = precision_bits + _NOISE_BITS + _NOISE_BITS_PER_LEVEL * depth
    for log_n in range(SMALLEST_RING, LARGEST_RING + 1):
        if MAX_LOG_QP_128[log_n] < depth * needed:
            continue
        if any(params.log_scale >= needed for params in secure_params(log_n, depth)):
            return log_n
    return None
