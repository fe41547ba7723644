"""Bad input of trainings at a server: a named error, a job state that says it, nothing lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tacit
from tacit.client.training.http_trainer import service_of
from tacit.errors import LabelError, ParameterError, TrainingRowsError
from tacit.kernels.build import build_if_stale
from tacit.model_compiler.training import compile_training
from tacit.model_compiler.training_choice import TrainingOptions
from tacit.params import CryptoParams, Security
from tacit.runtime.options import ServerOptions, WorkerLimits
from tacit.runtime.server import ServerHandle
from tacit.training import MOST_FEATURES, MOST_ROWS, JobState, TrainingTask
from tacit.training_clear import train_task_in_clear
from tests.client.training.tables import patients
from tests.e2e.trainers import Jobs, Trainer
from tests.model_compiler.trainings import LOGISTIC, drawn

Floats = NDArray[np.float64]
# Levels for two iterations of degree 5 and a prediction, and not for more.
SMALL = CryptoParams.choose(10, 7, 45, 55, 1, Security.UNCHECKED_INSECURE)
TASK = replace(LOGISTIC, iterations=2, predictions=True)
BOUND = 2.0**-22


def compile_small(task: TrainingTask, folder: Path) -> object:
    return compile_training(task, folder, TrainingOptions(params=SMALL))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerHandle]:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    options = ServerOptions(compile_training=compile_small, workers=WorkerLimits(threads=1))
    with ServerHandle(tmp_path_factory.mktemp("models"), options) as handle:
        yield handle


@pytest.fixture(scope="module")
def connection(server: ServerHandle, tmp_path_factory: pytest.TempPathFactory) -> tacit.Connection:
    url, keys = f"http://127.0.0.1:{server.ports.http}", tmp_path_factory.mktemp("keys")
    return tacit.Connection(url, key_dir=keys, allow_insecure=True)


def jobs_at(connection: tacit.Connection) -> list[str]:
    with service_of(connection) as service:
        return [status.job for status in service.jobs()]


def keys_in(connection: tacit.Connection) -> list[Path]:
    return sorted(connection.directory.glob("*"))


X, Y = patients(60, 4)
CONSTANT = np.where(np.arange(4) == 2, 7.0, X)


@pytest.mark.parametrize(
    ("x", "y", "error", "words"),
    [
        (X, np.where(Y == 1, 0.5, 0.0), LabelError, "continuous"),
        (X, np.where(Y == 1, np.nan, 0.0), LabelError, "NaN"),
        (X, np.zeros(60), LabelError, "one class"),
        (X, Y[:-1], LabelError, "60 rows and 59 labels"),
        (CONSTANT, Y, TrainingRowsError, r"column\(s\) 2 are constant"),
        (np.where(X > 0, np.inf, X), Y, TrainingRowsError, "infinity"),
        (np.eye(3, MOST_FEATURES + 1), [0, 1, 1], TrainingRowsError, f"at most {MOST_FEATURES}"),
        (np.arange(MOST_ROWS + 1.0)[:, None], np.arange(MOST_ROWS + 1) % 2, TrainingRowsError,
         f"at most {MOST_ROWS} fit"),
    ],
    ids=["classes", "NaN", "one class", "too few", "constant", "infinite", "wide", "long"],
)  # fmt: skip
def test_what_cannot_be_trained_on_never_becomes_a_job(
    x: Any, y: Any, error: type[Exception], words: str, connection: tacit.Connection
) -> None:
    before = jobs_at(connection), keys_in(connection)
    with pytest.raises(error, match=words):
        tacit.LogisticRegression(connection, iterations=2).fit(x, y)
    assert (jobs_at(connection), keys_in(connection)) == before


def test_three_labels_are_three_classes_and_not_an_error(connection: tacit.Connection) -> None:
    request = tacit.LogisticRegression(connection, iterations=2).request(X, Y + (X[:, 0] > 0))
    assert request.task.classes == 3


def test_parameters_too_small_for_the_iterations_are_named_and_make_no_job(
    connection: tacit.Connection,
) -> None:
    before = jobs_at(connection)
    with pytest.raises(ParameterError, match="levels"):
        tacit.LogisticRegression(connection, iterations=3).fit(X, Y)
    assert jobs_at(connection) == before
    assert tacit.LogisticRegression(connection, iterations=2).fit(X, Y).n_iter_ == 2


@pytest.fixture
def jobs(connection: tacit.Connection) -> Iterator[Jobs]:
    with Jobs(lambda: connection.url) as opened:
        yield opened


@pytest.fixture
def trainer(connection: tacit.Connection, tmp_path: Path) -> Trainer:
    made = Trainer.make(connection.url, TASK, tmp_path / "keys")
    made.upload_keys(connection.url)
    return made


ROWS = drawn(TASK)[0]


def assert_trained(jobs: Jobs, trainer: Trainer, job: str) -> None:
    found = trainer.weights(TASK.iterations, jobs.finished(job))
    assert found == pytest.approx(train_task_in_clear(TASK, ROWS)[-1], abs=BOUND)


def test_frames_that_do_not_fit_leave_the_job_as_it_was(jobs: Jobs, trainer: Trainer) -> None:
    job, frames, other = jobs.create(trainer), trainer.encrypted(ROWS), trainer.encrypted(ROWS)
    refused = [
        (len(frames), frames[0], 400, "bad_request"),
        (0, frames[0][:-5], 400, "wire_truncated"),
        (0, trainer.asked(ROWS[:2]), 422, "wire_level"),
    ]
    for place, frame, status, code in refused:
        answer = jobs.ask("PUT", f"jobs/{job}/rows/0/{place}", content=frame)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert jobs.status(job).state is JobState.WAITING_FOR_ROWS
    jobs.upload(job, frames[:1])
    answer = jobs.ask("PUT", f"jobs/{job}/rows/0/0", content=other[0])
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert jobs.status(job).missing == (tuple(range(1, len(frames))),)
    jobs.upload(job, frames)
    assert_trained(jobs, trainer, job)


def test_a_party_that_disappears_is_waited_for_and_loses_nobody_anything(
    jobs: Jobs, trainer: Trainer
) -> None:
    job = jobs.create(trainer, uploads=2)
    parts = [(0, ROWS[:40]), (40, ROWS[40:])]
    frames = [trainer.encrypted_part(part, None, None, first) for first, part in parts]
    jobs.upload(job, frames[0], 0)
    status = jobs.status(job)
    assert status.state is JobState.WAITING_FOR_ROWS
    assert [bool(left) for left in status.missing] == [False, True]
    assert jobs.ask("DELETE", f"jobs/{job}").json()["state"] == "cancelled"
    late = jobs.ask("PUT", f"jobs/{job}/rows/1/0", content=frames[1][0])
    assert (late.status_code, late.json()["code"]) == (409, "job_state")
    assert jobs.ask("POST", f"jobs/{job}/resume").json()["state"] == "waiting_for_rows"
    jobs.upload(job, frames[1], 1)
    assert_trained(jobs, trainer, job)
