"""Approximate a real function on an interval by a polynomial in the Chebyshev basis.

Without data the polynomial interpolates at Chebyshev nodes, which is near-minimax. With a histogram
of the values that really occur it is a weighted least-squares fit: the histogram, plus a floor that
keeps the polynomial close to the function where no calibration value fell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.polynomial import chebyshev
from numpy.polynomial import polynomial as power_basis
from numpy.typing import NDArray
from scipy import fft, linalg

from tacit.errors import CircuitError, ModelError

Floats = NDArray[np.float64]
RealFunction = Callable[[Floats], Floats]

# Degrees worth choosing: the greatest at each depth of `tacit.chebyshev.chebyshev_depth`, and 2,
# which a completed square brings down to one level.
USEFUL_DEGREES: Final = (1, 2, 3, 7, 15, 31, 63, 127, 255)

# Share of the weight spread evenly (in angle) over the domain; the next one is tried when the fit
# strays in the tails. At 1 the fit is the near-minimax one.
_FLOORS: Final = (1e-3, 1e-2, 1e-1, 1.0)
_TAIL_FACTOR: Final = 2.0
_VANISHING: Final = 1e-13


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How often the values of a tensor fell into each bin.

    Attributes:
        edges: shape (bins + 1,), ascending.
        counts: shape (bins,), not negative, sum above 0.
    """

    edges: Floats
    counts: Floats

    def __post_init__(self) -> None:
        if self.edges.size != self.counts.size + 1 or np.any(np.diff(self.edges) <= 0):
            raise CircuitError("a histogram needs ascending edges, one more than counts")
        if np.any(self.counts < 0) or self.counts.sum() <= 0:
            raise CircuitError("a histogram needs counts that are not negative and not all zero")

    @property
    def centers(self) -> Floats:
        """Midpoints of the bins, shape (bins,)."""
        return np.asarray((self.edges[1:] + self.edges[:-1]) / 2.0)

    def cumulative(self, x: Floats) -> Floats:
        """Return the fraction of values at or below each x, linear inside a bin."""
        steps = np.concatenate([[0.0], np.cumsum(self.counts)]) / self.counts.sum()
        return np.asarray(np.interp(x, self.edges, steps))


@dataclass(frozen=True, slots=True, eq=False)
class Approximation:
    """A polynomial in place of a function on [center - half_width, center + half_width].

    Attributes:
        coefficients: Chebyshev basis in (x - center) / half_width; shape (degree + 1,).
        max_error: greatest |polynomial - function| on the interval.
        mean_error_on_data: mean |error| over the histogram; over the interval without one.
        rms_error_on_data: root mean square error, likewise.
        max_magnitude: greatest |polynomial| on the interval.
    """

    coefficients: Floats
    center: float
    half_width: float
    max_error: float
    mean_error_on_data: float
    rms_error_on_data: float
    max_magnitude: float

    @property
    def degree(self) -> int:
        """Degree of the polynomial."""
        return int(self.coefficients.size) - 1


def approximate_function(
    function: RealFunction,
    center: float,
    half_width: float,
    degree: int,
    histogram: Histogram | None = None,
) -> Approximation:
    """Fit a polynomial of at most a given degree.

    Args:
        function: finite on the whole interval.
        center: middle of the interval.
        half_width: half its width, above 0.
        degree: greatest degree allowed, at least 0.
        histogram: values that occur; None interpolates at Chebyshev nodes.

    Returns:
        The fit. Coefficients that the function's symmetry makes zero are exactly zero. Its greatest
        error is at most twice that of interpolation at Chebyshev nodes.

    Raises:
        ModelError: the function is not finite on the interval.
    """
    on_unit = _checked(function, center, half_width)
    plain = interpolate(on_unit, degree)
    if histogram is None:
        return _measured(on_unit, plain, center, half_width, None)
    grid = _grid(degree)
    values = on_unit(grid)
    allowed = _TAIL_FACTOR * _max_error(plain, grid, values) + _VANISHING * np.abs(values).max()
    for floor in _FLOORS:
        mass = _node_masses(histogram, center, half_width, degree, floor)
        fitted = _least_squares(on_unit, plain, mass)
        if _max_error(fitted, grid, values) <= allowed:
            return _measured(on_unit, fitted, center, half_width, histogram)
    return _measured(on_unit, plain, center, half_width, histogram)


def interpolate(function: RealFunction, degree: int) -> Floats:
    """Interpolate a function on [-1, 1] at its degree + 1 Chebyshev nodes.

    Returns:
        Chebyshev coefficients, shape (degree + 1,). Those of a parity that vanishes for a
        (shifted) odd or even function are exactly zero.
    """
    nodes = _nodes(degree + 1)
    coefficients = np.asarray(fft.dct(function(nodes), type=2) / nodes.size)
    coefficients[0] /= 2.0
    return np.where(_active_columns(function, degree), coefficients, 0.0)


def from_power_basis(coefficients: Floats, center: float, half_width: float) -> Floats:
    """Rewrite sum_k c_k x^k in the Chebyshev basis of (x - center) / half_width, exactly.

    Returns:
        Shape (degree + 1,), trailing zeros removed, at least one coefficient.
    """
    unit_argument = np.array([center, half_width])
    total = np.zeros(1)
    for coefficient in np.asarray(coefficients, dtype=np.float64)[::-1]:
        total = power_basis.polyadd(power_basis.polymul(total, unit_argument), [coefficient])
    return trimmed(np.asarray(chebyshev.poly2cheb(total)))


