"""The server's end of one worker process: start it, give it jobs, notice its death."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tacit.errors import DeviceLostError, InternalError, TacitError, WorkerCrashError
from tacit.runtime.blocks import Block
from tacit.runtime.channel import Channel
from tacit.runtime.repository import ModelVersion
from tacit.runtime.requests import Job, Owner, Result, Timing, Work
from tacit.runtime.statuses import error_from
from tacit.runtime.worker_settings import WorkerMemory, WorkerSettings

KeyPaths = Mapping[Owner, Sequence[Path]]
_POLL_SECONDS = 0.02


WORKER_MODULE = "tacit.runtime.worker"


def worker_command(settings: WorkerSettings, module: str = WORKER_MODULE) -> tuple[str, ...]:
    """Return what starts a worker; the sockets' descriptors are to be appended."""
    return (sys.executable, "-m", module, settings.to_text())


@dataclass(slots=True)
class Attempt:
    """What came of running requests of a job once.

    Attributes:
        results: by index of the request.
        running: requests that had begun and have no answer.
        ending: how the process died; empty if it lives.
        alone: whether nothing else ran in the process when it died.
    """

    results: dict[int, Result | TacitError] = field(default_factory=dict)
    running: set[int] = field(default_factory=set)
    ending: str = ""
    alone: bool = False

    @property
    def lost(self) -> list[DeviceLostError]:
        """What was said of a device that the process cannot use any more."""
        return [error for error in self.results.values() if isinstance(error, DeviceLostError)]

    def drop_lost(self) -> None:
        """Forget the results that a lost device left, so that they are tried again."""
        lost = self.lost
        self.results = {i: result for i, result in self.results.items() if result not in lost}


