"""What an estimator asks for, and what trains it: over HTTP, or simulated in this process.

An estimator prepares rows, hands a `TrainingRequest` to a `Trainer` and gets a `RemoteModel`: a
training that goes on elsewhere, whose weights are encrypted until they are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ParameterError, TrainingRowsError
from tacit.training import MOST_ROWS, Algorithm, JobStatus, TrainingTask

Floats = NDArray[np.float64]
OnStatus = Callable[[JobStatus], None]
Memory = Mapping[str, Any]
Remember = Callable[[str, Memory], None]
"""Told a job's name, and what must be kept (JSON-serialisable) to read its weights later."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRequest:
    """One training.

    Attributes:
        task: what is trained; public.
        rows: shape (rows, features + 1), the constant column 1 first, prepared: values of about 1.
        targets: shape (rows, classes): 1 or -1 for logistic, numbers of about 1 otherwise.
        step: what the step length is multiplied by; 1 is the inverse of the largest curvature.
        validation: prepared rows whose margins come back encrypted on the way, or None.
    """

    task: TrainingTask
    rows: Floats = field(repr=False)
    targets: Floats = field(repr=False)
    step: float = 1.0
    validation: Floats | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        count, columns = self.rows.shape
        if columns != self.task.features + 1 or self.targets.shape != (count, self.task.classes):
            raise ParameterError(
                f"rows {self.rows.shape} and targets {self.targets.shape} do not fit a task of "
                f"{self.task.features} features and {self.task.classes} class(es)"
            )
        if count > self.task.rows:
            raise ParameterError(f"{count} rows for a task of {self.task.rows}")

    @property
    def curvature(self) -> float:
        """Largest curvature of the mean loss over the rows: 1 over the step length."""
        return curvature_of(self.rows, self.task.algorithm)


def curvature_of(rows: Floats, algorithm: Algorithm) -> float:
    """Return the largest curvature of the mean loss over prepared rows."""
    share = 0.25 if algorithm is Algorithm.LOGISTIC else 1.0
    return share * float(np.linalg.eigvalsh(rows.T @ rows / len(rows)).max())


def room_for(rows: int) -> int:
    """Return how many rows to ask room for: up to a fifth more, in steps of 2^(1/4).

    So trainings of nearly as many rows share a compiled plan and keys, and the server learns the
    number of rows only roughly.

    Raises:
        TrainingRowsError: more rows than any training takes.
    """
    if rows > MOST_ROWS:
        raise TrainingRowsError(f"{rows} rows: at most {MOST_ROWS} fit; train on a sample of them")
    steps = math.ceil(4.0 * math.log2(rows) - 1e-9)
    return min(MOST_ROWS, max(rows, math.ceil(math.pow(2.0, steps / 4.0) - 1e-9)))


class RemoteModel(Protocol):
    """A training and the encrypted weights that come of it."""

    @property
    def job_id(self) -> str:
        """Name of the job, by which it is found again."""
        ...

    @property
    def task(self) -> TrainingTask:
        """What is trained."""
        ...

    def status(self) -> JobStatus:
        """Ask how far it is.

        Raises:
            ServiceError: the server cannot be reached or refuses.
        """
        ...

    def validation(self, iteration: int) -> Floats:
        """Fetch and decrypt the margins of the validation rows, shape (rows, classes)."""
        ...

    def cancel(self) -> None:
        """Stop it; what was computed stays."""
        ...

    def resume(self) -> None:
        """Go on where a cancelled or failed training stopped."""
        ...

    def weights(self, iteration: int | None = None) -> Floats:
        """Fetch and decrypt weights, by default the last ones.

        Returns:
            Shape (features + 1, classes), for prepared rows; for moments the means of products of
            columns of (rows, targets), shape (features + 2, features + 2).
        """
        ...

    def margins(self, rows: Floats) -> Floats:
        """Multiply encrypted weights by encrypted prepared rows; shape (rows, classes)."""
        ...

    def error(self, iteration: int | None = None) -> float:
        """Measure the deviation of the errors in the decrypted weights."""
        ...

    @property
    def key_id(self) -> str:
        """Name of the keys it is encrypted under."""
        ...


class Trainer(Protocol):
    """Trains somewhere."""

    def start(self, request: TrainingRequest, remember: Remember) -> RemoteModel:
        """Begin a training; `remember` is called before rows leave.

        Raises:
            TrainingRowsError: more rows, or wider ones, than fit.
            ServiceError: the server cannot be reached or refuses.
        """
        ...

    def attach(self, job_id: str, memory: Memory) -> RemoteModel:
        """Find a training again; `memory` is what was to be remembered.

        Raises:
            ServiceError: the server knows no such job.
        """
        ...
