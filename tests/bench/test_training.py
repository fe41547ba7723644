"""The parts of the training benchmark that need no server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import tacit
from bench import training_peers
from bench.question import Answer, Options
from bench.record import look_around
from bench.training_fits import clear_twin
from bench.training_sets import FOLDS, framingham_like, sets

pytest.importorskip("sklearn", reason="extra `demo` not installed")


def test_sets_have_the_rows_they_are_named_after_and_folds_that_cover_them() -> None:
    found = {patients.name: patients for patients in sets(None)}
    assert found["breast cancer"].rows.shape == (569, 30)
    assert found["framingham-like 780x9"].rows.shape == (780, 9)
    for patients in found.values():
        folds = list(patients.folds())
        assert len(folds) == FOLDS
        tested = np.concatenate([test for _, test in folds])
        np.testing.assert_array_equal(np.sort(tested), np.arange(len(patients.rows)))
        assert all(not set(train) & set(test) for train, test in folds)


def test_hospitals_are_read_where_a_folder_is_given(tmp_path: Path) -> None:
    line = "63,1,1,145,233,1,2,150,0,2.3,3,?,6,{}\n"
    for name in ("cleveland", "hungarian", "switzerland", "va"):
        (tmp_path / f"processed.{name}.data").write_text(line.format(0) + line.format(3))
    found = {patients.name: patients for patients in sets(tmp_path)}
    assert found["heart cleveland"].rows.shape == (2, 13)
    assert found["heart pooled"].rows.shape == (8, 13)
    assert list(found["heart cleveland"].labels) == [0, 1]
    assert np.isnan(found["heart pooled"].rows[:, 11]).all()


def test_the_twin_is_the_simulation_without_noise() -> None:
    patients = framingham_like()
    model = tacit.LogisticRegression(simulate=True, where="client")
    noisy = model.fit(patients.rows, patients.labels).weights_
    twin = clear_twin(model, patients.rows, patients.labels)
    difference = np.abs(noisy - twin).max()
    assert 0.0 < difference < 1e-3


def test_peers_that_are_not_wanted_do_not_take_part() -> None:
    answer = Answer()
    training_peers.run(answer, look_around(), Console(quiet=True), Options(peers=()))
    assert not answer.records
    assert not answer.failures
