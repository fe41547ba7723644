"""Parameters for trainings of several parties: room for the noise of their shares.

Whoever decrypts with others adds noise to its share, far above the ciphertext's own. That hardly
depends on the scale, so a large scale leaves room: primes are as large as they can be. A decrypted
weight is the mean over all blocks, which shrinks independent errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

from tacit.errors import ParameterError, SecurityError
from tacit.logistic import ROW_SCALE
from tacit.model_compiler.training_noise import weight_error
from tacit.model_compiler.training_schedule import Circuits
from tacit.params import CryptoParams
from tacit.training import Algorithm

LEAST_SMUDGING_BITS = 20
LEAST_PRECISION_BITS = 10.0
_LARGEST_SCALE, _SMALLEST_SCALE, _FIRST = 58, 44, 60
_MOST_DIGITS = 8
# Clients add two bits to the noise they read off the plan, and take whole bits.
_ROUNDING_BITS = 3.0
# Six deviations, uniform noise, and what decoding adds: see `tacit.client.party_smudging`.
_SPREAD_BITS = math.log2(6.0 / math.sqrt(3.0))


def joint_params(log_n: int, depth: int) -> Iterator[CryptoParams]:
    """Yield, for each number of digits, the secure parameters of the largest scale."""
    for dnum in range(1, _MOST_DIGITS + 1):
        for log_scale in range(_LARGEST_SCALE, _SMALLEST_SCALE - 1, -2):
            try:
                yield CryptoParams.choose(log_n, depth, log_scale, _FIRST, dnum)
                break
            except SecurityError:
                continue
            except ParameterError:
                break


def joint_room(params: CryptoParams, circuits: Circuits) -> float:
    """Return the bits by which smudging could be more than it must be; infinite for one party."""
    task = circuits.geometry.task
    if task.parties == 1 or task.algorithm is Algorithm.MOMENTS:
        return math.inf
    scale = math.log2(params.scale(0))
    noise = scale + math.log2(slot_error(params, circuits)) - 0.5 * params.log_n
    repeats = params.slots // task.width
    spread = 0.5 * math.log2(task.parties * params.n / repeats) + _SPREAD_BITS
    needed = LEAST_SMUDGING_BITS + LEAST_PRECISION_BITS + _ROUNDING_BITS
    return scale - noise - spread - needed


@lru_cache(maxsize=64)
def _weight_error(params: CryptoParams, circuits: Circuits) -> float:
    return weight_error(params, circuits)


def slot_error(params: CryptoParams, circuits: Circuits) -> float:
    """Return the greatest error of a stored weight in one slot of one block."""
    task = circuits.geometry.task
    curvature = 1.0 if task.algorithm is Algorithm.LINEAR else 0.25
    factor = task.margin_scale / (ROW_SCALE * math.sqrt(curvature))
    blocks = params.slots // task.width
    return _weight_error(params, circuits) / factor * math.sqrt(blocks * task.parties)
