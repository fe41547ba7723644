"""Counts of levels and products, against a counting run on ciphertext types."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import chebyshev

from tacit.chebyshev import chebyshev_by_powers, chebyshev_depth
from tacit.circuit import ValueType
from tacit.model_compiler.approximation import approximate_function
from tacit.model_compiler.functions import real_function
from tacit.model_compiler.levels import LevelChecker
from tacit.model_compiler.polynomial_cost import polynomial_levels, polynomial_products
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.clear import ClearEvaluator


class _Counting(LevelChecker):
    count = 0

    def multiply(self, a: ValueType, b: ValueType) -> ValueType:
        self.count += 1
        return super().multiply(a, b)


@pytest.mark.parametrize("degree", [2, 3, 7, 15, 31, 63, 127, 255])
@pytest.mark.parametrize("name", ["relu", "sigmoid", "exp", "abs"])
def test_the_products_are_those_of_the_very_polynomial(name: str, degree: int) -> None:
    fitted = approximate_function(real_function(name, ()), 0.0, 4.0, degree)
    counting = _Counting()
    top = ValueType(polynomial_levels(fitted.coefficients))
    result = chebyshev_by_powers(counting, top, fitted.coefficients)
    assert counting.count == polynomial_products(fitted.coefficients)
    assert result == ValueType(0)


@pytest.mark.parametrize("degree", [15, 31, 63, 127])
def test_a_linear_term_costs_an_even_polynomial_no_product(degree: int) -> None:
    even = np.random.default_rng(degree).normal(size=degree)
    even[1::2] = 0.0
    tilted = even.copy()
    tilted[1] = 0.5
    full = tilted.copy()
    full[3] = 0.1
    assert polynomial_products(tilted) == polynomial_products(even) < polynomial_products(full)


@pytest.mark.parametrize("degree", [2, 4, 6, 14, 30, 62, 126])
def test_an_even_polynomial_with_a_linear_term_is_evaluated_right(degree: int) -> None:
    generator = np.random.default_rng(degree)
    coefficients = generator.normal(size=degree + 1)
    coefficients[3::2] = 0.0
    params = CryptoParams.choose(10, 8, 45, 55, 3, Security.UNCHECKED_INSECURE)
    evaluator = ClearEvaluator(params)
    x = generator.uniform(-1.0, 1.0, params.slots)
    got = chebyshev_by_powers(evaluator, evaluator.encrypt(x), coefficients)
    np.testing.assert_allclose(got.values, chebyshev.chebval(x, coefficients), atol=1e-9)
    assert evaluator.type_of(got).level == params.depth - chebyshev_depth(degree)
