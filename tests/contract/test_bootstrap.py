"""The mathematics of bootstrapping: series, matrices, bounds, levels, keys."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap, stage_groups
from tacit.bootstrap_levels import (
    ENCAPSULATED_WEIGHT,
    SPARSE_WEIGHT,
    bootstrap_depth,
    exponential,
    integer_bound,
    raised_level,
)
from tacit.circuit import Circuit, Node, Op, ValueType, execute
from tacit.circuit_json import circuit_from_json, circuit_to_json
from tacit.errors import CircuitError, LevelError, ParameterError, SecurityError
from tacit.evaluation_keys import NeededKey, needed_keys
from tacit.fourier import (
    choose_exponential,
    complex_series,
    evaluate_series,
    fit_series,
    greatest_slope,
)
from tacit.params import CryptoParams, SecretDistribution, Security
from tacit.runtime.backends.clear import ClearEvaluator
from tacit.slot_matrices import Stage, coefficients_to_slots, slots_to_coefficients
from tacit.type_rules import bootstrapped_type
from tacit.wire_key import KeyKind

Floats = NDArray[np.float64]

ENCAPSULATED = SecretDistribution.SPARSE_ENCAPSULATED
X: Floats = np.linspace(-0.5, 0.5, 4001, dtype=np.float64)


def apply_stage(stage: Stage, values: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Multiply a vector of slots by a stage's matrix, as its plan says; shape (..., n)."""
    result = np.zeros_like(values, dtype=np.complex128)
    for term in stage.plan.terms:
        product = stage.rows[term.row] * np.roll(values, -term.baby, axis=-1)
        result += np.roll(product, -term.giant, axis=-1)
    return result


def _params(
    secret: SecretDistribution = ENCAPSULATED, log_n: int = 8, depth: int = 20
) -> CryptoParams:
    return CryptoParams.choose(log_n, depth, 40, 41, 3, Security.UNCHECKED_INSECURE, secret)


# ---- matrices ----


def _vandermonde(n: int) -> NDArray[np.complex128]:
    """Return V with V[j, k] = zeta^(5^j k), by its definition."""
    points = np.exp(2j * np.pi * np.array([pow(5, j, 4 * n) for j in range(n)]) / (4 * n))
    return np.asarray(points[:, None] ** np.arange(n))


def _bit_reversed(log_n: int) -> list[int]:
    return [int(format(i, f"0{log_n}b")[::-1], 2) for i in range(1 << log_n)]


@pytest.mark.parametrize("log_slots", [2, 5, 8])
@pytest.mark.parametrize("stages", [1, 2])
def test_the_stages_are_the_fourier_matrix_up_to_bit_reversal(log_slots: int, stages: int) -> None:
    n = 1 << log_slots
    columns = np.eye(n, dtype=np.complex128)
    there = columns
    for stage in slots_to_coefficients(log_slots, stages, 3.0):
        there = np.stack([apply_stage(stage, column) for column in there])
    expected = 3.0 * _vandermonde(n)[:, _bit_reversed(log_slots)]
    np.testing.assert_allclose(there.T, expected, atol=1e-12 * n)
    back = there
    for stage in coefficients_to_slots(log_slots, stages, 0.25):
        back = np.stack([apply_stage(stage, column) for column in back])
    np.testing.assert_allclose(back, 0.75 * columns, atol=1e-12)


def test_repeated_values_are_transformed_repeatedly() -> None:
    x: NDArray[np.complex128] = np.random.default_rng(0).normal(size=8).astype(np.complex128)
    y = np.tile(x, 4)
    for once, often in zip(
        slots_to_coefficients(3, 2), slots_to_coefficients(3, 2, 1.0, 4), strict=True
    ):
        x, y = apply_stage(once, x), apply_stage(often, y)
    np.testing.assert_allclose(y, np.tile(x, 4), atol=1e-12)


@pytest.mark.parametrize("log_slots", [3, 6, 9])
def test_the_rotations_announced_are_those_the_stages_make(log_slots: int) -> None:
    slots = 512
    plan = Bootstrap("f", 1, log_slots, 2, 3)
    made: set[int] = set()
    for stage in slots_to_coefficients(log_slots, 2) + coefficients_to_slots(log_slots, 3):
        made |= {step % slots for step in stage.plan.rotations()}
    repeats = {slots >> i for i in range(1, 10 - log_slots)}
    assert plan.rotations(slots) == (made | repeats) - {0}


