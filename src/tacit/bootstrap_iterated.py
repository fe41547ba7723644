"""Refreshing more precisely: bootstrap, then bootstrap the magnified error of that, and subtract.

Bae, Cheon, Cho, Kim and Kim, "META-BTS: bootstrapping precision beyond the limit" (CCS 2022).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.circuit import C, Evaluator, Plain
from tacit.errors import LevelError, ParameterError

Floats = NDArray[np.float64]


def refresh_twice(
    evaluator: Evaluator[C],
    a: C,
    plan: Bootstrap,
    constants: Mapping[str, Floats],
    error_bits: int,
) -> C:
    """Refresh a ciphertext in two bootstraps, for up to `error_bits` more bits of precision.

    Args:
        evaluator: the backend.
        a: degree 1, at a level of at least `plan.to_coefficients + 1`.
        plan: its series is that of the function x.
        constants: holds the series.
        error_bits: bits of precision that one bootstrap reaches for certain: its errors, magnified
            by 2^(error_bits - 1), must stay within [-1/2, 1/2).

    Returns:
        Degree 1, at level `plan.level - 1`.

    Raises:
        LevelError: too low a level, before or after.
        ParameterError: `error_bits` is not positive.
    """
    level = evaluator.type_of(a).level
    if level <= plan.to_coefficients or plan.level < 1:
        raise LevelError(
            f"refreshing twice needs level {plan.to_coefficients + 1} or above before, not "
            f"{level}, and level 1 or above after, not {plan.level}"
        )
    if error_bits < 1:
        raise ParameterError(f"one bootstrap must have at least one bit right, not {error_bits}")
    magnified = 2.0 ** (error_bits - 1)
    first = evaluator.bootstrap(a, plan, constants)
    low = min(level, plan.level)
    error = evaluator.subtract(_at(evaluator, a, low), _at(evaluator, first, low))
    error = _times(evaluator, error, magnified)
    second = evaluator.bootstrap(error, plan, constants)
    correction = _times(evaluator, second, 1.0 / magnified)
    return evaluator.add(_at(evaluator, first, plan.level - 1), correction)


def _at(evaluator: Evaluator[C], a: C, level: int) -> C:
    return a if evaluator.type_of(a).level == level else evaluator.drop(a, level)


def _times(evaluator: Evaluator[C], a: C, factor: float) -> C:
    plain = Plain(f"refresh:{factor!r}", np.asarray(factor))
    return evaluator.rescale(evaluator.multiply_plain(a, plain))
