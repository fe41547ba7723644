"""The training circuit against the same algorithm on clear numbers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.circuit import execute
from tacit.errors import ParameterError
from tacit.logistic import SIGMOID_RANGE, train_in_clear
from tacit.model_compiler.levels import check_levels
from tacit.model_compiler.logistic_training import (
    DEGREES,
    ROWS,
    WEIGHTS,
    LogisticTraining,
    lower_training,
)
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.clear import ClearEvaluator

Floats = NDArray[np.float64]
SLOTS = 512


def signed_rows(task: LogisticTraining, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(task.rows, task.features))
    signs = np.where(x[:, 0] + 0.3 * rng.normal(size=task.rows) > 0.2, 1.0, -1.0)
    rows = np.concatenate([np.ones((task.rows, 1)), x], axis=1) * signs[:, None]
    return np.asarray(rows / np.abs(rows).max())


def trained(task: LogisticTraining, rows: Floats) -> Floats:
    lowered = lower_training(task, SLOTS)
    check_levels(lowered.circuit)
    padded = np.zeros((task.capacity(SLOTS), task.width))
    padded[: len(rows), : rows.shape[1]] = rows
    params = CryptoParams.choose(10, task.depth, 40, 50, 1, Security.UNCHECKED_INSECURE)
    evaluator = ClearEvaluator(params)
    vectors = lowered.inputs[ROWS].pack(padded.reshape(1, -1))
    inputs = [evaluator.encrypt(vector, lowered.levels[ROWS]) for vector in vectors]
    (output,) = execute(lowered.circuit, inputs, evaluator)
    assert evaluator.overflows == 0
    assert (output.level, output.degree) == (0, 1)
    return np.asarray(lowered.outputs[WEIGHTS].unpack(output.values[None], 1)[0])


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_the_circuit_computes_nesterovs_iterations(degree: int, iterations: int) -> None:
    task = LogisticTraining(100, 5, iterations, degree)
    rows = signed_rows(task)
    step = task.row_scale**2 / task.capacity(SLOTS)
    expected = train_in_clear(rows, step, iterations, degree) / SIGMOID_RANGE
    assert trained(task, rows) == pytest.approx(expected, abs=1e-12)


def test_unused_rows_change_nothing() -> None:
    few, many = LogisticTraining(20, 5, 3, 5), LogisticTraining(60, 5, 3, 5)
    assert few.capacity(SLOTS) == many.capacity(SLOTS) == 64
    rows = signed_rows(few)
    assert trained(few, rows) == pytest.approx(trained(many, rows), abs=1e-12)


@pytest.mark.parametrize(("degree", "levels"), [(3, 4), (5, 5), (7, 5)])
def test_an_iteration_costs_the_levels_it_should(degree: int, levels: int) -> None:
    depths = [LogisticTraining(100, 5, t, degree).depth for t in (1, 2, 3, 9)]
    assert depths == [1, 1 + levels, 1 + 2 * levels, 1 + 8 * levels]


def test_one_ciphertext_of_rows_needs_few_keys() -> None:
    task = LogisticTraining(780, 9, 5, 3)
    lowered = lower_training(task, 1 << 14)
    assert task.ciphertexts(1 << 14) == 1
    assert len(lowered.circuit.rotations) == 2 * 4 + 10


@pytest.mark.parametrize(
    "wrong", [{"rows": 0}, {"features": 0}, {"iterations": 0}, {"degree": 4}, {"degree": 9}]
)
def test_impossible_tasks_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ParameterError):
        LogisticTraining(**{"rows": 10, "features": 3, "iterations": 2, **wrong})


def test_a_row_that_is_wider_than_a_ciphertext_is_refused() -> None:
    with pytest.raises(ParameterError, match="do not fit"):
        lower_training(LogisticTraining(10, SLOTS, 2), SLOTS)
