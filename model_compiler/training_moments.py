"""Parameters for moments: sums over all rows must fit below the first modulus.

Clients store columns in [-1, 1], so a sum of products is at most the number of rows. The first
modulus is as large as it can be, and the scale leaves room below it for as many rows as there are
places. One row's rounding errors grow with that, but the sums' hardly do: they are sums of errors
of either sign.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from itertools import product

from tacit.errors import SecurityError
from tacit.model_compiler.training_geometry import Geometry
from tacit.params import CryptoParams
from tacit.training_plan import SUMS_SHARE

# Up to 56 bits a digit of one modulus needs one special prime; 60 leave the largest room.
_FIRSTS, _DIGITS = (56, 60), (2, 1)
_SMALLEST_SCALE = 36


def moments_params(log_n: int, depth: int, geometry: Geometry) -> Iterator[CryptoParams]:
    """Yield secure parameters whose scale is as large as the room for all rows lets it be."""
    rows = geometry.ciphertexts * geometry.slots // geometry.task.width
    room = 1 + math.ceil(math.log2(rows / SUMS_SHARE) + 1e-6)
    for log_first, dnum in product(_FIRSTS, _DIGITS):
        if log_first - room >= _SMALLEST_SCALE:
            with contextlib.suppress(SecurityError):
                yield CryptoParams.choose(log_n, depth, log_first - room, log_first, dnum)
