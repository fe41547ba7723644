"""Element-wise arithmetic: Add, Sub, Mul, Div, Neg, Pow, Sum, Mean, Max, Min."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from numpy.polynomial import polynomial
from scipy.sparse import csr_array, eye_array

from tacit.model_compiler.onnx_ops.builder import (
    MAX_DEGREE,
    Floats,
    Form,
    Value,
    diagonal_matrix,
    element_numbers,
    selection_matrix,
)
from tacit.model_compiler.onnx_ops.call import Call, rank_of
from tacit.model_compiler.onnx_ops.gates import gated_activation

Shape = tuple[int, ...]

# Exponents that are activations.
ROOTS = MappingProxyType({-1.0: "reciprocal", 0.5: "sqrt", -0.5: "rsqrt"})


def add(call: Call) -> list[Value]:
    """Add two tensors, or a tensor and a constant."""
    return [_sum_of_two(call, 1.0, 1.0)]


def subtract(call: Call) -> list[Value]:
    """Subtract two tensors, or a tensor and a constant."""
    return [_sum_of_two(call, 1.0, -1.0)]


def negate(call: Call) -> list[Value]:
    """Change the sign."""
    return [scaled(call, call.value(0), -1.0)]


def multiply(call: Call) -> list[Value]:
    """Multiply by a constant, or two tensors element by element."""
    if call.mask(0) is not None or call.mask(1) is not None:
        return []
    if call.is_value(0) and call.is_value(1):
        return [product(call, call.value(0), call.value(1), call.output)]
    position = 0 if call.is_value(0) else 1
    value = call.value(position)
    factors = call.weights(1 - position, rank_of(value), "the constant factor")
    return [scaled(call, value, factors)]


def divide(call: Call) -> list[Value]:
    """Divide by a constant."""
    value = call.value(0)
    divisors = call.weights(1, rank_of(value), "the divisor")
    if not np.all(divisors):
        call.reject("the constant divisor holds a zero")
    return [scaled(call, value, 1.0 / divisors)]


def power(call: Call) -> list[Value]:
    """Raise to a constant power: an integer from 0 to 8, -1, 1/2 or -1/2."""
    value = call.value(0)
    exponents = np.unique(call.constant(1, "the exponent").astype(np.float64))
    name = ROOTS.get(float(exponents[0])) if exponents.size == 1 else None
    if name is not None:
        return [call.builder.activation(value, name, (), call.output, call.origin)]
    if exponents.size != 1 or exponents[0] not in range(MAX_DEGREE + 1):
        call.reject(
            f"the exponent must be one integer from 0 to {MAX_DEGREE}, -1, 0.5 or -0.5: replace "
            "other powers by a polynomial or by a supported activation"
        )
    root = _low_degree_form(call, value, MAX_DEGREE // max(int(exponents[0]), 1))
    coefficients = polynomial.polypow(root.coefficients, int(exponents[0]))
    form = Form(root.root, tuple(coefficients.tolist()))
    return [call.builder.polynomial(form, value.shape, call.output, call.origin)]


def sum_of_many(call: Call) -> list[Value]:
    """Add any number of tensors (ONNX Sum)."""
    return [_variadic_sum(call, 1.0)]


def mean_of_many(call: Call) -> list[Value]:
    """Average any number of tensors (ONNX Mean)."""
    return [_variadic_sum(call, 1.0 / len(call.operands))]


def maximum(call: Call) -> list[Value]:
    """Take the larger of two operands: a + relu(b - a)."""
    return [_extreme(call, 1.0)]


def minimum(call: Call) -> list[Value]:
    """Take the smaller of two operands: a - relu(a - b)."""
    return [_extreme(call, -1.0)]


def scaled(call: Call, value: Value, factors: Floats | float) -> Value:
    """Multiply a value by a constant that broadcasts against its rows."""
    array = np.asarray(factors, dtype=np.float64)
    shape = broadcast(call, value.shape, array.shape)
    if array.size == 1 and shape == value.shape:
        form = call.builder.form(value)
        coefficients = tuple(float(array.item()) * c for c in form.coefficients)
        made = Form(form.root, coefficients)
        return call.builder.polynomial(made, shape, call.output, call.origin)
    numbers = np.broadcast_to(element_numbers(value.shape), shape).ravel()
    diagonal = diagonal_matrix(np.broadcast_to(array, shape))
    matrix = csr_array(diagonal @ selection_matrix(numbers, value.size))
    return call.builder.affine([(value, matrix)], 0.0, shape, call.output, call.origin)


def product(call: Call, left: Value, right: Value, output: str) -> Value:
    """Multiply two values; recognises polynomials of one tensor and gated activations."""
    shape = _broadcast_two(call, left, right)
    builder = call.builder
    if left.shape == right.shape:
        a, b = builder.form(left), builder.form(right)
        degree = len(a.coefficients) + len(b.coefficients) - 2
        if a.root == b.root and degree <= MAX_DEGREE:
            form = Form(a.root, tuple(polynomial.polymul(a.coefficients, b.coefficients)))
            return builder.polynomial(form, shape, output, call.origin)
        gated = gated_activation(call, left, right, output)
        if gated is not None:
            return gated
    sides = [_broadcast_value(call, side, shape) for side in (left, right)]
    if sides[0].tensor == sides[1].tensor:
        square = Form(sides[0].tensor, (0.0, 0.0, 1.0))
        return builder.polynomial(square, shape, output, call.origin)
    return builder.product(sides[0], sides[1], output, call.origin)


def broadcast(call: Call, left: Shape, right: Shape) -> Shape:
    """Return the shape two rows broadcast to.

    Raises:
        UnsupportedModelError: they do not fit.
    """
    try:
        shape = np.broadcast_shapes(left, right)
    except ValueError:
        call.reject(f"row shapes {list(left)} and {list(right)} do not broadcast")
    return call.bounded(shape)


def _sum_of_two(call: Call, left_sign: float, right_sign: float) -> Value:
    signs = (left_sign, right_sign)
    if call.is_value(0) and call.is_value(1):
        pair = [(call.value(0), signs[0]), (call.value(1), signs[1])]
        return linear_combination(call, pair, 0.0, call.output)
    position = 0 if call.is_value(0) else 1
    value = call.value(position)
    constant = call.weights(1 - position, rank_of(value), "the constant term")
    return linear_combination(
        call, [(value, signs[position])], signs[1 - position] * constant, call.output
    )


def linear_combination(
    call: Call, terms: list[tuple[Value, float]], constant: Floats | float, output: str
) -> Value:
    """Return sum factor * value + constant, broadcasting; folds polynomials of one tensor."""
    shape = np.asarray(constant).shape
    for value, _ in terms:
        if rank_of(value) != rank_of(terms[0][0]):
            call.reject("tensors with different numbers of axes would mix rows: add axes first")
        shape = broadcast(call, value.shape, shape)
    form = _combined_form(call, terms, constant, shape)
    if form is not None:
        return call.builder.polynomial(form, shape, output, call.origin)
    pairs = []
    for value, factor in terms:
        numbers = np.broadcast_to(element_numbers(value.shape), shape).ravel()
        pairs.append((value, csr_array(factor * selection_matrix(numbers, value.size))))
    bias = np.broadcast_to(np.asarray(constant, dtype=np.float64), shape).ravel()
    return call.builder.affine(pairs, bias, shape, output, call.origin)


def _combined_form(
    call: Call, terms: list[tuple[Value, float]], constant: Floats | float, shape: Shape
) -> Form | None:
    forms = [call.builder.form(value) for value, _ in terms]
    same = all(form.root == forms[0].root for form in forms)
    if not same or np.size(constant) != 1 or any(value.shape != shape for value, _ in terms):
        return None
    total: Floats = np.asarray(constant, dtype=np.float64).reshape(1)
    for form, (_, factor) in zip(forms, terms, strict=True):
        total = np.asarray(polynomial.polyadd(total, factor * np.asarray(form.coefficients)))
    return Form(forms[0].root, tuple(total.tolist()))


def _variadic_sum(call: Call, factor: float) -> Value:
    values = [(call.value(i), factor) for i in range(len(call.operands)) if call.is_value(i)]
    rank = max(rank_of(value) for value, _ in values)
    constant: Floats = np.zeros(())
    for position in range(len(call.operands)):
        if not call.is_value(position):
            constant = constant + factor * call.weights(position, rank, "a constant term")
    return linear_combination(call, values, constant, call.output)


def _extreme(call: Call, sign: float) -> Value:
    """Compare computed operands in pairs, in rounds; then with all constants at once."""
    values = [call.value(i) for i in range(len(call.operands)) if call.is_value(i)]
    rank = max(rank_of(value) for value in values)
    bounds = [
        sign * call.weights(i, rank, "the constant bound")
        for i in range(len(call.operands))
        if not call.is_value(i)
    ]
    while len(values) > 1:
        last = len(values) == 2 and not bounds
        pairs = zip(values[0::2], values[1::2], strict=False)
        odd = values[-1:] if len(values) % 2 else []
        values = [_larger(call, a, [(b, sign)], 0.0, sign, last) for a, b in pairs] + odd
    if not bounds:
        return values[0]
    greatest = bounds[0]
    for bound in bounds[1:]:
        greatest = np.maximum(greatest, bound)
    return _larger(call, values[0], [], greatest, sign, True)


def _larger(
    call: Call,
    base: Value,
    other: list[tuple[Value, float]],
    constant: Floats | float,
    sign: float,
    last: bool,
) -> Value:
    """Return base + sign relu(other + constant - sign base)."""
    gap = [*other, (base, -sign)]
    difference = linear_combination(call, gap, constant, call.inner("gap"))
    rectified = call.builder.activation(difference, "relu", (), call.inner("relu"), call.origin)
    output = call.output if last else call.inner("larger")
    return linear_combination(call, [(base, 1.0), (rectified, sign)], 0.0, output)


def _low_degree_form(call: Call, value: Value, degree: int) -> Form:
    form = call.builder.form(value)
    return form if len(form.coefficients) - 1 <= degree else Form(value.tensor, (0.0, 1.0))


def _broadcast_two(call: Call, left: Value, right: Value) -> Shape:
    if rank_of(left) != rank_of(right):
        call.reject("tensors with different numbers of axes would mix rows: add axes first")
    return broadcast(call, left.shape, right.shape)


def _broadcast_value(call: Call, value: Value, shape: Shape) -> Value:
    numbers = np.broadcast_to(element_numbers(value.shape), shape)
    return call.builder.select(value, numbers, call.inner("broadcast"), call.origin)


def identity_matrix(size: int) -> csr_array:
    """Return the identity."""
    return csr_array(eye_array(size))
