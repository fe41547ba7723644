"""Training without a server and without keys: the same algorithm on clear numbers, with noise.

What `simulate=True` runs. Rows never leave the process, weights are as the encrypted training would
give them up to noise, and everything around it (preparation, early stopping, jobs) is the same.
"""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

from tacit.client.training.requests import Memory, Remember, RemoteModel, TrainingRequest
from tacit.errors import ServiceError, TrainingRowsError
from tacit.logistic import approximate_sigmoid, momenta
from tacit.training import Algorithm, JobState, JobStatus, TrainingTask

Floats = NDArray[np.float64]

NOISE = 2e-5
"""Deviation of what encryption adds to a weight in one iteration, in prepared units: as measured
at 780 rows of 9 features with the default parameters."""
MOMENTS_NOISE = 5e-9
"""The same for a mean of products of columns."""

CAPACITY = 1 << 22


class SimulatedTrainer:
    """A trainer in this process.

    Args:
        noise: deviation added to each weight in each iteration, and to each margin.
        seed: of the noise.
        capacity: values (rows times columns) that fit.
    """

    def __init__(self, *, noise: float = NOISE, seed: int = 0, capacity: int = CAPACITY) -> None:
        self._noise = noise
        self._random = np.random.default_rng(seed)
        self._capacity = capacity
        self._jobs: dict[str, SimulatedModel] = {}

    def start(self, request: TrainingRequest, remember: Remember) -> RemoteModel:
        """Begin a training; an iteration is computed whenever its status is asked for."""
        if request.task.rows * request.task.width > self._capacity:
            raise TrainingRowsError(
                f"{request.task.rows} rows of {request.task.features} features do not fit: at "
                f"most {self._capacity // request.task.width} rows; leave some out, or train on "
                "fewer features"
            )
        model = SimulatedModel(request, self._noise, self._random)
        self._jobs[model.job_id] = model
        remember(model.job_id, {})
        return model

    def attach(self, job_id: str, memory: Memory) -> RemoteModel:
        """Find a training that this trainer began."""
        if job_id not in self._jobs:
            raise ServiceError(f"no job {job_id!r}: simulated ones end with their process")
        return self._jobs[job_id]


class SimulatedModel:
    """A training in this process."""

    def __init__(self, request: TrainingRequest, noise: float, random: np.random.Generator) -> None:
        self._request = request
        self._noise = noise
        self._random = random
        self._id = f"simulated-{secrets.token_hex(8)}"
        self._momenta = momenta(request.task.iterations)
        self._step = request.step / request.curvature
        # Weights after 0, 1, 2, ... iterations.
        self._path: list[Floats] = [np.zeros((request.rows.shape[1], request.task.classes))]
        self._validations: dict[int, Floats] = {}
        self._cancelled = False

    @property
    def job_id(self) -> str:
        """Name of the job."""
        return self._id

    @property
    def task(self) -> TrainingTask:
        """What is trained."""
        return self._request.task

    def status(self) -> JobStatus:
        """Compute one more iteration and say how far it is."""
        done, total = self._done, self.task.iterations
        if done < total and not self._cancelled:
            self._iterate()
            done += 1
        state = JobState.DONE if done == total else JobState.RUNNING
        return JobStatus(
            job=self._id,
            plan="simulated",
            key_id="",
            state=JobState.CANCELLED if self._cancelled else state,
            reason="cancelled" if self._cancelled else "",
            missing=(),
            done=done,
            of=total,
            seconds=0.0,
            seconds_left=0.0,
            validations=tuple(self._validations),
            weights=tuple(range(1, done + 1)),
        )

    def validation(self, iteration: int) -> Floats:
        """Return the margins of the validation rows after an iteration."""
        return self._validations[iteration]

    def cancel(self) -> None:
        """Stop."""
        self._cancelled = self._done < self.task.iterations

    def resume(self) -> None:
        """Go on."""
        self._cancelled = False

    def weights(self, iteration: int | None = None) -> Floats:
        """Return weights, or the moments of rows and targets."""
        if self.task.algorithm is Algorithm.MOMENTS:
            table = np.concatenate([self._request.rows, self._request.targets], axis=1)
            moments = table.T @ table / len(table)
            noise = min(self._noise, MOMENTS_NOISE)
            return np.asarray(moments + noise * self._random.normal(size=moments.shape))
        return self._path[-1 if iteration is None else iteration]

    def margins(self, rows: Floats) -> Floats:
        """Multiply weights by rows."""
        return self._disturbed(rows @ self._path[-1])

    def error(self, iteration: int | None = None) -> float:
        """Return the deviation of the noise."""
        return min(self._noise, MOMENTS_NOISE) if self.task.iterations == 0 else self._noise

    @property
    def key_id(self) -> str:
        """Stand for a key."""
        return "0" * 64

    @property
    def _done(self) -> int:
        return len(self._path) - 1

    def _iterate(self) -> None:
        done, now, before = self._done, self._path[-1], self._path[max(self._done - 1, 0)]
        ahead = now + self._momenta[done] * (now - before)
        kept = np.full(ahead.shape, 1.0 - self.task.decay)
        kept[0] = 1.0
        step = self._step / (1.0 + self.task.step_decay * done)
        self._path.append(self._disturbed(kept * ahead + step * self._descent(ahead)))
        if self._request.validation is not None and self.task.validates(done + 1):
            self._validations[done + 1] = self.margins(self._request.validation)

    def _descent(self, weights: Floats) -> Floats:
        """Return minus the gradient of the mean loss over this iteration's rows."""
        rows, targets = self._request.rows, self._request.targets
        if self.task.batch_rows:
            batches = -(-len(rows) // self.task.batch_rows)
            chosen = slice(self._done % batches, None, batches)
            rows, targets = rows[chosen], targets[chosen]
        margins = rows @ weights
        if self.task.algorithm is Algorithm.LINEAR:
            share = targets - margins
        else:
            share = targets * approximate_sigmoid(-targets * margins, self.task.degree)
        return np.asarray(rows.T @ share / len(rows))

    def _disturbed(self, values: Floats) -> Floats:
        return np.asarray(values + self._noise * self._random.normal(size=values.shape))
