"""Named real functions an Activation node can hold, and the exact image of an interval under each.

Every function is piecewise monotone with known turning points, so `interval_image` is exact up to
rounding: it looks at both ends and at the turning points clipped into the interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.polynomial import polynomial as power_basis
from numpy.typing import NDArray
from scipy import special

from tacit.errors import CircuitError, ModelError

Floats = NDArray[np.float64]

# Functions that end or have a pole at 0, where no polynomial can follow them.
BOUND_BY_ZERO: Final = frozenset({"log", "sqrt", "reciprocal", "reciprocal_above", "rsqrt"})

# Functions with f(s x) = f(x), s > 0.
SCALE_FREE: Final = frozenset({"sign", "step"})

# Where x*sigmoid(x), x*Phi(x), its tanh form and x*tanh(softplus(x)) have their single minimum.
_SILU_MINIMUM: Final = -1.2784645427610741
_GELU_MINIMUM: Final = -0.7517915246935645
_GELU_TANH_MINIMUM: Final = -0.7524614220710163
_MISH_MINIMUM: Final = -1.1924312145154952


@dataclass(frozen=True, slots=True)
class _Rule:
    """How to compute a function and where it turns.

    Attributes:
        arity: number of parameters; None when any positive number will do.
        compute: (x, *parameters) -> y, element by element.
        turning_points: parameters -> points between which the function is monotone.
    """

    arity: int | None
    compute: Callable[..., Floats]
    turning_points: Callable[..., tuple[float, ...]]


def real_function(name: str, parameters: tuple[float, ...]) -> Callable[[Floats], Floats]:
    """Return the numpy function of that name with its parameters bound.

    Args:
        name: one of `function_names()`.
        parameters: as many numbers as the function takes, in the order of the ONNX attributes
            (`clip`: low, high; `polynomial`: c0, c1, ... in the power basis).

    Returns:
        A function from float64 arrays to float64 arrays of the same shape. `exp` may return inf.

    Raises:
        CircuitError: unknown name or wrong number of parameters.
    """
    rule = _rule(name, parameters)
    return partial(_apply, rule.compute, parameters)


def interval_image(
    name: str, parameters: tuple[float, ...], low: Floats, high: Floats
) -> tuple[Floats, Floats]:
    """Bound a function on intervals, exactly up to rounding.

    Args:
        name: one of `function_names()`.
        parameters: the function's parameters.
        low: lower ends, any shape.
        high: upper ends, same shape, nowhere below `low`.

    Returns:
        Least and greatest value on each interval, same shape as `low`.

    Raises:
        CircuitError: unknown name, wrong number of parameters, or an empty interval.
        ModelError: the function has a pole in between.
    """
    rule = _rule(name, parameters)
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    if low.size and not is_defined(name, float(low.min()), float(high.max())):
        raise ModelError(
            f"{name} of values between {float(low.min()):.6g} and {float(high.max()):.6g} is not "
            "bounded: calibrate with sample data, or declare narrower input ranges"
        )
    if np.any(low > high):
        raise CircuitError(f"interval_image of {name!r} needs low <= high everywhere")
    points = [low, high]
    points += [np.clip(point, low, high) for point in rule.turning_points(*parameters)]
    values = np.stack([_apply(rule.compute, parameters, point) for point in points])
    return values.min(axis=0), values.max(axis=0)


def function_names() -> tuple[str, ...]:
    """List every name `real_function` knows, sorted."""
    return tuple(sorted(_RULES))


def _rule(name: str, parameters: tuple[float, ...]) -> _Rule:
    rule = _RULES.get(name)
    if rule is None:
        raise CircuitError(f"unknown function {name!r}; known: {', '.join(function_names())}")
    wrong = not parameters if rule.arity is None else len(parameters) != rule.arity
    if wrong:
        expected = "at least 1" if rule.arity is None else rule.arity
        raise CircuitError(f"{name!r} takes {expected} parameter(s), got {len(parameters)}")
    return rule


def is_defined(name: str, low: float, high: float) -> bool:
    """Tell whether a whole interval lies on one side of where a function has a pole or ends."""
    match name:
        case "sqrt":
            return low >= 0.0
        case "log" | "rsqrt":
            return low > 0.0
        case "reciprocal":
            return low > 0.0 or high < 0.0
    return True


def _apply(compute: Callable[..., Floats], parameters: tuple[float, ...], x: Floats) -> Floats:
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        return np.asarray(compute(np.asarray(x, dtype=np.float64), *parameters), dtype=np.float64)


def _relu(x: Floats) -> Floats:
    return np.maximum(x, 0.0)


def _leaky_relu(x: Floats, alpha: float) -> Floats:
    return np.where(x < 0.0, alpha * x, x)


def _elu(x: Floats, alpha: float) -> Floats:
    return np.where(x < 0.0, alpha * np.expm1(np.minimum(x, 0.0)), x)


def _selu(x: Floats, alpha: float, gamma: float) -> Floats:
    return gamma * _elu(x, alpha)


def _celu(x: Floats, alpha: float) -> Floats:
    negative = np.minimum(0.0, alpha * np.expm1(x / alpha))
    return np.asarray(np.maximum(x, 0.0) + negative)


def _softplus(x: Floats) -> Floats:
    return np.logaddexp(0.0, x)


def _softsign(x: Floats) -> Floats:
    return np.asarray(x / (1.0 + np.abs(x)))


def _gelu(x: Floats) -> Floats:
    return np.asarray(x * special.ndtr(x))


def _gelu_tanh(x: Floats) -> Floats:
    inner = np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)
    return np.asarray(x * special.expit(2.0 * inner))


def _silu(x: Floats) -> Floats:
    return np.asarray(x * special.expit(x))


def _mish(x: Floats) -> Floats:
    return np.asarray(x * np.tanh(_softplus(x)))


def _hard_sigmoid(x: Floats, alpha: float, beta: float) -> Floats:
    return np.clip(alpha * x + beta, 0.0, 1.0)


def _hard_swish(x: Floats) -> Floats:
    return x * _hard_sigmoid(x, 1.0 / 6.0, 0.5)


def _clip(x: Floats, low: float, high: float) -> Floats:
    return np.asarray(np.minimum(np.maximum(x, low), high))


def _thresholded_relu(x: Floats, alpha: float) -> Floats:
    return np.where(x > alpha, x, 0.0)


def _shrink(x: Floats, limit: float, bias: float) -> Floats:
    return np.where(x < -limit, x + bias, np.where(x > limit, x - bias, 0.0))


def _shrink_turning_points(limit: float, bias: float) -> tuple[float, ...]:
    beyond = float(np.nextafter(limit, np.inf))
    return (-beyond, -limit, limit, beyond)


def _step(x: Floats) -> Floats:
    return np.where(x > 0.0, 1.0, 0.0)


def _reciprocal(x: Floats) -> Floats:
    return np.asarray(1.0 / x)


def _reciprocal_above(x: Floats, least: float) -> Floats:
    """1 / x of values known to be at least `least`, above 0."""
    return np.asarray(1.0 / np.maximum(x, least))


def _rsqrt(x: Floats) -> Floats:
    return np.asarray(1.0 / np.sqrt(x))


def _polynomial(x: Floats, *coefficients: float) -> Floats:
    return np.asarray(power_basis.polyval(x, np.asarray(coefficients, dtype=np.float64)))


def _polynomial_turning_points(*coefficients: float) -> tuple[float, ...]:
    derivative = power_basis.polyder(np.asarray(coefficients, dtype=np.float64))
    trimmed = np.trim_zeros(derivative, "b")
    if trimmed.size < 2:
        return ()
    # The real part of a complex root is a harmless extra point, and the right one for a double
    # root that rounding has split.
    return tuple(float(root) for root in np.real(power_basis.polyroots(trimmed)))


def _at(*points: float) -> Callable[..., tuple[float, ...]]:
    """Return a rule for points that do not depend on the parameters."""
    return lambda *_: points


_RULES: Final[Mapping[str, _Rule]] = MappingProxyType(
    {
        "abs": _Rule(0, np.abs, _at(0.0)),
        "asinh": _Rule(0, np.arcsinh, _at()),
        "atan": _Rule(0, np.arctan, _at()),
        "celu": _Rule(1, _celu, _at(0.0)),
        "clip": _Rule(2, _clip, _at()),
        "cosh": _Rule(0, np.cosh, _at(0.0)),
        "elu": _Rule(1, _elu, _at(0.0)),
        "erf": _Rule(0, special.erf, _at()),
        "exp": _Rule(0, np.exp, _at()),
        "gelu": _Rule(0, _gelu, _at(_GELU_MINIMUM)),
        "gelu_tanh": _Rule(0, _gelu_tanh, _at(_GELU_TANH_MINIMUM)),
        "hard_sigmoid": _Rule(2, _hard_sigmoid, _at()),
        "hard_swish": _Rule(0, _hard_swish, _at(-3.0, -1.5, 3.0)),
        "identity": _Rule(0, np.asarray, _at()),
        "leaky_relu": _Rule(1, _leaky_relu, _at(0.0)),
        "log": _Rule(0, np.log, _at()),
        "mish": _Rule(0, _mish, _at(_MISH_MINIMUM)),
        "polynomial": _Rule(None, _polynomial, _polynomial_turning_points),
        "reciprocal": _Rule(0, _reciprocal, _at()),
        "reciprocal_above": _Rule(1, _reciprocal_above, lambda least: (least,)),
        "relu": _Rule(0, _relu, _at(0.0)),
        "rsqrt": _Rule(0, _rsqrt, _at()),
        "selu": _Rule(2, _selu, _at(0.0)),
        "sigmoid": _Rule(0, special.expit, _at()),
        "shrink": _Rule(2, _shrink, _shrink_turning_points),
        "sign": _Rule(0, np.sign, _at(0.0)),
        "silu": _Rule(0, _silu, _at(_SILU_MINIMUM)),
        "sinh": _Rule(0, np.sinh, _at()),
        "softplus": _Rule(0, _softplus, _at()),
        "softsign": _Rule(0, _softsign, _at()),
        "sqrt": _Rule(0, np.sqrt, _at()),
        "step": _Rule(0, _step, _at(0.0)),
        "tanh": _Rule(0, np.tanh, _at()),
        "thresholded_relu": _Rule(
            1, _thresholded_relu, lambda alpha: (alpha, float(np.nextafter(alpha, np.inf)))
        ),
    }
)
