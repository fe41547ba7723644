"""Softmax and normalisations inside a network: sums by maps, the rest by activations.

Each works on groups of elements of a row. A sum over a group is a sparse map that also spreads the
result over the group, so that what follows needs no broadcasting.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array

from tacit.model_compiler.onnx_ops.arithmetic import linear_combination, product
from tacit.model_compiler.onnx_ops.builder import (
    MAX_NONZEROS,
    Floats,
    Form,
    Indices,
    Value,
    diagonal_matrix,
    element_numbers,
    selection_matrix,
)
from tacit.model_compiler.onnx_ops.call import Call, rank_of

# Groups are summed and spread by one map up to this many entries, else by two.
_MOST_ENTRIES = 1 << 22


def normalisation_rules() -> dict[str, Callable[[Call], list[Value]]]:
    """Return operator name -> function."""
    return {
        "Softmax": softmax,
        "LogSoftmax": softmax,
        "LayerNormalization": layer_normalization,
        "RMSNormalization": rms_normalization,
        "InstanceNormalization": instance_normalization,
        "GroupNormalization": group_normalization,
        "MeanVarianceNormalization": mean_variance_normalization,
    }


def softmax(call: Call) -> list[Value]:
    """exp(x) / sum exp(x), or its logarithm; over the elements less their mean.

    Softmax does not change when a number is subtracted from all elements of a group. With the mean,
    the sum is at least the number of elements, whatever the row: its reciprocal is bounded.
    """
    value = call.value(0)
    old = call.node.version < 13
    axis = call.row_axis(call.integer("axis", 1 if old else -1), rank_of(value))
    axes = tuple(range(axis, len(value.shape))) if old else (axis,)
    groups = _groups(value.shape, axes)
    centered = _centered(call, value, groups)
    powers = call.builder.activation(centered, "exp", (), call.inner("exp"), call.origin)
    total = _mean(call, powers, groups, call.inner("sum"), factor=groups.shape[1])
    if call.node.op == "LogSoftmax":
        log = call.builder.activation(total, "log", (), call.inner("log"), call.origin)
        return [linear_combination(call, [(centered, 1.0), (log, -1.0)], 0.0, call.output)]
    least = (groups.shape[1] / 2.0,)  # half: the polynomial for exp has an error of its own
    inverse = call.builder.activation(
        total, "reciprocal_above", least, call.inner("reciprocal"), call.origin
    )
    return [product(call, powers, inverse, call.output)]


def layer_normalization(call: Call) -> list[Value]:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, over the axes from `axis` on."""
    if any(call.node.outputs[1:]):
        call.reject("mean and deviation cannot be returned: drop these outputs")
    value = call.value(0)
    axis = call.row_axis(call.integer("axis", -1), rank_of(value))
    groups = _groups(value.shape, tuple(range(axis, len(value.shape))))
    return [_scaled(call, _normalised(call, value, groups), _weights(call, 1), _weights(call, 2))]


def rms_normalization(call: Call) -> list[Value]:
    """x / sqrt(mean of squares + epsilon) * scale, over the axes from `axis` on."""
    value = call.value(0)
    axis = call.row_axis(call.integer("axis", -1), rank_of(value))
    groups = _groups(value.shape, tuple(range(axis, len(value.shape))))
    return [_scaled(call, _over_deviation(call, value, groups), _weights(call, 1), None)]


def instance_normalization(call: Call) -> list[Value]:
    """Normalise every channel over the axes behind it."""
    value = call.value(0)
    groups = _groups(value.shape, tuple(range(1, len(value.shape))))
    behind = (1,) * (len(value.shape) - 1)
    weights = [_weights(call, position) for position in (1, 2)]
    scale, bias = (None if w is None else w.reshape(-1, *behind) for w in weights)
    return [_scaled(call, _normalised(call, value, groups), scale, bias)]


