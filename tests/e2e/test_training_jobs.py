"""Training from rows to weights through a server, against the clear twin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.runtime.backends.loading import BackendName
from tacit.runtime.server import ServerHandle
from tacit.training import Algorithm, JobState, TrainingTask
from tacit.training_clear import train_task_in_clear
from tests.e2e.serve_training import options
from tests.e2e.trainers import Jobs, Trainer
from tests.model_compiler.trainings import LINEAR, LOGISTIC, drawn

Floats = NDArray[np.float64]
# Errors in these rings: 2^-45 scale, 2^10 coefficients; far above what noise reaches.
BOUND = 2.0**-22

SMALL = replace(LOGISTIC, iterations=3)
CASES = {
    "logistic": replace(SMALL, validation_rows=40, validation_every=1, predictions=True),
    "classes": replace(SMALL, classes=2, iterations=2),
    "mini-batches": replace(SMALL, rows=120, batch_rows=64, step_decay=0.5),
    "linear": replace(LINEAR, iterations=3, decay=0.01, predictions=True),
}


@pytest.fixture(scope="module")
def jobs(training_server: ServerHandle) -> Iterator[Jobs]:
    with Jobs(lambda: url_of(training_server)) as opened:
        yield opened


def url_of(training_server: ServerHandle) -> str:
    return f"http://127.0.0.1:{training_server.ports.http}"


@pytest.mark.parametrize(
    "name",
    ["logistic", "classes", "linear", pytest.param("mini-batches", marks=pytest.mark.slow)],
)
def test_a_job_trains_what_the_clear_twin_does(
    name: str, training_server: ServerHandle, jobs: Jobs, tmp_path: Path
) -> None:
    task = CASES[name]
    rows, labels, validation = drawn(task)
    trainer = Trainer.make(url_of(training_server), task, tmp_path / "keys")
    trainer.upload_keys(url_of(training_server))
    job = jobs.create(trainer)
    jobs.upload(job, trainer.encrypted(rows, labels, validation if len(validation) else None))
    found = jobs.finished(job)
    twin = train_task_in_clear(task, rows, labels, trainer.plan.batches)
    assert trainer.weights(task.iterations, found) == pytest.approx(twin[-1], abs=BOUND)
    status = jobs.status(job)
    assert (status.done, status.of, status.seconds_left) == (task.iterations, task.iterations, 0.0)
    assert status.weights == tuple(range(1, task.iterations + 1))
    for iteration in status.validations:
        margins = trainer.margins(iteration, jobs.read(job, f"validation/{iteration}"), 40)
        wanted = validation @ twin[iteration - 1].T * task.margin_scale
        assert margins == pytest.approx(wanted, abs=32 * BOUND)
    if task.predictions:
        answer = jobs.ask("POST", f"jobs/{job}/predict", content=2 * trainer.asked(rows[:30]))
        half = answer.content[: len(answer.content) // 2]
        wanted = rows[:30] @ twin[-1].T * task.margin_scale
        assert trainer.predicted(half, 30) == pytest.approx(wanted, abs=32 * BOUND)
        assert answer.content[len(half) :] == half


def test_several_parties_keys_that_come_late_and_moments(
    training_server: ServerHandle, jobs: Jobs, tmp_path: Path
) -> None:
    task = TrainingTask(Algorithm.MOMENTS, 90, 4, 0)
    rows = np.random.default_rng(3).uniform(-1.0, 1.0, (90, 6))
    rows[:, :2] = 1.0  # the largest sums there are
    trainer = Trainer.make(url_of(training_server), task, tmp_path / "keys")
    job = jobs.create(trainer, uploads=3)
    for party, first in enumerate((0, 30, 60)):
        missing = jobs.status(job).missing
        whole = trainer.plan.frames
        assert [len(part) for part in missing] == [whole * (p >= party) for p in range(3)]
        frames = trainer.encrypted_part(rows[first : first + 30], None, None, first)
        jobs.upload(job, frames, party)
    assert jobs.status(job).state is JobState.WAITING_FOR_KEYS
    trainer.upload_keys(url_of(training_server))
    found = trainer.moments(jobs.finished(job))
    assert found == pytest.approx(rows.T @ rows, abs=2.0**-16)


@pytest.mark.parametrize(
    ("backend", "bootstraps"),
    [
        (BackendName.NATIVE, True),
        (BackendName.OPENFHE, True),
        pytest.param(BackendName.OPENFHE, False, marks=pytest.mark.slow),
    ],
)
def test_a_training_with_bootstraps_and_on_openfhe(
    backend: BackendName, bootstraps: bool, tmp_path: Path
) -> None:
    task = replace(LOGISTIC, iterations=4)
    rows, _, _ = drawn(task)
    (tmp_path / "models").mkdir()
    with (
        ServerHandle(tmp_path / "models", options(bootstraps, backend)) as handle,
        Jobs(lambda: url_of(handle)) as jobs,
    ):
        trainer = Trainer.make(url_of(handle), task, tmp_path / "keys")
        assert any(step.refreshes for step in trainer.plan.steps) is bootstraps
        trainer.upload_keys(url_of(handle))
        job = jobs.create(trainer)
        jobs.upload(job, trainer.encrypted(rows))
        found = trainer.weights(task.iterations, jobs.finished(job))
    twin = train_task_in_clear(task, rows)
    # A bootstrap in these rings is right to some 2^-20; a wrong half of the state, to 2^-4.
    assert found == pytest.approx(twin[-1], abs=2.0**-10 if bootstraps else BOUND)
