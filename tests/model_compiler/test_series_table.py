"""Series read from a table, against their formula."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.fourier import evaluate_series, fit_series
from tacit.model_compiler.series_table import series_values


@pytest.mark.parametrize("period", [2.0, 1.25])
@pytest.mark.parametrize("degree", [3, 31, 127])
def test_values_from_a_table_are_those_of_the_formula(degree: int, period: float) -> None:
    series = fit_series(lambda x: np.maximum(x, 0.0) + 0.1 * x, degree, period=period)
    x = np.random.default_rng(degree).uniform(-3.0, 3.0, (3, 200_000 // 3))
    found = series_values(series, x, period)
    assert found.shape == x.shape
    bound = 2.0**-33 * np.abs(series).sum()
    assert 0.0 < np.abs(found - evaluate_series(series, x, period)).max() < bound
    few = x[0, :100]
    expected = evaluate_series(series, few, period)
    np.testing.assert_array_equal(series_values(series, few, period), expected)


def test_what_is_not_finite_stays_so() -> None:
    series = fit_series(np.tanh, 3)
    x = np.zeros(10_000)
    x[:3] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        found = series_values(series, x)
    assert np.isnan(found[:3]).all()
    assert np.isfinite(found[3:]).all()
