"""Einsum with a constant, products of two encrypted matrices, and pooling over all positions."""

from __future__ import annotations

import math
import string

import numpy as np
from scipy.sparse import coo_array, csr_array

from tacit.model_compiler.onnx_ops.arithmetic import product
from tacit.model_compiler.onnx_ops.builder import (
    MAX_NONZEROS,
    Floats,
    Indices,
    Value,
    element_numbers,
)
from tacit.model_compiler.onnx_ops.call import Call, rank_of

MAX_PRODUCTS = 1 << 16


def einsum(call: Call) -> list[Value]:
    """Contract a tensor with one constant; the row axis must come first in operand and result."""
    equation = str(call.attribute("equation", "")).replace(" ", "")
    operands, _, result = equation.partition("->")
    terms = operands.split(",")
    position = 0 if call.is_value(0) else 1
    if len(terms) != len(call.operands) or len(terms) > 2 or "->" not in equation:
        call.reject("only equations 'ab,bc->ac' with one or two operands are supported")
    if not set(equation) <= set(string.ascii_letters + ",->"):
        call.reject("an ellipsis is not supported: name the axes")
    value, term = call.value(position), terms[position]
    if len(terms) == 2 and call.is_value(1 - position):
        call.reject("one of the operands must be constant: use Mul and ReduceSum instead")
    weights: Floats = np.ones(())
    labels = ""
    if len(terms) == 2:
        labels = terms[1 - position]
        weights = np.asarray(call.constant(1 - position, "the operand"), dtype=np.float64)
    repeated = any(len(set(names)) != len(names) for names in (term, labels, result))
    rows = term[:1]
    if repeated or rank_of(value) != len(term) or weights.ndim != len(labels):
        call.reject(f"{equation!r} does not fit the operands, or names an axis of one twice")
    if result[:1] != rows or rows in labels:
        call.reject(f"{equation!r} would mix rows: the first axis must stay first")
    numbers = element_numbers(value.shape)
    return [_contracted(call, value, (term[1:], numbers), (labels, weights), result[1:])]


def _contracted(
    call: Call, value: Value, left: tuple[str, Indices], right: tuple[str, Floats], result: str
) -> Value:
    summed = "".join(sorted(set(left[0] + right[0]) - set(result)))
    order = result + summed
    numbers, weights = _aligned(*left, order), _aligned(*right, order)
    try:
        full = np.broadcast_shapes(numbers.shape, weights.shape)
    except ValueError:
        call.reject("the operands have axes of one name with different lengths")
    if math.prod(full) > MAX_NONZEROS:
        call.reject(f"the matrix would hold {math.prod(full)} weights, at most {MAX_NONZEROS}")
    shape = tuple(full[: len(result)])
    rows = element_numbers(shape).reshape(shape + (1,) * len(summed))
    cells = (np.broadcast_to(part, full).ravel() for part in (weights, rows, numbers))
    entries, outputs, columns = cells
    matrix = csr_array(coo_array((entries, (outputs, columns)), (math.prod(shape), value.size)))
    return call.builder.affine([(value, matrix)], 0.0, shape, call.output, call.origin)


def _aligned(labels: str, array: Floats | Indices, order: str) -> Floats | Indices:
    """Transpose to the order of the labels, with axes of length 1 for those it lacks."""
    array = array.transpose([labels.index(label) for label in order if label in labels])
    kept = iter(array.shape)
    return array.reshape([next(kept) if label in labels else 1 for label in order])


def encrypted_matmul(call: Call) -> list[Value]:
    """Multiply two encrypted matrices per row, such as the dot product of two vectors."""
    left, right = call.value(0), call.value(1)
    if len(left.shape) < 2 or len(left.shape) != len(right.shape):
        call.reject(
            "the product of two encrypted matrices would mix rows: use Mul and ReduceSum, or make "
            "one operand constant"
        )
    try:
        lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except ValueError:
        call.reject(f"row shapes {list(left.shape)} and {list(right.shape)} do not fit")
    if left.shape[-1] != right.shape[-2]:
        call.reject(f"row shapes {list(left.shape)} and {list(right.shape)} do not fit")
    shape = (*lead, left.shape[-2], right.shape[-1], left.shape[-1])
    if math.prod(shape) > MAX_PRODUCTS:
        call.reject(f"{math.prod(shape)} encrypted products are too many: at most {MAX_PRODUCTS}")
    first = np.broadcast_to(element_numbers(left.shape)[..., :, None, :], shape)
    second = np.swapaxes(element_numbers(right.shape), -1, -2)[..., None, :, :]
    pair = []
    for value, numbers in ((left, first), (right, np.broadcast_to(second, shape))):
        name = call.inner("spread")
        pair.append(call.builder.select(value, numbers, name, call.origin))
    made = product(call, pair[0], pair[1], call.inner("products"))
    matrix = _summing(math.prod(shape[:-1]), shape[-1])
    return [call.builder.affine([(made, matrix)], 0.0, shape[:-1], call.output, call.origin)]


def global_average_pool(call: Call) -> list[Value]:
    """Average each channel over all positions."""
    value = call.value(0)
    if len(value.shape) < 2:
        call.reject("the operand needs axes behind the channels")
    channels, positions = value.shape[0], math.prod(value.shape[1:])
    shape = (channels, *(1 for _ in value.shape[1:]))
    matrix = csr_array(_summing(channels, positions) / positions)
    return [call.builder.affine([(value, matrix)], 0.0, shape, call.output, call.origin)]


def _summing(outputs: int, terms: int) -> csr_array:
    """Return the matrix that adds up each group of consecutive elements."""
    rows = np.repeat(np.arange(outputs), terms)
    ones, columns = np.ones(outputs * terms), np.arange(outputs * terms)
    return csr_array((ones, (rows, columns)), shape=(outputs, outputs * terms))
