"""Recognises x * gate(x) as exporters write it: SiLU, GELU (exact or tanh), Mish, hard-swish."""

from __future__ import annotations

import math

import numpy as np

from tacit.model_compiler.graph import Activation
from tacit.model_compiler.onnx_ops.builder import Form, Value
from tacit.model_compiler.onnx_ops.call import Call

TOLERANCE = 1e-5  # exporters write constants such as sqrt(2) as float32 or with few digits
GELU_CUBIC = 0.044715
GELU_SLOPE = math.sqrt(2.0 / math.pi)


def gated_activation(call: Call, left: Value, right: Value, output: str) -> Value | None:
    """Return the activation that left * right is, or None.

    Args:
        left: one factor; either may be the gate.
        right: the other factor, of the same shape.
    """
    for plain, gate in ((left, right), (right, left)):
        found = _match(call, plain, gate)
        if found is None:
            continue
        function, argument, scale = found
        root = call.builder.activation(argument, function, (), call.inner(function), call.origin)
        form = Form(root.tensor, (0.0, scale))
        return call.builder.polynomial(form, left.shape, output, call.origin)
    return None


def _match(call: Call, plain: Value, gate: Value) -> tuple[str, Value, float] | None:
    """Match plain = a x and gate = b act(t) + c, where t is a polynomial of x.

    Returns:
        (function, argument, scale): plain * gate = scale * function(argument).
    """
    builder = call.builder
    plain_form, gate_form = builder.form(plain), builder.form(gate)
    node = builder.producer(gate_form.root)
    if not isinstance(node, Activation) or len(gate_form.coefficients) != 2:
        return None
    if len(plain_form.coefficients) != 2 or plain_form.coefficients[0] != 0.0:
        return None
    offset, slope = gate_form.coefficients
    factor = plain_form.coefficients[1] * slope
    x = Value(plain_form.root, plain.shape)
    argument = Value(node.input, plain.shape)
    inner = builder.form(argument)
    on_x = inner.root == x.tensor
    match node.function:
        case "sigmoid" if on_x and offset == 0.0 and _is_multiple(inner):
            return "silu", argument, factor / inner.coefficients[1]
        case "erf" if on_x and _close(offset, slope) and _is_multiple(inner):
            stretch = inner.coefficients[1] * math.sqrt(2.0)  # 1 but for constants of half width
            if _close(stretch, 1.0):
                return "gelu", x, 2.0 * factor
            form, name = Form(x.tensor, (0.0, stretch)), call.inner("stretched")
            stretched = builder.polynomial(form, x.shape, name, call.origin)
            return "gelu", stretched, 2.0 * factor / stretch
        case "tanh" if on_x and _close(offset, slope) and _matches(inner, _gelu_tanh_argument()):
            return "gelu_tanh", x, 2.0 * factor
        case "tanh" if offset == 0.0 and inner.is_root:
            soft = builder.producer(node.input)
            if isinstance(soft, Activation) and soft.function == "softplus":
                return ("mish", x, factor) if soft.input == x.tensor else None
        case "hard_sigmoid" if on_x and offset == 0.0 and inner.is_root:
            if np.allclose(node.parameters, (1 / 6, 0.5), rtol=TOLERANCE):
                return "hard_swish", x, factor
        case "clip" if on_x and offset == 0.0 and node.parameters == (0.0, 6.0):
            if inner.coefficients == (3.0, 1.0):
                return "hard_swish", x, 6.0 * factor
    return None


def _gelu_tanh_argument() -> tuple[float, ...]:
    return (0.0, GELU_SLOPE, 0.0, GELU_SLOPE * GELU_CUBIC)


def _is_multiple(form: Form) -> bool:
    return len(form.coefficients) == 2 and form.coefficients[0] == 0.0


def _matches(form: Form, expected: tuple[float, ...]) -> bool:
    return len(form.coefficients) == len(expected) and bool(
        np.allclose(form.coefficients, expected, rtol=TOLERANCE, atol=1e-9)
    )


def _close(left: float, right: float) -> bool:
    return math.isclose(left, right, rel_tol=TOLERANCE)