def test_stages_are_balanced_and_cover_every_butterfly() -> None:
    for log_slots in range(1, 16):
        for stages in range(1, log_slots + 1):
            groups = stage_groups(log_slots, stages)
            assert [span for group in groups for span in group] == list(range(1, log_slots + 1))
            assert max(map(len, groups)) - min(map(len, groups)) <= 1


# ---- series ----


def test_a_smooth_function_is_extended_accurately() -> None:
    series = fit_series(lambda x: x, 15, cutoff=1e-8)
    assert np.max(np.abs(evaluate_series(series, X) - X)) < 2.0**-32
    silu = fit_series(lambda x: x / (1 + np.exp(-32 * x)), 31)
    assert np.max(np.abs(evaluate_series(silu, X) - X / (1 + np.exp(-32 * X)))) < 2.0**-19


def test_a_longer_period_needs_fewer_harmonics() -> None:
    series = fit_series(lambda x: x, 3, period=32.0, cutoff=1e-12)
    error = evaluate_series(series, X, 32.0) - X
    assert np.max(np.abs(error)) < 1e-6
    assert np.max(np.abs(evaluate_series(fit_series(lambda x: x, 3), X) - X)) > 1e-4


def test_a_series_is_the_sum_it_says_and_repeats() -> None:
    series = np.random.default_rng(0).normal(size=(2, 6))
    series[1, 0] = 0.0
    x: Floats = np.linspace(-3.0, 3.0, 77, dtype=np.float64)
    m = np.arange(6)[:, None]
    expected = np.sum(
        series[0][:, None] * np.cos(np.pi * m * x) + series[1][:, None] * np.sin(np.pi * m * x), 0
    )
    np.testing.assert_allclose(evaluate_series(series, x), expected, atol=1e-12)
    np.testing.assert_allclose(evaluate_series(series, x + 4.0), expected, atol=1e-12)
    slope = np.max(np.abs(np.gradient(evaluate_series(series, X), X)))
    assert greatest_slope(series) == pytest.approx(slope, rel=0.01)


def test_the_cutoff_bounds_the_coefficients() -> None:
    def kink(x: Floats) -> Floats:
        return np.maximum(x, 0.0)

    loose, tight = (fit_series(kink, 31, cutoff=cutoff) for cutoff in (1e-10, 1e-4))
    assert np.sum(np.abs(tight)) < 4.0 < np.sum(np.abs(loose))


