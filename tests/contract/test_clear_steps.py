"""Clear steps: each operation against numpy, the JSON round trip, refusal of what is unknown."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from scipy import special

from tacit.clear_operations import Array
from tacit.clear_steps import (
    ClearStep,
    apply_steps,
    known_operations,
    steps_from_json,
    steps_to_json,
)
from tacit.errors import ArtifactError, InputShapeError

X = np.random.default_rng(0).normal(size=(5, 4))
Z = np.random.default_rng(1).normal(size=(5, 4))
CUBE = np.random.default_rng(2).normal(size=(5, 2, 3))
LABELS = np.array(["no", "perhaps", "yes", "always"])
INDEX = np.array([3, 0, 2, 1, 1])


def _step(op: str, inputs: str = "x", **attributes: object) -> ClearStep:
    return ClearStep(op, tuple(inputs.split()), ("y",), attributes)


ORACLES: list[tuple[ClearStep, Callable[[], object]]] = [
    (_step("identity"), lambda: X),
    (_step("negate"), lambda: -X),
    (_step("sigmoid"), lambda: special.expit(X)),
    (_step("tanh"), lambda: np.tanh(X)),
    (_step("softplus"), lambda: np.log1p(np.exp(X))),
    (_step("relu"), lambda: X * (X > 0)),
    (_step("exp"), lambda: np.exp(X)),
    (_step("log", "p"), lambda: np.log(np.abs(X))),
    (_step("sqrt", "p"), lambda: np.abs(X) ** 0.5),
    (_step("abs"), lambda: np.abs(X)),
    (_step("reciprocal"), lambda: X**-1.0),
    (_step("not", "b"), lambda: X <= 0),
    (_step("add", "x z"), lambda: X + Z),
    (_step("subtract", left=np.array(1.0)), lambda: 1 - X),
    (_step("multiply", right=np.arange(4.0)), lambda: X * np.arange(4.0)),
    (_step("divide", "x z"), lambda: X / Z),
    (_step("power", right=np.array(2.0)), lambda: X * X),
    (_step("maximum", "x z"), lambda: np.where(X > Z, X, Z)),
    (_step("minimum", "x z"), lambda: np.where(X > Z, Z, X)),
    (_step("greater", "x z"), lambda: X > Z),
    (_step("greater_or_equal", "x x"), lambda: np.ones((5, 4), dtype=bool)),
    (_step("less", right=np.array(0.0)), lambda: X < 0),
    (_step("less_or_equal", "x x"), lambda: np.ones((5, 4), dtype=bool)),
    (_step("equal", "x z"), lambda: np.zeros((5, 4), dtype=bool)),
    (_step("and", "b c"), lambda: (X > 0) & (Z > 0)),
    (_step("or", "b c"), lambda: (X > 0) | (Z > 0)),
    (_step("where", "b x z"), lambda: np.where(X > 0, X, Z)),
    (_step("where", "b z", left=np.array(7.0)), lambda: np.where(X > 0, 7.0, Z)),
    (_step("sum", axes=(1,), keepdims=True), lambda: X.sum(1, keepdims=True)),
    (_step("mean", "q", axes=(1, 2), keepdims=False), lambda: CUBE.mean((1, 2))),
    (_step("max", axes=(1,), keepdims=False), lambda: X.max(1)),
    (_step("min", axes=(1,), keepdims=False), lambda: X.min(1)),
    (_step("product", axes=(1,), keepdims=False), lambda: np.multiply.reduce(X, axis=1)),
    (
        _step("log_sum_exp", "q", axes=(1, 2), keepdims=True),
        lambda: special.logsumexp(CUBE, axis=(1, 2), keepdims=True),
    ),
    (_step("log_sum_exp", axes=(1,), keepdims=False), lambda: special.logsumexp(X, axis=1)),
    (_step("sign"), lambda: np.where(X > 0, 1.0, -1.0)),
    (_step("floor"), lambda: X // 1.0),
    (_step("ceil"), lambda: -(-X // 1.0)),
    (_step("round"), lambda: np.round(X)),
    (_step("softmax", axes=(1,)), lambda: special.softmax(X, axis=1)),
    (_step("softmax", "q", axes=(1, 2)), lambda: special.softmax(CUBE, axis=(1, 2))),
    (_step("log_softmax", axes=(1,)), lambda: special.log_softmax(X, axis=1)),
    (_step("argmax", axis=1, keepdims=False, last=False), lambda: X.argmax(1)),
    (_step("argmax", "t", axis=1, keepdims=True, last=True), lambda: np.full((5, 1), 3)),
    (_step("argmin", axis=1, keepdims=True, last=False), lambda: X.argmin(1)[:, None]),
    (_step("cast", dtype="int64"), lambda: np.trunc(X).astype(np.int64)),
    (_step("clip", low=-0.5), lambda: np.clip(X, -0.5, None)),
    (_step("clip", low=-0.5, high=0.25), lambda: np.clip(X, -0.5, 0.25)),
    (
        _step("scale", offset=np.arange(4.0), factor=np.array([2.0])),
        lambda: (X - np.arange(4.0)) * 2,
    ),
    (_step("normalize", norm="L1"), lambda: X / np.linalg.norm(X, 1, axis=1)[:, None]),
    (_step("normalize", norm="L2"), lambda: X / np.linalg.norm(X, 2, axis=1)[:, None]),
    (_step("normalize", norm="MAX"), lambda: X / np.linalg.norm(X, np.inf, axis=1)[:, None]),
    (_step("reshape", "q", row_shape=(6,)), lambda: CUBE.reshape(5, 6)),
    (_step("transpose", "q", permutation=(0, 2, 1)), lambda: CUBE.swapaxes(1, 2)),
    (_step("concat", "x z x", axis=1), lambda: np.hstack([X, Z, X])),
    (_step("select", axis=1, indices=np.array([2, 0])), lambda: X[:, [2, 0]]),
    (_step("lookup", "i", table=LABELS), lambda: LABELS[INDEX]),
    (
        _step("map_values", "i", keys=np.array([1, 3]), values=LABELS[:2], default=np.array("?")),
        lambda: np.array(["perhaps", "?", "?", "no", "no"]),
    ),
    (_step("zip_map", labels=LABELS), lambda: X),
    (_step("couple_pairs", "h"), lambda: np.full((5, 3), 1 / 3)),
]
TENSORS: dict[str, Array] = {
    "x": X,
    "z": Z,
    "p": np.abs(X),
    "b": X > 0,
    "c": Z > 0,
    "q": CUBE,
    "i": INDEX,
    "t": np.zeros((5, 4)),
    "h": np.full((5, 3), 0.5),
}


@pytest.mark.parametrize(("step", "oracle"), ORACLES, ids=[step.op for step, _ in ORACLES])
def test_an_operation_equals_numpy_before_and_after_json(
    step: ClearStep, oracle: Callable[[], object]
) -> None:
    text = json.dumps(steps_to_json([step]))
    expected = np.asarray(oracle())
    for steps in ([step], steps_from_json(json.loads(text))):
        got = apply_steps(steps, TENSORS)["y"]
        assert got.shape == expected.shape
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-15)
        else:
            assert (got == expected).all()


def test_the_table_of_oracles_covers_every_known_operation() -> None:
    assert sorted({step.op for step, _ in ORACLES}) == list(known_operations())


def test_map_values_writes_the_default_for_unknown_keys() -> None:
    step = _step(
        "map_values", "i", keys=np.array([0]), values=np.array([1.5]), default=np.array(-1.0)
    )
    assert apply_steps([step], {"i": np.array([0, 9])})["y"].tolist() == [1.5, -1.0]


def test_sigmoid_and_softmax_do_not_overflow() -> None:
    far = {"x": np.array([[-1e4, 0.0, 1e4]])}
    sigmoid = apply_steps([_step("sigmoid")], far)["y"]
    softmax = apply_steps([_step("softmax", axes=(1,))], far)["y"]
    assert sigmoid.tolist() == [[0.0, 0.5, 1.0]]
    assert softmax.tolist() == [[0.0, 0.0, 1.0]]


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_coupled_probabilities_meet_the_conditions_of_the_least_squares_they_solve(
    classes: int,
) -> None:
    pairs = np.random.default_rng(classes).uniform(0.02, 0.98, (50, classes * (classes - 1) // 2))
    got = apply_steps([_step("couple_pairs")], {"x": pairs})["y"]
    np.testing.assert_allclose(got.sum(axis=1), 1.0, atol=1e-12)
    for row, probabilities in zip(pairs, got, strict=True):
        won = np.zeros((classes, classes))
        won[np.triu_indices(classes, 1)] = row
        won.T[np.triu_indices(classes, 1)] = 1.0 - row
        matrix = np.diag((won**2).sum(axis=0)) - won * won.T
        gradient = matrix @ probabilities
        assert np.ptp(gradient) < 2 * 0.005 / classes
        (alone,) = apply_steps([_step("couple_pairs")], {"x": row[None]})["y"]
        np.testing.assert_allclose(alone, probabilities, atol=1e-12)


def test_steps_run_in_order_and_may_write_over_a_tensor() -> None:
    steps = [
        ClearStep("negate", ("x",), ("x",)),
        ClearStep("add", ("x", "x"), ("y",)),
    ]
    result = apply_steps(steps, {"x": X})
    np.testing.assert_array_equal(result["y"], -2 * X)
    np.testing.assert_array_equal(result["x"], -X)


def test_a_missing_tensor_and_a_wrong_shape_are_named_without_values() -> None:
    with pytest.raises(InputShapeError, match="'x'"):
        apply_steps([_step("exp")], {})
    secret = np.full((2, 3), 31337.0)
    with pytest.raises(InputShapeError) as caught:
        apply_steps([_step("reshape", row_shape=(5,))], {"x": secret})
    assert "31337" not in str(caught.value)
    assert "[2, 3]" in str(caught.value)


GOOD = _step("select", axis=1, indices=np.array([0])).to_json()
ARRAY = {"dtype": "float64", "shape": [1], "values": [1.0]}


@pytest.mark.parametrize(
    "damage",
    [
        {"op": "eval"},
        {"op": 7},
        {"op": None},
        {"inputs": "x"},
        {"inputs": []},
        {"inputs": ["x", "z"]},
        {"inputs": [1]},
        {"outputs": []},
        {"outputs": ["a", "b"]},
        {"attributes": None},
        {"attributes": {}},
        {"attributes": {"axis": "1", "indices": ARRAY}},
        {"attributes": {"axis": True, "indices": ARRAY}},
        {"attributes": {"axis": 1, "indices": [0]}},
        {"attributes": {"axis": 1, "indices": ARRAY, "extra": 1}},
        {"attributes": {"axis": 1, "indices": {**ARRAY, "dtype": "object"}}},
        {"attributes": {"axis": 1, "indices": {**ARRAY, "shape": [2]}}},
        {"attributes": {"axis": 1, "indices": {**ARRAY, "shape": [-1]}}},
        {"attributes": {"axis": 1, "indices": {**ARRAY, "shape": [1 << 40]}}},
        {"attributes": {"axis": 1, "indices": {**ARRAY, "values": ["a"]}}},
        {"attributes": {"axis": 1, "indices": {**ARRAY, "values": [None]}}},
        {"attributes": {"axis": 1, "indices": {**ARRAY, "dtype": "int8", "values": [300]}}},
        {"attributes": {"axis": 1, "indices": {**ARRAY, "dtype": ["float64"]}}},
    ],
)
def test_damaged_steps_are_refused(damage: dict[str, object]) -> None:
    steps_from_json([GOOD])
    with pytest.raises(ArtifactError):
        steps_from_json([{**GOOD, **damage}])


@pytest.mark.parametrize("document", [None, {}, "x", [1], [[]], [{"op": "exp"}]])
def test_documents_that_are_no_list_of_steps_are_refused(document: object) -> None:
    with pytest.raises(ArtifactError):
        steps_from_json(document)


def test_operands_are_counted() -> None:
    with pytest.raises(ArtifactError, match="2 operands"):
        _step("add")
    with pytest.raises(ArtifactError, match="2 operands"):
        _step("add", "x z", left=np.array(1.0))
    with pytest.raises(ArtifactError, match="3 operands"):
        _step("where", "b x")
