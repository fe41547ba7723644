"""Sliding windows: which input positions a kernel touches, as parallel arrays of indices.

Convolutions, their transposes and average pooling are sums over (output position, kernel offset)
pairs; each axis is enumerated by itself and the axes are multiplied out, so nothing loops over
elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from tacit.model_compiler.onnx_ops.builder import Indices
from tacit.model_compiler.onnx_ops.call import Call

Shape = tuple[int, ...]

LARGEST = 1 << 31  # of an attribute, so that positions stay far inside 64 bits


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis of a window.

    Attributes:
        size: positions of the input.
        kernel: taps of the kernel.
        stride, dilation: between windows, between taps.
        before, after: padding.
        windows: positions of the output.
    """

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    windows: int

    def taps(self) -> Indices:
        """Return the input position of every (window, tap), padding included; windows x kernel."""
        starts = np.arange(self.windows, dtype=np.int64) * self.stride - self.before
        return starts[:, None] + np.arange(self.kernel, dtype=np.int64)[None, :] * self.dilation

    def counts(self, *, include_padding: bool) -> Indices:
        """Count the taps of every window that lie on the input, or on it and its padding."""
        taps = self.taps()
        low, high = (-self.before, self.size + self.after) if include_padding else (0, self.size)
        return np.asarray(((taps >= low) & (taps < high)).sum(axis=1), dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """All (window, tap) pairs that touch the input: parallel arrays of flat positions."""

    window: Indices
    position: Indices
    tap: Indices

    def __len__(self) -> int:
        return len(self.window)


def pairs(axes: Sequence[Axis]) -> Pairs:
    """Enumerate the pairs of a window over several axes, flat positions in C order."""
    return reduce(_multiplied, (_pairs_of(axis) for axis in axes), _no_axes()).flat


def window_axes(call: Call, spatial: Shape, kernel: Shape) -> tuple[Axis, ...]:
    """Read strides, dilations, pads, auto_pad and ceil_mode of a window operator.

    Args:
        call: a Conv or AveragePool node.
        spatial: lengths of the input behind the channels.
        kernel: lengths of the kernel.
    """
    rank = len(spatial)
    if len(kernel) != rank or min(kernel, default=0) < 1:
        call.reject(f"a kernel of shape {list(kernel)} does not fit {rank} spatial axes")
    strides = spatial_list(call, "strides", rank, 1)
    dilations = spatial_list(call, "dilations", rank, 1)
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    before, after = _padding(call, spatial, reach, strides)
    ceil = bool(call.integer("ceil_mode", 0))
    axes = []
    for i, size in enumerate(spatial):
        room = size + before[i] + after[i] - reach[i]
        windows = (-(-room // strides[i]) if ceil else room // strides[i]) + 1
        if ceil and (windows - 1) * strides[i] >= size + before[i]:
            windows -= 1  # a window that would start in the padding behind
        if windows < 1:
            call.reject(f"the kernel is larger than the padded axis of length {size}")
        axes.append(Axis(size, kernel[i], strides[i], dilations[i], before[i], after[i], windows))
    call.bounded(tuple(axis.windows for axis in axes))
    return tuple(axes)


def spatial_list(call: Call, name: str, rank: int, default: int) -> Shape:
    """Return an attribute with one non-negative number per spatial axis."""
    given = tuple(int(v) for v in call.numbers(name)) or (default,) * rank
    low = min(default, 1)
    if len(given) != rank or not all(low <= number <= LARGEST for number in given):
        call.reject(f"{name}={list(given)} does not fit {rank} spatial axes")
    return given


def padding_kind(call: Call) -> str:
    """Return auto_pad: NOTSET, VALID, SAME_UPPER or SAME_LOWER."""
    kind = str(call.attribute("auto_pad", "")) or "NOTSET"
    if kind not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        call.reject(f"auto_pad={kind!r} is unknown: give explicit pads")
    return kind


def explicit_pads(call: Call, rank: int) -> tuple[Shape, Shape]:
    """Return the `pads` attribute as (before, after); zeros if absent."""
    given = tuple(int(v) for v in call.numbers("pads")) or (0,) * (2 * rank)
    if len(given) != 2 * rank or not all(0 <= number <= LARGEST for number in given):
        call.reject(f"pads={list(given)} must be {2 * rank} numbers, none negative or huge")
    return given[:rank], given[rank:]


def _padding(call: Call, spatial: Shape, reach: Shape, strides: Shape) -> tuple[Shape, Shape]:
    kind = padding_kind(call)
    if kind == "NOTSET":
        return explicit_pads(call, len(spatial))
    if kind == "VALID":
        return (0,) * len(spatial), (0,) * len(spatial)
    totals = [
        max((-(-size // stride) - 1) * stride + width - size, 0)
        for size, stride, width in zip(spatial, strides, reach, strict=True)
    ]
    halves = tuple(total // 2 for total in totals)
    others = tuple(total - half for total, half in zip(totals, halves, strict=True))
    return (halves, others) if kind == "SAME_UPPER" else (others, halves)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Pairs of some leading axes and how many windows, positions and taps these have."""

    flat: Pairs
    windows: int
    positions: int
    taps: int


def _no_axes() -> _Part:
    zero = np.zeros(1, dtype=np.int64)
    return _Part(Pairs(zero, zero, zero), 1, 1, 1)


def _pairs_of(axis: Axis) -> _Part:
    taps = axis.taps()
    window, tap = np.nonzero((taps >= 0) & (taps < axis.size))
    flat = Pairs(window, taps[window, tap], tap)
    return _Part(flat, axis.windows, axis.size, axis.kernel)


def _multiplied(left: _Part, right: _Part) -> _Part:
    def joined(a: Indices, b: Indices, length: int) -> Indices:
        return (a[:, None] * length + b[None, :]).ravel()

    flat = Pairs(
        joined(left.flat.window, right.flat.window, right.windows),
        joined(left.flat.position, right.flat.position, right.positions),
        joined(left.flat.tap, right.flat.tap, right.taps),
    )
    return _Part(
        flat,
        left.windows * right.windows,
        left.positions * right.positions,
        left.taps * right.taps,
    )
