"""What a bootstrap takes with given parameters: how the exponential is made, levels, noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tacit import precision
from tacit.bootstrap import PERIOD, Bootstrap, stage_groups, stage_steps
from tacit.chebyshev import chebyshev_depth
from tacit.errors import LevelError
from tacit.fourier import Exponential, choose_exponential, greatest_slope
from tacit.params import CryptoParams, SecretDistribution

Floats = NDArray[np.float64]

# Coefficients of sparse secrets that are not zero, as OpenFHE makes them.
SPARSE_WEIGHT = 192
ENCAPSULATED_WEIGHT = 32
# Chance that a multiple of q_0 outgrows the bound in one bootstrap: 2^-40, as a union over N.
_FAILURE_BITS = 40
# Of the rounding of matrices, in units of the greatest coefficient; fitted.
_MATRIX_SHARE = 0.036
# Of the exponential, relative to the scale: noise is larger than this anyway.
_ACCURACY_MARGIN_BITS = 10
_FINEST_ACCURACY_BITS = 44


def integer_bound(params: CryptoParams) -> float:
    """Return how many times q_0 raising the modulus may add to a coefficient, almost surely.

    The multiple is the rounded sum of one uniform number in [-1/2, 1/2) for each coefficient of the
    secret that is not zero, and one more: nearly normal, and never more than half their count.
    """
    match params.secret:
        case SecretDistribution.SPARSE_TERNARY:
            weight = SPARSE_WEIGHT
        case SecretDistribution.SPARSE_ENCAPSULATED:
            weight = ENCAPSULATED_WEIGHT
        case SecretDistribution.UNIFORM_TERNARY:
            weight = math.ceil(2 * params.n / 3 + 6 * math.sqrt(params.n))
    deviations = math.sqrt(2.0 * math.log(2.0) * (_FAILURE_BITS + params.log_n))
    return min(deviations * math.sqrt((weight + 1) / 12), (weight + 1) / 2)


def exponential(params: CryptoParams, period: float = PERIOD) -> Exponential:
    """Choose how to compute the exponential: its bound includes values up to twice their range."""
    bits = min(params.log_scale - _ACCURACY_MARGIN_BITS, _FINEST_ACCURACY_BITS)
    return choose_exponential(integer_bound(params) + 1.0 / period, 2.0**-bits)


def bootstrap_depth(params: CryptoParams, plan: Bootstrap, degree: int) -> int:
    """Levels from the raised modulus to the result, for a series of `degree` harmonics."""
    own = exponential(params, plan.period).depth
    return plan.to_slots + own + chebyshev_depth(degree)


def raised_level(params: CryptoParams, plan: Bootstrap, degree: int) -> int:
    """Return the level the modulus must be raised to.

    Raises:
        LevelError: the parameters have fewer levels.
    """
    top = plan.level + bootstrap_depth(params, plan, degree)
    if top > params.depth:
        raise LevelError(
            f"bootstrapping to level {plan.level} raises the modulus to level {top}, the "
            f"parameters have {params.depth}: use a greater depth or a lower level"
        )
    return top


def bootstrap_deviation(params: CryptoParams, plan: Bootstrap, series: Floats) -> float:
    """Predict the standard deviation of a slot's error after a bootstrap, in stored units."""
    return math.hypot(*bootstrap_deviations(params, plan, series))


def bootstrap_deviations(
    params: CryptoParams, plan: Bootstrap, series: Floats
) -> tuple[float, float]:
    """Predict the errors after a bootstrap: of each slot alone, and alike in all repetitions.

    Counted are the noise of the slots t / bound from which the exponential is computed, a
    rescaling's, doubled with the real part, times the bound, the period and the function's slope;
    the noise of its polynomial, in proportion to the degree, doubled with each squaring; and errors
    of the harmonics, for series with large coefficients. In units of a rescaling's, at N = 2^10:

        secret, scale bits     formula     measured (identity, 2^11 slots)
        encapsulated, 34       91          52
        encapsulated, 40       93          59
        sparse, 40             187         166
        uniform, 40            394         566

    Where few slots are used, the coefficients are added up before they go to slots, and the
    matrices divide by how many: their entries are small then, and their rounding counts. It is
    alike in all repetitions of the values. Fitted at N = 2^16, a scale of 46 bits, 2^5 slots, a
    period of 16 and one stage, where it is nearly all: 2.1e-6 measured; with two stages and a
    scale of 40 bits it overstates the error, by about three.
    """
    top = raised_level(params, plan, len(series[0]) - 1)
    rounding = precision.rescale_deviation(params, top - plan.to_slots)
    how = exponential(params, plan.period)
    slope = plan.period * greatest_slope(series, plan.period)
    polynomial = math.ldexp(how.degree, how.doublings) / (2.0 * math.pi)
    harmonics = 2.0 * float(np.sum(np.abs(series)))
    noise = rounding * math.hypot(slope * 2.0 * how.bound, slope * polynomial, harmonics)
    return noise, slope * _matrix_deviation(params, plan, top, how.bound)


def _matrix_deviation(params: CryptoParams, plan: Bootstrap, top: int, bound: float) -> float:
    """Return how far coefficients, in units of q_0, are off due to the rounding of matrices."""
    repeats = params.slots >> plan.log_slots
    factor = params.scale(top) / (2.0 * params.moduli[0] * bound * repeats)
    entries = max(
        len(stage_steps(plan.log_slots, group))
        for group in stage_groups(plan.log_slots, plan.to_slots)
    )
    rounding = precision.encoding_deviation(params, top) * math.sqrt(entries)
    relative = plan.to_slots * rounding / factor ** (1.0 / plan.to_slots)
    return float(relative * bound * _MATRIX_SHARE)
