"""Part `kills` of question `training`: the server is killed while it trains, and started again.

A thread kills the server with all its workers at moments drawn uniformly from the time that an
undisturbed training takes, and starts it again at once, while a client trains with it, from the
first request to the decrypted weights. So a kill may come while rows arrive, between two
checkpoints, while one is written, or while weights are read.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

import numpy as np

from bench.training_course import LARGEST_WEIGHT_ERROR, Course
from bench.training_fits import clear_twin, forget, warm_up
from bench.training_server import TrainingServer
from bench.training_sets import framingham_like
from tacit.errors import ServiceError

WORKLOAD = "kills"


@dataclass(slots=True)
class _Found:
    """What came of all trainings so far."""

    kills: int = 0
    jobs: int = 0
    lost: int = 0
    wrong: int = 0
    differences: list[float] = field(default_factory=list)


class _Killer(threading.Thread):
    """Kills a server until it is told to stop, or has done it often enough."""

    def __init__(self, server: TrainingServer, most: int, span: float, seed: int) -> None:
        super().__init__(name="killer")
        self._server = server
        self._most = most
        self._span = span
        self._draw = random.Random(seed)
        self._stopping = threading.Event()
        self.kills = 0
        self.error: Exception | None = None

    def run(self) -> None:
        """Kill and start again."""
        try:
            while self.kills < self._most:
                if self._stopping.wait(self._draw.uniform(0.0, self._span)):
                    return
                self._server.kill()
                self.kills += 1
                self._server.start()
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        """Kill no more; the server runs.

        Raises:
            Exception: it could not be started again.
        """
        self._stopping.set()
        self.join()
        if self.error is not None:
            raise self.error


def run(course: Course) -> None:
    """Kill the server `options.kills` times at random moments of trainings.

    Every training must come to its end, with the weights of one that nobody disturbed.
    """
    wanted = course.options.kills
    if not wanted:
        course.say("kills skipped: give --kills N")
        return
    patients = framingham_like()
    model = course.model(where="client")
    warm_up(model, patients.rows, patients.labels)
    start = time.perf_counter()
    undisturbed = model.fit(patients.rows, patients.labels).weights_
    span = time.perf_counter() - start
    twin = clear_twin(model, patients.rows, patients.labels)
    found = _Found()
    with course.console.status("") as shown:
        while found.kills < wanted:
            shown.update(f"{found.kills} of {wanted} kills in {found.jobs} jobs")
            killer = _Killer(course.server, wanted - found.kills, span, found.jobs)
            killer.start()
            try:
                fitted = model.fit(patients.rows, patients.labels)
            except ServiceError as error:
                found.lost += 1
                course.say(f"a job is lost: {error}")
                continue
            finally:
                killer.stop()
                found.kills, found.jobs = found.kills + killer.kills, found.jobs + 1
            weights = fitted.weights_
            # Every training encrypts anew, so even undisturbed ones differ by noise.
            found.differences.append(float(np.abs(weights - undisturbed).max()))
            found.wrong += float(np.abs(weights - twin).max()) > LARGEST_WEIGHT_ERROR
            forget(course.connection, fitted.job_id_)
    _note(course, found, time.perf_counter() - start)


def _note(course: Course, found: _Found, seconds: float) -> None:
    longest = max(found.differences, default=0.0)
    course.say(
        f"{found.kills} kills in {found.jobs} jobs, {seconds:.0f} s: {found.lost} lost, "
        f"{found.wrong} with wrong weights, largest difference from an undisturbed training "
        f"{longest:.1e}"
    )
    for metric, value in (
        ("kills", found.kills),
        ("jobs", found.jobs),
        ("lost_jobs", found.lost),
        ("wrong_weights", found.wrong),
        ("difference_from_undisturbed", longest),
    ):
        course.note(WORKLOAD, metric, "1", [float(value)], {})
    course.note(WORKLOAD, "seconds", "s", [seconds], {})
    if found.lost or found.wrong:
        course.answer.failures.append(
            f"{found.lost} jobs lost, {found.wrong} with wrong weights after {found.kills} kills"
        )