@pytest.mark.parametrize(
    ("bad", "degree", "period"),
    [(np.log, 5, 2.0), (np.sin, 0, 2.0), (np.sin, 5, 0.5)],
    ids=["not finite", "no harmonics", "period below the range"],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_cannot_be_extended_is_refused(bad: np.ufunc, degree: int, period: float) -> None:
    with pytest.raises(ParameterError):
        fit_series(bad, degree, period=period)


def test_damaged_series_are_refused() -> None:
    for damaged in (np.zeros((2, 1)), np.zeros((3, 4)), np.full((2, 4), np.nan)):
        with pytest.raises(ParameterError):
            complex_series(damaged)


@pytest.mark.parametrize("bound", [4.0, 14.5, 34.0, 100.0, 400.0])
@pytest.mark.parametrize("bits", [20, 30, 40])
def test_the_exponential_is_as_accurate_as_asked(bound: float, bits: int) -> None:
    how = choose_exponential(bound, 2.0**-bits)
    u = np.linspace(-1.0, 1.0, 3001)
    z = np.polynomial.chebyshev.chebval(u, how.coefficients)
    for _ in range(how.doublings):
        z = z * z
    error = np.max(np.abs(z - np.exp(2j * np.pi * bound * u)))
    assert error < 1.1 * 2.0**-bits + 1e-11
    assert error < 1.1 * how.error + 1e-11
    assert how.depth <= 14


# ---- bounds, levels, keys ----


@pytest.mark.parametrize("secret", list(SecretDistribution), ids=lambda s: s.name.lower())
def test_the_multiples_of_the_modulus_stay_within_their_bound(secret: SecretDistribution) -> None:
    params = _params(secret, 10)
    rng = np.random.default_rng(1)
    weight = {
        SecretDistribution.UNIFORM_TERNARY: 2 * params.n // 3,
        SecretDistribution.SPARSE_TERNARY: SPARSE_WEIGHT,
        ENCAPSULATED: ENCAPSULATED_WEIGHT,
    }[secret]
    sums = rng.uniform(-0.5, 0.5, (1 << 12, weight + 1)).sum(axis=1)
    bound = integer_bound(params)
    assert np.max(np.abs(sums)) < bound < 12.0 * np.std(sums)


def test_levels_add_up() -> None:
    params = _params()
    plan = Bootstrap("f", 3, 7, 2, 2)
    own = exponential(params).depth
    assert bootstrap_depth(params, plan, 31) == 2 + own + 5
    assert raised_level(params, plan, 31) == 3 + bootstrap_depth(params, plan, 31)
    with pytest.raises(LevelError, match="use a greater depth"):
        raised_level(params, Bootstrap("f", 12, 7), 31)


def test_types_follow_the_plan() -> None:
    plan = Bootstrap("f", 5, 7, 2, 3)
    assert bootstrapped_type(ValueType(2), plan) == ValueType(5)
    assert bootstrapped_type(ValueType(9), plan) == ValueType(5)
    with pytest.raises(LevelError, match="use up 2"):
        bootstrapped_type(ValueType(1), plan)
    with pytest.raises(CircuitError, match="degree 2"):
        bootstrapped_type(ValueType(3, 2), plan)


@pytest.mark.parametrize(
    "fields", [(1, 0), (1, 5, 6), (1, 5, 2, 0), (-1, 5), (1, 5, 2, 2, 0.5)], ids=str
)
def test_impossible_plans_are_refused(fields: tuple[int, ...]) -> None:
    with pytest.raises(CircuitError):
        Bootstrap("f", *fields)


def _circuit(params: CryptoParams) -> Circuit:
    plan = Bootstrap("f", 3, params.log_n - 1)
    return Circuit(
        params.slots,
        (0,),
        (1,),
        (Node(Op.BOOTSTRAP, (0,), (1,), plan, "refresh"),),
        (ValueType(2), ValueType(3)),
        {"f": fit_series(np.tanh, 15)},
    )


def test_a_circuit_with_a_bootstrap_survives_json_and_names_its_keys() -> None:
    params = _params()
    circuit = _circuit(params)
    again = circuit_from_json(circuit_to_json(circuit), circuit.constants)
    assert again.nodes == circuit.nodes
    assert circuit.bootstraps
    assert circuit.needs_relinearization
    assert circuit.rotations == Bootstrap("f", 3, params.log_n - 1).rotations(params.slots)


def test_the_clear_backend_evaluates_the_series_everywhere() -> None:
    params = _params()
    circuit = _circuit(params)
    x = np.linspace(-5.0, 5.0, params.slots, dtype=np.float64)
    clear = ClearEvaluator(params)
    (result,) = execute(circuit, [clear.encrypt(x, 2)], clear)
    np.testing.assert_allclose(result.values, evaluate_series(circuit.constants["f"], x))
    inside = np.abs(x) <= 0.5
    np.testing.assert_allclose(result.values[inside], np.tanh(x[inside]), atol=1e-5)
    noisy = ClearEvaluator(params, noise=True)
    (result,) = execute(circuit, [noisy.encrypt(x, 2)], noisy)
    error = np.abs(result.values - evaluate_series(circuit.constants["f"], x))
    assert 0.0 < np.max(error) < 1e-4


def test_needed_keys_name_each_key_once() -> None:
    params = _params()
    order = 2 * params.n
    keys = needed_keys(params, (1, 1, 0, params.slots + 1, -1), True, True)
    limbs = len(params.moduli)
    assert keys == (
        NeededKey(KeyKind.RELINEARIZATION, 0, limbs),
        NeededKey(KeyKind.TO_SPARSE, order - 4, 1),
        NeededKey(KeyKind.FROM_SPARSE, order - 2, limbs),
        NeededKey(KeyKind.ROTATION, 5, limbs),
        NeededKey(KeyKind.ROTATION, pow(5, -1, order), limbs),
        NeededKey(KeyKind.ROTATION, order - 1, limbs),
    )
    uniform = _params(SecretDistribution.UNIFORM_TERNARY)
    conjugation = NeededKey(KeyKind.ROTATION, order - 1, limbs)
    assert needed_keys(uniform, (), False, True) == (conjugation,)
    assert needed_keys(uniform, (), False, False) == ()


def test_parameters_say_which_secret_and_refuse_a_sparse_one_where_security_is_promised() -> None:
    params = CryptoParams.choose(15, 18, 36, 37, 5, secret=ENCAPSULATED)
    assert CryptoParams.from_json(params.to_json()) == params
    uniform = CryptoParams.choose(15, 18, 36, 37, 5)
    assert params.digest != uniform.digest
    with pytest.raises(SecurityError, match="sparse"):
        CryptoParams.choose(15, 18, 36, 37, 5, secret=SecretDistribution.SPARSE_TERNARY)