class WorkerProcess:
    """One worker; its lines may be used at the same time, each by one thread."""

    def __init__(self, command: Sequence[str], lines: int = 1) -> None:
        """Start the process.

        Args:
            command: the last argument, the descriptors, is appended.
            lines: jobs that it may run at the same time.
        """
        pairs = [Channel.pair() for _ in range(lines)]
        theirs = [pair[1] for pair in pairs]
        descriptors = [end.fileno() for end in theirs]
        try:
            self._process = subprocess.Popen(
                [*command, ",".join(str(descriptor) for descriptor in descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,
            )
        finally:
            for end in theirs:
                end.close()
        self._free = [Line(self, Channel(ours)) for ours, _ in pairs]
        self._lines = lines
        self._closed = False
        self.memory = WorkerMemory()
        # Lines that were in use when it was found dead.
        self.crowd = 0

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def lines_in_use(self) -> int:
        """Lines taken and not given back."""
        return self._lines - len(self._free)

    def take_line(self) -> Line:
        """Take a free line; there must be one. Called by one thread."""
        return self._free.pop()

    def give_back(self, line: Line) -> None:
        """Give a line back. Called by the thread that takes them."""
        if self._closed:
            line.close()
        else:
            self._free.append(line)

    def close(self) -> None:
        """Close the lines, each once it is free, which lets the process end by itself."""
        self._closed = True
        for line in self._free:
            line.close()
        self._free.clear()

    def kill(self) -> None:
        """End the process at once; lines in use notice it."""
        self._process.kill()
        self._process.wait()

    def wait(self, seconds: float) -> None:
        """Wait for the end of a closed process, and kill it if that does not come."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def ending(self) -> str:
        """Say how the process ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.poll()
        return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"


class Line:
    """One line to a worker: one job, or one question, at a time; methods block."""

    def __init__(self, process: WorkerProcess, channel: Channel) -> None:
        self._process = process
        self._channel = channel

    def prepare(self, keys: KeyPaths, models: Sequence[ModelVersion], seconds: float) -> None:
        """Let it load keys and models ahead of the first request.

        Raises:
            WorkerCrashError: it died or took longer than `seconds`.
            TacitError: what it found wrong with keys or models.
        """
        pairs = [[str(model.directory), model.signature.private_digest] for model in models]
        block = Block.create({"owners": _owners(keys)}, [])
        try:
            self._ask({"prepare": pairs}, seconds, block.descriptor)
        finally:
            block.close()

    def forget(self, owner: Owner, seconds: float) -> None:
        """Let it drop an owner's keys.

        Raises:
            WorkerCrashError: it died or took longer than `seconds`.
        """
        self._ask({"forget": list(owner)}, seconds)

    def run(self, job: Job, indices: Sequence[int], keys: KeyPaths, grace: float) -> Attempt:
        """Run some requests of a job.

        Args:
            job: what to run.
            indices: which of its work.
            keys: where the keys of these owners lie.
            grace: seconds it may go on after nobody waits for any of it; then it is killed.
        """
        work = [job.work[index] for index in indices]
        owners = list(keys)
        header = {
            "counts": [len(part.frames) for part in work],
            "owners": _owners(keys),
            "owner_of": [owners.index(part.owner) for part in work],
        }
        lane = job.lane
        message = {"run": str(job.model.directory), "digest": lane.digest, "plan": lane.plan}
        attempt = Attempt()
        try:
            block = Block.create(header, [frame for part in work for frame in part.frames])
        except TacitError as error:
            attempt.results = dict.fromkeys(indices, error)
            return attempt
        try:
            with contextlib.suppress(OSError):  # a dead worker is noticed by `receive`
                self._channel.send(message, block.descriptor)
            while len(attempt.results) < len(work) and not attempt.ending:
                self._next(work, indices, block, grace, attempt)
        finally:
            block.close()
        return attempt

    def close(self) -> None:
        """Close the socket."""
        self._channel.close()

    def _ask(self, message: Mapping[str, object], seconds: float, descriptor: int = -1) -> None:
        try:
            self._channel.send(message, descriptor)
            received = self._channel.receive(seconds)
        except TimeoutError as error:
            self._process.kill()
            raise WorkerCrashError(f"a worker did not load its keys in {seconds:g} s") from error
        except OSError as error:
            raise WorkerCrashError("a worker process died while it started") from error
        if received is None:
            ending = self._process.ending()
            raise WorkerCrashError(f"a worker died while it loaded its keys ({ending})")
        if "error" in received[0]:
            raise error_from(str(received[0]["code"]), str(received[0]["error"]))
        self._process.memory = WorkerMemory.from_json(received[0].get("memory"))

    def _next(
        self,
        work: Sequence[Work],
        indices: Sequence[int],
        block: Block,
        grace: float,
        attempt: Attempt,
    ) -> None:
        """Wait for one message and note what it says."""
        received = self._wait(work, block, grace)
        if received is _USELESS:
            error = WorkerCrashError("a worker was stopped: nobody waited for its answers")
            attempt.results.update({i: error for i in indices if i not in attempt.results})
            attempt.running.clear()
            attempt.ending = self._process.ending()
        elif received is None:
            attempt.ending = self._process.ending()
        else:
            message, descriptor = received
            if isinstance(begun := message.get("begin"), list):
                attempt.running |= {indices[int(position)] for position in begun}
                return
            index = indices[int(str(message["index"]))]
            attempt.running.discard(index)
            attempt.results[index] = _result(message, descriptor)
            self._process.memory = WorkerMemory.from_json(message.get("memory"))

    def _wait(
        self, work: Sequence[Work], block: Block, grace: float
    ) -> tuple[dict[str, object], int] | None:
        """Pass on which requests were abandoned until a message comes; None if it died."""
        useless_since = 0.0
        while True:
            for position, part in enumerate(work):
                if part.abandoned:
                    block.abandon(position)
            try:
                return self._channel.receive(_POLL_SECONDS)
            except TimeoutError:
                useless = all(part.abandoned for part in work)
                useless_since = (useless_since or time.monotonic()) if useless else 0.0
            if useless_since and time.monotonic() - useless_since > grace:
                self._process.kill()
                return _USELESS


_USELESS: tuple[dict[str, object], int] = ({}, -1)


def _owners(keys: KeyPaths) -> list[list[object]]:
    return [[*owner, [str(path) for path in paths]] for owner, paths in keys.items()]


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
