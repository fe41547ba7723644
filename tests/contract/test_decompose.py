"""Decompositions on numbers: right values, levels as promised, as few products as known."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.circuit import LinearPlan, LinearTerm, Plain, ValueType, WeightedSumPlan
from tacit.decompose import (
    chebyshev_by_powers,
    chebyshev_depth,
    linear_by_rotations,
    weighted_sum_by_scalars,
)
from tacit.errors import CircuitError, LevelError
from tacit.type_rules import dropped_type, product_type, rescaled_type, sum_type

Floats = NDArray[np.float64]

SLOTS = 16
TOP = 9


@dataclass(frozen=True)
class _Number:
    values: Floats
    type: ValueType


class _Counting:
    """Numbers with levels, counting operations; coarse operations are not among them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def type_of(self, a: _Number) -> ValueType:
        return a.type

    def add(self, a: _Number, b: _Number) -> _Number:
        return _Number(a.values + b.values, sum_type(a.type, b.type))

    def subtract(self, a: _Number, b: _Number) -> _Number:
        return _Number(a.values - b.values, sum_type(a.type, b.type))

    def negate(self, a: _Number) -> _Number:
        return _Number(-a.values, a.type)

    def add_plain(self, a: _Number, plain: Plain) -> _Number:
        return _Number(a.values + _spread(plain, a), a.type)

    def multiply_plain(self, a: _Number, plain: Plain) -> _Number:
        self.counts["multiply_plain"] += 1
        return _Number(a.values * _spread(plain, a), product_type(a.type))

    def multiply(self, a: _Number, b: _Number) -> _Number:
        self.counts["multiply"] += 1
        return _Number(a.values * b.values, product_type(a.type, b.type))

    def rotate(self, a: _Number, steps: int) -> _Number:
        self.counts["rotate"] += 1
        return _Number(np.roll(a.values, -steps), a.type)

    def rotate_many(self, a: _Number, steps: object) -> list[_Number]:
        assert isinstance(steps, tuple)
        return [self.rotate(a, step) if step else a for step in steps]

    def rescale(self, a: _Number) -> _Number:
        self.counts["rescale"] += 1
        return _Number(a.values, rescaled_type(a.type))

    def drop(self, a: _Number, level: int) -> _Number:
        self.counts["drop"] += 1
        return _Number(a.values, dropped_type(a.type, level))

    def linear(self, *_: object) -> list[_Number]:
        raise NotImplementedError

    def weighted_sum(self, *_: object) -> list[_Number]:
        raise NotImplementedError

    def bootstrap(self, *_: object) -> _Number:
        raise NotImplementedError

    def chebyshev(self, *_: object) -> _Number:
        raise NotImplementedError


def _spread(plain: Plain, a: _Number) -> Floats:
    return plain.values if plain.is_scalar else plain.expand(len(a.values))


def _coefficients(degree: int, parity: str) -> Floats:
    c = np.random.default_rng(degree).normal(size=degree + 1)
    if parity == "odd":
        c[::2] = 0.0
    elif parity == "even":
        c[1::2] = 0.0
    return c


def _evaluate(c: Floats, top: int = TOP) -> tuple[_Number, Floats, Counter[str]]:
    x: Floats = np.linspace(-1, 1, 101, dtype=np.float64)
    evaluator = _Counting()
    result = chebyshev_by_powers(evaluator, _Number(x, ValueType(top)), c)
    return result, x, evaluator.counts


def _check(c: Floats) -> Counter[str]:
    result, x, counts = _evaluate(c)
    np.testing.assert_allclose(
        result.values, np.polynomial.chebyshev.chebval(x, c), rtol=0, atol=1e-9
    )
    last = int(np.max(np.flatnonzero(c), initial=0))
    assert result.type == ValueType(TOP - chebyshev_depth(last), 1)
    return counts


def test_the_depth_is_the_least_possible() -> None:
    for degree in range(1, 300):
        assert chebyshev_depth(degree) == int(np.ceil(np.log2(degree + 1)))
    assert chebyshev_depth(0) == 1


@pytest.mark.parametrize("parity", ["full", "odd", "even"])
@pytest.mark.parametrize("degree", [*range(1, 33), 47, 59, 63, 64, 119, 127, 255])
def test_polynomials_are_right_in_the_least_depth(degree: int, parity: str) -> None:
    _check(_coefficients(degree, parity))


@pytest.mark.slow
@pytest.mark.parametrize("parity", ["full", "odd", "even"])
def test_polynomials_of_every_degree_up_to_255(parity: str) -> None:
    for degree in range(1, 256):
        _check(_coefficients(degree, parity))


