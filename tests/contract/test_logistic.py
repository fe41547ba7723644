"""The recipe of encrypted logistic regression, in the clear."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from tacit.errors import InputRangeError, InputShapeError
from tacit.logistic import (
    ROW_SCALE,
    SIGMOID_RANGE,
    Preparation,
    approximate_sigmoid,
    momenta,
    odd_sigmoid,
    train_in_clear,
)

Floats = NDArray[np.float64]
CAPACITY = 512


def patients(rows: int = 400, features: int = 6, seed: int = 0) -> tuple[Floats, NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, features)) * rng.uniform(0.1, 50.0, features) + 20.0
    logits = (x - x.mean(axis=0)) / x.std(axis=0) @ rng.normal(size=features)
    return x, rng.random(rows) < 1.0 / (1.0 + np.exp(-logits))


def fitted(
    prepared: Preparation, x: Floats, y: NDArray[np.bool_], iterations: int, degree: int | None
) -> Floats:
    rows = prepared.signed_rows(x, y)
    step = ROW_SCALE**2 / (SIGMOID_RANGE * CAPACITY)
    scaled = rows * SIGMOID_RANGE  # margins in units of the sigmoid's range
    return train_in_clear(scaled, step / SIGMOID_RANGE, iterations, degree)


def test_nesterovs_sequence_begins_at_zero_and_grows_below_one() -> None:
    factors = momenta(20)
    assert factors[:2] == (0.0, 0.0)
    assert factors[2] == pytest.approx((np.sqrt(5) - 1) / 2 / ((1 + np.sqrt(7 + 2 * 5**0.5)) / 2))
    assert all(a < b < 1.0 for a, b in itertools.pairwise(factors[1:]))


@pytest.mark.parametrize(("degree", "error"), [(3, 0.115), (5, 0.062), (7, 0.033)])
def test_the_polynomial_is_near_the_sigmoid_on_its_range(degree: int, error: float) -> None:
    x: Floats = np.linspace(-SIGMOID_RANGE, SIGMOID_RANGE, 999, dtype=np.float64)
    worst = np.abs(approximate_sigmoid(x, degree) - 1.0 / (1.0 + np.exp(-x))).max()
    assert 0.5 * error < worst < error
    assert sorted(odd_sigmoid(degree)) == list(range(1, degree + 1, 2))


@pytest.mark.parametrize("whiten", [False, True])
def test_many_exact_iterations_reach_the_maximum_of_the_likelihood(whiten: bool) -> None:
    x, y = patients()
    prepared = Preparation.of(x, CAPACITY, whiten=whiten)
    received = fitted(prepared, x, y, 400, None)
    coefficients, intercept = prepared.weights(received)
    rows = prepared.extended(x)
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(rows[:, 1:], y)
    expected = np.concatenate([reference.intercept_, reference.coef_[0]])
    assert prepared.prepared_weights(received) == pytest.approx(expected, abs=2e-3)
    unclipped = np.abs((x - prepared.mean) @ prepared.mixing).max(axis=1) < 4.0
    scores = x[unclipped] @ coefficients + intercept
    assert scores == pytest.approx(rows[unclipped] @ prepared.prepared_weights(received))


def test_rows_fit_the_stored_range_and_whitened_features_are_uncorrelated() -> None:
    x, y = patients()
    x[:, 1] = x[:, 0] + 0.3 * x[:, 1]
    prepared = Preparation.of(x, CAPACITY, whiten=True)
    inner = prepared.extended(x)[:, 1:]
    unclipped = np.abs(inner).max(axis=1) < 4.0
    covariance = inner[unclipped].T @ inner[unclipped] / unclipped.sum()
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.1
    assert np.abs(prepared.signed_rows(x, y)).max() < 4.0


def test_a_constant_column_gets_no_weight() -> None:
    x, y = patients()
    x[:, 2] = 7.0
    prepared = Preparation.of(x, CAPACITY)
    coefficients, _ = prepared.weights(fitted(prepared, x, y, 5, 5))
    assert coefficients[2] == 0.0
    assert np.all(np.isfinite(coefficients))


def test_rows_that_do_not_fit_or_are_not_finite_are_refused() -> None:
    x, _ = patients()
    with pytest.raises(InputShapeError, match="1 to 100 rows"):
        Preparation.of(x, 100)
    x[3, 1] = np.nan
    with pytest.raises(InputRangeError, match="missing"):
        Preparation.of(x, CAPACITY)
