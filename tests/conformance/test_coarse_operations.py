"""Linear transforms, weighted sums and polynomials, against matrices and numpy's own Chebyshev."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.circuit import Chebyshev, LinearPlan, LinearTerm, ValueType, WeightedSumPlan
from tacit.decompose import chebyshev_depth
from tacit.errors import CircuitError, LevelError
from tests.conformance.backends import Backend

Floats = NDArray[np.float64]


def _random_plan(
    rng: np.random.Generator, slots: int, inputs: int, outputs: int
) -> tuple[LinearPlan, dict[str, Floats]]:
    """Draw a plan over rotations that the test keys allow."""
    length = int(rng.choice([slots // 4, slots]))
    count = int(rng.integers(outputs, 4 * outputs))
    diagonals = rng.uniform(-0.5, 0.5, (count, length))
    giants = [0, *rng.choice([4, 8, 16, 64], 2, replace=False).tolist()]
    terms = [
        LinearTerm(
            output=row if row < outputs else int(rng.integers(outputs)),
            input=int(rng.integers(inputs)),
            giant=int(rng.choice(giants)),
            baby=int(rng.choice([0, 1, 2, 3])),
            row=row,
        )
        for row in range(count)
    ]
    folds = tuple(rng.choice([1, 2, 64, 256], int(rng.integers(0, 3)), replace=False).tolist())
    bias = "bias" if rng.integers(2) else ""
    constants = {"rows": diagonals}
    if bias:
        constants["bias"] = rng.uniform(-1, 1, (outputs, int(rng.choice([1, slots]))))
    return LinearPlan(outputs, tuple(terms), "rows", bias, folds), constants


def _matrices(plan: LinearPlan, constants: dict[str, Floats], slots: int) -> dict[Any, Floats]:
    """Write a plan out as one matrix per (output, input), without its bias."""
    identity = np.eye(slots)
    matrices: dict[Any, Floats] = {}
    for term in plan.terms:
        diagonal = np.repeat(constants["rows"][term.row], slots // constants["rows"].shape[1])
        matrix = np.roll(diagonal[:, None] * np.roll(identity, -term.baby, 0), -term.giant, 0)
        key = (term.output, term.input)
        matrices[key] = matrices.get(key, 0.0) + matrix
    for step in plan.folds:
        matrices = {key: m + np.roll(m, -step, 0) for key, m in matrices.items()}
    return matrices


@pytest.mark.parametrize(
    ("folds", "joint"),
    [((1, 2), (2,)), ((1, 4, 64), (2, 1)), ((256, 256), (2,)), ((1, 1), (2,))],
    ids=str,
)
def test_folds_done_jointly_give_what_folds_one_by_one_give(
    deep_backend: Backend, folds: tuple[int, ...], joint: tuple[int, ...]
) -> None:
    slots = deep_backend.params.slots
    rng = np.random.default_rng(len(folds))
    x, rows = rng.uniform(-1, 1, slots), rng.uniform(-1, 1, (2, slots)) / 4
    terms = (LinearTerm(0, 0, 0, 0, 0), LinearTerm(0, 0, 8, 1, 1))
    plan = LinearPlan(1, terms, "rows", "", folds, joint)
    constants = {"rows": rows}
    expected = _matrices(plan, constants, slots)[0, 0] @ x
    deep_backend.check(lambda ev, inputs: ev.linear(inputs, plan, constants), [x], [expected])


@pytest.mark.parametrize("seed", range(6))
def test_linear_transforms_are_matrix_products(backend: Backend, seed: int) -> None:
    rng = np.random.default_rng(seed)
    slots = backend.params.slots
    inputs, outputs = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    plan, constants = _random_plan(rng, slots, inputs, outputs)
    x = [rng.uniform(-1, 1, slots) for _ in range(inputs)]
    expected = [np.zeros(slots) for _ in range(outputs)]
    for (output, source), matrix in _matrices(plan, constants, slots).items():
        expected[output] += matrix @ x[source]
    if plan.bias:
        bias = constants["bias"]
        expected = [e + np.repeat(b, slots // len(b)) for e, b in zip(expected, bias, strict=True)]
    level = int(rng.integers(1, backend.params.depth + 1))

    def program(ev: Any, c: list[Any]) -> list[Any]:
        results: list[Any] = ev.linear(c, plan, constants)
        assert {ev.type_of(result) for result in results} == {ValueType(level - 1, 1)}
        return results

    backend.check(program, x, expected, level)


@pytest.mark.parametrize("babies", [(0, 1, 2), (0,)])
@pytest.mark.parametrize("giants", [(0, 4, 8, 16), (4, 8, 16), (16,), (0,), (8, 72)])
def test_giant_steps_in_sequence_give_the_same_product(
    backend: Backend, giants: tuple[int, ...], babies: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(len(giants))
    slots, count = backend.params.slots, len(giants) * len(babies)
    terms = tuple(
        LinearTerm(output, output, giant, baby, row)
        for row, (giant, baby) in enumerate(product(giants, babies))
        for output in (0, 1)
    )
    constants: dict[str, Floats] = {"rows": rng.uniform(-0.5, 0.5, (count, slots))}
    plan = LinearPlan(2, terms, "rows", "", in_sequence=True)
    x = [rng.uniform(-1, 1, slots) for _ in range(2)]
    matrices = _matrices(plan, constants, slots)
    expected = [matrices[output, output] @ x[output] for output in (0, 1)]
    backend.check(lambda ev, c: ev.linear(c, plan, constants), x, expected, backend.params.depth)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 2)])
def test_weighted_sums_are_matrix_products(
    backend: Backend, shape: tuple[int, int], bias: bool
) -> None:
    rng = np.random.default_rng(sum(shape))
    weights = rng.uniform(-1, 1, shape)
    weights[rng.uniform(size=shape) < 0.3] = 0.0
    constants = {"weights": weights, "bias": rng.uniform(-1, 1, shape[0])}
    plan = WeightedSumPlan(shape[0], "weights", "bias" if bias else "")
    x = rng.uniform(-1, 1, (shape[1], backend.params.slots))
    expected = weights @ x + (constants["bias"][:, None] if bias else 0.0)

    def program(ev: Any, c: list[Any]) -> list[Any]:
        results: list[Any] = ev.weighted_sum(c, plan, constants)
        level = ev.type_of(c[0]).level
        assert {ev.type_of(result) for result in results} == {ValueType(level - 1, 1)}
        return results

    for level in (backend.params.depth, 1):
        backend.check(program, list(x), list(expected), level)


def test_a_row_of_zeros_gives_zero(backend: Backend) -> None:
    x = np.ones(backend.params.slots)
    constants = {"weights": np.array([[0.0, 0.0]])}
    plan = WeightedSumPlan(1, "weights", "")
    backend.check(lambda ev, c: ev.weighted_sum(c, plan, constants), [x, x], [0 * x])


_PARITIES = ("full", "odd", "even")


@pytest.mark.parametrize("parity", _PARITIES)
@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5, 6, 7])
def test_polynomials_use_their_levels_and_no_more(
    backend: Backend, degree: int, parity: str
) -> None:
    _check_polynomial(backend, degree, parity)


@pytest.mark.parametrize("parity", _PARITIES)
@pytest.mark.parametrize("degree", [8, 9, 11, 13, 15, 20, 23, 27, 31])
def test_polynomials_of_higher_degrees(deep_backend: Backend, degree: int, parity: str) -> None:
    _check_polynomial(deep_backend, degree, parity)


def _check_polynomial(backend: Backend, degree: int, parity: str) -> None:
    coefficients = np.random.default_rng(degree).normal(size=degree + 1) / (degree + 1)
    if parity != "full":
        coefficients[int(parity == "even") :: 2] = 0.0
    depth = chebyshev_depth(int(np.max(np.flatnonzero(coefficients), initial=0)))
    x = np.cos(np.linspace(0, np.pi, backend.params.slots))
    expected = np.polynomial.chebyshev.chebval(x, coefficients)

    def program(ev: Any, c: list[Any]) -> list[Any]:
        result = ev.chebyshev(c[0], Chebyshev("c"), {"c": coefficients})
        assert ev.type_of(result) == ValueType(ev.type_of(c[0]).level - depth, 1)
        return [result]

    backend.check(program, [x], [expected], level=depth)


def test_a_polynomial_without_enough_levels_says_so(backend: Backend) -> None:
    x = backend.encrypt(np.zeros(backend.params.slots), 2)
    with pytest.raises(LevelError, match="level"):
        backend.evaluator.chebyshev(x, Chebyshev("c"), {"c": np.ones(16)})


def test_linear_operations_need_equal_levels_of_degree_one(backend: Backend) -> None:
    ev = backend.evaluator
    x = np.ones(backend.params.slots)
    a, b = backend.encrypt(x, 2), backend.encrypt(x, 1)
    plan = LinearPlan(1, (LinearTerm(0, 0, 0, 0, 0), LinearTerm(0, 1, 0, 0, 0)), "rows", "")
    sums = WeightedSumPlan(1, "weights", "")
    constants = {"rows": np.ones((1, 1)), "weights": np.ones((1, 2))}
    operations: list[Callable[[list[Any]], Any]] = [
        lambda inputs: ev.linear(inputs, plan, constants),
        lambda inputs: ev.weighted_sum(inputs, sums, constants),
    ]
    for apply in operations:
        with pytest.raises(LevelError, match="levels 2 and 1"):
            apply([a, b])
        with pytest.raises(CircuitError, match="degree 2"):
            apply([ev.multiply(a, a), ev.multiply(a, a)])
        with pytest.raises(LevelError, match="level 0"):
            apply([backend.encrypt(x, 0)] * 2)
