"""Comparisons and divisions: Greater, Less, Where, Not, And, Or, Xor, Div, Reciprocal, Log.

Exporters write leaky relu, softplus or elu as Where(x > t, f(x), g(x)); then the comparison only
tells the pieces apart. So a comparison becomes a `Mask`, which costs nothing; only where no such
piecewise function is recognised is it computed, by a composite sign. Likewise 1 / (1 + exp(-x)) is
recognised as a sigmoid, and only other divisions become reciprocals.
"""

from __future__ import annotations

import math

import numpy as np

from tacit.model_compiler.functions import real_function
from tacit.model_compiler.graph import Activation
from tacit.model_compiler.onnx_ops.arithmetic import linear_combination, product, scaled
from tacit.model_compiler.onnx_ops.builder import Floats, Form, Mask, Value
from tacit.model_compiler.onnx_ops.call import Call, rank_of

TOLERANCE = 1e-6
# Distances from the threshold at which pieces are compared.
NEAR, FAR = (0.0, 12.0, 97), (12.5, 1e4, 64)
MIRRORED = {
    "Greater": "Less",
    "GreaterOrEqual": "Less",
    "Less": "Greater",
    "LessOrEqual": "Greater",
}


def compare(call: Call) -> list[Value]:
    """Make a mask from a comparison of a tensor with a number, an array or another tensor."""
    first = 0 if call.is_value(0) else 1
    greater = (call.node.op if first == 0 else MIRRORED[call.node.op]).startswith("Greater")
    value = call.value(first)
    if call.is_value(1 - first):
        terms = [(value, 1.0), (call.value(1 - first), -1.0)]
        gap = linear_combination(call, terms, 0.0, call.inner("gap"))
        return [call.builder.add_mask(Mask(gap.tensor, 0.0, greater), gap.shape, call.output)]
    limits = call.weights(1 - first, rank_of(value), "the limit")
    form = call.builder.form(value)
    if np.unique(limits).size != 1:
        gap = linear_combination(call, [(value, 1.0)], -limits, call.inner("gap"))
        return [call.builder.add_mask(Mask(gap.tensor, 0.0, greater), gap.shape, call.output)]
    limit = float(limits.ravel()[0])
    mask = Mask(value.tensor, limit, greater)
    if len(form.coefficients) == 2:
        offset, slope = form.coefficients
        mask = Mask(form.root, (limit - offset) / slope, above=greater == (slope > 0.0))
    return [call.builder.add_mask(mask, value.shape, call.output)]


def invert(call: Call) -> list[Value]:
    """Turn a comparison around."""
    mask = call.mask(0)
    if mask is None:
        return [linear_combination(call, [(call.value(0), -1.0)], 1.0, call.output)]
    other = Mask(mask.root, mask.threshold, not mask.above)
    return [call.builder.add_mask(other, call.value_or_mask(0).shape, call.output)]


def where(call: Call) -> list[Value]:
    """Choose between two tensors: between two functions of one tensor, or by the comparison."""
    mask = call.mask(0)
    if mask is not None:
        shape = call.value_or_mask(0).shape
        pieces = [_piece(call, position, mask.root, shape) for position in (1, 2)]
        found = choose(call, mask, shape, pieces if mask.above else pieces[::-1])
        if found:
            return found
    condition = call.value(0)
    rank = rank_of(condition)
    terms: list[tuple[Value, float]] = []
    constants: list[Floats] = []
    for position, sign in ((1, 1.0), (2, -1.0)):
        if call.is_value(position):
            terms.append((call.value(position), sign))
            constants.append(np.zeros(()))
        else:
            constants.append(sign * call.weights(position, rank, "a choice"))
    if not terms:
        chosen = scaled(call, condition, constants[0] + constants[1])
    else:
        total = constants[0] + constants[1]
        gap = linear_combination(call, terms, total, call.inner("difference"))
        chosen = product(call, condition, gap, call.inner("chosen"))
    if call.is_value(2):
        return [linear_combination(call, [(chosen, 1.0), (call.value(2), 1.0)], 0.0, call.output)]
    return [linear_combination(call, [(chosen, 1.0)], -constants[1], call.output)]


