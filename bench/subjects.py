"""The harness side of a subject: start its process, ask it, read its answers."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.peers.install import PEERS, PeerUnavailableError, ensure
from bench.task import Task
from bench.worker import Measured, Ready, Round

ROOT = Path(__file__).parent.parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
OWN_SUBJECTS = {
    "tacit": ("bench.subject_tacit", ONE_THREAD),
    "onnxruntime": ("bench.subject_onnxruntime", ONE_THREAD),
}


class SkippedError(Exception):
    """The subject cannot take part: not installed, or no implementation of this workload."""


class FailedError(Exception):
    """The subject took part and broke: an error, a crash or no answer in time."""


class LateError(FailedError):
    """There was no answer in time."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a subject.

    Attributes:
        name: the subject.
        variant: passed to the worker.
        argv: the command.
        environment: variables added to the harness's own; the harness's OMP_* are not passed on,
            so that a subject without an entry has its own default number of threads.
        timeout_seconds: longest wait for one answer.
    """

    name: str
    variant: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float = 900.0


def split_name(name: str) -> tuple[str, str]:
    """Split `tenseal:logits` into the subject and its variant, "" for the main one."""
    subject, _, variant = name.partition(":")
    return subject, variant


def find_launch(name: str, *, say: Callable[[str], None]) -> Launch:
    """Say how to start a subject, installing a peer if need be.

    Args:
        name: a subject, or subject and variant as in `split_name`.
        say: takes a line of progress.

    Raises:
        SkippedError: the peer cannot be installed here.
    """
    subject, variant = split_name(name)
    if subject in OWN_SUBJECTS:
        module, environment = OWN_SUBJECTS[subject]
        return Launch(subject, variant, (sys.executable, "-m", module), environment)
    peer = PEERS[subject]
    try:
        interpreter = ensure(peer, say=say)
    except PeerUnavailableError as error:
        raise SkippedError(str(error)) from error
    environment = ONE_THREAD if peer.one_thread else {}
    return Launch(subject, variant, (str(interpreter), "-m", peer.worker), environment)


class Subject:
    """A running worker process."""

    def __init__(self, launch: Launch, log_folder: Path) -> None:
        self._variant = launch.variant
        self._timeout_seconds = launch.timeout_seconds
        self._log_path = log_folder / f"{launch.name}-{time.monotonic_ns()}.log"
        self._log = self._log_path.open("w")
        self._process = subprocess.Popen(
            launch.argv,
            cwd=ROOT,
            env=_environment(launch),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self._unread = b""

    def setup(self, task: Task, arrays_path: Path) -> Ready:
        """Have the model compiled and the keys made."""
        answer = self._ask(
            op="setup",
            question=task.question,
            workload=task.workload,
            variant=self._variant,
            arrays=str(arrays_path),
            onnx=str(task.onnx_path),
        )
        return Ready(**{**answer, "extra": _measured(answer)})

    def round(self, index: int) -> Round:
        """Have one group of rows predicted."""
        answer = self._ask(op="round", index=index)
        return Round(**{**answer, "extra": _measured(answer)})

    def close(self) -> int:
        """Stop the worker; return its peak resident memory in bytes."""
        return int(self._ask(op="close")["peak_rss_bytes"])

    def end(self) -> None:
        """End the process, whatever state it is in."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def _ask(self, **request: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write((json.dumps(request) + "\n").encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise FailedError(f"the worker died: {self._last_words()}") from error
        answer: dict[str, Any] = json.loads(self._read_line())
        if "unsupported" in answer:
            raise SkippedError(answer["unsupported"])
        if "error" in answer:
            raise FailedError(answer["error"])
        return answer

    def _read_line(self) -> bytes:
        assert self._process.stdout is not None
        deadline = time.monotonic() + self._timeout_seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(timeout=max(0.0, deadline - time.monotonic())):
                    raise LateError(f"no answer in {self._timeout_seconds:.0f} s")
                chunk = os.read(self._process.stdout.fileno(), 1 << 16)
                if not chunk:
                    raise FailedError(f"the worker died: {self._last_words()}")
                self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _last_words(self) -> str:
        self._log.flush()
        lines = self._log_path.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it wrote nothing"


def run_apart(
    module: str, arguments: Sequence[str], threads: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run a module of this repository in a new process and wait.

    OpenFHE reads its number of threads when it is loaded, and memory is only given back for
    certain when a process ends.

    Args:
        module: for `python -m`.
        arguments: of its command line.
        threads: for OpenMP.
    """
    openmp = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**_inherited(), "PYTHONPATH": _source_path(), **openmp},
        capture_output=True,
        text=True,
        check=False,
    )


def _measured(answer: dict[str, Any]) -> list[Measured]:
    return [Measured(**entry) for entry in answer.get("extra", [])]


def _environment(launch: Launch) -> dict[str, str]:
    own = {"PYTHONPATH": _source_path()} if launch.name in OWN_SUBJECTS else {}
    return {**_inherited(), **own, **launch.environment}


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}


def _source_path() -> str:
    places = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(filter(None, places))
