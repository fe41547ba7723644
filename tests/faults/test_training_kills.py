"""A server that is killed at random moments of a training finishes it, with the same weights."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tacit.kernels.build import build_if_stale
from tacit.training import JobState, TrainingTask
from tests.e2e.processes import children, start
from tests.e2e.trainers import Jobs, Trainer
from tests.model_compiler.trainings import LOGISTIC, drawn

TASK = replace(LOGISTIC, iterations=5, validation_rows=40, validation_every=2)


class MortalServer:
    """A server process that can be killed and started again on the same folder."""

    def __init__(self, root: Path, *words: str) -> None:
        self._root = root
        self._words = words
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> None:
        self._process = start("serve_training.py", str(self._root), *self._words)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.url = f"http://127.0.0.1:{_port(line)}"

    def kill(self) -> None:
        """End the server and its workers as a power failure does."""
        assert self._process is not None
        pids = [*children(self._process.pid), self._process.pid]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def _port(line: str) -> int:
    import json

    return int(json.loads(line)["http"])


@contextmanager
def mortal(root: Path, *words: str) -> Iterator[MortalServer]:
    server = MortalServer(root, *words)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(autouse=True)
def _kernels() -> None:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")


class Killer(threading.Thread):
    """Kills a server at random moments, and starts it again, until it is told to stop."""

    def __init__(self, server: MortalServer, most: int, seconds: float, seed: int) -> None:
        super().__init__(name="killer")
        self._server = server
        self._most = most
        self._seconds = seconds
        self._draw = random.Random(seed)
        self._stopping = threading.Event()
        self.hits = 0

    def run(self) -> None:
        while self.hits < self._most:
            if self._stopping.wait(self._draw.uniform(0.0, self._seconds)):
                return
            self._server.kill()
            self._server.start()
            self.hits += 1

    def __enter__(self) -> Killer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        self.join()


def trained(task: TrainingTask, folder: Path, kills: int, *words: str) -> None:
    """Train once in peace, then under kills until enough have hit; weights must be equal."""
    rows, labels, validation = drawn(task)
    (folder / "models").mkdir()
    with mortal(folder / "models", *words) as server, Jobs(lambda: server.url) as jobs:
        trainer = Trainer.make(server.url, task, folder / "keys")
        trainer.upload_keys(server.url)
        frames = trainer.encrypted(rows, labels, validation if len(validation) else None)
        begun = time.monotonic()
        peaceful = complete(jobs, trainer, frames, "peace")
        seconds = time.monotonic() - begun
        hits, attempts = 0, 0
        while hits < kills:
            with Killer(server, kills - hits, seconds, 100 + attempts) as killer:
                disturbed = complete(jobs, trainer, frames, f"attempt {attempts}")
            hits, attempts = hits + killer.hits, attempts + 1
            assert disturbed == peaceful
        names = [each["job"] for each in jobs.ask("GET", "jobs").json()["jobs"]]
        assert len(names) == attempts + 1, "a job was lost, or made twice"


def complete(jobs: Jobs, trainer: Trainer, frames: list[bytes], nonce: str) -> list[bytes]:
    """Do everything from making a job to reading its results, asking again what failed."""
    job = jobs.create(trainer, nonce=nonce)
    jobs.upload(job, frames)
    weights = jobs.finished(job)
    status = jobs.status(job)
    assert status.state is JobState.DONE
    assert status.validations == tuple(trainer.plan.validated())
    return [weights, *(jobs.read(job, f"validation/{t}") for t in status.validations)]


def test_weights_after_five_kills_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    trained(TASK, tmp_path, 5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_weights_after_fifty_kills_of_a_bootstrapped_training(tmp_path: Path) -> None:
    trained(replace(TASK, iterations=12), tmp_path, 50, "refresh")


def test_rows_that_were_acknowledged_survive_a_kill(tmp_path: Path) -> None:
    rows, _, validation = drawn(TASK)
    (tmp_path / "models").mkdir()
    with mortal(tmp_path / "models") as server, Jobs(lambda: server.url) as jobs:
        trainer = Trainer.make(server.url, TASK, tmp_path / "keys")
        frames = trainer.encrypted(rows, None, validation)
        job = jobs.create(trainer, uploads=2)
        jobs.upload(job, frames[:1], upload=1)
        server.kill()
        server.start()
        missing = jobs.status(job).missing
        everything = tuple(range(len(frames)))
        assert missing == (everything, everything[1:])