def group_normalization(call: Call) -> list[Value]:
    """Normalise groups of channels together."""
    value = call.value(0)
    count, channels = call.integer("num_groups", 1), value.shape[0]
    if count < 1 or channels % count:
        call.reject(f"num_groups={count} does not divide {channels} channels")
    groups = element_numbers(value.shape).reshape(count, -1)
    behind = (1,) * (len(value.shape) - 1)
    scale, bias = (
        None if w is None else np.repeat(w, channels // w.size).reshape(-1, *behind)
        for w in (_weights(call, 1), _weights(call, 2))
    )
    return [_scaled(call, _normalised(call, value, groups), scale, bias)]


def mean_variance_normalization(call: Call) -> list[Value]:
    """Normalise over some axes behind the rows."""
    value = call.value(0)
    given = call.numbers("axes") or (0.0, 2.0, 3.0)
    axes = tuple(call.row_axis(int(axis), rank_of(value), "axes") for axis in given)
    return [_normalised(call, value, _groups(value.shape, axes), least=1e-9)]


def _groups(shape: tuple[int, ...], axes: tuple[int, ...]) -> Indices:
    """Number the elements of each group, shape (groups, elements)."""
    moved = np.moveaxis(element_numbers(shape), axes, range(-len(axes), 0))
    size = int(np.prod([shape[axis] for axis in axes], dtype=np.int64))
    return np.asarray(moved.reshape(-1, size))


def _normalised(call: Call, value: Value, groups: Indices, least: float | None = None) -> Value:
    return _over_deviation(call, _centered(call, value, groups), groups, least)


def _over_deviation(call: Call, value: Value, groups: Indices, least: float | None = None) -> Value:
    """Divide by the root of the mean square, plus epsilon."""
    square = Form(value.tensor, (0.0, 0.0, 1.0))
    squares = call.builder.polynomial(square, value.shape, call.inner("squares"), call.origin)
    epsilon = call.number("epsilon", 1e-5) if least is None else least
    variance = _mean(call, squares, groups, call.inner("variance"), bias=epsilon)
    return product(call, value, _applied(call, variance, "rsqrt"), call.inner("normalised"))


def _applied(call: Call, value: Value, function: str) -> Value:
    return call.builder.activation(value, function, (), call.inner(function), call.origin)


def _centered(call: Call, value: Value, groups: Indices) -> Value:
    """Subtract the mean of its group from every element."""
    if groups.shape[0] * groups.shape[1] ** 2 <= _MOST_ENTRIES:
        matrix = csr_array(eye_array(value.size) - _block_matrix(groups, value.size))
        inner = call.inner("centered")
        return call.builder.affine([(value, matrix)], 0.0, value.shape, inner, call.origin)
    mean = _mean(call, value, groups, call.inner("mean"))
    return linear_combination(call, [(value, 1.0), (mean, -1.0)], 0.0, call.inner("centered"))


def _mean(
    call: Call,
    value: Value,
    groups: Indices,
    output: str,
    factor: float = 1.0,
    bias: float = 0.0,
) -> Value:
    """Return factor times the mean of its group for every element, plus a bias."""
    count, size = groups.shape
    if count * size**2 <= min(_MOST_ENTRIES, MAX_NONZEROS):
        matrix = csr_array(factor * _block_matrix(groups, value.size))
        return call.builder.affine([(value, matrix)], bias, value.shape, output, call.origin)
    rows = np.repeat(np.arange(count), size)
    entries = np.full(groups.size, factor / size)
    matrix = csr_array((entries, (rows, groups.ravel())), shape=(count, value.size))
    sums = call.builder.affine([(value, matrix)], bias, (count,), call.inner("sums"), call.origin)
    of_element: NDArray[np.int64] = np.empty(value.size, dtype=np.int64)
    of_element[groups.ravel()] = rows
    spread = selection_matrix(of_element, count)
    return call.builder.affine([(sums, spread)], 0.0, value.shape, output, call.origin)


def _block_matrix(groups: Indices, elements: int) -> csr_array:
    """Return the matrix that replaces every element by the mean of its group."""
    count, size = groups.shape
    rows = np.repeat(groups, size, axis=1).ravel()
    columns = np.tile(groups, (1, size)).ravel()
    entries = np.full(count * size * size, 1.0 / size)
    return csr_array((entries, (rows, columns)), shape=(elements, elements))


def _weights(call: Call, position: int) -> Floats | None:
    if not call.has(position):
        return None
    return np.asarray(call.constant(position, "the scale or bias"), dtype=np.float64)


def _scaled(call: Call, value: Value, scale: Floats | None, bias: Floats | None) -> Value:
    """Multiply by a scale and add a bias, both broadcast against the row."""
    try:
        factors = np.broadcast_to(1.0 if scale is None else scale, value.shape)
        addends = np.broadcast_to(0.0 if bias is None else bias, value.shape)
    except ValueError:
        call.reject(f"scale or bias does not fit rows of shape {list(value.shape)}")
    matrix = diagonal_matrix(factors)
    return call.builder.affine(
        [(value, matrix)], addends.ravel(), value.shape, call.output, call.origin
    )
