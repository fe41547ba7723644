"""Odd minimax polynomials, against closed forms, linear programming and the alternation theorem."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.optimize import linprog

from tacit.errors import CircuitError
from tacit.model_compiler.minimax import OddMinimax, odd_minimax

Floats = NDArray[np.float64]

LOWS = [2.0**-1, 2.0**-4, 2.0**-9, 2.0**-12]


def errors(found: OddMinimax, points: Floats) -> Floats:
    return np.asarray(1.0 - found(points))


@pytest.mark.parametrize("degree", [1, 3, 7, 15, 27, 31])
@pytest.mark.parametrize("low", LOWS)
def test_the_error_alternates_so_no_other_polynomial_is_better(low: float, degree: int) -> None:
    """De la Vallee Poussin: the least |error| at alternating points bounds the best error."""
    found = odd_minimax(low, 1.0, degree)
    points = found.alternation
    assert points.size == (degree + 1) // 2 + 1
    assert np.all(np.diff(points) > 0.0)
    assert low <= points[0] < points[-1] <= 1.0
    at = errors(found, points)
    assert np.all(np.sign(at[1:]) == -np.sign(at[:-1]))
    dense = np.concatenate([np.linspace(low, 1.0, 20001), np.geomspace(low, 1.0, 20001)])
    greatest = np.abs(errors(found, dense)).max()
    assert np.abs(at).min() >= greatest * (1.0 - 1e-6)
    assert found.error == pytest.approx(greatest, rel=1e-5)


@pytest.mark.parametrize(("low", "high"), [(0.25, 1.0), (0.5, 2.0), (0.9, 1.1)])
def test_a_straight_line_has_its_closed_form(low: float, high: float) -> None:
    found = odd_minimax(low, high, 1)
    assert found.error == pytest.approx((high - low) / (high + low), rel=1e-9)
    assert found(np.array([1.0]))[0] == pytest.approx(2.0 / (low + high), rel=1e-9)


@pytest.mark.parametrize("degree", [3, 5, 9])
def test_linear_programming_finds_the_same_error(degree: int) -> None:
    low, points = 0.1, np.linspace(0.1, 1.0, 2000)
    basis = chebyshev.chebvander(points, degree)[:, 1::2]
    ones = np.ones((points.size, 1))
    result = linprog(
        np.concatenate([np.zeros(basis.shape[1]), [1.0]]),
        A_ub=np.vstack([np.hstack([basis, -ones]), np.hstack([-basis, -ones])]),
        b_ub=np.concatenate([np.ones(points.size), -np.ones(points.size)]),
        bounds=[(None, None)] * basis.shape[1] + [(0, None)],
    )
    assert odd_minimax(low, 1.0, degree).error == pytest.approx(result.fun, rel=1e-4)


@pytest.mark.parametrize("low", LOWS)
def test_between_the_intervals_it_stays_within_its_error(low: float) -> None:
    for degree in (7, 15, 31):
        found = odd_minimax(low, 1.0, degree)
        inner = np.linspace(-low, low, 1001, dtype=np.float64)
        assert np.abs(found(inner)).max() <= 1.0 + found.error + 1e-9


def test_it_is_exactly_odd_and_of_the_degree_asked_for() -> None:
    found = odd_minimax(0.01, 1.0, 15)
    assert found.degree == 15
    assert not np.any(found.coefficients[0::2])
    x = np.linspace(-1.0, 1.0, 101, dtype=np.float64)
    assert np.array_equal(found(x), -found(-x))


def test_an_interval_so_narrow_that_rounding_wins_still_ends() -> None:
    found = odd_minimax(0.95, 1.05, 31)
    assert found.error < 1e-12
    x = np.linspace(0.95, 1.05, 1001, dtype=np.float64)
    assert np.abs(errors(found, x)).max() < 1e-12


@pytest.mark.parametrize(
    ("low", "high", "degree"), [(0.0, 1.0, 3), (0.5, 0.5, 3), (0.1, 1.0, 4), (0.1, 1.0, 0)]
)
def test_impossible_problems_are_refused(low: float, high: float, degree: int) -> None:
    with pytest.raises(CircuitError, match="odd minimax"):
        odd_minimax(low, high, degree)
