"""Fourier series of many values at once, read from a table.

Judging a network takes millions of values of each series. Between close points a series is a
polynomial of degree 3, up to an error far below any noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import PERIOD
from tacit.fourier import complex_series, evaluate_series

Floats = NDArray[np.float64]

# Points of the table for each harmonic. With h between two of them the error is at most
# h^4 / 384 times the fourth derivative: sum |c_m| (2 pi / 512)^4 / 384 < 2^-33 sum |c_m|.
_POINTS_PER_HARMONIC = 512
_BLOCK = 1 << 14


def series_values(series: Floats, x: Floats, period: float = PERIOD) -> Floats:
    """Evaluate a series; from as many values on as the table has points, by its table.

    Args:
        series: shape (2, degree + 1).
        x: any shape; values that are not finite give nan.
        period: of the series.
    """
    points = _POINTS_PER_HARMONIC * series.shape[1]
    if x.size <= points:
        return evaluate_series(series, x, period)
    table = _table(series, points, period)
    flat, found = np.ravel(x), np.empty(x.size)
    for first in range(0, x.size, _BLOCK):
        found[first : first + _BLOCK] = _read(table, flat[first : first + _BLOCK] / period)
    return found.reshape(x.shape)


def _table(series: Floats, points: int, period: float) -> Floats:
    """Return the coefficients of the cubic after each point of a period, shape (4, points)."""
    at: Floats = period / points * np.arange(points + 1, dtype=np.float64)
    turns = 2j * np.pi / period * np.arange(series.shape[1]) * complex_series(series)
    value = evaluate_series(series, at, period)
    turned: Floats = np.stack([turns.real, -turns.imag])
    slope = evaluate_series(turned, at, period) * (period / points)
    rise, before, after = np.diff(value), slope[:-1], slope[1:]
    return np.stack([value[:-1], before, 3 * rise - 2 * before - after, before + after - 2 * rise])


def _read(table: Floats, turns: Floats) -> Floats:
    place = turns * table.shape[1]
    cell = np.floor(place)
    rest = place - cell
    finite = np.where(np.isfinite(cell), cell, 0.0)
    index = (finite % table.shape[1]).astype(np.int64)
    found: Floats = table[3][index]
    for power in (2, 1, 0):
        found *= rest
        found += table[power][index]
    return found
