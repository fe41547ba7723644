"""Polynomial fits, against tabulated errors, numpy and their own definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from tacit.errors import CircuitError, ModelError
from tacit.model_compiler.approximation import (
    USEFUL_DEGREES,
    Approximation,
    Histogram,
    approximate_function,
    from_power_basis,
    interpolate,
    is_symmetric,
)
from tacit.model_compiler.functions import real_function
from tacit.model_compiler.passes.calibrate import histogram_of

Floats = NDArray[np.float64]

# (function, low, high, degree, greatest error), tabulated by an independent implementation.
TABLE = [
    ("sigmoid", -8, 8, 13, 3e-3),
    ("sigmoid", -8, 8, 27, 1.4e-5),
    ("sigmoid", -16, 16, 27, 2.7e-3),
    ("sigmoid", -16, 16, 59, 5e-6),
    ("sigmoid", -32, 32, 59, 1.8e-3),
    ("sigmoid", -32, 32, 119, 5e-6),
    ("tanh", -8, 8, 27, 5e-3),
    ("tanh", -8, 8, 59, 1e-5),
    ("silu", -8, 8, 13, 1.9e-2),
    ("silu", -8, 8, 27, 8.7e-5),
    ("silu", -16, 16, 59, 3.3e-5),
    ("silu", -32, 32, 119, 3.1e-5),
    ("gelu", -8, 8, 27, 5.6e-4),
    ("gelu", -8, 8, 59, 5e-12),
    ("gelu", -16, 16, 59, 1.7e-4),
    ("gelu", -32, 32, 119, 1.5e-4),
    ("softplus", -8, 8, 13, 3e-3),
    ("softplus", -8, 8, 27, 8e-6),
    ("mish", -8, 8, 27, 8e-4),
    ("hard_swish", -8, 8, 27, 3e-2),
    ("hard_swish", -8, 8, 59, 1.4e-2),
    ("relu", -8, 8, 27, 0.14),
    ("relu", -8, 8, 59, 0.067),
    ("relu", -8, 8, 119, 0.033),
    ("relu", -8, 8, 247, 0.016),
    ("erf", -4, 4, 13, 5e-3),
    ("erf", -4, 4, 27, 9e-7),
    ("exp", -8, 0, 7, 5.5e-4),
    ("exp", -8, 0, 13, 1e-8),
    ("exp", -16, 0, 13, 1e-5),
    ("exp", -32, 0, 27, 2e-10),
    ("exp", -64, 0, 27, 3e-6),
]


def fit(
    name: str, low: float, high: float, degree: int, histogram: Histogram | None = None
) -> Approximation:
    function = real_function(name, ())
    return approximate_function(function, (low + high) / 2, (high - low) / 2, degree, histogram)


@pytest.mark.parametrize(("name", "low", "high", "degree", "error"), TABLE)
def test_interpolation_reaches_the_tabulated_error(
    name: str, low: int, high: int, degree: int, error: float
) -> None:
    assert fit(name, low, high, degree).max_error == pytest.approx(error, rel=0.2)


@pytest.mark.parametrize("degree", [1, 2, 7, 30, 63])
def test_interpolation_equals_numpys(degree: int) -> None:
    got = interpolate(np.exp, degree)
    expected = np.asarray(chebyshev.chebinterpolate(np.exp, degree), dtype=np.float64)
    np.testing.assert_allclose(got, expected, atol=1e-14)


@pytest.mark.parametrize("degree", USEFUL_DEGREES)
def test_the_reported_error_is_the_error_on_an_independent_grid(degree: int) -> None:
    approximation = fit("silu", -9.0, 5.0, degree)
    x = np.linspace(-9.0, 5.0, 50001, dtype=np.float64)
    error = np.abs(
        chebyshev.chebval((x + 2.0) / 7.0, approximation.coefficients)
        - real_function("silu", ())(x)
    )
    assert error.max() == pytest.approx(approximation.max_error, rel=0.02, abs=1e-13)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("tanh", lambda k: k % 2 == 1),
        ("erf", lambda k: k % 2 == 1),
        ("abs", lambda k: k % 2 == 0),
        ("sigmoid", lambda k: k == 0 or k % 2 == 1),
        ("silu", lambda k: k == 1 or k % 2 == 0),
        ("relu", lambda k: k == 1 or k % 2 == 0),
        ("hard_swish", lambda k: k == 1 or k % 2 == 0),
    ],
)
@pytest.mark.parametrize("with_data", [False, True])
def test_symmetry_leaves_exact_zeros(name: str, kept: object, with_data: bool) -> None:
    assert callable(kept)
    values = np.random.default_rng(1).normal(0.7, 1.0, 5000)
    histogram = histogram_of(values) if with_data else None
    coefficients = fit(name, -5.0, 5.0, 15, histogram).coefficients
    for k, coefficient in enumerate(coefficients):
        assert (coefficient != 0.0) == kept(k), k


def test_a_domain_off_center_needs_every_coefficient() -> None:
    assert np.all(fit("tanh", -4.0, 5.0, 15).coefficients != 0.0)


@pytest.mark.parametrize("degree", [3, 7, 15, 31])
@pytest.mark.parametrize("name", ["relu", "sigmoid", "gelu", "clip"])
def test_data_lowers_the_error_where_the_data_lies(name: str, degree: int) -> None:
    parameters = (-1.0, 1.0) if name == "clip" else ()
    function = real_function(name, parameters)
    values = np.random.default_rng(degree).normal(0.5, 1.0, 20000)
    plain = approximate_function(function, 0.0, 8.0, degree)
    fitted = approximate_function(function, 0.0, 8.0, degree, histogram_of(values))

    def rms(coefficients: Floats) -> float:
        error = chebyshev.chebval(values / 8.0, coefficients) - function(values)
        return float(np.sqrt(np.mean(error**2)))

    assert rms(fitted.coefficients) < 0.9 * rms(plain.coefficients)
    assert rms(fitted.coefficients) == pytest.approx(fitted.rms_error_on_data, rel=0.02)


@pytest.mark.parametrize("spread", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("degree", USEFUL_DEGREES)
def test_data_never_lets_the_tails_go(degree: int, spread: float) -> None:
    values = np.random.default_rng(0).normal(1.0, spread, 20000)
    plain = fit("relu", -8.0, 8.0, degree)
    fitted = fit("relu", -8.0, 8.0, degree, histogram_of(values))
    assert fitted.max_error <= 2.0 * plain.max_error + 1e-12
    grid = chebyshev.chebval(np.linspace(-1.0, 1.0, 9999), fitted.coefficients)
    assert np.abs(grid).max() <= fitted.max_magnitude + 1e-6
    assert fitted.max_magnitude <= 8.0 + fitted.max_error


def test_a_weighted_fit_is_the_least_squares_solution() -> None:
    """Perturbing a coefficient either way must not lower the weighted error it minimises."""
    generator = np.random.default_rng(3)
    histogram = histogram_of(generator.uniform(-8.0, 8.0, 200_000))
    fitted = fit("sigmoid", -8.0, 8.0, 7, histogram)
    x = np.linspace(-1.0, 1.0, 20001, dtype=np.float64)
    target = real_function("sigmoid", ())(8.0 * x)

    def squared_error(coefficients: Floats) -> float:
        return float(np.mean((chebyshev.chebval(x, coefficients) - target) ** 2))

    best = squared_error(fitted.coefficients)
    for k in np.flatnonzero(fitted.coefficients):
        for step in (-0.02, 0.02):
            moved = fitted.coefficients.copy()
            moved[k] += step
            assert squared_error(moved) > best


@pytest.mark.parametrize("seed", range(5))
def test_the_power_basis_converts_exactly(seed: int) -> None:
    generator = np.random.default_rng(seed)
    powers = generator.normal(size=seed + 2)
    center, half_width = float(generator.normal()), float(generator.uniform(0.5, 4.0))
    got = from_power_basis(powers, center, half_width)
    assert got.size == powers.size
    x = center + half_width * np.linspace(-1.0, 1.0, 101)
    expected = np.polynomial.polynomial.polyval(x, powers)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        chebyshev.chebval((x - center) / half_width, got), expected, atol=1e-13 * scale
    )


def test_trailing_zeros_of_a_power_basis_vanish() -> None:
    assert from_power_basis(np.array([1.0, 2.0, 0.0, 0.0]), 0.0, 3.0).tolist() == [1.0, 6.0]
    assert from_power_basis(np.array([0.0]), 1.0, 3.0).tolist() == [0.0]


def test_symmetry_is_told_apart() -> None:
    symmetric = ("tanh", "relu", "silu", "gelu", "sigmoid", "softplus", "abs")
    for name in symmetric:
        assert is_symmetric(real_function(name, ()), 6.0), name
    for name in ("mish", "exp"):
        assert not is_symmetric(real_function(name, ()), 6.0), name
    assert not is_symmetric(real_function("exp", ()), 1e4)


def test_a_function_that_overflows_on_its_range_is_refused() -> None:
    with pytest.raises(ModelError, match=r"not finite on its range \[-2000, 2000\].*calibrate"):
        fit("exp", -2000.0, 2000.0, 7)


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(CircuitError, match="not an interval"):
        approximate_function(np.tanh, 1.0, 0.0, 3)


def test_a_histogram_checks_itself() -> None:
    edges = np.array([0.0, 1.0, 2.0])
    with pytest.raises(CircuitError, match="ascending edges"):
        Histogram(edges, np.ones(3))
    with pytest.raises(CircuitError, match="not all zero"):
        Histogram(edges, np.zeros(2))
