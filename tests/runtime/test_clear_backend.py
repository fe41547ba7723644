"""The clear backend against direct formulas: wrap-around, noise, rows, coarse operations."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit import precision
from tacit.circuit import LinearPlan, LinearTerm, Plain, ValueType, WeightedSumPlan
from tacit.decompose import linear_by_rotations, weighted_sum_by_scalars
from tacit.errors import InputShapeError
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.clear import ClearCiphertext, ClearEvaluator

Floats = NDArray[np.float64]

TINY_INSECURE = CryptoParams.choose(10, 3, 30, 40, 2, Security.UNCHECKED_INSECURE)
SLOTS = TINY_INSECURE.slots


def _evaluation_matrix(slots: int) -> NDArray[np.complex128]:
    """Row j evaluates a polynomial of 2 * slots coefficients at exp(i pi 5^j / N)."""
    exponents = np.array([pow(5, j, 4 * slots) for j in range(slots)])
    return np.asarray(np.exp(1j * np.pi / (2 * slots) * np.outer(exponents, np.arange(2 * slots))))


def _wrapped(values: Floats, modulus: Fraction) -> Floats:
    """Wrap by the definition: interpolate, reduce every coefficient exactly, evaluate."""
    matrix = _evaluation_matrix(values.shape[-1])
    coefficients = (matrix.conj().T @ values).real / values.shape[-1]
    reduced = []
    for coefficient in coefficients:
        exact = Fraction(float(coefficient))
        reduced.append(float(exact - modulus * round(exact / modulus)))
    return np.asarray((matrix @ np.asarray(reduced)).real)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["equal slots", "random slots"])
def test_values_too_large_wrap_coefficient_by_coefficient(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    modulus = Fraction(TINY_INSECURE.moduli[0]) / Fraction(TINY_INSECURE.scale(0))
    x: Floats
    if kind == "equal slots":
        x = np.full(SLOTS, float(rng.uniform(0.25, 0.5)) * float(modulus))
    else:
        x = rng.uniform(-9, 9, SLOTS) * float(modulus)
        x = _wrapped(x, modulus)
    evaluator = ClearEvaluator(TINY_INSECURE)
    a = evaluator.encrypt(x, 0)
    total = evaluator.add(a, evaluator.add(a, a))
    expected = _wrapped(3 * x, modulus)
    assert float(np.max(np.abs(expected - 3 * x))) > 1
    np.testing.assert_allclose(total.values, expected, atol=1e-6 * float(modulus))
    assert evaluator.overflows >= 1


def test_values_wrap_only_where_a_coefficient_is_too_large() -> None:
    modulus = TINY_INSECURE.moduli[0] / TINY_INSECURE.scale(0)
    x = np.zeros(SLOTS)
    x[3] = 10 * modulus  # spread over all coefficients: each is below 2 / slots of it
    evaluator = ClearEvaluator(TINY_INSECURE)
    np.testing.assert_allclose(evaluator.encrypt(x, 0).values, x, atol=1e-9 * modulus)


def test_higher_levels_hold_larger_values() -> None:
    evaluator = ClearEvaluator(TINY_INSECURE)
    modulus = TINY_INSECURE.moduli[0] / TINY_INSECURE.scale(0)
    x = np.full(SLOTS, 3 * modulus)
    high = evaluator.encrypt(x, 1)
    assert np.array_equal(high.values, x)
    assert evaluator.overflows == 0
    low = evaluator.drop(high, 0)
    assert evaluator.overflows == 1
    assert np.max(np.abs(low.values)) <= modulus / 2 * 1.001


def test_a_product_wraps_at_its_own_scale() -> None:
    evaluator = ClearEvaluator(TINY_INSECURE)
    modulus = TINY_INSECURE.moduli[0] / TINY_INSECURE.scale(0)
    big = float(np.sqrt(0.8 * modulus))
    a = evaluator.encrypt(np.full(SLOTS, big), 1)
    product = evaluator.rescale(evaluator.multiply(a, a))
    np.testing.assert_allclose(product.values, 0.8 * modulus - modulus, rtol=1e-4)


def test_without_wrapping_values_grow_freely() -> None:
    evaluator = ClearEvaluator(TINY_INSECURE, wrap=False)
    a = evaluator.encrypt(np.full(SLOTS, 1e30), 0)
    assert np.all(evaluator.add(a, a).values == 2e30)
    assert evaluator.overflows == 0


def test_moduli_beyond_float64_never_wrap() -> None:
    params = CryptoParams.choose(10, 40, 30, 40, 2, Security.UNCHECKED_INSECURE)
    evaluator = ClearEvaluator(params)
    a = evaluator.encrypt(np.full(SLOTS, 1e200))
    assert np.all(a.values == 1e200)


def test_leading_axes_are_independent_ciphertexts() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (2, 3, SLOTS))
    w = Plain("w", rng.uniform(-1, 1, SLOTS))
    evaluator = ClearEvaluator(TINY_INSECURE)

    def program(values: Floats) -> Floats:
        a = evaluator.encrypt(values)
        product = evaluator.rescale(evaluator.multiply(a, evaluator.rotate(a, 5)))
        return evaluator.rescale(evaluator.multiply_plain(product, w)).values

    together = program(x)
    assert together.shape == x.shape
    for index in np.ndindex(2, 3):
        assert np.array_equal(together[index], program(x[index]))


def test_one_row_out_of_range_leaves_the_others_alone() -> None:
    evaluator = ClearEvaluator(TINY_INSECURE)
    modulus = TINY_INSECURE.moduli[0] / TINY_INSECURE.scale(0)
    x = np.stack([np.full(SLOTS, 0.4 * modulus), np.linspace(-1, 1, SLOTS)])
    a = evaluator.encrypt(x, 0)
    total = evaluator.add(a, a).values
    np.testing.assert_allclose(total[0], -0.2 * modulus)
    np.testing.assert_allclose(total[1], 2 * x[1], atol=1e-9)


def _plan(rng: np.random.Generator, bias: str) -> LinearPlan:
    terms = [
        LinearTerm(row % 2, int(rng.integers(3)), int(rng.choice([0, 8, -16])), row % 4, row)
        for row in range(12)
    ]
    return LinearPlan(2, tuple(terms), "rows", bias, (64, 128))


@pytest.mark.parametrize("length", [1, 16, SLOTS])
@pytest.mark.parametrize("lead", [(), (1,), (700,), (2, 3)])
@pytest.mark.parametrize("bias", ["", "bias"])
def test_the_vectorised_linear_transform_equals_its_decomposition(
    length: int, lead: tuple[int, ...], bias: str
) -> None:
    rng = np.random.default_rng(length)
    evaluator = ClearEvaluator(TINY_INSECURE)
    inputs = [evaluator.encrypt(rng.uniform(-1, 1, (*lead, SLOTS))) for _ in range(3)]
    constants = {
        "rows": rng.uniform(-1, 1, (12, length)),
        "bias": rng.uniform(-1, 1, (2, length)),
    }
    plan = _plan(rng, bias)
    _assert_equal(
        evaluator.linear(inputs, plan, constants),
        linear_by_rotations(evaluator, inputs, plan, constants),
    )


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
@pytest.mark.parametrize("bias", ["", "bias"])
def test_the_vectorised_weighted_sum_equals_its_decomposition(
    lead: tuple[int, ...], bias: str
) -> None:
    rng = np.random.default_rng(1)
    evaluator = ClearEvaluator(TINY_INSECURE)
    inputs = [evaluator.encrypt(rng.uniform(-1, 1, (*lead, SLOTS))) for _ in range(4)]
    weights = rng.uniform(-1, 1, (3, 4))
    weights[0] = 0.0
    weights[1, 2] = 0.0
    constants = {"weights": weights, "bias": rng.uniform(-1, 1, 3)}
    plan = WeightedSumPlan(3, "weights", bias)
    _assert_equal(
        evaluator.weighted_sum(inputs, plan, constants),
        weighted_sum_by_scalars(evaluator, inputs, plan, constants),
    )


def _assert_equal(found: list[ClearCiphertext], expected: list[ClearCiphertext]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a.level, a.degree) == (b.level, b.degree)
        np.testing.assert_allclose(a.values, b.values, atol=1e-12)


def test_the_linear_transform_overflows_like_its_decomposition() -> None:
    rng = np.random.default_rng(2)
    evaluator = ClearEvaluator(TINY_INSECURE)
    inputs = [evaluator.encrypt(rng.uniform(-1, 1, SLOTS), 1) for _ in range(3)]
    constants = {"rows": rng.uniform(1e6, 2e6, (12, SLOTS)), "bias": np.zeros((2, 1))}
    plan = _plan(rng, "bias")
    found = evaluator.linear(inputs, plan, constants)
    assert evaluator.overflows > 0
    expected = linear_by_rotations(evaluator, inputs, plan, constants)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.values, b.values, atol=1e-4)


def test_noise_has_the_deviation_that_precision_states() -> None:
    evaluator = ClearEvaluator(TINY_INSECURE, noise=True, seed=3)
    zeros = np.zeros((200, SLOTS))
    fresh = evaluator.encrypt(zeros)
    assert np.std(fresh.values) == pytest.approx(precision.fresh_deviation(TINY_INSECURE), rel=0.02)
    quiet = ClearCiphertext(zeros, 3)
    rotated = evaluator.rotate(quiet, 1)
    assert np.std(rotated.values) == pytest.approx(
        precision.key_switch_deviation(TINY_INSECURE, 3), rel=0.02
    )
    rescaled = evaluator.rescale(ClearCiphertext(zeros, 3, 2))
    assert np.std(rescaled.values) == pytest.approx(
        precision.rescale_deviation(TINY_INSECURE, 2), rel=0.02
    )
    dropped = evaluator.drop(quiet, 0)
    assert np.std(dropped.values) == pytest.approx(
        precision.rescale_deviation(TINY_INSECURE, 0), rel=0.02
    )


def test_noise_is_repeatable_by_its_seed() -> None:
    x = np.zeros(SLOTS)
    first, again, other = (
        ClearEvaluator(TINY_INSECURE, noise=True, seed=seed).encrypt(x).values for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_coarse_operations_are_noisy_too() -> None:
    evaluator = ClearEvaluator(TINY_INSECURE, noise=True)
    a = ClearCiphertext(np.zeros(SLOTS), 2)
    constants = {"rows": np.ones((1, 1)), "weights": np.ones((1, 1))}
    plan = LinearPlan(1, (LinearTerm(0, 0, 0, 1, 0),), "rows", "")
    assert np.any(evaluator.linear([a], plan, constants)[0].values)
    sums = evaluator.weighted_sum([a], WeightedSumPlan(1, "weights", ""), constants)
    assert np.any(sums[0].values)


def test_a_fresh_value_needs_all_slots() -> None:
    evaluator = ClearEvaluator(TINY_INSECURE)
    for shape in ((), (SLOTS - 1,), (SLOTS, 1)):
        with pytest.raises(InputShapeError, match=str(SLOTS)):
            evaluator.encrypt(np.zeros(shape))
    assert evaluator.type_of(evaluator.encrypt(np.zeros(SLOTS))) == ValueType(3, 1)