@pytest.mark.parametrize(
    ("degree", "parity", "products"),
    [
        # T_2, and one product to join: nothing less reaches these degrees at these depths.
        (2, "full", 1),
        (3, "full", 2),
        (3, "odd", 2),
        (4, "even", 2),
        # Upper bounds found by the search; a change that needs more is a step back.
        (5, "odd", 3),
        (7, "full", 5),
        (15, "full", 8),
        (15, "odd", 8),
        (27, "full", 11),
        (31, "full", 13),
        (31, "odd", 12),
        (63, "full", 18),
        (127, "full", 27),
    ],
)
def test_products_of_ciphertexts_stay_few(degree: int, parity: str, products: int) -> None:
    assert _check(_coefficients(degree, parity))["multiply"] <= products


def test_an_even_polynomial_costs_one_product_more_than_its_half() -> None:
    for degree in (8, 14, 30, 62):
        even = _check(_coefficients(degree, "even"))["multiply"]
        assert even == 1 + _check(_coefficients(degree // 2, "full"))["multiply"]


@pytest.mark.parametrize("seed", range(10))
def test_polynomials_with_gaps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    c = rng.normal(size=int(rng.integers(2, 64)))
    c[rng.uniform(size=len(c)) < 0.7] = 0.0
    _check(c)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 16, 31])
def test_single_chebyshev_polynomials(k: int) -> None:
    c = np.zeros(k + 1)
    c[k] = 1.0
    _check(c)


@pytest.mark.parametrize("c", [[], [0.0], [2.5], [0.0, 0.0], [2.5, 0.0, 0.0]])
def test_constants_cost_one_level(c: list[float]) -> None:
    result, x, _ = _evaluate(np.asarray(c))
    assert result.type == ValueType(TOP - 1, 1)
    np.testing.assert_array_equal(result.values, np.full_like(x, sum(c)))


def test_trailing_zeros_cost_nothing() -> None:
    c = np.array([0.5, 1.0, -0.25, 0.125])
    padded = np.concatenate([c, np.zeros(20)])
    assert _check(padded) == _check(c)


def test_too_few_levels_are_an_error() -> None:
    for degree in (1, 2, 7, 16):
        depth = chebyshev_depth(degree)
        c = np.ones(degree + 1)
        assert _evaluate(c, depth)[0].type == ValueType(0, 1)
        with pytest.raises(LevelError):
            _evaluate(c, depth - 1)


def _number(values: Floats) -> _Number:
    return _Number(values, ValueType(3))


def test_a_linear_transform_adds_up_its_diagonals() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, SLOTS))
    bias = rng.normal(size=(2, 4))
    plan = LinearPlan(
        2,
        (LinearTerm(0, 0, 0, 0, 0), LinearTerm(0, 1, 4, 1, 1), LinearTerm(1, 1, 4, 1, 2)),
        "rows",
        "bias",
        (2,),
    )
    x, y = rng.normal(size=(2, SLOTS))
    evaluator = _Counting()
    results = linear_by_rotations(
        evaluator, [_number(x), _number(y)], plan, {"rows": rows, "bias": bias}
    )

    def left(values: Floats, steps: int) -> Floats:
        return np.concatenate([values[steps:], values[:steps]])

    first = rows[0] * x + left(rows[1] * left(y, 1), 4)
    second = left(rows[2] * left(y, 1), 4)
    for result, sums, b in zip(results, (first, second), bias, strict=True):
        np.testing.assert_allclose(result.values, sums + left(sums, 2) + np.repeat(b, 4))
        assert result.type == ValueType(2, 1)
    # One shared baby step, one giant step and one fold for each output.
    assert evaluator.counts["rotate"] == 5
    assert evaluator.counts["rescale"] == 2


def test_every_output_of_a_linear_transform_needs_a_term() -> None:
    with pytest.raises(CircuitError, match=r"outputs \[1\]"):
        LinearPlan(2, (LinearTerm(0, 0, 0, 0, 0),), "rows", "")


def test_a_weighted_sum_skips_zero_weights() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, SLOTS))
    weights = np.array([[0.5, 0.0, -2.0], [0.0, 0.0, 0.0]])
    bias = np.array([1.0, -1.0])
    evaluator = _Counting()
    plan = WeightedSumPlan(2, "weights", "bias")
    results = weighted_sum_by_scalars(
        evaluator, [_number(v) for v in x], plan, {"weights": weights, "bias": bias}
    )
    for result, row, b in zip(results, weights, bias, strict=True):
        np.testing.assert_allclose(result.values, row @ x + b)
        assert result.type == ValueType(2, 1)
    assert evaluator.counts["multiply_plain"] == 3
