"""Pooling that is linear: averages over windows."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
from scipy.sparse import coo_array, csr_array, eye_array, kron

from tacit.model_compiler.onnx_ops.builder import MAX_NONZEROS, Floats, Value
from tacit.model_compiler.onnx_ops.call import Call
from tacit.model_compiler.onnx_ops.windows import Axis, pairs, window_axes


def average_pool(call: Call) -> list[Value]:
    """Average each channel over sliding windows."""
    value = call.value(0)
    if len(value.shape) < 2:
        call.reject("the operand needs axes behind the channels")
    kernel = tuple(int(k) for k in call.numbers("kernel_shape"))
    axes = window_axes(call, value.shape[1:], kernel)
    channels = value.shape[0]
    most = channels * math.prod(axis.windows * axis.kernel for axis in axes)
    if most > MAX_NONZEROS:
        call.reject(f"the matrix would hold {most} weights, at most {MAX_NONZEROS}")
    plane = _averaging(axes, include_padding=bool(call.integer("count_include_pad", 0)))
    matrix = csr_array(kron(eye_array(channels), plane, format="csr"))
    shape = (channels, *(axis.windows for axis in axes))
    return [call.builder.affine([(value, matrix)], 0.0, shape, call.output, call.origin)]


def _averaging(axes: tuple[Axis, ...], *, include_padding: bool) -> csr_array:
    found = pairs(axes)
    counts = [axis.counts(include_padding=include_padding) for axis in axes]
    divisor: Floats = reduce(np.multiply.outer, counts).ravel().astype(np.float64)
    weights = 1.0 / np.maximum(divisor, 1.0)[found.window]
    sizes = (math.prod(a.windows for a in axes), math.prod(a.size for a in axes))
    return csr_array(coo_array((weights, (found.window, found.position)), shape=sizes))
