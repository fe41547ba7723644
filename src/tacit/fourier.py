"""Periodic series for bootstrapping: a function as a Fourier extension, and the exponential.

Raising the modulus adds an unknown multiple of q_0 to every coefficient. A function of the value
that has period q_0 does not see it. So a function f is replaced by a Fourier series that equals f
on the range that values may have, [-1/2, 1/2), and has a longer period: a Fourier extension
(Huybrechs 2010). Its harmonics are powers of one exponential exp(2 pi i x / period), which is a
Chebyshev series of low degree, squared a few times.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import PERIOD
from tacit.chebyshev import chebyshev_depth
from tacit.errors import ParameterError

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

# Singular values of the least-squares problem below this share of the largest are left out: it
# bounds the coefficients, whose size multiplies the noise.
CUTOFF = 1e-6
_NODES_PER_HARMONIC = 8
# Of the exponential's polynomial: beyond, it could save one level, but noise grows with the degree
# (two bits from degree 28 and three squarings to degree 120, at N = 2^12 and 34 to 40 bits).
_LARGEST_DEGREE = 63
# Smaller Chebyshev coefficients are rounding errors of the transform.
_ROUNDING = 1e-15


def fit_series(
    function: Callable[[Floats], Floats],
    degree: int,
    *,
    period: float = PERIOD,
    cutoff: float = CUTOFF,
) -> Floats:
    """Fit a Fourier series of a longer period to a function on [-1/2, 1/2].

    Args:
        function: of an array of shape (points,), with values of the same shape.
        degree: number of harmonics, at least 1.
        period: at least 1; longer needs fewer harmonics for smooth functions, and amplifies noise.
        cutoff: of singular values, relative.

    Returns:
        Shape (2, degree + 1): coefficients a and b of
        sum_m a[m] cos(2 pi m x / period) + b[m] sin(2 pi m x / period); b[0] is 0.

    Raises:
        ParameterError: degree or period too small, or the function is not finite.
    """
    if degree < 1 or period < 1.0:
        raise ParameterError("a Fourier extension needs a degree of 1 and a period of 1 or more")
    x = _nodes(degree)
    values = np.asarray(function(x), dtype=np.float64)
    if values.shape != x.shape or not np.all(np.isfinite(values)):
        raise ParameterError("a function to extend must be finite on [-1/2, 1/2]")
    left, sizes, right = _decomposed(degree, period)
    kept = sizes > cutoff * sizes[0]
    found = right[kept].T @ ((left[:, kept].T @ values) / sizes[kept])
    return np.stack([found[: degree + 1], np.concatenate([[0.0], found[degree + 1 :]])])


@lru_cache(maxsize=16)
def _decomposed(degree: int, period: float) -> tuple[Floats, Floats, Floats]:
    """Return the singular value decomposition of the harmonics on the nodes of `fit_series`."""
    angles = 2.0 * np.pi / period * np.outer(_nodes(degree), np.arange(degree + 1))
    basis = np.concatenate([np.cos(angles), np.sin(angles[:, 1:])], axis=1)
    left, sizes, right = np.linalg.svd(basis, full_matrices=False)
    return np.asarray(left), np.asarray(sizes), np.asarray(right)


def _nodes(degree: int) -> Floats:
    points = _NODES_PER_HARMONIC * (degree + 1)
    return np.asarray(0.5 * np.cos(np.pi * (np.arange(points) + 0.5) / points))


def evaluate_series(series: Floats, x: Floats, period: float = PERIOD) -> Floats:
    """Evaluate a series from `fit_series`; x may be anything, the result repeats by `period`.

    Args:
        series: shape (2, degree + 1).
        x: any shape.
        period: as it was fitted with.
    """
    z = np.exp(2j * np.pi / period * x)
    return np.asarray(np.polynomial.polynomial.polyval(z, complex_series(series)).real)


def greatest_slope(series: Floats, period: float = PERIOD) -> float:
    """Return the largest derivative, in magnitude, on [-1/2, 1/2]."""
    z = np.exp(2j * np.pi / period * np.linspace(-0.5, 0.5, 1025))
    turns = 2j * np.pi / period * np.arange(len(series[0]))
    slopes = np.polynomial.polynomial.polyval(z, complex_series(series) * turns).real
    return float(np.max(np.abs(slopes)))


def complex_series(series: Floats) -> Complexes:
    """Return the c_m for which the series is the real part of sum_m c_m exp(2 pi i m x / period).

    Raises:
        ParameterError: not of shape (2, degree + 1) with degree >= 1, or not finite.
    """
    series = np.asarray(series, dtype=np.float64)
    if series.ndim != 2 or series.shape[0] != 2 or series.shape[1] < 2:
        raise ParameterError(f"a series of shape (2, degree + 1) expected, got {series.shape}")
    if not np.all(np.isfinite(series)):
        raise ParameterError("a Fourier series must be finite")
    return np.asarray(series[0] - 1j * series[1])


@dataclass(frozen=True, slots=True)
class Exponential:
    """How exp(2 pi i t) is computed for |t| <= bound: a polynomial in t / bound, then squarings.

    Attributes:
        bound: largest |t|, in units of the period.
        degree: of the Chebyshev series of exp(2 pi i t / 2^doublings).
        doublings: how often its value is squared.
    """

    bound: float
    degree: int
    doublings: int

    @property
    def depth(self) -> int:
        """Levels: those of the polynomial, and one for each squaring."""
        return chebyshev_depth(self.degree) + self.doublings

    @property
    def coefficients(self) -> Complexes:
        """Chebyshev coefficients of exp(2 pi i bound u / 2^doublings), shape (degree + 1,)."""
        return exponential_coefficients(self._amplitude, self.degree)

    @property
    def error(self) -> float:
        """Largest error of the exponential after the squarings, without noise."""
        beyond = exponential_coefficients(self._amplitude, 2 * self.degree + 8)
        return math.ldexp(float(np.sum(np.abs(beyond[self.degree + 1 :]))), self.doublings)

    @property
    def _amplitude(self) -> float:
        return math.ldexp(2.0 * math.pi * self.bound, -self.doublings)


def exponential_coefficients(amplitude: float, degree: int) -> Complexes:
    """Return Chebyshev coefficients of exp(i amplitude u), u in [-1, 1], shape (degree + 1,)."""
    points = 4 * (degree + 8) + 4 * int(amplitude)
    angles = np.pi * (np.arange(points) + 0.5) / points
    values = np.exp(1j * amplitude * np.cos(angles))
    # A cosine transform, as a Fourier transform of twice the length.
    turns = np.exp(-0.5j * np.pi * np.arange(degree + 1) / points)
    spectrum = np.fft.fft(np.concatenate([values, values[::-1]]))[: degree + 1]
    coefficients: Complexes = turns * spectrum / points
    coefficients[0] /= 2.0
    # By symmetry: even ones are real, odd ones imaginary.
    coefficients[::2] = coefficients[::2].real
    coefficients[1::2] = 1j * coefficients[1::2].imag
    return coefficients


@lru_cache(maxsize=64)
def choose_exponential(bound: float, error: float) -> Exponential:
    """Choose degree and doublings with the least depth, then the fewest products of ciphertexts.

    Args:
        bound: largest |t|, in units of the period.
        error: accepted in the exponential.

    Raises:
        ParameterError: bound or error is not positive, or nothing is accurate enough.
    """
    if bound <= 0.0 or error <= 0.0:
        raise ParameterError("a bound and an error above 0 are needed")
    found = [
        Exponential(bound, degree, doublings)
        for doublings in range(max(1, math.ceil(math.log2(8 * bound))))
        if (degree := _smallest_degree(bound, doublings, error)) is not None
    ]
    if not found:
        raise ParameterError(f"no polynomial of the exponential is accurate to {error:.1e}")
    return min(found, key=lambda e: (e.depth, math.sqrt(e.degree) * 2 + e.doublings))


def _smallest_degree(bound: float, doublings: int, error: float) -> int | None:
    amplitude = math.ldexp(2.0 * math.pi * bound, -doublings)
    if amplitude > 2.0 * _LARGEST_DEGREE:
        return None
    coefficients = np.abs(exponential_coefficients(amplitude, int(2 * amplitude) + 60))
    coefficients[coefficients < _ROUNDING] = 0.0
    tails = np.cumsum(coefficients[::-1])[::-1] * 2**doublings  # tails[k]: of degree k - 1
    good = np.flatnonzero(tails[1:] <= error)
    degree = max(2, int(good[0])) if len(good) else _LARGEST_DEGREE + 1
    return degree if degree <= _LARGEST_DEGREE else None