def trimmed(coefficients: Floats) -> Floats:
    """Drop trailing coefficients below rounding error of the greatest one; keep at least one."""
    scale = np.abs(coefficients).max(initial=0.0)
    significant = np.flatnonzero(np.abs(coefficients) > 1e-16 * scale)
    length = int(significant[-1]) + 1 if significant.size else 1
    return np.asarray(coefficients[:length], dtype=np.float64)


def is_symmetric(function: RealFunction, half_width: float) -> bool:
    """Tell whether the function is odd or even about 0, up to a linear term."""
    if not np.all(np.isfinite(function(half_width * _even_points(257)))):
        return False
    active = _active_columns(lambda u: function(half_width * u), 32)
    return not (active[2::2].any() and active[3::2].any())


def _checked(function: RealFunction, center: float, half_width: float) -> RealFunction:
    if not (np.isfinite(center) and np.isfinite(half_width) and half_width > 0.0):
        raise CircuitError(f"not an interval: center {center}, half width {half_width}")

    def on_unit(u: Floats) -> Floats:
        return np.asarray(function(center + half_width * u), dtype=np.float64)

    if not np.all(np.isfinite(on_unit(_even_points(257)))):
        low, high = center - half_width, center + half_width
        raise ModelError(
            f"an activation is not finite on its range [{low:.6g}, {high:.6g}]; "
            "calibrate with sample data or declare narrower input ranges"
        )
    return on_unit


def _nodes(count: int) -> Floats:
    return np.asarray(np.cos(np.pi * (np.arange(count) + 0.5) / count))


def _even_points(count: int) -> Floats:
    return np.asarray(np.linspace(-1.0, 1.0, count), dtype=np.float64)


def _grid(degree: int) -> Floats:
    """Return points of [-1, 1], dense at the ends where Chebyshev polynomials turn fastest."""
    return np.asarray(np.cos(np.linspace(np.pi, 0.0, 16 * max(degree, 128) + 1)))


def _active_columns(function: RealFunction, degree: int) -> NDArray[np.bool_]:
    """Mark the coefficients that symmetry does not force to zero.

    The even and odd parts are judged without their constant and linear terms, so that sigmoid
    (1/2 + odd) and SiLU (x/2 + even) keep only the half they need.
    """
    u = _nodes(256)
    values, mirrored = function(u), function(-u)
    scale = np.abs(values).max(initial=0.0)
    even, odd = (values + mirrored) / 2.0, (values - mirrored) / 2.0
    slope = float((odd * u).sum() / (u * u).sum())
    active = np.ones(degree + 1, dtype=np.bool_)
    active[0] = abs(even.mean()) > _VANISHING * scale
    active[1:2] = abs(slope) > _VANISHING * scale or np.ptp(odd) > _VANISHING * scale
    active[2::2] = np.ptp(even) > _VANISHING * scale
    active[3::2] = np.abs(odd - slope * u).max() > _VANISHING * scale
    return active


def _node_masses(
    histogram: Histogram, center: float, half_width: float, degree: int, floor: float
) -> Floats:
    """Weigh each of the fit's Chebyshev nodes: histogram mass of its cell, plus the floor."""
    count = max(2048, 8 * (degree + 1))
    borders = center + half_width * np.cos(np.pi * np.arange(count + 1) / count)
    mass = -np.diff(histogram.cumulative(borders))
    return np.asarray((1.0 - floor) * mass / max(mass.sum(), 1e-300) + floor / count)


def _least_squares(function: RealFunction, plain: Floats, mass: Floats) -> Floats:
    """Minimise sum mass (p - f)^2 over the correction to a polynomial that is already close.

    The floor bounds the condition number of the normal matrix by about 2 / floor, and solving
    only for the correction keeps even that from costing digits.
    """
    degree = plain.size - 1
    nodes = _nodes(mass.size)
    active = _active_columns(function, degree)
    basis = chebyshev.chebvander(nodes, degree)[:, active]
    residual = function(nodes) - chebyshev.chebval(nodes, plain)
    normal = basis.T @ (mass[:, None] * basis)
    fitted = plain.copy()
    fitted[active] += linalg.solve(normal, basis.T @ (mass * residual), assume_a="pos")
    return fitted


def _max_error(coefficients: Floats, grid: Floats, values: Floats) -> float:
    return float(np.abs(chebyshev.chebval(grid, coefficients) - values).max())


def _measured(
    on_unit: RealFunction,
    coefficients: Floats,
    center: float,
    half_width: float,
    histogram: Histogram | None,
) -> Approximation:
    coefficients = trimmed(coefficients)
    grid = _grid(coefficients.size)
    polynomial = chebyshev.chebval(grid, coefficients)
    if histogram is None:
        points, weights = _even_points(2001), np.full(2001, 1.0 / 2001)
    else:
        points = np.asarray(np.clip((histogram.centers - center) / half_width, -1.0, 1.0))
        weights = histogram.counts / histogram.counts.sum()
    error = np.abs(chebyshev.chebval(points, coefficients) - on_unit(points))
    return Approximation(
        coefficients=coefficients,
        center=center,
        half_width=half_width,
        max_error=float(np.abs(polynomial - on_unit(grid)).max()),
        mean_error_on_data=float(weights @ error),
        rms_error_on_data=float(np.sqrt(weights @ error**2)),
        max_magnitude=float(np.abs(polynomial).max()),
    )
