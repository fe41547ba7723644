"""The server's end of one worker process: start it, give it jobs, notice its death."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tacit.errors import InternalError, TacitError, WorkerCrashError
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.blocks import Block
from tacit.runtime.channel import Channel
from tacit.runtime.repository import ModelVersion
from tacit.runtime.requests import Job, Result, Timing, Work
from tacit.runtime.statuses import error_from

COMMAND = (sys.executable, "-m", "tacit.runtime.worker", BackendName.OPENFHE.value)


def worker_command(backend: BackendName) -> tuple[str, ...]:
    """Return what starts a worker on a backend; the socket's descriptor is to be appended."""
    return (*COMMAND[:-1], backend.value)


_POLL_SECONDS = 0.02


class WorkerProcess:
    """One worker; methods block, and are called by one thread at a time."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        """Start the process; it does not hold keys yet."""
        ours, theirs = Channel.pair()
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,
            )
        self._channel = Channel(ours)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def open(self, key_id: str, key_frames: Sequence[Path], threads: int, seconds: float) -> None:
        """Give it its keys, and the number of its threads.

        Raises:
            WorkerCrashError: it died or took longer than `seconds`.
            TacitError: what it found wrong with the keys.
        """
        paths = [str(path) for path in key_frames]
        self._ask({"open": paths, "key_id": key_id, "threads": threads}, seconds)

    def prepare(self, models: Sequence[ModelVersion], seconds: float) -> None:
        """Let it load keys and models ahead of the first request.

        Raises:
            WorkerCrashError: it died or took longer than `seconds`.
            TacitError: what it found wrong with keys or models.
        """
        pairs = [[str(model.directory), model.signature.private_digest] for model in models]
        self._ask({"prepare": pairs}, seconds)

    def _ask(self, message: Mapping[str, object], seconds: float) -> None:
        try:
            self._channel.send(message)
            received = self._channel.receive(seconds)
        except TimeoutError as error:
            self.kill()
            raise WorkerCrashError(f"a worker did not load its keys in {seconds:g} s") from error
        except OSError as error:
            raise WorkerCrashError("a worker process died while it started") from error
        if received is None:
            raise WorkerCrashError(f"a worker died while it loaded its keys ({self._ending()})")
        if "error" in received[0]:
            raise error_from(str(received[0]["code"]), str(received[0]["error"]))

    def run(self, job: Job, work: Sequence[Work], grace: float) -> list[Result | TacitError]:
        """Run work of a job in order.

        Returns:
            One entry per work, fewer if the process died: the last one is then a
            `WorkerCrashError` for the request it died with, and the rest was not begun.
        """
        frames = [frame for part in work for frame in part.frames]
        block = Block.create({"counts": [len(part.frames) for part in work]}, frames)
        message = {
            "run": str(job.model.directory),
            "digest": job.lane.digest,
            "plan": job.lane.plan,
        }
        results: list[Result | TacitError] = []
        try:
            with contextlib.suppress(OSError):  # a dead worker is noticed by `receive`
                self._channel.send(message, block.descriptor)
            while len(results) < len(work):
                results.append(self._next(work, block, grace))
                if isinstance(results[-1], WorkerCrashError):
                    break
        finally:
            block.close()
        return results

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        self._channel.close()

    def stop(self, seconds: float) -> None:
        """Let the process end by itself, and kill it if it does not."""
        self._channel.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _next(self, work: Sequence[Work], block: Block, grace: float) -> Result | TacitError:
        useless_since = 0.0
        while True:
            for index, part in enumerate(work):
                if part.abandoned:
                    block.abandon(index)
            try:
                received = self._channel.receive(_POLL_SECONDS)
                break
            except TimeoutError:
                useless = all(part.abandoned for part in work)
                useless_since = (useless_since or time.monotonic()) if useless else 0.0
            if useless_since and time.monotonic() - useless_since > grace:
                self.kill()
                return WorkerCrashError("a worker was stopped: nobody waited for its answers")
        if received is None:
            return WorkerCrashError(
                f"the worker process died while it answered this request ({self._ending()}); "
                "the next request gets a new one"
            )
        return _result(*received)

    def _ending(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.poll()
        return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"


def _result(message: dict[str, object], descriptor: int) -> Result | TacitError:
    if "error" in message:
        return error_from(str(message["code"]), str(message["error"]))
    seconds = message.get("seconds")
    if descriptor < 0 or not isinstance(seconds, list):
        return InternalError("a worker sent an answer without a block")
    frames = Block.open(descriptor).read()[1]
    return Result(frames, Timing(*(float(s) for s in seconds)))


def _environment() -> dict[str, str]:
    """Our environment, one OpenMP thread that sleeps when idle, and our import path."""
    path = os.pathsep.join(p for p in sys.path if p)
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return {**os.environ, **threads, "PYTHONPATH": path}
