"""Trainings for tests: small tasks, insecure parameters, drawn rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.model_compiler.training_choice import (
    TrainingOptions,
    identity_series,
    refresh_depth,
)
from tacit.model_compiler.training_geometry import iteration_depth
from tacit.model_compiler.training_schedule import Refresh, leveled_depth
from tacit.params import CryptoParams, SecretDistribution, Security
from tacit.training import Algorithm, TrainingTask

Floats = NDArray[np.float64]
LOGISTIC = TrainingTask(Algorithm.LOGISTIC, 100, 5, 4)
LINEAR = TrainingTask(Algorithm.LINEAR, 100, 5, 4)
TASKS = {
    "logistic": LOGISTIC,
    "degree 5": replace(LOGISTIC, degree=5),
    "degree 7": replace(LOGISTIC, degree=7),
    "one iteration": replace(LOGISTIC, iterations=1),
    "two iterations": replace(LOGISTIC, iterations=2),
    "decay": replace(LOGISTIC, decay=0.05),
    "mini-batches": replace(LOGISTIC, rows=220, batch_rows=64, step_decay=0.1, iterations=6),
    "classes": replace(LOGISTIC, classes=3),
    "linear": LINEAR,
    "ridge": replace(LINEAR, decay=0.02),
    "linear mini-batches": replace(LINEAR, rows=150, batch_rows=50),
    "two targets": replace(LINEAR, classes=2),
}


def insecure(task: TrainingTask, **refreshed: int) -> TrainingOptions:
    """Parameters for tests; with `between`, bootstraps after so many iterations."""
    unchecked = Security.UNCHECKED_INSECURE
    if not refreshed:
        params = CryptoParams.choose(10, leveled_depth(task), 45, 55, 1, unchecked)
        return TrainingOptions(params=params)
    log_slots = (2 * task.width).bit_length() - 1
    level = 1 + refreshed["between"] * iteration_depth(task) + 2 + 2
    refresh = Refresh(Bootstrap("series", level, log_slots, 2, 2), identity_series())
    secret = SecretDistribution.SPARSE_ENCAPSULATED
    shallow = CryptoParams.choose(10, 1, 50, 51, 1, unchecked, secret)
    depth = refresh_depth(shallow, refresh)
    params = CryptoParams.choose(10, depth, 50, 51, 3, unchecked, secret)
    return TrainingOptions(params=params, refresh=refresh)


def drawn(task: TrainingTask, seed: int = 0) -> tuple[Floats, Floats | None, Floats]:
    """Stored rows, labels, and validation rows."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([np.ones((task.rows, 1)), rng.normal(size=(task.rows, task.features))], 1)
    scores = x @ rng.normal(size=(task.features + 1, task.classes))
    rows = x / (4.0 * np.sqrt(np.linalg.eigvalsh(x.T @ x / len(x)).max() / 4.0))
    validation = rows[: task.validation_rows]
    if task.algorithm is Algorithm.LINEAR:
        return rows / 2.0, np.clip(scores / 16.0, -0.5, 0.5), validation / 2.0
    if task.classes == 1:
        return rows * np.sign(scores), None, validation
    return rows, (scores > 0.0).astype(np.float64), validation
