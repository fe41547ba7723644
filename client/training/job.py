"""Trainings that go on at the server: watch, cancel, resume, fetch, find again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tacit.client.training.curve import CurvePoint, LearningCurve, mean_loss
from tacit.client.training.requests import OnStatus, RemoteModel
from tacit.errors import ServiceError
from tacit.training import JobState, JobStatus

Floats = NDArray[np.float64]
Fitted = TypeVar("Fitted")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_PAUSE_SHARE = 0.1  # of the time waited so far: so much longer may waiting take than it must


@dataclass(frozen=True, slots=True)
class StoppingRule:
    """When training ends early.

    Attributes:
        patience: checkpoints without improvement; 0 never stops early.
        tolerance: what counts as an improvement of the mean loss.
    """

    patience: int = 0
    tolerance: float = 1e-4


@dataclass(slots=True, eq=False)
class Course:
    """A job and its validation so far.

    Attributes:
        remote: the job.
        rule: when it ends early.
        targets: of the validation rows, shape (rows, classes); None without.
        points: of the learning curve.
        stopped: the iteration whose weights count, if it was stopped early; else None.
    """

    remote: RemoteModel
    rule: StoppingRule = field(default_factory=StoppingRule)
    targets: Floats | None = field(default=None, repr=False)
    points: list[CurvePoint] = field(default_factory=list)
    stopped: int | None = None

    @property
    def curve(self) -> LearningCurve:
        """The learning curve so far."""
        return LearningCurve(tuple(self.points))

    def look(self) -> JobStatus:
        """Ask how far it is, decrypt new validation margins, stop if the rule says so.

        A job that went on beyond the point where the rule ends it keeps that point's weights.
        """
        status = self.remote.status()
        self._decrypt(status)
        stalled = self._stalled()
        if stalled is None or status.state is JobState.FAILED:
            return status
        if not status.state.ended:
            self.remote.cancel()
            status = self.remote.status()
        self.stopped = _nearest(stalled.best().iteration, status.weights)
        return status

    def go_on(self) -> None:
        """Have it resumed; what was stopped early goes on to its last iteration."""
        if self.stopped is not None:
            self.rule, self.stopped = StoppingRule(), None
        self.remote.resume()

    def _stalled(self) -> LearningCurve | None:
        rule = self.rule
        return self.curve.until_stalled(rule.patience, rule.tolerance) if rule.patience else None

    def _decrypt(self, status: JobStatus) -> None:
        if self.targets is None:
            return
        after = self.points[-1].iteration if self.points else 0
        for iteration in sorted(status.validations):
            if iteration > after:
                margins = self.remote.validation(iteration)
                loss = mean_loss(margins, self.targets, self.remote.task.algorithm)
                self.points.append(CurvePoint(iteration, loss))


def _nearest(best: int, readable: Sequence[int]) -> int | None:
    """Return the iteration with readable weights that is nearest to the best one."""
    return min(readable, key=lambda iteration: (abs(iteration - best), iteration), default=None)


class TrainingJob(Generic[Fitted]):
    """What `fit(..., wait=False)` returns: a handle of a training."""

    def __init__(self, course: Course, finish: Callable[[Course], Fitted]) -> None:
        """Watch a course; `finish` makes the fitted estimator of it."""
        self._course = course
        self._finish = finish

    @property
    def id(self) -> str:
        """Name of the job, with which `attach` finds it again."""
        return self._course.remote.job_id

    @property
    def curve(self) -> LearningCurve:
        """The learning curve, as far as it was decrypted."""
        return self._course.curve

    @property
    def stopped_early(self) -> int | None:
        """The iteration whose weights are kept, if early stopping chose one; else None."""
        return self._course.stopped

    def __repr__(self) -> str:
        return f"TrainingJob({self.id!r})"

    def progress(self) -> JobStatus:
        """Ask how far it is; new validation margins are decrypted on the way.

        Raises:
            ServiceError: the server cannot be reached or refuses.
        """
        return self._course.look()

    def cancel(self) -> None:
        """Stop; what was computed stays at the server, and `resume` goes on from there."""
        self._course.remote.cancel()

    def resume(self) -> None:
        """Go on with what was cancelled or failed."""
        self._course.go_on()

    def result(self, on_status: OnStatus | None = None, *, timeout: float = 0.0) -> Fitted:
        """Wait until it is done and return the fitted estimator.

        Args:
            on_status: hears how far it is.
            timeout: seconds to wait at most; 0 waits for ever.

        Raises:
            ServiceError: it failed, was cancelled, or is not done in time.
        """
        start = time.monotonic()
        while True:
            status = self.progress()
            if on_status is not None:
                on_status(status)
            if status.state.ended:
                break
            waited = time.monotonic() - start
            if timeout and waited > timeout:
                raise ServiceError(f"job {self.id} is not done after {timeout:g} s; it goes on")
            if status.seconds_left != 0.0:
                time.sleep(min(_FIRST_PAUSE + _PAUSE_SHARE * waited, _LONGEST_PAUSE))
        if status.state is not JobState.DONE and self._course.stopped is None:
            raise ServiceError(_unfinished(status))
        return self._finish(self._course)


def _unfinished(status: JobStatus) -> str:
    word = "was cancelled" if status.state is JobState.CANCELLED else "failed"
    reason = f": {status.reason}" if status.reason else ""
    return (
        f"job {status.job} {word} after {status.done} of {status.of} iterations{reason}; "
        "resume() goes on from there"
    )
