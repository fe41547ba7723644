"""Stored values against the clear twin that circuits are compared with."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tacit
from tacit.client.training.requests import TrainingRequest, room_for
from tacit.client.training.simulated import SimulatedTrainer
from tacit.client.training.stored import StoredUnits
from tacit.errors import OverflowedAnswerError, WrongAnswerError
from tacit.training_clear import train_task_in_clear
from tests.client.training.tables import numbers, patients

Floats = NDArray[np.float64]


def requests() -> dict[str, TrainingRequest]:
    x, y = patients(100, 4)
    three = patients(100, 4, classes=3)
    return {
        "two classes": tacit.LogisticRegression(simulate=True).fit(x, y).request(x, y),
        "long": tacit.LogisticRegression(simulate=True, iterations=9).request(x, y),
        "three classes": tacit.LogisticRegression(simulate=True).request(*three),
        "decay": tacit.LogisticRegression(simulate=True, decay=0.1).request(x, y),
        "mini-batches": tacit.LogisticRegression(simulate=True, batch_rows=30).request(x, y),
        "ridge": tacit.Ridge(simulate=True, solver="gradient", alpha=5.0).request(*numbers()),
    }


@pytest.mark.parametrize("name", requests())
def test_the_simulation_is_the_twin_in_other_units(name: str) -> None:
    request = requests()[name]
    task, units = request.task, StoredUnits.of(request)
    batches = -(-len(request.rows) // task.batch_rows) if task.batch_rows else 1
    stored = train_task_in_clear(task, units.rows(request), units.labels(request), batches)
    remote = SimulatedTrainer(noise=0.0).start(request, lambda job, memory: None)
    for iteration, received in enumerate(stored, start=1):
        remote.status()
        found = units.weights(task, received)
        expected = remote.weights(iteration)
        # Mini-batches differ in size by a row, which the twin divides by their mean size.
        close = 0.05 if task.batch_rows else 1e-9
        assert found == pytest.approx(expected, abs=close * np.abs(expected).max())


@pytest.mark.parametrize("name", requests())
def test_stored_values_are_near_one(name: str) -> None:
    request = requests()[name]
    units = StoredUnits.of(request)
    labels = units.labels(request)
    assert np.abs(units.rows(request)).max() < 4.0
    assert labels is None or np.abs(labels).max() <= 1.0


def test_moments_come_back_as_means_of_products() -> None:
    request = tacit.LinearRegression(simulate=True).request(*numbers())
    units = StoredUnits.of(request)
    stored = units.rows(request)
    assert np.abs(stored).max() == 1.0
    table = np.concatenate([request.rows, request.targets], axis=1)
    assert units.moments(stored.T @ stored) == pytest.approx(table.T @ table / len(table))


def test_sums_that_cannot_be_those_of_the_rows_are_told() -> None:
    request = tacit.LinearRegression(simulate=True).request(*numbers())
    units = StoredUnits.of(request)
    stored = units.rows(request)
    sums = stored.T @ stored
    with pytest.raises(WrongAnswerError, match="200 rows"):
        units.moments(stored[1:].T @ stored[1:])
    for place in ((2, 2), (1, 3)):
        wrapped = sums.copy()
        wrapped[place] -= 512.0
        with pytest.raises(OverflowedAnswerError):
            units.moments(wrapped)
    with pytest.raises(OverflowedAnswerError):
        units.moments(np.full_like(sums, np.nan))


def test_units_come_back_from_json() -> None:
    request = requests()["ridge"]
    made = StoredUnits.of(request)
    again = StoredUnits.from_json(json.loads(json.dumps(made.to_json())))
    received: Any = np.random.default_rng(0).normal(size=(1, request.rows.shape[1]))
    np.testing.assert_array_equal(
        again.weights(request.task, received), made.weights(request.task, received)
    )


def test_room_is_a_little_more_than_the_rows_and_the_same_for_nearly_as_many() -> None:
    rooms = [room_for(n) for n in range(1, 3000)]
    assert all(n <= room <= 1.19 * n + 1 for n, room in enumerate(rooms, start=1))
    assert room_for(242) == room_for(243)
    assert len(set(rooms)) < 60
