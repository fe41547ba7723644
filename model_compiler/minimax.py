"""Odd minimax polynomials: the best odd polynomial for 1 on an interval right of 0.

Such a p comes within E of sign(x) on [-high, -low] and [low, high]. With p(x) = x q(x^2) it is a
weighted minimax problem for q on [low^2, high^2], solved by Remez exchange (E. Remez 1934) in the
Chebyshev basis of that interval. There the linear systems stay well conditioned for any degree and
however narrow the interval, which those in the odd Chebyshev basis of [-high, high] do not; the
result is rewritten in that basis at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy import fft

from tacit.errors import CircuitError

Floats = NDArray[np.float64]

# The exchange stops when the greatest error exceeds the levelled one by less than this share.
_CONVERGED: Final = 1e-9
_MOST_EXCHANGES: Final = 60
# Below this error, rounding hides the alternation.
_ROUNDING: Final = 1e-13
_GRID: Final = 1500


@dataclass(frozen=True, slots=True, eq=False)
class OddMinimax:
    """An odd polynomial close to sign(x) for low <= |x| <= high.

    Attributes:
        coefficients: Chebyshev basis in x / high, shape (degree + 1,); even ones exactly zero.
        low: lower end of the positive interval.
        high: upper end.
        error: greatest |p(x) - sign(x)| on the two intervals.
        alternation: the points of [low, high] where the error is reached with alternating signs.
    """

    coefficients: Floats
    low: float
    high: float
    error: float
    alternation: Floats

    @property
    def degree(self) -> int:
        """Degree of the polynomial."""
        return int(self.coefficients.size) - 1

    def __call__(self, x: Floats) -> Floats:
        """Evaluate the polynomial, any shape."""
        return np.asarray(chebyshev.chebval(np.asarray(x) / self.high, self.coefficients))


def odd_minimax(low: float, high: float, degree: int) -> OddMinimax:
    """Find the odd polynomial of a degree that is closest to sign(x) for low <= |x| <= high.

    Args:
        low: above 0.
        high: above `low`.
        degree: odd, at least 1.

    Raises:
        CircuitError: not an interval right of 0, or an even degree.
    """
    if not 0.0 < low < high or degree < 1 or degree % 2 == 0:
        raise CircuitError(
            f"an odd minimax polynomial needs 0 < low < high and an odd degree, got low {low}, "
            f"high {high}, degree {degree}"
        )
    problem = _Problem(low, high, (degree + 1) // 2, _dense_points(low, high))
    points = problem.first_points()
    for _ in range(_MOST_EXCHANGES):
        q, level = problem.levelled(points)
        error = problem.error(q, problem.grid)
        greatest = float(np.abs(error).max())
        if greatest <= _ROUNDING or greatest <= abs(level) * (1.0 + _CONVERGED):
            break
        exchanged = _alternation(error, problem.size + 1)
        if exchanged is None:
            break
        points = problem.sharpened(q, exchanged)
    coefficients = _odd_series(lambda x: problem.value(q, x), high, degree)
    return OddMinimax(coefficients, low, high, greatest, points)


def _dense_points(low: float, high: float) -> Floats:
    """Return points of [low, high], dense at both ends, in ascending order."""
    even = np.cos(np.linspace(np.pi, 0.0, _GRID))
    squares = low**2 + (high**2 - low**2) * (even + 1.0) / 2.0
    steps = low * (high / low) ** np.linspace(0.0, 1.0, _GRID)
    grid = np.unique(np.concatenate([np.sqrt(squares), steps]))
    return np.asarray(np.clip(grid, low, high))


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """Minimise |1 - x q(x^2)| on [low, high]; q has `size` coefficients, `grid` tells where."""

    low: float
    high: float
    size: int
    grid: Floats

    def first_points(self) -> Floats:
        """Return where a Chebyshev polynomial in x^2 would alternate."""
        even = np.cos(np.linspace(np.pi, 0.0, self.size + 1))
        squares = self.low**2 + (self.high**2 - self.low**2) * (even + 1.0) / 2.0
        return np.asarray(np.clip(np.sqrt(squares), self.low, self.high))

    def levelled(self, points: Floats) -> tuple[Floats, float]:
        """Return q and E with 1 - x q(x^2) = (-1)^i E at the i-th point."""
        signs = (-1.0) ** np.arange(points.size)
        basis = points[:, None] * chebyshev.chebvander(self._argument(points), self.size - 1)
        solution = np.linalg.solve(np.column_stack([basis, signs]), np.ones(points.size))
        return np.asarray(solution[:-1]), float(solution[-1])

    def value(self, q: Floats, x: Floats) -> Floats:
        return np.asarray(x * chebyshev.chebval(self._argument(x), q))

    def error(self, q: Floats, x: Floats) -> Floats:
        return np.asarray(1.0 - self.value(q, x))

    def sharpened(self, q: Floats, indices: NDArray[np.int64]) -> Floats:
        """Move grid points to the top of the parabola through them and their neighbours."""
        grid = self.grid
        inner = np.clip(indices, 1, grid.size - 2)
        left, middle, right = grid[inner - 1], grid[inner], grid[inner + 1]
        e0, e1, e2 = (self.error(q, x) for x in (left, middle, right))
        first, last = (e1 - e0) / (middle - left), (e2 - e1) / (right - middle)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = first / (first - last)
        top = (left + middle) / 2.0 + share * (right - left) / 2.0
        usable = (indices == inner) & np.isfinite(top) & (top > left) & (top < right)
        return np.asarray(np.where(usable, top, grid[indices]))

    def _argument(self, x: Floats) -> Floats:
        squares = np.asarray(x) ** 2
        width = self.high**2 - self.low**2
        return np.asarray((2.0 * squares - self.high**2 - self.low**2) / width)


def _alternation(error: Floats, count: int) -> NDArray[np.int64] | None:
    """Return grid indices of `count` extrema with alternating signs; None if there are fewer."""
    signs = np.sign(error)
    borders = np.flatnonzero(signs[1:] != signs[:-1]) + 1
    runs = np.split(np.arange(error.size), borders)
    tops = np.array([run[np.abs(error[run]).argmax()] for run in runs], dtype=np.int64)
    while tops.size > count:  # drop an end, or the two smallest neighbours, keeping the signs
        if tops.size == count + 1:
            drop_first = abs(error[tops[0]]) < abs(error[tops[-1]])
            return tops[1:] if drop_first else tops[:-1]
        pairs = np.maximum(np.abs(error[tops[1:]]), np.abs(error[tops[:-1]]))
        smallest = int(pairs.argmin())
        tops = np.delete(tops, [smallest, smallest + 1])
    return tops if tops.size == count else None


def _odd_series(function: object, high: float, degree: int) -> Floats:
    """Rewrite an odd polynomial in the Chebyshev basis of x / high, exactly odd."""
    count = degree + 1
    nodes = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    assert callable(function)
    coefficients = np.asarray(fft.dct(function(high * nodes), type=2) / count)
    coefficients[0::2] = 0.0
    return coefficients
