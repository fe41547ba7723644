"""Activations: from the ONNX operator and its attributes to a named real function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tacit.model_compiler.onnx_ops.arithmetic import linear_combination, scaled
from tacit.model_compiler.onnx_ops.builder import Value, diagonal_matrix
from tacit.model_compiler.onnx_ops.call import Call, rank_of

UNBOUNDED = 3.0e38  # exporters write "no bound" as the largest float32
SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


def activation_rules() -> dict[str, Callable[[Call], list[Value]]]:
    """Return operator name -> function for everything applied element by element."""
    return {
        "Relu": relu,
        "LeakyRelu": leaky_relu,
        "PRelu": prelu,
        "Elu": elu,
        "Selu": selu,
        "Celu": celu,
        "Sigmoid": sigmoid,
        "Tanh": tanh,
        "Softplus": softplus,
        "Softsign": softsign,
        "Gelu": gelu,
        "Erf": erf,
        "Mish": mish,
        "Swish": swish,
        "HardSigmoid": hard_sigmoid,
        "HardSwish": hard_swish,
        "ThresholdedRelu": thresholded_relu,
        "Clip": clip,
        "Exp": exp,
        "Abs": absolute,
        "Sign": sign,
        "Sqrt": sqrt,
        "Atan": _plain("atan"),
        "Sinh": _plain("sinh"),
        "Cosh": _plain("cosh"),
        "Asinh": _plain("asinh"),
        "Shrink": shrink,
    }


def relu(call: Call) -> list[Value]:
    """max(x, 0)."""
    return _function(call, "relu")


def leaky_relu(call: Call) -> list[Value]:
    """x or alpha x."""
    return _function(call, "leaky_relu", call.number("alpha", 0.01))


def elu(call: Call) -> list[Value]:
    """x or alpha (exp x - 1)."""
    return _function(call, "elu", call.number("alpha", 1.0))


def selu(call: Call) -> list[Value]:
    """gamma times elu."""
    alpha, gamma = call.number("alpha", SELU_ALPHA), call.number("gamma", SELU_GAMMA)
    return _function(call, "selu", alpha, gamma)


def celu(call: Call) -> list[Value]:
    """max(x, 0) + min(0, alpha (exp(x / alpha) - 1))."""
    return _function(call, "celu", call.number("alpha", 1.0))


def sigmoid(call: Call) -> list[Value]:
    """1 / (1 + exp -x)."""
    return _function(call, "sigmoid")


def tanh(call: Call) -> list[Value]:
    """Hyperbolic tangent."""
    return _function(call, "tanh")


def softplus(call: Call) -> list[Value]:
    """log(1 + exp x)."""
    return _function(call, "softplus")


def softsign(call: Call) -> list[Value]:
    """x / (1 + |x|)."""
    return _function(call, "softsign")


def gelu(call: Call) -> list[Value]:
    """x times the normal distribution function, exact or by tanh."""
    approximate = call.attribute("approximate", "none")
    return _function(call, "gelu_tanh" if approximate == "tanh" else "gelu")


def erf(call: Call) -> list[Value]:
    """Error function."""
    return _function(call, "erf")


def mish(call: Call) -> list[Value]:
    """x tanh(softplus x)."""
    return _function(call, "mish")


def swish(call: Call) -> list[Value]:
    """x sigmoid(alpha x)."""
    alpha = call.number("alpha", 1.0)
    if alpha == 1.0:
        return _function(call, "silu")
    if alpha == 0.0:
        return [scaled(call, call.value(0), 0.5)]
    argument = linear_combination(call, [(call.value(0), alpha)], 0.0, call.inner("scaled"))
    gated = call.builder.activation(argument, "silu", (), call.inner("silu"), call.origin)
    return [scaled(call, gated, 1.0 / alpha)]


def hard_sigmoid(call: Call) -> list[Value]:
    """clip(alpha x + beta, 0, 1)."""
    alpha, beta = call.number("alpha", 0.2), call.number("beta", 0.5)
    return _function(call, "hard_sigmoid", alpha, beta)


def hard_swish(call: Call) -> list[Value]:
    """x clip(x / 6 + 1 / 2, 0, 1)."""
    return _function(call, "hard_swish")


def thresholded_relu(call: Call) -> list[Value]:
    """x above alpha, 0 elsewhere."""
    return _function(call, "thresholded_relu", call.number("alpha", 1.0))


def exp(call: Call) -> list[Value]:
    """Exponential."""
    return _function(call, "exp")


def absolute(call: Call) -> list[Value]:
    """Absolute value."""
    return _function(call, "abs")


def sign(call: Call) -> list[Value]:
    """-1, 0 or 1."""
    return _function(call, "sign")


def sqrt(call: Call) -> list[Value]:
    """Square root of values that stay right of 0."""
    return _function(call, "sqrt")


def shrink(call: Call) -> list[Value]:
    """0 up to lambd from 0; beyond, closer to 0 by bias."""
    return _function(call, "shrink", call.number("lambd", 0.5), call.number("bias", 0.0))


def prelu(call: Call) -> list[Value]:
    """x or slope x; a slope per channel becomes slope x + (1 - slope) relu(x)."""
    value = call.value(0)
    slopes = call.weights(1, rank_of(value), "the slope")
    if np.unique(slopes).size == 1:
        return _function(call, "leaky_relu", float(slopes.ravel()[0]))
    try:
        slopes = np.broadcast_to(slopes, value.shape)
    except ValueError:
        call.reject(f"slopes {list(slopes.shape)} do not fit row shape {list(value.shape)}")
    positive = call.builder.activation(value, "relu", (), call.inner("relu"), call.origin)
    terms = [(value, diagonal_matrix(slopes)), (positive, diagonal_matrix(1.0 - slopes))]
    return [call.builder.affine(terms, 0.0, value.shape, call.output, call.origin)]


def clip(call: Call) -> list[Value]:
    """Limit to an interval; one-sided limits become relu."""
    value = call.value(0)
    low, high = clip_bounds(call)
    if low is None and high is None:
        return [value]
    if low is not None and high is not None:
        return _function(call, "clip", low, high)
    bound, sign = (low, 1.0) if low is not None else (high, -1.0)
    edge = float(bound if bound is not None else 0.0)
    if (edge, sign) == (0.0, 1.0):
        return _function(call, "relu")
    terms = [(value, sign)]
    distance = linear_combination(call, terms, np.asarray(-sign * edge), call.inner("distance"))
    kept = call.builder.activation(distance, "relu", (), call.inner("relu"), call.origin)
    return [linear_combination(call, [(kept, sign)], np.asarray(edge), call.output)]


def clip_bounds(call: Call) -> tuple[float | None, float | None]:
    """Return (min, max) of a Clip node; None where there is no bound."""
    bounds: list[float | None] = []
    for position, name in ((1, "min"), (2, "max")):
        bound = call.attribute(name)
        if call.has(position):
            bound = float(call.constant(position, f"the bound {name}").item())
        usable = isinstance(bound, (int, float)) and abs(bound) < UNBOUNDED
        bounds.append(float(bound) if usable and isinstance(bound, (int, float)) else None)
    low, high = bounds
    if low is not None and high is not None and low > high:
        call.reject(f"min {low} is above max {high}")
    return low, high


def _plain(name: str) -> Callable[[Call], list[Value]]:
    """Return the rule of a function without attributes."""
    return lambda call: _function(call, name)


def _function(call: Call, name: str, *parameters: float) -> list[Value]:
    return [call.builder.activation(call.value(0), name, parameters, call.output, call.origin)]
