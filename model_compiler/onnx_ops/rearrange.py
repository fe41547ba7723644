"""Fixed rearrangements and triangular sums: blocks to channels and back, crops, prefix sums."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array, eye_array, kron

from tacit.model_compiler.onnx_ops.builder import Indices, Value, element_numbers
from tacit.model_compiler.onnx_ops.call import Call, rank_of


def depth_to_space(call: Call) -> list[Value]:
    """Move channels into blocks of pixels; also known as pixel shuffle (mode CRD)."""
    value, block = _image(call)
    channels, height, width = value.shape
    if channels % (block * block):
        call.reject(f"{channels} channels do not fill blocks of {block}x{block}")
    numbers, inner = element_numbers(value.shape), channels // block**2
    if str(call.attribute("mode", "DCR")) == "CRD":
        parts = numbers.reshape(inner, block, block, height, width).transpose(0, 3, 1, 4, 2)
    else:
        parts = numbers.reshape(block, block, inner, height, width).transpose(2, 3, 0, 4, 1)
    return [_picked(call, value, parts.reshape(inner, height * block, width * block))]


def space_to_depth(call: Call) -> list[Value]:
    """Move blocks of pixels into channels."""
    value, block = _image(call)
    channels, height, width = value.shape
    if height % block or width % block:
        call.reject(f"an image of {height}x{width} does not divide into blocks of {block}")
    low = (height // block, width // block)
    numbers = element_numbers(value.shape).reshape(channels, low[0], block, low[1], block)
    crd = str(call.attribute("mode", "DCR")) == "CRD"
    parts = numbers.transpose((0, 2, 4, 1, 3) if crd else (2, 4, 0, 1, 3))
    return [_picked(call, value, parts.reshape(channels * block**2, *low))]


def center_crop_pad(call: Call) -> list[Value]:
    """Cut or pad the middle of some axes to a constant shape."""
    value = call.value(0)
    rank = rank_of(value)
    lengths = call.integers(1, "the shape")
    axes = [int(a) for a in call.numbers("axes")] or list(range(rank))
    if len(axes) != len(lengths):
        call.reject(f"{len(lengths)} lengths do not fit {len(axes)} axes")
    numbers = element_numbers(value.shape)
    for axis, length in zip(axes, lengths, strict=True):
        if axis % rank == 0 and call.rows.counts_rows(length):
            continue
        numbers = _centred(call, numbers, call.row_axis(axis, rank), length)
    return [_picked(call, value, numbers)]


def prefix_sum(call: Call) -> list[Value]:
    """Add up along one axis (CumSum)."""
    value = call.value(0)
    axis = call.row_axis(call.integers(1, "the axis")[0], rank_of(value))
    length = value.shape[axis]
    lower = np.tri(length, k=-1 if call.integer("exclusive", 0) else 0)
    lower = lower.T if call.integer("reverse", 0) else lower
    before = int(np.prod(value.shape[:axis], dtype=np.int64))
    after = int(np.prod(value.shape[axis + 1 :], dtype=np.int64))
    call.bounded((before * after, length, length))
    inner = kron(csr_array(lower), eye_array(after))
    matrix = csr_array(kron(eye_array(before), inner, format="csr"))
    return [call.builder.affine([(value, matrix)], 0.0, value.shape, call.output, call.origin)]


def triangle(call: Call) -> list[Value]:
    """Keep the upper or lower triangle of the last two axes (Trilu)."""
    value = call.value(0)
    if len(value.shape) < 2:
        call.reject("the operand needs two axes behind the rows")
    shift = call.integers(1, "k")[0] if call.has(1) else 0
    numbers = element_numbers(value.shape) + 1
    kept = np.triu(numbers, shift) if call.integer("upper", 1) else np.tril(numbers, shift)
    return [_picked(call, value, kept - 1)]


def _image(call: Call) -> tuple[Value, int]:
    value, block = call.value(0), call.integer("blocksize", 0)
    if len(value.shape) != 3 or block < 1:
        call.reject(f"rows of shape {list(value.shape)} with blocksize={block} are not images")
    return value, block


def _centred(call: Call, numbers: Indices, axis: int, length: int) -> Indices:
    size = numbers.shape[axis]
    if length < 1:
        call.reject(f"a length of {length} leaves nothing")
    if length <= size:
        start = (size - length) // 2
        return np.take(numbers, np.arange(start, start + length), axis=axis)
    call.bounded((numbers.size // size, length))
    widths = [(0, 0)] * numbers.ndim
    before = (length - size) // 2
    widths[axis] = (before, length - size - before)
    return np.pad(numbers, widths, constant_values=-1)


def _picked(call: Call, value: Value, numbers: Indices) -> Value:
    return call.builder.select(value, numbers, call.output, call.origin)
