"""One encrypted training and what is measured of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.task import Array
from bench.training_server import TrainingServer
from bench.training_sets import Labels
from tacit.client.keys import KeyPair
from tacit.client.training.connection import Connection
from tacit.client.training.estimator import Estimator
from tacit.client.training.http_trainer import HttpModel, HttpTrainer, service_of
from tacit.client.training.logistic_regression import LogisticRegression
from tacit.client.training.records import read_record
from tacit.client.training.simulated import SimulatedTrainer


@dataclass(frozen=True, slots=True)
class Fit:
    """Figures of one training.

    Attributes:
        weights, twin: for prepared rows: encrypted, and of the same algorithm in numpy.
        fit_seconds: from rows to decrypted weights, keys known to the server before.
        server_seconds: spent on the circuit.
        server_cpu_seconds: processor time of the server and its workers, whatever they did.
        key_bytes, upload_bytes: evaluation keys, and encrypted rows.
        parameters: of the scheme.
        model: fitted, weights decrypted.
    """

    weights: Array
    twin: Array
    fit_seconds: float
    server_seconds: float
    server_cpu_seconds: float
    key_bytes: int
    upload_bytes: int
    parameters: dict[str, object]
    model: LogisticRegression = field(repr=False)

    @property
    def weight_error(self) -> float:
        """Largest difference of a weight."""
        return float(np.abs(self.weights - self.twin).max())


@dataclass(frozen=True, slots=True)
class Cold:
    """What only the first training of its shape takes.

    Attributes:
        compile_seconds: at the server.
        key_seconds: to make evaluation keys at the client and upload them.
    """

    compile_seconds: float
    key_seconds: float


def fit(model: LogisticRegression, rows: Array, labels: Labels, server: TrainingServer) -> Fit:
    """Train once, and once more in the clear.

    Args:
        model: with a `Connection` as its URL; plan and keys are there (`warm_up`).
        rows, labels: what is trained on.
        server: that of the connection.
    """
    start, before = time.perf_counter(), server.cpu_seconds()
    fitted = model.fit(rows, labels).download()
    seconds, spent = time.perf_counter() - start, server.cpu_seconds() - before
    remote = remote_of(fitted)
    plan, keys = remote.plan, remote.codec.keys
    return Fit(
        fitted.weights_,
        clear_twin(fitted, rows, labels),
        seconds,
        remote.status().seconds,
        spent,
        keys.facts.key_bytes,
        plan.frames * plan.signature.params.ciphertext_bytes(plan.upload.inputs[0].level),
        dict(plan.signature.params.to_json()),
        fitted,
    )


def remote_of(model: Estimator) -> HttpModel:
    """Return the training of a fitted estimator."""
    remote = model._fitted_remote()
    assert isinstance(remote, HttpModel)
    return remote


def keys_of(model: Estimator) -> KeyPair:
    """Return the keys of a fitted estimator."""
    return remote_of(model).codec.keys


def warm_up(model: Estimator, rows: Array, labels: Labels | Array) -> Cold:
    """Have the training compiled, and keys made and uploaded; a second time costs little."""
    connection = model.url
    assert isinstance(connection, Connection)
    task = model.request(rows, labels).task
    trainer, start = HttpTrainer(connection), time.perf_counter()
    trainer.planned(task)
    compiled = time.perf_counter()
    trainer.make_ready(task)
    return Cold(compiled - start, time.perf_counter() - compiled)


def clear_twin(model: LogisticRegression, rows: Array, labels: Labels) -> Array:
    """Train by the same algorithm on clear numbers, without noise."""
    request = model.request(rows, labels)
    remote = SimulatedTrainer(noise=0.0).start(request, lambda job, memory: None)
    while not remote.status().state.ended:
        pass
    return remote.weights()


def forget(connection: Connection, job: str) -> None:
    """Delete a job at the server and its record here, so that folders stay small."""
    with service_of(connection) as service:
        service.forget(job)
    read_record(connection, job)
    Path(connection.trainings / f"{job}.training").unlink(missing_ok=True)
