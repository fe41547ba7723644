"""Operators that only move elements: reshapes are free, the rest are 0/1 matrices."""

from __future__ import annotations

import math

import numpy as np
from scipy.sparse import csr_array

from tacit.model_compiler.onnx_ops.builder import (
    Indices,
    Value,
    element_numbers,
    selection_matrix,
)
from tacit.model_compiler.onnx_ops.call import Call, rank_of

Shape = tuple[int, ...]


def identity(call: Call) -> list[Value]:
    """Pass the value on (Identity, and Dropout at inference)."""
    return [call.value(0)]


def dropout(call: Call) -> list[Value]:
    """Pass the value on; the mask output must not be used."""
    training = call.has(2) and bool(call.constant(2, "training_mode").any())
    if training or len([name for name in call.node.outputs if name]) > 1:
        call.reject("Dropout must be in inference mode without mask output: export in eval mode")
    return [call.value(0)]


def cast(call: Call) -> list[Value]:
    """Casting between float types changes nothing in the encrypted core; a mask stays one."""
    if call.mask(0) is not None:
        return [call.value_or_mask(0)]
    if call.integer("to", 1) not in (1, 10, 11, 16):
        call.reject("rounding to integers or booleans cannot be computed on encrypted values")
    return [call.value(0)]


def flatten(call: Call) -> list[Value]:
    """Join all axes behind the rows."""
    value = call.value(0)
    axis = call.integer("axis", 1)
    if axis % rank_of(value) != 1 % rank_of(value):
        call.reject(f"axis={axis} would mix rows: use axis=1")
    return [Value(value.tensor, (value.size,))]


def reshape(call: Call) -> list[Value]:
    """Relabel the axes behind the rows."""
    value = call.value(0)
    target = call.integer_list("shape", 1)
    if target is None:
        call.reject("the target shape must be constant")
    return [Value(value.tensor, reshaped_row(call, value.shape, target))]


