"""The worker side of a benchmark: one process per subject, JSON lines on stdin and stdout.

A subject (Tacit, a peer, onnxruntime) lives in its own process, in its own virtual environment, so
that thread pools, memory peaks and crashes do not mix. The harness sends one request per line:

    {"op": "setup", "question": …, "workload": …, "variant": "", "arrays": "x.npz", "onnx": …}
    {"op": "round", "index": 3}
    {"op": "close"}

and reads one answer per line. Only numpy and the standard library are imported here, so the module
also runs in a peer's interpreter.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Workload:
    """What a subject is asked to run.

    Attributes:
        question: name of the benchmark question, for example `logreg`.
        workload: name of the workload, for example `batch 128`.
        variant: which way of doing it, where the subject has several; "" is the main one.
        arrays: weights, calibration rows and `inputs`, shape (groups, rows, features).
        onnx_path: the same model as ONNX.
    """

    question: str
    workload: str
    variant: str
    arrays: dict[str, Array]
    onnx_path: Path


@dataclass(frozen=True)
class Measured:
    """A figure that a worker found out by itself, such as a predicted latency."""

    metric: str
    value: float
    unit: str


@dataclass(frozen=True)
class Ready:
    """Answer to `setup`: the model is compiled, keys exist.

    Attributes:
        parameters: scheme parameters in the subject's own words.
        threads: threads the server side may use.
        setup_seconds: compiling plus making keys.
        key_bytes: size of what the client sends once, before the first prediction.
        extra: further figures.
    """

    parameters: dict[str, Any]
    threads: int
    setup_seconds: float
    key_bytes: int | None = None
    extra: list[Measured] = field(default_factory=list)


@dataclass(frozen=True)
class Round:
    """Answer to `round`: one prediction for one group of rows.

    Attributes:
        server_seconds: evaluation only; ciphertexts in memory in, ciphertexts out.
        client_seconds: encoding, encryption, decryption and decoding.
        outputs: decrypted outputs, one list per row.
        extra: further figures of this round (medians of them are reported).
    """

    server_seconds: float
    client_seconds: float
    outputs: list[list[float]]
    extra: list[Measured] = field(default_factory=list)


class Worker(Protocol):
    """What each subject implements."""

    def setup(self, workload: Workload) -> Ready:
        """Compile the model and make keys."""

    def round(self, index: int) -> Round:
        """Encrypt, evaluate and decrypt the group of rows at `index`, modulo their number."""

    def close(self) -> None:
        """Stop what `setup` started."""


class UnsupportedError(Exception):
    """The subject has no implementation of this workload: it is skipped, not failed."""


def threads_allowed() -> int:
    """Count the cores that this process may use, which is the peers' default."""
    return len(os.sched_getaffinity(0))


def rows_at(workload: Workload, index: int, name: str = "inputs") -> Array:
    """Return the group of rows for one round, shape (rows, features)."""
    groups = workload.arrays[name]
    rows: Array = groups[index % len(groups)]
    return rows


def serve(make_worker: Callable[[], Worker]) -> None:
    """Answer requests until `close` or the end of stdin.

    Anything a library prints goes to stderr, so that stdout carries answers only.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    worker = make_worker()
    for line in sys.stdin:
        request = json.loads(line)
        _answer(answers, worker, request)
        if request["op"] == "close":
            return


def _answer(answers: TextIO, worker: Worker, request: dict[str, Any]) -> None:
    try:
        reply = _dispatch(worker, request)
    except UnsupportedError as error:
        reply = {"unsupported": str(error)}
    except Exception as error:  # the harness shows it; the traceback is in the log
        traceback.print_exc()
        reply = {"error": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(reply) + "\n")


def _dispatch(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    if request["op"] == "setup":
        return asdict(worker.setup(_workload(request)))
    if request["op"] == "round":
        return asdict(worker.round(int(request["index"])))
    worker.close()
    return {"peak_rss_bytes": _peak_rss_bytes()}


def _peak_rss_bytes() -> int:
    """Read this program's peak; `getrusage` would count the parent's memory at the fork, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kibibytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kibibytes) * 1024


def _workload(request: dict[str, Any]) -> Workload:
    with np.load(request["arrays"], allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    names = request["question"], request["workload"], request["variant"]
    return Workload(*names, arrays, Path(request["onnx"]))
