"""The greatest of several encrypted values: MaxPool, GlobalMaxPool, ReduceMax, ReduceMin.

max(a, b) = a + relu(b - a), in rounds. Windows are pooled axis by axis, and the width doubles from
round to round: the greatest of k neighbours takes ceil(log2 k) rounds, and neighbouring windows
share them. What a round computes is only what later rounds read.

An increasing function before a pooling is applied after it, to fewer values. The relu of a maximum
is the maximum with 0 among the values: where windows do not overlap they are pooled in pairs over
all axes at once, if that saves rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.sparse import csr_array, eye_array

from tacit.model_compiler.graph import Activation
from tacit.model_compiler.onnx_ops.builder import (
    Indices,
    Value,
    element_numbers,
    selection_matrix,
)
from tacit.model_compiler.onnx_ops.call import Call, rank_of
from tacit.model_compiler.onnx_ops.windows import window_axes

_INCREASING: Final = frozenset(
    {"relu", "sigmoid", "tanh", "clip", "softplus", "softsign", "erf", "atan", "asinh", "exp"}
)


def pooling_rules() -> dict[str, Callable[[Call], list[Value]]]:
    """Return operator name -> function."""
    return {
        "MaxPool": max_pool,
        "GlobalMaxPool": global_max_pool,
        "ReduceMax": reduce_max,
        "ReduceMin": reduce_min,
    }


@dataclass(frozen=True, slots=True)
class Window:
    """Windows along one axis: `count` of `size` elements, the first starting at `start`."""

    size: int
    stride: int
    dilation: int
    start: int
    count: int


def max_pool(call: Call) -> list[Value]:
    """Greatest value of each window over the axes behind the channels."""
    if any(call.node.outputs[1:]):
        call.reject("the positions of the greatest values cannot be returned: drop that output")
    value = call.value(0)
    windows = _windows(call, value.shape[1:])
    if math.prod(window.size for window in windows) == 1:
        return [_separately(call, value, windows)]
    before = call.builder.producer(value.tensor)
    if not isinstance(before, Activation) or not _increases(before):
        return [_separately(call, value, windows)]
    inner = Value(before.input, value.shape)
    if before.function == "relu" and _is_faster_in_pairs(windows):
        return [_in_pairs(call, inner, windows)]
    pooled = _separately(call, inner, windows)
    name, origin = call.inner(before.function), f"{before.origin} + {call.origin}"
    return [call.builder.activation(pooled, before.function, before.parameters, name, origin)]


def _separately(call: Call, value: Value, windows: Sequence[Window]) -> Value:
    for axis, window in enumerate(windows, start=1):
        value = _pooled(call, value, axis, window, 1.0)
    return value


def _increases(node: Activation) -> bool:
    """Tell whether a function nowhere decreases."""
    if node.function in ("leaky_relu", "elu", "celu", "selu"):
        return all(parameter >= 0.0 for parameter in node.parameters)
    if node.function == "hard_sigmoid":
        return node.parameters[0] >= 0.0
    return node.function in _INCREASING


def _is_faster_in_pairs(windows: Sequence[Window]) -> bool:
    apart = all(w.stride >= w.size and w.dilation == 1 for w in windows)
    separate = sum(len(_shifts(window.size)) for window in windows) + 1
    together = math.prod(window.size for window in windows) + 1
    return apart and len(_shifts(together)) < separate


def _in_pairs(call: Call, value: Value, windows: Sequence[Window]) -> Value:
    """Return the greatest of each window's values and 0.

    The k values of a window are k tensors, one after the other along the channels; each round
    halves their number. An odd one is compared with 0 once, or waits.
    """
    taps = _taps(value.shape, windows)
    shape, zero = taps.shape[1:], True
    while len(taps) > 1 or zero:
        pairs = len(taps) // 2
        with_zero = zero and len(taps) % 2 == 1
        left = np.concatenate([taps[: 2 * pairs : 2], taps[2 * pairs :]])
        right = np.concatenate([taps[1 : 2 * pairs : 2], *([taps[-1:]] if with_zero else [])])
        if with_zero:
            left[-1] = -1
        held = (len(left) * shape[0], *shape[1:])
        value = _raised(call, value, left, right, held)
        zero = zero and not with_zero
        taps = element_numbers((len(left), *shape))
    return value


def _raised(
    call: Call, value: Value, left: Indices, right: Indices, held: tuple[int, ...]
) -> Value:
    """Return left + relu(right - left) of the elements named; -1 stands for 0.

    What is left over of `left` is taken as it is.
    """
    builder, channels = call.builder, held[0] // len(left)
    first = selection_matrix(left[: len(right)].ravel(), value.size)
    second = selection_matrix(right.ravel(), value.size)
    shape = (len(right) * channels, *held[1:])
    gap = builder.affine(
        [(value, csr_array(second - first))], 0.0, shape, call.inner("gap"), call.origin
    )
    relu = builder.activation(gap, "relu", (), call.inner("relu"), call.origin)
    total = selection_matrix(left.ravel(), value.size)
    step = csr_array(eye_array(math.prod(held), relu.size))
    output = call.inner("greatest")
    return builder.affine([(value, total), (relu, step)], 0.0, held, output, call.origin)


def _taps(shape: tuple[int, ...], windows: Sequence[Window]) -> Indices:
    """Return element numbers, shape (values of a window, channels, windows along each axis)."""
    found = element_numbers(shape)[None]
    for axis, window in enumerate(windows, start=2):
        starts = window.start + window.stride * np.arange(window.count)
        places = [_inside(starts + shift, shape[axis - 1]) for shift in range(window.size)]
        found = np.concatenate([np.take(found, place, axis=axis) for place in places])
    return found


def global_max_pool(call: Call) -> list[Value]:
    """Greatest value of each channel."""
    value = call.value(0)
    for axis in range(1, len(value.shape)):
        value = _pooled(call, value, axis, Window(value.shape[axis], 1, 1, 0, 1), 1.0)
    return [value]


def reduce_max(call: Call) -> list[Value]:
    """Greatest value along some axes."""
    return [_reduced(call, 1.0)]


def reduce_min(call: Call) -> list[Value]:
    """Least value along some axes."""
    return [_reduced(call, -1.0)]


def _reduced(call: Call, sign: float) -> Value:
    value = call.value(0)
    axes = call.integer_list("axes", 1)
    if not axes:
        call.reject("reducing over all axes would mix rows: name the axes behind the rows")
    positions = sorted({call.row_axis(axis, rank_of(value)) for axis in axes})
    for axis in positions:
        value = _pooled(call, value, axis, Window(value.shape[axis], 1, 1, 0, 1), sign)
    shape = value.shape
    if not call.integer("keepdims", 1):
        shape = tuple(n for axis, n in enumerate(shape) if axis not in positions)
    return Value(value.tensor, shape)


def _pooled(call: Call, value: Value, axis: int, window: Window, sign: float) -> Value:
    """Pool one axis.

    Where windows overhang the tensor, the element at its end stands for what is missing: it lies in
    the window too.
    """
    length = value.shape[axis]
    wanted = window.start + window.stride * np.arange(window.count)
    shifts = [shift * window.dilation for shift in _shifts(window.size)]
    if not shifts:
        return _taken(call, value, axis, _inside(wanted, length))
    needed = [wanted]
    for shift in reversed(shifts):
        needed.insert(0, np.unique(np.concatenate([needed[0], needed[0] + shift])))
    held: Indices | None = None
    for shift, now in zip(shifts, needed[1:], strict=True):
        if held is None:
            first, second = _inside(now, length), _inside(now + shift, length)
        else:
            first, second = np.searchsorted(held, now), np.searchsorted(held, now + shift)
        value = _greater(call, value, axis, first, second, sign)
        held = now
    return value


def _inside(positions: Indices, length: int) -> Indices:
    return np.asarray(np.clip(positions, 0, length - 1))


def _shifts(size: int) -> list[int]:
    """Return by how much each round shifts: widths 1, 2, 4, ... end exactly at `size`."""
    shifts, width = [], 1
    while width < size:
        shift = min(width, size - width)
        shifts.append(shift)
        width += shift
    return shifts


def _greater(
    call: Call, value: Value, axis: int, first: Indices, second: Indices, sign: float
) -> Value:
    """Return a + sign relu(sign (b - a)) of elements taken along an axis."""
    builder, numbers = call.builder, element_numbers(value.shape)
    places = [np.take(numbers, where, axis=axis) for where in (first, second)]
    shape = places[0].shape
    left, right = (selection_matrix(at.ravel(), value.size) for at in places)
    difference = csr_array(sign * (right - left))
    gap = builder.affine([(value, difference)], 0.0, shape, call.inner("gap"), call.origin)
    relu = builder.activation(gap, "relu", (), call.inner("relu"), call.origin)
    step = csr_array(sign * eye_array(relu.size))
    output = call.inner("greatest")
    return builder.affine([(value, left), (relu, step)], 0.0, shape, output, call.origin)


def _taken(call: Call, value: Value, axis: int, places: Indices) -> Value:
    numbers = np.take(element_numbers(value.shape), places, axis=axis)
    return call.builder.select(value, numbers, call.inner("taken"), call.origin)


def _windows(call: Call, lengths: tuple[int, ...]) -> list[Window]:
    """Read kernel, strides, dilations and padding of a pooling node."""
    kernel = tuple(int(n) for n in call.numbers("kernel_shape"))
    windows = []
    for number, axis in enumerate(window_axes(call, lengths, kernel), start=2):
        reach = (axis.kernel - 1) * axis.dilation + 1
        if max(axis.before, axis.after) >= reach:
            call.reject(f"a window of {reach} may lie in the padding of axis {number}: pad less")
        last = (axis.windows - 1) * axis.stride - axis.before + reach
        if axis.dilation > 1 and (axis.before or last > axis.size):
            call.reject("dilated windows may not overhang: drop the padding and ceil_mode")
        windows.append(Window(axis.kernel, axis.stride, axis.dilation, -axis.before, axis.windows))
    return windows
