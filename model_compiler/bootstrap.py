"""Choices for bootstrapped circuits: a function's series, and parameters with enough levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.bootstrap_levels import bootstrap_depth, bootstrap_deviation, raised_level
from tacit.chebyshev import chebyshev_depth
from tacit.circuit import Circuit
from tacit.errors import ParameterError, SecurityError
from tacit.fourier import fit_series
from tacit.model_compiler.builder import CircuitBuilder
from tacit.model_compiler.cost import predict
from tacit.model_compiler.op_times import MachineTimes
from tacit.moduli import SPECIAL_PRIME_BITS
from tacit.params import (
    MAX_LOG_QP_128,
    SECURITY_MARGIN_BITS,
    CryptoParams,
    SecretDistribution,
    Security,
)

Floats = NDArray[np.float64]

# Numbers of harmonics that use their levels fully.
DEGREES = (3, 7, 15, 31, 63, 127)
_CUTOFFS = tuple(10.0**-digits for digits in range(2, 12))
_SAMPLES = 4097
_SMALLEST_SCALE, _LARGEST_SCALE = 28, 58
# dnum above which keys are too large to be worth a larger scale.
_MOST_DIGITS = 12
STAGES = (2, 3, 4)
"""Numbers of stages worth trying, for either direction."""

_LARGEST_SHARE = 4.5  # deviations that the largest of 2^15 errors reaches


@dataclass(frozen=True, slots=True, eq=False)
class Extension:
    """A function's series, and how well it does.

    Attributes:
        series: shape (2, degree + 1), for stored values in [-1/2, 1/2).
        error: largest deviation from the function on the range, without noise.
        mean_error: its mean.
        noise: what the parameters' noise adds, its largest over all slots.
    """

    series: Floats
    error: float
    mean_error: float
    noise: float

    @property
    def degree(self) -> int:
        """Number of harmonics."""
        return self.series.shape[1] - 1

    @property
    def depth(self) -> int:
        """Levels that the series takes."""
        return chebyshev_depth(self.degree)


def extend_function(
    function: Callable[[Floats], Floats],
    degree: int,
    params: CryptoParams,
    plan: Bootstrap,
) -> Extension:
    """Fit a series with this many harmonics, with the cutoff that suits the parameters' noise.

    A small cutoff follows kinks more closely, by large coefficients, which magnify the noise.

    Args:
        function: of stored values in [-1/2, 1/2).
        degree: number of harmonics.
        params: with which it will run.
        plan: the bootstrap; its series is not looked at.

    Raises:
        ParameterError: the function is not finite.
        LevelError: the parameters have too few levels.
    """
    raised_level(params, plan, degree)
    found = [fit_series(function, degree, period=plan.period, cutoff=c) for c in _CUTOFFS]
    errors = np.abs(_values(found, plan.period) - function(_points()))
    noises = [_LARGEST_SHARE * bootstrap_deviation(params, plan, series) for series in found]
    best = int(np.argmin(errors.max(axis=1) + noises))
    greatest, mean = float(errors[best].max()), float(errors[best].mean())
    return Extension(found[best], greatest, mean, noises[best])


def _points() -> Floats:
    return np.linspace(-0.5, 0.5, _SAMPLES, dtype=np.float64)


def _values(found: Sequence[Floats], period: float) -> Floats:
    """Evaluate series of one degree on the points, shape (series, points)."""
    cosines, sines = _harmonics(len(found[0][0]), period)
    parts = np.asarray(found)
    return np.asarray(parts[:, 0] @ cosines + parts[:, 1] @ sines)


@lru_cache(maxsize=16)
def _harmonics(count: int, period: float) -> tuple[Floats, Floats]:
    angles = 2.0 * np.pi / period * np.outer(np.arange(count), _points())
    return np.cos(angles), np.sin(angles)


@dataclass(frozen=True, slots=True)
class BootstrapChoice:
    """Parameters and stages, with what they cost.

    Attributes:
        params: the parameters.
        plan: the bootstrap.
        seconds: predicted for one bootstrap on the reference machine.
        key_bytes: of all evaluation keys that bootstrapping takes.
    """

    params: CryptoParams
    plan: Bootstrap
    seconds: float
    key_bytes: int


def choose_bootstrap(
    usable_levels: int,
    degree: int,
    log_scale: int,
    times: MachineTimes,
    *,
    log_ns: Sequence[int] = (15, 16, 17),
    max_key_bytes: float = 4e9,
    secret: SecretDistribution = SecretDistribution.SPARSE_ENCAPSULATED,
    security: Security = Security.CLASSICAL_128,
) -> BootstrapChoice:
    """Choose ring, digits and stages by predicted time for each slot refreshed.

    Args:
        usable_levels: between two bootstraps.
        degree: harmonics of the series.
        log_scale: bits of the scale, which decide the precision.
        times: of the machine.
        log_ns: rings to consider.
        max_key_bytes: of all evaluation keys of the bootstrap.
        secret: distribution of the secret key.
        security: what the parameters must promise.

    Raises:
        SecurityError: nothing fits: use a smaller scale, larger keys, or fewer levels.
    """
    found = []
    for log_n, first, last in product(log_ns, STAGES, STAGES):
        plan = Bootstrap("series", usable_levels + first, log_n - 1, first, last)
        try:
            params = parameters_for(
                log_n, plan, degree, log_scale, secret=secret, security=security
            )
        except SecurityError:
            continue
        choice = priced_bootstrap(params, plan, degree, times)
        if choice.key_bytes <= max_key_bytes:
            found.append(choice)
    if not found:
        raise SecurityError(
            f"no parameters with a scale of {log_scale} bits leave {usable_levels} levels between "
            f"bootstraps, securely and with keys below {max_key_bytes / 1e9:.1f} GB: use a smaller "
            "scale, more memory for keys, or fewer levels"
        )
    return min(found, key=lambda choice: choice.seconds / choice.params.slots)


def bootstrapped_params(
    log_n: int,
    plan: Bootstrap,
    degree: int,
    *,
    secret: SecretDistribution = SecretDistribution.SPARSE_ENCAPSULATED,
    security: Security = Security.CLASSICAL_128,
) -> CryptoParams:
    """Choose the largest scale that is secure at a ring dimension, then the fewest digits.

    Raises:
        SecurityError: no scale is secure: use a larger ring, or fewer levels.
    """
    for log_scale in range(_LARGEST_SCALE, _SMALLEST_SCALE - 1, -1):
        try:
            return parameters_for(log_n, plan, degree, log_scale, secret=secret, security=security)
        except SecurityError:
            continue
    raise SecurityError(
        f"no parameters for N = 2^{log_n} bootstrap to level {plan.level} with {degree} harmonics "
        "at 128 bits: use a larger ring, or fewer levels"
    )


def default_plan(params: CryptoParams, level: int) -> Bootstrap:
    """Return a bootstrap to a level, in two stages each way.

    Raises:
        ParameterError: fewer than four slots.
    """
    if params.slots < 4:
        raise ParameterError(f"bootstrapping needs at least 4 slots, got {params.slots}")
    return Bootstrap("series", level, params.log_n - 1, 2, 2)


def parameters_for(
    log_n: int,
    plan: Bootstrap,
    degree: int,
    log_scale: int,
    least_depth: int = 0,
    *,
    secret: SecretDistribution = SecretDistribution.SPARSE_ENCAPSULATED,
    security: Security = Security.CLASSICAL_128,
) -> CryptoParams:
    """Return parameters with a scale of so many bits and the fewest digits.

    The first modulus has one bit more than the scale: OpenFHE's functional bootstrap wants it so,
    and a larger one would lose precision.

    Args:
        log_n: log2 of the ring dimension.
        plan: the bootstrap with the highest level.
        degree: most harmonics of a series.
        log_scale: bits of the scale.
        least_depth: levels needed apart from bootstraps.
        secret: distribution of the secret key.
        security: what the parameters must promise.

    Raises:
        SecurityError: none are secure.
    """
    depth = max(_depth(log_n, plan, degree, log_scale, secret), least_depth)
    return _secure(log_n, depth, log_scale, secret, security)


def priced_bootstrap(
    params: CryptoParams, plan: Bootstrap, degree: int, times: MachineTimes
) -> BootstrapChoice:
    """Predict what one bootstrap takes.

    Raises:
        LevelError: the parameters have too few levels.
    """
    prediction = predict(_alone(params, plan, degree), params, times)
    return BootstrapChoice(params, plan, prediction.seconds, prediction.key_bytes)


@lru_cache(maxsize=256)
def _secure(
    log_n: int, depth: int, log_scale: int, secret: SecretDistribution, security: Security
) -> CryptoParams:
    limit = math.inf
    if security is Security.CLASSICAL_128:
        limit = MAX_LOG_QP_128.get(log_n, 0) - SECURITY_MARGIN_BITS
    log_q = (depth + 1) * log_scale
    for dnum in range(1, _MOST_DIGITS + 1):
        if log_q + max(SPECIAL_PRIME_BITS, log_q / dnum) > limit:
            continue
        try:
            return CryptoParams.choose(
                log_n, depth, log_scale, log_scale + 1, dnum, security, secret
            )
        except (ParameterError, SecurityError):
            continue
    raise SecurityError(f"no number of digits makes {log_scale} bits secure at N = 2^{log_n}")


def _alone(params: CryptoParams, plan: Bootstrap, degree: int) -> Circuit:
    """Return a circuit that only bootstraps."""
    builder = CircuitBuilder(params.slots)
    value = builder.input(plan.to_coefficients)
    series = np.ones((2, degree + 1))
    return builder.build([builder.bootstrap(value, plan, series, "bootstrap")])


def _depth(
    log_n: int, plan: Bootstrap, degree: int, log_scale: int, secret: SecretDistribution
) -> int:
    """Return the depth a bootstrap needs; it does not depend on the depth."""
    shallow = CryptoParams.choose(
        log_n, 1, log_scale, log_scale + 1, 1, Security.UNCHECKED_INSECURE, secret
    )
    return plan.level + bootstrap_depth(shallow, plan, degree)
