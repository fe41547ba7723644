"""Resize and Upsample: interpolation is one small matrix per axis, multiplied out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array, eye_array, kron

from tacit.model_compiler.onnx_ops.builder import MAX_NONZEROS, Floats, Value
from tacit.model_compiler.onnx_ops.call import Call, rank_of

Shape = tuple[int, ...]
_COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
)
_ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one axis is sampled.

    Attributes:
        mode: nearest, linear or cubic.
        coordinates: ONNX's coordinate_transformation_mode.
        rounding: ONNX's nearest_mode.
        cubic: ONNX's cubic_coeff_a.
        exclude_outside: weights of positions outside count nothing, the others add up to 1.
    """

    mode: str
    coordinates: str
    rounding: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False


def resize(call: Call) -> list[Value]:
    """Interpolate the axes behind the rows: nearest, linear or cubic."""
    value = call.value(0)
    if call.integer("antialias", 0):
        call.reject("antialias=1 is not supported: resize without it")
    old = call.node.version < 11
    scales, sizes = _targets(call, value, old=old)
    sampling = _sampling(call, old=old)
    return [_resampled(call, value, scales, sizes, sampling)]


def upsample(call: Call) -> list[Value]:
    """Enlarge by constant factors, as ONNX did before Resize."""
    value = call.value(0)
    scales = call.numbers("scales")
    if not scales:
        scales = tuple(call.constant(1, "the scales").astype(np.float64).ravel().tolist())
    row_scales = _behind_rows(call, scales, rank_of(value), "scales")
    sizes = tuple(math.floor(n * s) for n, s in zip(value.shape, row_scales, strict=True))
    mode = str(call.attribute("mode", "nearest"))
    sampling = Sampling("linear" if mode == "bilinear" else mode, "asymmetric", "floor")
    return [_resampled(call, value, row_scales, sizes, sampling)]


def _sampling(call: Call, *, old: bool) -> Sampling:
    mode = str(call.attribute("mode", "nearest"))
    if old:
        return Sampling(mode, "asymmetric", "floor")
    coordinates = str(call.attribute("coordinate_transformation_mode", "half_pixel"))
    rounding = str(call.attribute("nearest_mode", "round_prefer_floor"))
    if coordinates not in _COORDINATES or rounding not in _ROUNDINGS:
        call.reject(
            f"coordinate_transformation_mode={coordinates!r} with nearest_mode={rounding!r} is "
            f"not supported: use one of {', '.join(_COORDINATES)}"
        )
    cubic, exclude = call.number("cubic_coeff_a", -0.75), call.integer("exclude_outside", 0)
    return Sampling(mode, coordinates, rounding, cubic, bool(exclude))


def _targets(call: Call, value: Value, *, old: bool) -> tuple[tuple[float, ...], Shape]:
    """Return scale and length of every axis behind the rows."""
    rank = rank_of(value)
    position = 1 if old else 2
    axes = [int(a) % rank for a in call.numbers("axes")] or list(range(rank))
    if not old and call.has(3) and call.integers(3, "the sizes"):
        given = call.integers(3, "the sizes")
        if len(given) != len(axes):
            call.reject(f"{len(given)} sizes do not fit {len(axes)} axes")
        return _from_sizes(call, value, axes, given)
    if not call.has(position):
        call.reject("scales or sizes are needed")
    factors = call.constant(position, "the scales").astype(np.float64).ravel()
    if len(factors) != len(axes):
        call.reject(f"{len(factors)} scales do not fit {len(axes)} axes")
    full = [1.0] * rank
    for axis, factor in zip(axes, factors.tolist(), strict=True):
        full[axis] = factor
    scales = _behind_rows(call, full, rank, "scales")
    return scales, tuple(math.floor(n * s) for n, s in zip(value.shape, scales, strict=True))


def _from_sizes(
    call: Call, value: Value, axes: Sequence[int], given: Shape
) -> tuple[tuple[float, ...], Shape]:
    policy = str(call.attribute("keep_aspect_ratio_policy", "stretch"))
    wanted = dict(zip(axes, given, strict=True))
    rows = wanted.pop(0, None)
    if rows is not None and not call.rows.counts_rows(rows):
        call.reject(f"resizing to {list(given)} would change the rows")
    scales = {axis: size / value.shape[axis - 1] for axis, size in wanted.items()}
    if policy != "stretch" and scales:
        pick = min if policy == "not_larger" else max
        scale = pick(scales.values())
        scales = dict.fromkeys(scales, scale)
        wanted = {axis: math.floor(scale * value.shape[axis - 1] + 0.5) for axis in wanted}
    lengths = range(1, rank_of(value))
    return (
        tuple(scales.get(axis, 1.0) for axis in lengths),
        tuple(wanted.get(axis, value.shape[axis - 1]) for axis in lengths),
    )


