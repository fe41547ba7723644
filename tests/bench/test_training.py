"""The parts of the training benchmark that need no server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import tacit
from bench import training, training_kills, training_peers
from bench.question import Options
from bench.record import look_around, newest, read
from bench.subjects import LateError, Launch
from bench.task import Task
from bench.training_course import Course
from bench.training_fits import clear_twin
from bench.training_server import family
from bench.training_sets import FOLDS, framingham_like, sets
from bench.worker import Ready, Round

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


def course(folder: Path, **options: Any) -> Course:
    return Course(Options(**options), Console(quiet=True), look_around(), folder)


def test_peers_and_kills_that_are_not_wanted_do_not_take_part(tmp_path: Path) -> None:
    quiet = course(tmp_path, peers=())
    training_peers.run(quiet)
    training_kills.run(quiet)
    assert not quiet.answer.records
    assert not quiet.answer.failures
    assert not list(tmp_path.iterdir())


def test_a_part_that_breaks_neither_ends_the_others_nor_loses_their_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "training.jsonl"

    def measured(course: Course) -> None:
        course.note("rows", "fit_seconds", "s", [3.0, 1.0, 2.0], {})

    def broken(course: Course) -> None:
        assert [record.value for record in read(results)] == [2.0]
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(training, "PARTS", {"one": measured, "two": broken, "three": measured})
    answer = training.run(Options(results=results), Console(quiet=True))
    assert answer.failures == ["two: RuntimeError: the disk is full"]
    assert len(answer.records) == len(read(results)) == 2
    answer.save(results)
    assert len(read(results)) == 2
    assert len(newest(read(results))) == 1
    chosen = training.run(Options(only=("three",)), Console(quiet=True))
    assert len(chosen.records) == 1
    assert not chosen.failures


def test_processor_time_counts_workers_in_sessions_of_their_own() -> None:
    burn = (
        "import sys, time\n"
        "while time.process_time() < 0.2: pass\n"
        "print(flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", burn],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdout.readline()
        ticks = family(os.getpid())
        assert ticks[worker.pid] >= 0.2 * os.sysconf("SC_CLK_TCK") - 2
        assert list(family(worker.pid)) == [worker.pid]
        worker.stdin.close()
    assert worker.pid not in family(os.getpid())
    assert family(worker.pid) == {}


class LatePeer:
    """Gets ready and never answers."""

    def __init__(self, launch: Launch, folder: Path) -> None:
        assert launch.timeout_seconds == training_peers.QUICK_LONGEST_SECONDS

    def setup(self, task: Task, arrays: Path) -> Ready:
        return Ready({"bits": 6}, 2, 1.5, 64)

    def round(self, index: int) -> Round:
        raise LateError("no answer in 60 s")

    def end(self) -> None:
        """Nothing runs."""


def test_a_peer_that_is_late_is_recorded_as_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_peers, "Subject", LatePeer)
    monkeypatch.setattr(training_peers, "_own_row_seconds", lambda *_: 1e-3)
    monkeypatch.setattr(training_peers, "find_launch", lambda name, say: Launch(name, "", ()))
    late = course(tmp_path, peers=("concrete-ml",), quick=True)
    training_peers.run(late)
    found = {record.metric: record for record in late.answer.records}
    assert found[training_peers.NOT_FINISHED].value == training_peers.QUICK_LONGEST_SECONDS
    assert found[training_peers.NOT_FINISHED].parameters == {"doing": "training", "bits": 6}
    assert found["setup_seconds"].value == 1.5
    assert "row_seconds" not in found
    assert not late.answer.failures
