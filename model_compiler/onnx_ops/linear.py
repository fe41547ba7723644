"""Matrix products with constant weights, normalisation and reductions."""

from __future__ import annotations

import math

import numpy as np
from scipy.sparse import coo_array, csr_array, eye_array, kron

from tacit.model_compiler.onnx_ops.builder import (
    MAX_NONZEROS,
    Floats,
    Indices,
    Value,
    diagonal_matrix,
    element_numbers,
    selection_matrix,
)
from tacit.model_compiler.onnx_ops.call import Call, rank_of
from tacit.model_compiler.onnx_ops.contractions import encrypted_matmul

Shape = tuple[int, ...]


def gemm(call: Call) -> list[Value]:
    """Compute alpha * A B + beta * C with a constant B."""
    if not call.is_value(0):
        call.reject("the first operand must be computed from the input: swap the operands")
    value = call.value(0)
    if len(value.shape) != 1 or call.integer("transA", 0):
        call.reject("the first operand must be (rows, features), not transposed: flatten it first")
    weights = _matrix(call, 1, "the weight matrix")
    weights = weights if call.integer("transB", 0) else weights.T
    if weights.shape[1] != value.size:
        call.reject(f"{value.size} features do not fit a weight matrix of {weights.shape[1]}")
    shape = (weights.shape[0],)
    terms = [(value, csr_array(call.number("alpha", 1.0) * weights))]
    bias: Floats = np.zeros(shape)
    beta = call.number("beta", 1.0)
    if call.is_value(2):
        added = call.value(2)
        numbers = np.broadcast_to(element_numbers(added.shape), shape).ravel()
        terms.append((added, csr_array(beta * selection_matrix(numbers, added.size))))
    elif call.has(2):
        bias = beta * np.broadcast_to(call.weights(2, 2, "the bias"), shape)
    return [call.builder.affine(terms, bias, shape, call.output, call.origin)]


def matmul(call: Call) -> list[Value]:
    """Multiply by a constant matrix on the right or on the left, batched over leading axes."""
    if call.is_value(0) and call.is_value(1):
        return encrypted_matmul(call)
    if call.is_value(0):
        return [_times_constant(call)]
    return [_constant_times(call)]


def batch_normalization(call: Call) -> list[Value]:
    """Normalise each channel (axis 1) with stored statistics."""
    value = call.value(0)
    if call.integer("training_mode", 0) or len([name for name in call.node.outputs if name]) > 1:
        call.reject("training mode is not supported: export the model in eval mode")
    if not value.shape:
        call.reject("the operand has no channel axis")
    scale, shift, mean, variance = (
        call.constant(i, "scale, bias, mean and variance").astype(np.float64) for i in range(1, 5)
    )
    channels = value.shape[0]
    if any(array.shape != (channels,) for array in (scale, shift, mean, variance)):
        call.reject(f"the statistics must have one number for each of {channels} channels")
    widened = variance + call.number("epsilon", 1e-5)
    if not (widened > 0.0).all():
        call.reject("variance plus epsilon must be positive: train or export the model again")
    factor = scale / np.sqrt(widened)
    inner = value.size // channels
    matrix = diagonal_matrix(np.repeat(factor, inner))
    bias = np.repeat(shift - mean * factor, inner)
    return [call.builder.affine([(value, matrix)], bias, value.shape, call.output, call.origin)]


def reduce_sum(call: Call) -> list[Value]:
    """Add up the elements of some axes."""
    return [_reduce(call, average=False)]


def reduce_mean(call: Call) -> list[Value]:
    """Average the elements of some axes."""
    return [_reduce(call, average=True)]


def _times_constant(call: Call) -> Value:
    value = call.value(0)
    weights = call.constant(1, "the weight matrix").astype(np.float64)
    if not value.shape or weights.ndim == 0:
        call.reject("the product would mix rows: the operand needs a feature axis")
    if weights.ndim == 1:
        made = block_product(call, value, weights[:, None], value.shape[:-1])
        return made
    while weights.ndim > 2 and weights.ndim >= rank_of(value) and weights.shape[0] == 1:
        if weights.ndim > rank_of(value):
            call.reject("the weights have more axes than the operand: remove axes of length 1")
        weights = weights[0]
    if weights.ndim == 2:
        return block_product(call, value, weights, (*value.shape[:-1], weights.shape[1]))
    return _batched_product(call, value, weights)


