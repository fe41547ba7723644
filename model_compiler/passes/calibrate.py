"""Calibration: the range of every tensor, and a histogram of what each activation reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tacit.errors import CircuitError, InputRangeError, InputShapeError, ModelError
from tacit.model_compiler.approximation import Histogram
from tacit.model_compiler.functions import BOUND_BY_ZERO, SCALE_FREE, is_defined
from tacit.model_compiler.graph import Activation, Affine, Graph, Polynomial, evaluate
from tacit.model_compiler.passes.ranges import (
    Source,
    TensorRange,
    interval_bounds,
    node_bounds,
)

Floats = NDArray[np.float64]
Bounds = tuple[float | Floats, float | Floats]

DATA_MARGIN = 1.25
# Few rows show few extremes, and a fitted polynomial explodes outside its domain: what an
# activation reads is taken to reach at least this many standard deviations of each element. Not so
# for inputs: the client refuses what lies outside their range.
COVERED_DEVIATIONS = 4.5
DEFAULT_INPUT_RANGE: Bounds = (-1.0, 1.0)
_BINS = 1024
_TINY = 2.0**-40
# What is divided by, or has its root taken, may grow by this factor: sums have long tails.
_ROOM = 1.5
# Sums of exponentials have the longest tails: a logit larger by 1 multiplies them by 2.7.
_ROOM_FOR_POWERS = 3.0
# A composite sign may exceed 1 by a little.
_SIGN_MARGIN = 1.02
# Features share one range when their median width is at least this part of the tensor's.
_SHARED_WIDTH = 0.25


@dataclass(frozen=True, slots=True)
class Statistics:
    """What calibration rows showed of one tensor; no margin.

    Attributes:
        low: least value.
        high: greatest value.
        quantile: 99.99 % of the absolute values lie at or below it.
    """

    low: float
    high: float
    quantile: float


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """The result of calibration.

    Attributes:
        tensors: a range for every tensor, margin applied.
        statistics: raw statistics per tensor; empty without data.
        histograms: values read by each activation or polynomial, by its input's name; empty
            without data.
        source: data or interval.
        margin: factor on the half widths.
        outputs: what the graph gives for the rows, each (rows, size); empty without data.
    """

    tensors: Mapping[str, TensorRange]
    source: Source
    margin: float
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    outputs: Mapping[str, Floats] = field(default_factory=dict)


def calibrate(
    graph: Graph,
    rows: Mapping[str, Floats] | None = None,
    *,
    margin: float | None = None,
    input_ranges: Mapping[str, Bounds] | None = None,
) -> Ranges:
    """Find the range of every tensor.

    Args:
        graph: any graph.
        rows: core inputs after the prologue, each (rows, size); None for interval bounds.
        margin: factor on half widths, at least 1; default 1.25 with data, 1.0 with intervals.
            Above 1, what a fitted activation reads covers `COVERED_DEVIATIONS` too.
        input_ranges: declared (low, high) per core input, scalars or arrays of shape (size,).
            They replace what data says of that input, without margin. Inputs without data or
            declaration lie in [-1, 1].

    Returns:
        The ranges. An input's range is one for all elements, unless they differ a lot in width.

    Raises:
        InputShapeError: rows or ranges of the wrong shape, or no row.
        InputRangeError: rows outside a declared range.
        ModelError: the model is not finite on the rows.
    """
    declared = {
        name: _declared_range(graph, name, bounds)
        for name, bounds in (input_ranges or {}).items()
        if name in graph.inputs
    }
    if margin is not None and margin < 1.0:
        raise CircuitError(f"the calibration margin must be at least 1, got {margin}")
    if rows is None:
        return _from_intervals(graph, declared, 1.0 if margin is None else margin)
    return _from_data(graph, rows, declared, DATA_MARGIN if margin is None else margin)


def widened(graph: Graph, ranges: Ranges, margin: float) -> Ranges:
    """Raise the margin of what data showed, without looking at the data again.

    Inputs keep their ranges, which clients check; so do tensors that must stay on one side of 0.
    """
    kept = {n.input for n in _activations(graph) if n.function in BOUND_BY_ZERO}
    kept |= {*graph.inputs}
    factor = margin / ranges.margin
    tensors = {
        name: bounds if name in kept or factor <= 1.0 else bounds.widened(factor)
        for name, bounds in ranges.tensors.items()
    }
    return replace(ranges, tensors=tensors, margin=max(margin, ranges.margin))


def _from_intervals(graph: Graph, declared: Mapping[str, TensorRange], margin: float) -> Ranges:
    inputs = {
        name: declared.get(name) or _declared_range(graph, name, DEFAULT_INPUT_RANGE)
        for name in graph.inputs
    }
    tensors = {
        name: bounds if name in graph.inputs else bounds.widened(margin)
        for name, bounds in interval_bounds(graph, inputs).items()
    }
    return Ranges(tensors, Source.INTERVAL, margin)


def _from_data(
    graph: Graph, rows: Mapping[str, Floats], declared: Mapping[str, TensorRange], margin: float
) -> Ranges:
    checked = {name: _checked_rows(graph, name, rows) for name in graph.inputs}
    _check_declared(checked, declared)
    read = {node.input for node in graph.nodes if isinstance(node, Activation | Polynomial)}
    fitted = {n.input for n in graph.nodes if isinstance(n, Activation) and not _is_exact(n)}
    fitted -= set(graph.inputs)
    bound = {n.input: n for n in _activations(graph) if n.function in BOUND_BY_ZERO}
    scale_free = {n.input for n in _activations(graph) if n.function in SCALE_FREE}
    counts = _counts(graph, {n.output for n in _activations(graph) if n.function in SCALE_FREE})
    tensors: dict[str, TensorRange] = {}
    statistics: dict[str, Statistics] = {}
    histograms: dict[str, Histogram] = {}

    def observe(name: str, values: Floats) -> None:
        if not np.all(np.isfinite(values)):
            raise ModelError(f"tensor {name!r} is not finite on the calibration rows")
        seen = TensorRange(values.min(axis=0), values.max(axis=0), Source.DATA)
        is_input = name in graph.inputs
        if is_input:
            wide = _input_range(seen, margin)
        else:
            wide = _widened_each(seen, margin) if name in scale_free else seen.widened(margin)
        wide = _covering(wide, values) if name in fitted and margin > 1.0 else wide
        wide = _off_zero(wide, seen, bound[name]) if name in bound else wide
        tensors[name] = _proven(counts[name], tensors) if name in counts else wide
        statistics[name] = _statistics(values)
        if name in read:
            histograms[name] = histogram_of(values)

    outputs = evaluate(graph, checked, observe)
    return Ranges({**tensors, **declared}, Source.DATA, margin, statistics, histograms, outputs)


def _activations(graph: Graph) -> list[Activation]:
    return [node for node in graph.nodes if isinstance(node, Activation)]


def _counts(graph: Graph, compared: set[str]) -> dict[str, Affine]:
    """Return by name the maps that only read comparisons, whose values are bounded by nature."""
    maps = (node for node in graph.nodes if isinstance(node, Affine))
    return {node.output: node for node in maps if compared.issuperset(node.inputs)}


def _proven(node: Affine, tensors: Mapping[str, TensorRange]) -> TensorRange:
    """Bound a map of comparisons by interval arithmetic: it needs hardly any margin."""
    unit = {
        name: TensorRange(
            np.where(tensors[name].low < -0.5, -1.0, 0.0), np.ones_like(tensors[name].high),
            Source.INTERVAL,
        )
        for name in node.inputs
    }  # fmt: skip
    low, high = node_bounds(node, unit)
    return TensorRange(low, high, Source.INTERVAL).widened(_SIGN_MARGIN)


def _widened_each(seen: TensorRange, margin: float) -> TensorRange:
    """Widen every element by its own width; one that never moved counts as far as it is from 0."""
    widths = (seen.high - seen.low) / 2.0
    reach = np.where(widths > 0.0, widths, np.maximum(np.abs(seen.high), _TINY))
    extra = (margin - 1.0) * reach
    return TensorRange(seen.low - extra, seen.high + extra, seen.source)


def _off_zero(wide: TensorRange, seen: TensorRange, node: Activation) -> TensorRange:
    """Keep a range on its side of 0, at most half as close as the data came, with room behind.

    Raises:
        ModelError: the data lie on both sides, or touch 0 where the function is not bounded.
    """
    least, greatest = float(seen.low.min()), float(seen.high.max())
    if not is_defined(node.function, least, greatest):
        raise ModelError(
            f"{node.origin}: {node.function} of values between {least:.6g} and {greatest:.6g} has "
            "no polynomial: the values must stay on one side of 0. Add a constant (epsilon) before "
            "it, or calibrate with rows typical of what customers send"
        )
    if greatest < 0.0:
        low = np.minimum(wide.low, _ROOM * least)
        return TensorRange(low, np.minimum(wide.high, greatest / 2.0), wide.source)
    nearest, room = least / 2.0, _ROOM
    if node.function == "reciprocal_above":
        nearest, room = node.parameters[0], _ROOM_FOR_POWERS
    high = np.maximum(wide.high, room * greatest)
    return TensorRange(np.maximum(wide.low, nearest), high, wide.source)


def _is_exact(node: Activation) -> bool:
    return node.function == "polynomial"


def _covering(known: TensorRange, values: Floats) -> TensorRange:
    """Widen a range to hold `COVERED_DEVIATIONS` of each element; a uniform range stays uniform."""
    mean, reach = values.mean(axis=0), COVERED_DEVIATIONS * values.std(axis=0)
    low, high = mean - reach, mean + reach
    if known.is_uniform:
        low, high = low.min(), high.max()
    return TensorRange(np.minimum(known.low, low), np.maximum(known.high, high), known.source)


def _input_range(seen: TensorRange, margin: float) -> TensorRange:
    """Choose one range for all features, or one each when their widths are far apart.

    Raw tabular features (years, milligrams, flags) get their own: it balances precision. Pixels
    share one, because a pixel that was always dark during calibration need not stay dark.
    A feature that was constant gets the whole tensor's range.
    """
    widths = (seen.high - seen.low) / 2.0
    moving = widths[widths > 0.0]
    whole_low, whole_high = seen.low.min(), seen.high.max()
    if moving.size == 0 or np.median(moving) >= seen.half_width * _SHARED_WIDTH:
        low, high = np.full_like(seen.low, whole_low), np.full_like(seen.high, whole_high)
        return TensorRange(low, high, seen.source).widened(margin)
    extra = (margin - 1.0) * widths
    low = np.where(widths > 0.0, seen.low - extra, whole_low)
    high = np.where(widths > 0.0, seen.high + extra, whole_high)
    return TensorRange(low, high, seen.source)


def histogram_of(values: Floats) -> Histogram:
    """Count values in equal bins between their extremes; a constant gets a bin of its own."""
    low, high = float(values.min()), float(values.max())
    if not high - low > 1e-12 * max(abs(low), abs(high)):
        width = max(abs(low), 1.0) * 1e-6
        low, high = low - width, high + width
    counts, edges = np.histogram(values, bins=_BINS, range=(low, high))
    return Histogram(edges.astype(np.float64), counts.astype(np.float64))


def _statistics(values: Floats) -> Statistics:
    return Statistics(
        low=float(values.min()),
        high=float(values.max()),
        quantile=float(np.quantile(np.abs(values).ravel(), 0.9999, overwrite_input=True)),
    )


def _checked_rows(graph: Graph, name: str, rows: Mapping[str, Floats]) -> Floats:
    size = graph.size(name)
    if name not in rows:
        raise InputShapeError(f"calibration data lacks the input {name!r}")
    values = np.asarray(rows[name], dtype=np.float64)
    if values.ndim != 2 or values.shape[0] == 0 or values.shape[1] != size:
        raise InputShapeError(
            f"calibration rows of {name!r} must have shape (rows >= 1, {size}), got {values.shape}"
        )
    return values


def _check_declared(rows: Mapping[str, Floats], declared: Mapping[str, TensorRange]) -> None:
    for name, bounds in declared.items():
        outside = np.any((rows[name] < bounds.low) | (rows[name] > bounds.high), axis=1)
        if outside.any():
            raise InputRangeError(
                f"{int(outside.sum())} calibration rows of {name!r} lie outside its declared "
                "range; widen the range or drop the rows"
            )


def _declared_range(graph: Graph, name: str, bounds: Bounds) -> TensorRange:
    size = graph.size(name)
    ends = [np.asarray(bound, dtype=np.float64) for bound in bounds]
    if any(end.shape not in ((), (size,)) or not np.all(np.isfinite(end)) for end in ends):
        raise InputShapeError(
            f"the range of input {name!r} must be two finite numbers or arrays of shape ({size},)"
        )
    low, high = (np.broadcast_to(end, (size,)).copy() for end in ends)
    if np.any(low > high):
        raise InputShapeError(f"the range of input {name!r} has a low end above its high end")
    return TensorRange(low, high, Source.INTERVAL)