def masked_product(call: Call) -> list[Value]:
    """Multiply a comparison by a tensor; one it was made from gives a piecewise function."""
    position = 0 if call.mask(0) is not None else 1
    mask = call.mask(position)
    if mask is None:
        return []
    shape = call.value_or_mask(position).shape
    if call.mask(1 - position) is None:
        zero = Form(mask.root, (0.0,))
        pieces = [_piece(call, 1 - position, mask.root, shape), zero]
        found = choose(call, mask, shape, pieces if mask.above else pieces[::-1])
        if found:
            return found
    if call.is_value(1 - position):
        return [product(call, call.value(position), call.value(1 - position), call.output)]
    value = call.value(position)
    return [scaled(call, value, call.weights(1 - position, rank_of(value), "the factor"))]


def connect(call: Call) -> list[Value]:
    """Combine two comparisons by And, Or or Xor: ab, a + b - ab, a + b - 2ab."""
    left, right = call.value(0), call.value(1)
    if call.node.op == "And":
        return [product(call, left, right, call.output)]
    both = product(call, left, right, call.inner("both"))
    weight = -1.0 if call.node.op == "Or" else -2.0
    terms = [(left, 1.0), (right, 1.0), (both, weight)]
    return [linear_combination(call, terms, 0.0, call.output)]


def choose(
    call: Call, mask: Mask, shape: tuple[int, ...], pieces: list[Form | None]
) -> list[Value]:
    """Return the activation that is pieces[0] above the mask's threshold and pieces[1] below."""
    upper, lower = pieces
    if upper is None or lower is None:
        return []
    for form, sign, other in ((lower, 1.0, upper), (upper, -1.0, lower)):
        points = mask.threshold + sign * _distances()
        if _same(_values(call, form, mask.root, points), _values(call, other, mask.root, points)):
            return [call.builder.polynomial(form, shape, call.output, call.origin)]
    x, edge = Value(mask.root, shape), mask.threshold
    elu = _elu(call, mask, upper, lower)
    if elu is not None:
        return [_scaled_activation(call, x, *elu)]
    if not _is_line(upper, mask.root) or not _is_line(lower, mask.root):
        return []
    (low, lower_slope), (high, upper_slope) = _line(lower), _line(upper)
    step = (high - low, upper_slope - lower_slope)
    if abs(step[0] + step[1] * edge) <= TOLERANCE * (1.0 + abs(edge)):
        bend = linear_combination(call, [(x, 1.0)], np.asarray(-edge), call.inner("distance"))
        relu = call.builder.activation(bend, "relu", (), call.inner("relu"), call.origin)
        terms = [(relu, step[1])] + ([(x, lower_slope)] if lower_slope else [])
        return [linear_combination(call, terms, np.asarray(low), call.output)]
    if step[0] == 0.0 and not any(lower.coefficients):
        return [_scaled_activation(call, x, "thresholded_relu", (edge,), step[1])]
    return []


def quotient(call: Call) -> list[Value]:
    """Divide by a tensor; c / (1 + exp(-x)), x / (1 + exp(-x)) and x / (1 + |x|) are activations.

    Otherwise the divisor's reciprocal is approximated; its values must stay on one side of 0.
    """
    if call.node.op == "Reciprocal":
        found = _over(call, 1.0, None, call.value(0))
        return found or [_inverse(call, call.value(0), call.output)]
    divisor = call.value(1)
    if call.is_value(0):
        found = _over(call, 1.0, call.value(0), divisor)
        if found:
            return found
        inverse = _inverse(call, divisor, call.inner("reciprocal"))
        return [product(call, call.value(0), inverse, call.output)]
    numerator = call.weights(0, rank_of(divisor), "the numerator")
    found = []
    if np.unique(numerator).size == 1:
        found = _over(call, float(numerator.ravel()[0]), None, divisor)
    return found or [scaled(call, _inverse(call, divisor, call.inner("reciprocal")), numerator)]


def _inverse(call: Call, value: Value, output: str) -> Value:
    """Approximate 1 / x, or 1 / sqrt(y) where x is a square root."""
    form = call.builder.form(value)
    node = call.builder.producer(form.root)
    if isinstance(node, Activation) and node.function == "sqrt" and form.is_root:
        radicand = Value(node.input, value.shape)
        return call.builder.activation(radicand, "rsqrt", (), output, call.origin)
    return call.builder.activation(value, "reciprocal", (), output, call.origin)


def logarithm(call: Call) -> list[Value]:
    """Take the logarithm; of sigmoid(x) or of 1 + exp(x) it is a softplus."""
    return _softplus(call) or [
        call.builder.activation(call.value(0), "log", (), call.output, call.origin)
    ]