def _behind_rows(call: Call, numbers: Sequence[float], rank: int, what: str) -> tuple[float, ...]:
    if len(numbers) != rank or numbers[0] != 1.0 or min(numbers) <= 0.0:
        call.reject(f"{what} {list(numbers)} must be {rank} positive numbers, 1 for the rows")
    return tuple(numbers[1:])


def _resampled(
    call: Call, value: Value, scales: tuple[float, ...], sizes: Shape, sampling: Sampling
) -> Value:
    if sampling.mode not in ("nearest", "linear", "cubic"):
        call.reject(f"mode={sampling.mode!r} is not supported: use nearest, linear or cubic")
    if min(sizes, default=1) < 1:
        call.reject(f"the result would have shape {list(sizes)}")
    call.bounded(sizes)
    parts = [
        axis_matrix(length, size, scale, sampling)
        for length, size, scale in zip(value.shape, sizes, scales, strict=True)
    ]
    if math.prod(part.nnz for part in parts) > MAX_NONZEROS:
        call.reject(f"the matrix would hold more than {MAX_NONZEROS} weights")
    matrix = csr_array(eye_array(1))
    for part in parts:
        matrix = csr_array(kron(matrix, part, format="csr"))
    return call.builder.affine([(value, matrix)], 0.0, sizes, call.output, call.origin)


def axis_matrix(length: int, size: int, scale: float, sampling: Sampling) -> csr_array:
    """Return the (size, length) matrix that samples one axis."""
    if length == size and scale == 1.0:
        return csr_array(eye_array(length))
    at = _source_positions(length, size, scale, sampling.coordinates)
    taps, weights = _taps(at, sampling)
    if sampling.exclude_outside:
        weights = np.where((taps >= 0) & (taps < length), weights, 0.0)
        weights = weights / weights.sum(axis=1, keepdims=True)
    columns = np.clip(taps, 0, length - 1).astype(np.int64)
    rows = np.broadcast_to(np.arange(size)[:, None], columns.shape)
    made = csr_array(
        coo_array((weights.ravel(), (rows.ravel(), columns.ravel())), shape=(size, length))
    )
    made.eliminate_zeros()
    return made


def _taps(at: Floats, sampling: Sampling) -> tuple[Floats, Floats]:
    """Return which positions each sample reads, and their weights; shape (samples, taps)."""
    if sampling.mode == "nearest":
        return _rounded(at, sampling.rounding)[:, None], np.ones((len(at), 1))
    offsets = np.arange(2) if sampling.mode == "linear" else np.arange(-1, 3)
    taps = np.floor(at)[:, None] + offsets[None, :]
    distance = np.abs(at[:, None] - taps)
    return taps, 1.0 - distance if sampling.mode == "linear" else _cubic(distance, sampling.cubic)


def _source_positions(length: int, size: int, scale: float, coordinates: str) -> Floats:
    index = np.arange(size, dtype=np.float64)
    match coordinates:
        case "align_corners":
            last = scale * length - 1.0  # not rounded, as in ONNX's reference
            return index * (length - 1) / last if last > 0.0 else 0.0 * index
        case "asymmetric":
            return index / scale
        case "pytorch_half_pixel" if size == 1:
            return index - 0.5
        case "half_pixel_symmetric":
            middle = length / 2 * (1.0 - size / (scale * length))
            return middle + (index + 0.5) / scale - 0.5
    return (index + 0.5) / scale - 0.5


def _rounded(at: Floats, rounding: str) -> Floats:
    match rounding:
        case "floor":
            return np.floor(at)
        case "ceil":
            return np.ceil(at)
        case "round_prefer_ceil":
            return np.floor(at + 0.5)
    return np.ceil(at - 0.5)


def _cubic(distance: Floats, a: float) -> Floats:
    """Return the weights of Keys's cubic kernel (IEEE Trans. ASSP 29, 1981)."""
    near = ((a + 2.0) * distance - (a + 3.0)) * distance**2 + 1.0
    far = ((distance - 5.0) * distance + 8.0) * distance * a - 4.0 * a
    return np.where(distance <= 1.0, near, np.where(distance < 2.0, far, 0.0))
