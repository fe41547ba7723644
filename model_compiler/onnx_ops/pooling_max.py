"""The greatest of several encrypted values: MaxPool, GlobalMaxPool, ReduceMax, ReduceMin.

max(a, b) = a + relu(b - a), in rounds. Windows are pooled axis by axis, and the width doubles from
round to round: the greatest of k neighbours takes ceil(log2 k) rounds, and neighbouring windows
share them. What a round computes is only what later rounds read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, eye_array

from tacit.model_compiler.onnx_ops.builder import (
    Indices,
    Value,
    element_numbers,
    selection_matrix,
)
from tacit.model_compiler.onnx_ops.call import Call, rank_of


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
    for axis, window in enumerate(windows, start=1):
        value = _pooled(call, value, axis, window, 1.0)
    return [value]


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


def _windows(call: Call, lengths: Sequence[int]) -> list[Window]:
    """Read kernel, strides, dilations and padding of a pooling node."""
    sizes = [int(n) for n in call.numbers("kernel_shape")]
    if len(sizes) != len(lengths) or min(sizes, default=0) < 1:
        call.reject(f"kernel_shape {sizes} does not fit {len(lengths)} spatial axes")
    ones = (1.0,) * len(sizes)
    strides = [int(n) for n in call.numbers("strides") or ones]
    dilations = [int(n) for n in call.numbers("dilations") or ones]
    reaches = [(size - 1) * d + 1 for size, d in zip(sizes, dilations, strict=True)]
    pads = _pads(call, lengths, reaches, strides)
    windows = []
    for axis, length in enumerate(lengths):
        before, after = pads[axis]
        room = length + before + after - reaches[axis]
        if room < 0 or before >= reaches[axis] or after >= reaches[axis]:
            call.reject(f"a window of {reaches[axis]} does not fit axis {axis + 2} of {length}")
        overhangs = before or after or call.integer("ceil_mode", 0)
        if dilations[axis] > 1 and overhangs:
            call.reject("dilated windows may not overhang: drop the padding and ceil_mode")
        count = room // strides[axis] + 1
        if call.integer("ceil_mode", 0) and room % strides[axis]:
            count += (count * strides[axis]) < length + before
        windows.append(Window(sizes[axis], strides[axis], dilations[axis], -before, count))
    return windows


def _pads(
    call: Call, lengths: Sequence[int], reaches: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    given = [int(n) for n in call.numbers("pads")] or [0] * (2 * len(lengths))
    mode = str(call.attribute("auto_pad", "NOTSET"))
    if mode in ("NOTSET", "VALID", ""):
        given = [0] * len(given) if mode == "VALID" else given
        half = len(lengths)
        if len(given) != 2 * half or min(given) < 0:
            call.reject(f"pads {given} do not fit {half} spatial axes")
        return [(given[axis], given[axis + half]) for axis in range(half)]
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        call.reject(f"auto_pad={mode!r} is not supported")
    pads = []
    for length, reach, stride in zip(lengths, reaches, strides, strict=True):
        total = max((math.ceil(length / stride) - 1) * stride + reach - length, 0)
        small = total // 2
        pads.append((small, total - small) if mode == "SAME_UPPER" else (total - small, small))
    return pads