def _softplus(call: Call) -> list[Value]:
    form = call.builder.form(call.value(0))
    node = call.builder.producer(form.root)
    if not isinstance(node, Activation):
        return []
    argument = Value(node.input, call.value(0).shape)
    if node.function == "sigmoid" and form.is_root:
        negated = linear_combination(call, [(argument, -1.0)], 0.0, call.inner("negated"))
        return [_scaled_activation(call, negated, "softplus", (), -1.0)]
    if node.function == "exp" and form.coefficients == (1.0, 1.0):
        return [_scaled_activation(call, argument, "softplus", (), 1.0)]
    return []


def _over(call: Call, factor: float, numerator: Value | None, divisor: Value) -> list[Value]:
    builder = call.builder
    form = builder.form(divisor)
    node = builder.producer(form.root)
    if not isinstance(node, Activation) or len(form.coefficients) != 2:
        return []
    offset, slope = form.coefficients
    if slope <= 0.0 or not math.isclose(offset, slope, rel_tol=TOLERANCE):
        return []
    x = Value(node.input, divisor.shape)
    if node.function == "exp":
        opposite = linear_combination(call, [(x, -1.0)], 0.0, call.inner("opposite"))
        if numerator is None:
            return [_scaled_activation(call, opposite, "sigmoid", (), factor / slope)]
        gate = builder.activation(opposite, "sigmoid", (), call.inner("gate"), call.origin)
        gated = product(call, numerator, gate, call.inner("gated"))
        return [scaled(call, gated, 1.0 / slope)]
    if node.function == "abs" and numerator is not None:
        above = builder.form(numerator)
        inner = builder.form(x)
        if above.root == inner.root and above.coefficients == inner.coefficients:
            return [_scaled_activation(call, x, "softsign", (), 1.0 / slope)]
    return []


def _elu(
    call: Call, mask: Mask, upper: Form, lower: Form
) -> tuple[str, tuple[float, ...], float] | None:
    """Match scale * x above 0 and scale * alpha * (exp(x) - 1) below."""
    node = call.builder.producer(lower.root)
    if not isinstance(node, Activation) or node.function != "exp" or node.input != mask.root:
        return None
    if mask.threshold != 0.0 or upper.root != mask.root or len(upper.coefficients) != 2:
        return None
    offset, slope = (*lower.coefficients, 0.0)[:2]
    scale = upper.coefficients[1]
    if upper.coefficients[0] != 0.0 or scale == 0.0 or not math.isclose(-offset, slope):
        return None
    return "elu", (slope / scale,), scale


def _piece(call: Call, position: int, root: str, shape: tuple[int, ...]) -> Form | None:
    """Return an operand of Where as a polynomial form; a number is one of degree 0."""
    if call.is_value(position):
        value = call.value(position)
        return call.builder.form(value) if value.shape == shape else None
    numbers = np.unique(call.weights(position, len(shape) + 1, "a choice"))
    return Form(root, (float(numbers[0]),)) if numbers.size == 1 else None


def _values(call: Call, form: Form, root: str, points: Floats) -> Floats | None:
    """Evaluate a form at points of `root`, if it is a function of it."""
    if form.root != root:
        node = call.builder.producer(form.root)
        if not isinstance(node, Activation):
            return None
        inner = call.builder.form(Value(node.input, ()))
        argument = _values(call, inner, root, points) if inner.root == root else None
        if argument is None:
            return None
        points = real_function(node.function, node.parameters)(argument)
    with np.errstate(over="ignore", invalid="ignore"):  # exp far away
        return np.asarray(np.polynomial.polynomial.polyval(points, form.coefficients))


def _distances() -> Floats:
    return np.concatenate((np.linspace(*NEAR), np.geomspace(*FAR)))


def _line(form: Form) -> tuple[float, float]:
    offset, slope = (*form.coefficients, 0.0)[:2]
    return offset, slope


def _same(left: Floats | None, right: Floats | None) -> bool:
    if left is None or right is None:
        return False
    size = min(1.0, float(np.abs(right[: NEAR[2]]).max()))
    return bool(np.allclose(left, right, rtol=TOLERANCE, atol=TOLERANCE * size))


def _is_line(form: Form, root: str) -> bool:
    return form.root == root and len(form.coefficients) <= 2


def _scaled_activation(
    call: Call, argument: Value, name: str, parameters: tuple[float, ...], factor: float
) -> Value:
    made = call.builder.activation(argument, name, parameters, call.inner(name), call.origin)
    form = Form(made.tensor, (0.0, factor))
    return call.builder.polynomial(form, argument.shape, call.output, call.origin)