def block_product(call: Call, value: Value, weights: Floats, shape: Shape) -> Value:
    """Apply one matrix to the last axis of every row."""
    blocks, features = math.prod(value.shape[:-1]), value.shape[-1]
    if weights.shape[0] != features:
        call.reject(f"{features} features do not fit weights for {weights.shape[0]}")
    _refuse_large(call, blocks * weights.size)
    matrix = csr_array(weights.T)
    if blocks > 1:
        matrix = csr_array(kron(eye_array(blocks), matrix))
    return call.builder.affine([(value, matrix)], 0.0, shape, call.output, call.origin)


def _batched_product(call: Call, value: Value, weights: Floats) -> Value:
    """Multiply (…, p, k) rows by weights (…, k, n), the leading axes broadcast."""
    if weights.ndim > len(value.shape):
        call.reject("the weights differ from row to row or the operand lacks axes")
    left = element_numbers(value.shape)[..., :, :, None]
    right = weights[..., None, :, :]
    if value.shape[-1] != weights.shape[-2]:
        call.reject(f"row shape {list(value.shape)} does not fit weights {list(weights.shape)}")
    return _contract(call, value, left, right, axis=-2)


def _constant_times(call: Call) -> Value:
    value = call.value(1)
    weights = call.constant(0, "the weight matrix").astype(np.float64)
    if len(value.shape) < 2 or weights.ndim == 0:
        call.reject("a constant on the left would mix rows: put the constant on the right")
    while weights.ndim == rank_of(value) and weights.shape[0] == 1:
        weights = weights[0]
    if weights.ndim > len(value.shape) or value.shape[-2] != weights.shape[-1]:
        call.reject(f"weights {list(weights.shape)} do not fit row shape {list(value.shape)}")
    left = weights[None, :, None] if weights.ndim == 1 else weights[..., :, :, None]
    made = _contract(call, value, element_numbers(value.shape)[..., None, :, :], left, axis=-2)
    if weights.ndim == 1:
        return Value(made.tensor, (*made.shape[:-2], made.shape[-1]))
    return made


def _contract(call: Call, value: Value, numbers: Indices, weights: Floats, axis: int) -> Value:
    """Build y = sum over `axis` of weights * x[numbers], both broadcast to one shape."""
    try:
        full = np.broadcast_shapes(numbers.shape, weights.shape)
    except ValueError:
        call.reject(f"weights {list(weights.shape)} do not broadcast to the operand")
    _refuse_large(call, math.prod(full))
    shape = tuple(np.delete(full, axis).tolist())
    outputs = np.expand_dims(element_numbers(shape), axis)
    rows, columns, entries = (
        np.broadcast_to(part, full).ravel() for part in (outputs, numbers, weights)
    )
    matrix = csr_array(coo_array((entries, (rows, columns)), shape=(math.prod(shape), value.size)))
    return call.builder.affine([(value, matrix)], 0.0, shape, call.output, call.origin)


def _reduce(call: Call, *, average: bool) -> Value:
    value = call.value(0)
    rank = rank_of(value)
    axes = call.integer_list("axes", 1)
    if not axes:
        if call.integer("noop_with_empty_axes", 0):
            return value
        call.reject("reducing over all axes would mix rows: name the axes behind the rows")
    reduced = {call.row_axis(axis, rank) for axis in axes}
    kept = tuple(1 if i in reduced else length for i, length in enumerate(value.shape))
    rows = np.broadcast_to(element_numbers(kept), value.shape).ravel()
    weight = math.prod(kept) / value.size if average else 1.0
    matrix = csr_array(
        (np.full(value.size, weight), (rows, np.arange(value.size))),
        shape=(math.prod(kept), value.size),
    )
    shape = kept
    if not call.integer("keepdims", 1):
        shape = tuple(length for i, length in enumerate(kept) if i not in reduced)
    return call.builder.affine([(value, matrix)], 0.0, shape, call.output, call.origin)


def _matrix(call: Call, position: int, what: str) -> Floats:
    array = call.constant(position, what)
    if array.ndim != 2:
        call.reject(f"{what} must have two axes, it has {array.ndim}")
    return array.astype(np.float64)


def _refuse_large(call: Call, nonzeros: int) -> None:
    if nonzeros > MAX_NONZEROS:
        call.reject(f"the matrix would hold {nonzeros} weights, at most {MAX_NONZEROS}")
