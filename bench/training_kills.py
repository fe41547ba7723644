"""The fault run of `bench training`: the server is killed while it trains, and started again."""

from __future__ import annotations

import random
import time

import numpy as np
from rich.console import Console

from bench.question import Answer, Options
from bench.record import Record, Surroundings
from bench.training_fits import clear_twin, forget
from bench.training_server import TrainingServer
from bench.training_sets import framingham_like
from tacit.client.training.connection import Connection
from tacit.client.training.job import TrainingJob
from tacit.client.training.logistic_regression import LogisticRegression
from tacit.errors import ServiceError

WORKLOAD = "kills"
LARGEST_WEIGHT_ERROR = 1e-3
_LONGEST_DELAY = 3.0


def run(
    answer: Answer,
    around: Surroundings,
    console: Console,
    server: TrainingServer,
    connection: Connection,
    options: Options,
) -> None:
    """Kill the server `options.kills` times at random moments of trainings.

    Every job must come to its end, with the weights of a training nobody disturbed.
    """
    patients = framingham_like()
    model = LogisticRegression(connection, where="client")
    undisturbed = model.fit(patients.rows, patients.labels).weights_
    twin = clear_twin(model, patients.rows, patients.labels)
    chosen = random.Random(0)
    kills, jobs, wrong, lost = 0, 0, 0, 0
    longest = 0.0
    while kills < options.kills:
        job = model.fit(patients.rows, patients.labels, wait=False)
        jobs += 1
        while kills < options.kills and _killed(server, job, chosen):
            kills += 1
        try:
            weights = job.result(timeout=600.0).download().weights_
        except ServiceError as error:
            lost += 1
            console.print(f"job {job.id} is lost: {error}", style="red", markup=False)
            continue
        # Every training encrypts anew, so even undisturbed ones differ by noise.
        longest = max(longest, float(np.abs(weights - undisturbed).max()))
        wrong += float(np.abs(weights - twin).max()) > LARGEST_WEIGHT_ERROR
        forget(connection, job.id)
    console.print(
        f"{kills} kills in {jobs} jobs: {lost} lost, {wrong} with wrong weights, largest "
        f"difference from an undisturbed training {longest:.1e}"
    )
    for metric, value in (("lost_jobs", lost), ("wrong_weights", wrong), ("kills", kills)):
        answer.records.append(_record(around, metric, float(value), jobs))
    answer.records.append(_record(around, "difference_from_undisturbed", longest, jobs))
    if lost or wrong:
        answer.failures.append(f"{lost} jobs lost, {wrong} with wrong weights after {kills} kills")


def _killed(
    server: TrainingServer, job: TrainingJob[LogisticRegression], chosen: random.Random
) -> bool:
    """Kill the server at a random moment, unless the job is done by then; start it again."""
    time.sleep(chosen.uniform(0.0, _LONGEST_DELAY))
    if job.progress().state.ended:
        return False
    server.kill()
    server.start()
    return True


def _record(around: Surroundings, metric: str, value: float, runs: int) -> Record:
    return Record(
        question="training",
        workload=WORKLOAD,
        subject="tacit",
        metric=metric,
        value=value,
        unit="1",
        threads=2,
        parameters={},
        runs=runs,
        hardware=around.hardware,
        commit=around.commit,
        samples=[value],
        load=around.load,
        time=around.time,
    )