def reshaped_row(call: Call, shape: Shape, target: Shape) -> Shape:
    """Work out the per-row shape of an ONNX Reshape that keeps the row axis in front.

    Args:
        call: for its attributes and messages.
        shape: per-row shape before.
        target: ONNX's target, 0 and -1 included.
    """
    size = math.prod(shape)
    lengths = list(target)
    if not call.integer("allowzero", 0):
        full = (-2, *shape)  # -2: the row axis, copied
        lengths = [
            full[i] if length == 0 and i < len(full) else length for i, length in enumerate(target)
        ]
    first, rest = (lengths[0], lengths[1:]) if lengths else (0, [])
    known = math.prod(length for length in rest if length != -1)
    if -1 in rest and first != -1 and known > 0 and size % known == 0:
        rest = [size // known if length == -1 else length for length in rest]
    keeps_rows = first in (-1, -2) or call.rows.counts_rows(first)
    if not keeps_rows or min(rest, default=1) < 0 or math.prod(rest) != size:
        call.reject(
            f"reshaping rows of shape {list(shape)} to {list(target)} would mix rows: keep the "
            "row axis in front, for example shape [-1, ...] or Flatten(axis=1)"
        )
    return tuple(rest)


def squeeze(call: Call) -> list[Value]:
    """Remove axes of length 1."""
    value = call.value(0)
    axes = call.integer_list("axes", 1)
    if axes is None:
        return [Value(value.tensor, tuple(length for length in value.shape if length != 1))]
    removed = {call.row_axis(axis, rank_of(value)) for axis in axes}
    if any(value.shape[axis] != 1 for axis in removed):
        call.reject(f"cannot squeeze axes {list(axes)} of rows of shape {list(value.shape)}")
    kept = [length for axis, length in enumerate(value.shape) if axis not in removed]
    return [Value(value.tensor, tuple(kept))]


def unsqueeze(call: Call) -> list[Value]:
    """Insert axes of length 1 behind the rows."""
    value = call.value(0)
    axes = call.integer_list("axes", 1) or ()
    rank = rank_of(value) + len(axes)
    inserted = {call.row_axis(axis, rank) for axis in axes}
    if len(inserted) != len(axes):
        call.reject(f"axes={list(axes)} names an axis twice")
    remaining = iter(value.shape)
    shape = [1 if axis in inserted else next(remaining) for axis in range(rank - 1)]
    return [Value(value.tensor, tuple(shape))]


def transpose(call: Call) -> list[Value]:
    """Permute the axes behind the rows."""
    value = call.value(0)
    rank = rank_of(value)
    given = call.attribute("perm")
    permutation = given if isinstance(given, tuple) else tuple(reversed(range(rank)))
    if sorted(permutation) != list(range(rank)) or permutation[0] != 0:
        call.reject(f"perm={list(permutation)} must keep axis 0, the rows, in front")
    return [_select(call, element_numbers(value.shape).transpose([p - 1 for p in permutation[1:]]))]


def concat(call: Call) -> list[Value]:
    """Join values, and constants, along one axis."""
    values = [call.value(i) for i in range(len(call.operands)) if call.is_value(i)]
    rank = rank_of(values[0])
    axis = call.row_axis(call.integer("axis", 1), rank)
    blocks: list[Indices] = []
    biases = []
    for position in range(len(call.operands)):
        is_value = call.is_value(position)
        shape = call.value(position).shape if is_value else ()
        constant = np.zeros(shape) if is_value else call.weights(position, rank, "the constant")
        blocks.append(np.full(constant.shape, position, dtype=np.int64))
        biases.append(constant)
    try:
        owners = np.concatenate(blocks, axis)
        bias = np.concatenate(biases, axis)
    except ValueError:
        call.reject(
            f"row shapes {[block.shape for block in blocks]} do not join on axis {axis + 1}"
        )
    terms = []
    for position in range(len(call.operands)):
        if call.is_value(position):
            value = call.value(position)
            rows = np.flatnonzero(owners.ravel() == position)
            terms.append((value, placement_matrix(rows, owners.size)))
    if len(call.operands) == 1:
        return [call.value(0)]
    made = call.builder.affine(terms, bias.ravel(), owners.shape, call.output, call.origin)
    return [made]


def placement_matrix(rows: Indices, size: int) -> csr_array:
    """Return the (size, len(rows)) matrix that puts element i at rows[i]."""
    return csr_array(selection_matrix(rows, size).T)


def split(call: Call) -> list[Value]:
    """Cut into parts along one axis."""
    value = call.value(0)
    axis = call.row_axis(call.integer("axis", 0), rank_of(value))
    length = value.shape[axis]
    parts = call.integer_list("split", 1)
    if parts is None:
        count = max(min(call.integer("num_outputs", len(call.node.outputs)), length), 1)
        step = -(-length // count)
        parts = tuple(max(min(step, length - i * step), 0) for i in range(count))
    outputs = call.node.outputs
    if sum(parts) != length or len(parts) != len(outputs) or min(parts, default=0) < 0:
        call.reject(f"parts {list(parts)} do not fill an axis of length {length}")
    pieces = np.split(element_numbers(value.shape), np.cumsum(parts)[:-1], axis=axis)
    named = zip(pieces, outputs, strict=True)
    return [
        call.builder.select(value, piece, name or call.inner("unused"), call.origin)
        for piece, name in named
    ]


def slice_(call: Call) -> list[Value]:
    """Take a constant range of each axis."""
    value = call.value(0)
    starts, ends = call.integer_list("starts", 1), call.integer_list("ends", 2)
    if starts is None or ends is None:
        call.reject("starts and ends must be constant")
    axes = call.integer_list("axes", 3) or tuple(range(len(starts)))
    steps = (call.integers(4, "steps") if call.has(4) else ()) or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        call.reject("starts, ends, axes and steps must have the same length")
    if len({axis % rank_of(value) for axis in axes}) < len(axes):
        call.reject(f"axes={list(axes)} names an axis twice")
    ranges = [slice(None)] * len(value.shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if axis % rank_of(value) == 0 and start == 0 and step == 1 and end >= call.rows.value:
            continue  # all rows
        ranges[call.row_axis(axis, rank_of(value))] = slice(start, end, step)
    return [_select(call, element_numbers(value.shape)[tuple(ranges)])]


def gather_columns(call: Call) -> list[Value]:
    """Take the positions listed in a column of axis 1."""
    numbers = call.constant(1, "the indices").astype(np.int64)
    if numbers.ndim != 2 or numbers.shape[1] != 1:
        call.reject(f"indices of shape {list(numbers.shape)} are not supported: use Gather")
    return [_taken(call, numbers[:, 0], 0)]


def gather_points(call: Call) -> list[Value]:
    """Take constant positions of several axes at once, between two permutations of the axes."""
    value = call.value(0)
    numbers = call.constant(1, "the indices").astype(np.int64)
    before, after = (tuple(map(int, call.numbers(key))) for key in ("before", "after"))
    elements = element_numbers(value.shape)
    rows = np.stack([elements, elements + value.size])
    try:
        turned, chosen = rows.transpose(before), np.moveaxis(numbers, -1, 0)
        call.bounded((*chosen.shape[1:], *turned.shape[len(chosen) :]))
        taken = turned[tuple(chosen)].transpose(after)
    except (ValueError, IndexError):
        call.reject(f"indices of shape {list(numbers.shape)} do not fit {list(value.shape)}")
    if len(taken) != 2 or not np.array_equal(taken[0] + value.size, taken[1]):
        call.reject("taking these positions would mix rows: keep the row axis in front")
    return [_select(call, taken[0])]


def gather(call: Call) -> list[Value]:
    """Take constant positions of one axis."""
    if not call.is_value(0):
        call.reject(
            "looking up rows of a constant table by computed positions is not supported, such as "
            "an embedding: encode the categories one-hot before the model"
        )
    axis = call.row_axis(call.integer("axis", 0), rank_of(call.value(0)))
    indices = call.constant(1, "the indices")
    if indices.dtype.kind not in "iu":
        call.reject(f"the indices must be integers, got {indices.dtype}")
    return [_taken(call, indices.astype(np.int64), axis)]


def _taken(call: Call, indices: Indices, axis: int) -> Value:
    value = call.value(0)
    length = value.shape[axis]
    if indices.size and not (-length <= indices.min() and indices.max() < length):
        call.reject(f"indices are outside an axis of length {length}")
    call.bounded((value.size // length, indices.size))
    return _select(call, np.take(element_numbers(value.shape), indices, axis=axis))


def expand(call: Call) -> list[Value]:
    """Repeat along axes of length 1."""
    value = call.value(0)
    target = call.integers(1, "the target shape")
    rank = rank_of(value)
    if len(target) > rank or (len(target) == rank and not call.rows.counts_rows(target[0])):
        call.reject(f"expanding to {list(target)} would add or mix rows: keep the row axis")
    row_target = target[1:] if len(target) == rank else target
    try:
        shape = np.broadcast_shapes(value.shape, row_target)
    except ValueError:
        call.reject(f"rows of shape {list(value.shape)} do not expand to {list(row_target)}")
    return [_select(call, np.broadcast_to(element_numbers(value.shape), call.bounded(shape)))]


def tile(call: Call) -> list[Value]:
    """Repeat whole axes behind the rows."""
    value = call.value(0)
    repeats = call.integers(1, "the repeats")
    if len(repeats) != rank_of(value) or repeats[0] != 1:
        call.reject(f"repeats {list(repeats)} must be 1 on the row axis")
    if min(repeats) < 1:
        call.reject(f"repeats {list(repeats)} must be positive")
    call.bounded((value.size, *repeats))
    return [_select(call, np.tile(element_numbers(value.shape), repeats[1:]))]


def pad(call: Call) -> list[Value]:
    """Add constant, reflected, repeated or wrapped elements around the axes behind the rows."""
    value = call.value(0)
    rank = rank_of(value)
    mode = str(call.attribute("mode", "constant"))
    if mode not in ("constant", "reflect", "edge", "wrap"):
        call.reject(f"mode={mode!r} is unknown: use constant, reflect, edge or wrap")
    amounts = call.integer_list("pads", 1) or ()
    axes = call.integers(3, "axes") if call.has(3) else tuple(range(rank))
    fill = float(call.constant(2, "the pad value").item()) if call.has(2) else 0.0
    fill = call.number("value", fill)
    if len(amounts) != 2 * len(axes):
        call.reject(f"pads has {len(amounts)} numbers for {len(axes)} axes")
    numbers = element_numbers(value.shape)
    for position, axis in enumerate(axes):
        before, after = amounts[position], amounts[position + len(axes)]
        if (before, after) != (0, 0):
            row_axis = call.row_axis(axis, rank)
            grown = max(before, 0) + max(after, 0) + numbers.shape[row_axis]
            call.bounded((numbers.size // max(numbers.shape[row_axis], 1), grown))
            numbers = _pad_axis(numbers, row_axis, (before, after), mode)
    return [call.builder.select(value, numbers, call.output, call.origin, fill)]


def _pad_axis(numbers: Indices, axis: int, amounts: tuple[int, int], mode: str) -> Indices:
    """Pad with -1 or with neighbours' numbers; negative amounts cut."""
    before, after = amounts
    kept = np.arange(max(-before, 0), numbers.shape[axis] - max(-after, 0))
    widths = [(0, 0)] * numbers.ndim
    widths[axis] = (max(before, 0), max(after, 0))
    cut = np.take(numbers, kept, axis=axis)
    match mode:
        case "reflect":
            return np.pad(cut, widths, mode="reflect")
        case "edge":
            return np.pad(cut, widths, mode="edge")
        case "wrap":
            return np.pad(cut, widths, mode="wrap")
    return np.pad(cut, widths, constant_values=-1)


def _select(call: Call, numbers: Indices) -> Value:
    if numbers.size == 0:
        call.reject("the result is empty: remove the node")
    return call.builder.select(call.value(0), numbers, call.output, call.origin)
