"""Ranges of tensors: per element, from data or from interval arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from tacit.errors import CircuitError
from tacit.fourier import evaluate_series, greatest_slope
from tacit.model_compiler.functions import interval_image
from tacit.model_compiler.graph import (
    Activation,
    Affine,
    Fourier,
    Graph,
    Node,
    Polynomial,
    Product,
)

Floats = NDArray[np.float64]

_FOURIER_SAMPLES = 4097


class Source(str, Enum):
    """Where a range comes from."""

    DATA = "data"
    INTERVAL = "interval"


@dataclass(frozen=True, slots=True, eq=False)
class TensorRange:
    """Bounds of one tensor, element by element.

    Attributes:
        low: shape (size,), finite.
        high: shape (size,), finite, nowhere below `low`.
        source: data (observed, widened by a margin) or interval (proven).
    """

    low: Floats
    high: Floats
    source: Source

    def __post_init__(self) -> None:
        finite = np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high))
        if self.low.shape != self.high.shape or not finite or np.any(self.low > self.high):
            raise CircuitError("a range needs finite bounds of equal shape with low <= high")

    @property
    def center(self) -> float:
        """Middle of the whole tensor's range."""
        return float(self.low.min() + self.high.max()) / 2.0

    @property
    def half_width(self) -> float:
        """Half the width of the whole tensor's range; may be 0."""
        return float(self.high.max() - self.low.min()) / 2.0

    @property
    def magnitude(self) -> float:
        """Greatest absolute value in the range."""
        return float(max(np.abs(self.low).max(), np.abs(self.high).max()))

    @property
    def is_uniform(self) -> bool:
        """Tell whether all elements share one range."""
        return bool(np.all(self.low == self.low[0]) and np.all(self.high == self.high[0]))

    def widened(self, factor: float) -> TensorRange:
        """Multiply the whole tensor's half width by a factor of at least 1.

        Every element is widened by the same amount, so that one which hardly moved during
        calibration gets as much room as the others.
        """
        extra = (factor - 1.0) * self.half_width
        return TensorRange(self.low - extra, self.high + extra, self.source)


def interval_bounds(graph: Graph, inputs: Mapping[str, TensorRange]) -> dict[str, TensorRange]:
    """Bound every tensor of a graph by interval arithmetic.

    Args:
        graph: any graph.
        inputs: a range for each of `graph.inputs`.

    Returns:
        A range for every tensor, sound up to rounding for any input inside `inputs`.

    Raises:
        CircuitError: a bound overflows.
    """
    bounds = {name: inputs[name] for name in graph.inputs}
    for node in graph.nodes:
        low, high = node_bounds(node, bounds)
        if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high))):
            raise CircuitError(
                f"interval bounds of {node.output!r} ({node.origin}) overflow; "
                "calibrate with sample data or declare narrower input ranges"
            )
        bounds[node.output] = TensorRange(low, high, Source.INTERVAL)
    return bounds


def node_bounds(node: Node, bounds: Mapping[str, TensorRange]) -> tuple[Floats, Floats]:
    """Bound one node's output elements, given the bounds of its inputs."""
    match node:
        case Affine():
            return _affine_bounds(node, bounds)
        case Activation():
            source = bounds[node.input]
            return interval_image(node.function, node.parameters, source.low, source.high)
        case Polynomial():
            source = bounds[node.input]
            low = (source.low - node.center) / node.half_width
            high = (source.high - node.center) / node.half_width
            return chebyshev_image(node.coefficients, low, high)
        case Product():
            return _product_bounds(node, bounds)
        case Fourier():
            return _fourier_bounds(node, bounds[node.input])


def chebyshev_image(coefficients: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Bound a Chebyshev series on intervals: its ends and the turning points between them.

    Args:
        coefficients: Chebyshev basis, shape (degree + 1,).
        low: lower ends, any shape; normally within [-1, 1].
        high: upper ends, same shape.

    Returns:
        Least and greatest value, same shape, outwards by 1e-12 of the greatest coefficient sum.
    """
    ends = [chebyshev.chebval(low, coefficients), chebyshev.chebval(high, coefficients)]
    least, greatest = np.minimum(*ends), np.maximum(*ends)
    derivative = chebyshev.chebder(coefficients)
    significant = chebyshev.chebtrim(derivative, 1e-15 * np.abs(derivative).max(initial=0.0))
    # The real part of a complex root is a harmless extra point; of a split double root, the point.
    turning = np.real(chebyshev.chebroots(significant)) if significant.size > 1 else np.zeros(0)
    for point, value in zip(turning, chebyshev.chebval(turning, coefficients), strict=True):
        inside = (low < point) & (point < high)
        least = np.where(inside, np.minimum(least, value), least)
        greatest = np.where(inside, np.maximum(greatest, value), greatest)
    slack = 1e-12 * float(np.abs(coefficients).sum())
    return np.asarray(least - slack), np.asarray(greatest + slack)


def _fourier_bounds(node: Fourier, source: TensorRange) -> tuple[Floats, Floats]:
    """Bound a series on its domain, the same for all elements: sampled, and its slope between."""
    x: Floats = np.linspace(-0.5, 0.5, _FOURIER_SAMPLES, dtype=np.float64)
    values = evaluate_series(node.series, x, node.period)
    slack = greatest_slope(node.series, node.period) / _FOURIER_SAMPLES
    low, high = float(values.min()) - slack, float(values.max()) + slack
    return np.full_like(source.low, low), np.full_like(source.high, high)


def _affine_bounds(node: Affine, bounds: Mapping[str, TensorRange]) -> tuple[Floats, Floats]:
    low, high = node.bias.astype(np.float64), node.bias.astype(np.float64)
    for name, matrix in zip(node.inputs, node.matrices, strict=True):
        source = bounds[name]
        positive, negative = matrix.maximum(0.0), matrix.minimum(0.0)
        low = low + positive @ source.low + negative @ source.high
        high = high + positive @ source.high + negative @ source.low
    return low, high


def _product_bounds(node: Product, bounds: Mapping[str, TensorRange]) -> tuple[Floats, Floats]:
    left, right = bounds[node.left], bounds[node.right]
    corners = np.stack([a * b for a in (left.low, left.high) for b in (right.low, right.high)])
    low, high = corners.min(axis=0), corners.max(axis=0)
    if node.left != node.right:
        return low, high
    crosses = (left.low < 0.0) & (left.high > 0.0)
    return np.where(crosses, 0.0, np.minimum(left.low**2, left.high**2)), high
