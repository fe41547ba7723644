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
