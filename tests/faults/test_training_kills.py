"""A server that is killed at random moments of a training finishes it, with the same weights."""

from __future__ import annotations

import os
import random
import signal
import subprocess
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

TASK = replace(LOGISTIC, iterations=8, validation_rows=40, validation_every=3)


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


def killed_job(
    server: MortalServer, jobs: Jobs, job: str, kills: int, seconds: float, seed: int
) -> int:
    """Kill the server at random moments until the job has ended; returns how often."""
    draw = random.Random(seed)
    done = 0
    while done < kills:
        time.sleep(draw.uniform(0.0, seconds))
        if jobs.status(job).state.ended:
            break
        server.kill()
        done += 1
        server.start()
    return done


def trained(task: TrainingTask, folder: Path, kills: int, *words: str) -> tuple[bytes, bytes, int]:
    """Train once in peace, then under kills; returns both weights and how many kills hit."""
    rows, labels, validation = drawn(task)
    (folder / "models").mkdir()
    with mortal(folder / "models", *words) as server, Jobs(lambda: server.url) as jobs:
        trainer = Trainer.make(server.url, task, folder / "keys")
        trainer.upload_keys(server.url)
        frames = trainer.encrypted(rows, labels, validation if len(validation) else None)
        job = jobs.create(trainer)
        start_time = time.monotonic()
        jobs.upload(job, frames)
        peaceful = jobs.finished(job)
        seconds = time.monotonic() - start_time
        found, hits = b"", 0
        while hits < kills:
            job = jobs.create(trainer, nonce=f"attempt {hits}")
            again = jobs.create(trainer, nonce=f"attempt {hits}")
            assert again == job
            jobs.upload(job, frames)
            hits += killed_job(server, jobs, job, kills - hits, seconds, 100 + hits)
            found = jobs.finished(job)
            assert found == peaceful
            assert jobs.status(job).state is JobState.DONE
            assert jobs.status(job).validations == tuple(trainer.plan.validated())
        return peaceful, found, hits


def test_weights_after_five_kills_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    peaceful, found, hits = trained(TASK, tmp_path, 5)
    assert found == peaceful
    assert hits >= 5


@pytest.mark.slow
def test_weights_after_fifty_kills_of_a_bootstrapped_training(tmp_path: Path) -> None:
    peaceful, found, hits = trained(replace(TASK, iterations=12), tmp_path, 50, "refresh")
    assert found == peaceful
    assert hits >= 50


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
