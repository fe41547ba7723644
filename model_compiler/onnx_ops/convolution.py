"""Convolutions and transposed convolutions with constant kernels, over any number of axes."""

from __future__ import annotations

import math

import numpy as np
from scipy.sparse import coo_array, csr_array

from tacit.model_compiler.onnx_ops.builder import MAX_NONZEROS, Floats, Indices, Value
from tacit.model_compiler.onnx_ops.call import Call
from tacit.model_compiler.onnx_ops.windows import (
    Axis,
    Pairs,
    explicit_pads,
    padding_kind,
    pairs,
    spatial_list,
    window_axes,
)

Shape = tuple[int, ...]


def convolution(call: Call) -> list[Value]:
    """Convolve (channels, ...) rows with a constant kernel: strides, padding, dilations, groups."""
    value, kernel = _operands(call)
    groups = call.integer("group", 1)
    channels, spatial = value.shape[0], value.shape[1:]
    if groups < 1 or kernel.shape[1] * groups != channels or kernel.shape[0] % groups:
        call.reject(f"weights {list(kernel.shape)} do not fit {channels} channels, group={groups}")
    axes = window_axes(call, spatial, kernel.shape[2:])
    shape = (kernel.shape[0], *(axis.windows for axis in axes))
    grouped = kernel.reshape(groups, -1, kernel.shape[1], math.prod(kernel.shape[2:]))
    found = _touching(call, axes, kernel)
    matrix = _matrix(grouped, found.tap, found.window, found.position, (shape, value.shape))
    return [_finished(call, value, matrix, shape)]


def transposed_convolution(call: Call) -> list[Value]:
    """Apply the transpose of a strided convolution, as in upsampling decoders."""
    value, kernel = _operands(call)
    groups = call.integer("group", 1)
    channels, spatial = value.shape[0], value.shape[1:]
    if groups < 1 or kernel.shape[0] != channels or channels % groups:
        call.reject(f"weights {list(kernel.shape)} do not fit {channels} channels, group={groups}")
    axes = _transposed_axes(call, spatial, kernel.shape[2:])
    shape = (kernel.shape[1] * groups, *(axis.size for axis in axes))
    call.bounded(shape)
    taps = math.prod(kernel.shape[2:])
    grouped = kernel.reshape(groups, channels // groups, -1, taps).swapaxes(1, 2)
    found = _touching(call, axes, kernel)
    matrix = _matrix(grouped, found.tap, found.position, found.window, (shape, value.shape))
    return [_finished(call, value, matrix, shape)]


def _operands(call: Call) -> tuple[Value, Floats]:
    if not call.is_value(0):
        call.reject("the first operand must be computed from the input")
    value = call.value(0)
    kernel = call.constant(1, "the kernel").astype(np.float64)
    if len(value.shape) < 2 or kernel.ndim != len(value.shape) + 1 or kernel.size == 0:
        call.reject(f"a kernel of shape {list(kernel.shape)} does not fit rows {list(value.shape)}")
    given = call.numbers("kernel_shape")
    if given and tuple(int(k) for k in given) != kernel.shape[2:]:
        call.reject(f"kernel_shape={list(given)} contradicts weights {list(kernel.shape)}")
    return value, kernel


def _touching(call: Call, axes: tuple[Axis, ...], kernel: Floats) -> Pairs:
    """Enumerate the window pairs, or refuse a matrix that would be too large."""
    most = math.prod(min(axis.windows, axis.size) * axis.kernel for axis in axes)
    bound = kernel.shape[0] * kernel.shape[1] * most
    if most > MAX_NONZEROS or bound > MAX_NONZEROS * 4:
        call.reject(f"the matrix would hold up to {bound} weights, at most {MAX_NONZEROS}")
    found = pairs(axes)
    total = kernel.shape[0] * kernel.shape[1] * len(found)
    if total > MAX_NONZEROS:
        call.reject(f"the matrix would hold {total} weights, at most {MAX_NONZEROS}")
    return found


def _matrix(
    kernel: Floats, tap: Indices, output: Indices, source: Indices, shapes: tuple[Shape, Shape]
) -> csr_array:
    """Build the sparse matrix of a grouped kernel of shape (groups, outputs, inputs, taps)."""
    groups, outputs, inputs, _ = kernel.shape
    out_size, in_size = (math.prod(shape[1:]) for shape in shapes)
    group = np.arange(groups)[:, None, None, None]
    row = (group * outputs + np.arange(outputs)[:, None, None]) * out_size + output
    column = (group * inputs + np.arange(inputs)[:, None]) * in_size + source
    full = (groups, outputs, inputs, len(tap))
    entries = kernel[..., tap].ravel()
    places = tuple(np.broadcast_to(part.astype(np.int32), full).ravel() for part in (row, column))
    sizes = (math.prod(shapes[0]), math.prod(shapes[1]))
    return csr_array(coo_array((entries, places), shape=sizes))


def _finished(call: Call, value: Value, matrix: csr_array, shape: Shape) -> Value:
    bias: Floats = np.zeros(shape[0])
    if call.has(2):
        bias = np.asarray(call.constant(2, "the bias"), dtype=np.float64).ravel()
        if bias.size != shape[0]:
            call.reject(f"a bias of {bias.size} numbers does not fit {shape[0]} channels")
    spread = np.repeat(bias, math.prod(shape[1:]))
    return call.builder.affine([(value, matrix)], spread, shape, call.output, call.origin)


def _transposed_axes(call: Call, spatial: Shape, kernel: Shape) -> tuple[Axis, ...]:
    """Describe the convolution that is transposed: its windows are the input's positions."""
    rank = len(spatial)
    strides = spatial_list(call, "strides", rank, 1)
    dilations = spatial_list(call, "dilations", rank, 1)
    extra = spatial_list(call, "output_padding", rank, 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        call.reject(f"output_padding={list(extra)} must be below the stride or the dilation")
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    full = [(n - 1) * s + r + e for n, s, r, e in zip(spatial, strides, reach, extra, strict=True)]
    wanted, before = _transposed_padding(call, spatial, strides, full)
    if min(wanted) < 1:
        call.reject(f"the result would have spatial shape {wanted}")
    return tuple(
        Axis(wanted[i], kernel[i], strides[i], dilations[i], before[i], 0, spatial[i])
        for i in range(rank)
    )


def _transposed_padding(
    call: Call, spatial: Shape, strides: Shape, full: list[int]
) -> tuple[list[int], list[int]]:
    """Return the result's spatial shape and what is cut off in front."""
    kind, rank = padding_kind(call), len(spatial)
    given = [int(v) for v in call.numbers("output_shape")][-rank:]
    if not given and kind in ("NOTSET", "VALID"):
        before, after = explicit_pads(call, rank) if kind == "NOTSET" else ((0,) * rank,) * 2
        lengths = [f - b - a for f, b, a in zip(full, before, after, strict=True)]
        return lengths, list(before)
    wanted = given or [n * s for n, s in zip(spatial, strides, strict=True)]
    if len(wanted) != rank:
        call.reject(f"output_shape={wanted} does not fit {rank} spatial axes")
    totals = [f - w for f, w in zip(full, wanted, strict=True)]
    if kind == "SAME_UPPER":
        return wanted, [total // 2 for total in totals]
    return wanted, [total - total // 2 for total in totals]
