"""A model and one client's evaluation keys: ciphertext frames in, ciphertext frames out.

    frames --wire: every field and residue checked--> limbs --> the backend's ciphertexts
    --circuit--> the backend's ciphertexts --> limbs --wire--> frames

Runs in a worker process, and in process for tests and benchmarks.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from tacit import artifact, wire
from tacit.artifact import Artifact
from tacit.circuit import Circuit, Node, execute
from tacit.errors import (
    ArtifactError,
    CircuitError,
    InputShapeError,
    WireError,
)
from tacit.runtime.backends.loading import BackendName, LoadedKeys, load_keys
from tacit.runtime.key_rules import key_expectation
from tacit.runtime.refusals import DamagedKeysError
from tacit.runtime.requests import Frame, Result, Timing
from tacit.signature import Plan, TensorSpec

Observe = Callable[[int, int], None]
# The backend's ciphertext type; only the backend names it, so that nothing here imports openfhe.
Encrypted = Any
_MOST_SESSIONS = 8


def ignore_progress(done: int, total: int) -> None:
    """Observe nothing."""


class Session:
    """Runs one model's plans for one key owner; may be used by several threads."""

    def __init__(
        self, model: Artifact, keys: LoadedKeys, threads: ThreadPoolExecutor | None = None
    ) -> None:
        """Bind a model to keys that `load_session_keys` loaded.

        Args:
            model: both halves.
            keys: of the owner.
            threads: run the evaluations of a request, and check and write its frames; None does
                all in the caller's thread.
        """
        self._model = model
        self._keys = keys
        self._threads = threads
        # One evaluator per plan: plans may use the same names for different constants.
        self._evaluators = {
            plan.name: keys.evaluator(model.circuits[plan.name]) for plan in model.signature.plans
        }

    @classmethod
    def open(
        cls,
        model: Artifact,
        key_frames: Sequence[Frame],
        threads: ThreadPoolExecutor | None = None,
        backend: BackendName = BackendName.OPENFHE,
    ) -> Session:
        """Check key frames, load them into a backend and bind them to a model.

        Raises:
            WireError: a frame is not a key of this model.
        """
        return cls(model, load_session_keys(model, key_frames, backend), threads)

    def run(self, plan: str, frames: Sequence[Frame], observe: Observe = ignore_progress) -> Result:
        """Answer one request of one or more evaluations.

        Args:
            plan: name of the plan.
            frames: input ciphertexts of each evaluation in turn.
            observe: called after each operation with (operations done, operations in all), by one
                thread at a time; what it raises stops the request.

        Returns:
            Output frames of each evaluation in turn, and seconds spent.

        Raises:
            InputShapeError: frames do not fill whole evaluations.
            WireError: a frame is damaged or does not belong here.
            InternalError: the circuit or the backend failed.
        """
        chosen = self._model.signature.plan(plan)
        circuit = self._model.circuits[plan]
        specs = [spec for spec in chosen.inputs for _ in range(spec.layout.ciphertexts)]
        if not frames or len(frames) % len(specs):
            raise InputShapeError(
                f"plan {plan!r} takes {len(specs)} ciphertexts per evaluation, got {len(frames)}"
            )
        evaluations = len(frames) // len(specs)
        progress = _Progress(observe, evaluations * len(circuit.nodes))
        clock = _Clock()
        each = map if self._threads is None else self._threads.map
        inputs = list(each(self._decode, frames, specs * evaluations))
        clock.lap()
        outputs = self._evaluate_all(chosen, circuit, inputs, progress)
        clock.lap()
        answers = list(each(self._encode, outputs))
        clock.lap()
        return Result(answers, Timing(*clock.laps))

    def _decode(self, frame: Frame, spec: TensorSpec) -> Encrypted:
        params = self._model.signature.params
        expected = wire.CiphertextExpectation(
            params.digest,
            params.log_n,
            params.moduli,
            tuple(params.scale(level) for level in range(params.depth + 1)),
            frozenset({spec.level}),
            (spec.degree,),
            slots=params.slots,
            key_id=self._keys.key_id,
        )
        return self._keys.ciphertext(wire.decode_ciphertext(frame, expected))

    def _evaluate_all(
        self, plan: Plan, circuit: Circuit, inputs: Sequence[Encrypted], progress: _Progress
    ) -> list[Encrypted]:
        """Run every evaluation, on the threads if there are some; the first error stops all."""
        groups = list(_groups(inputs, len(circuit.inputs)))
        if self._threads is None or len(groups) == 1:
            return [o for values in groups for o in self._evaluate(plan, circuit, values, progress)]
        futures = [
            self._threads.submit(self._evaluate, plan, circuit, values, progress)
            for values in groups
        ]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            progress.stop()
            _settle(futures)
        return [output for future in futures for output in future.result()]

    def _evaluate(
        self,
        plan: Plan,
        circuit: Circuit,
        inputs: Sequence[Encrypted],
        progress: _Progress,
    ) -> list[Encrypted]:
        evaluator = self._evaluators[plan.name]
        outputs = execute(circuit, inputs, evaluator, progress.after_node)
        specs = [spec for spec in plan.outputs for _ in range(spec.layout.ciphertexts)]
        for output, spec in zip(outputs, specs, strict=True):
            found = evaluator.type_of(output)
            if (found.level, found.degree) != (spec.level, spec.degree):
                raise CircuitError(
                    f"output {spec.name!r}: level {spec.level}, degree {spec.degree} promised, "
                    f"got level {found.level}, degree {found.degree}"
                )
        return outputs

    def _encode(self, output: Encrypted) -> bytes:
        return wire.encode_ciphertext(
            self._keys.frame(output), self._model.signature.params.moduli, wire.Packing.RAW
        )


class KeyedSessions:
    """The engine of a worker process: one key set, and a session for each model it is used with.

    May be used by several threads; all evaluations share one set of threads.
    """

    def __init__(
        self,
        key_id: str,
        key_frames: Sequence[Frame],
        threads: int = 1,
        backend: BackendName = BackendName.OPENFHE,
    ) -> None:
        self._key_id = key_id
        self._backend = backend
        self._key_frames = key_frames
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(threads, "tacit-evaluate") if threads > 1 else None
        self._keys: LoadedKeys | None = None
        self._sessions: OrderedDict[tuple[Path, str], Session] = OrderedDict()

    @classmethod
    def open(
        cls,
        key_id: str,
        key_frames: Sequence[Frame],
        threads: int = 1,
        backend: BackendName = BackendName.OPENFHE,
    ) -> KeyedSessions:
        """Take key frames; they are checked and loaded with the first model."""
        return cls(key_id, key_frames, threads, backend)

    def prepare(self, directory: Path, digest: str) -> None:
        """Load keys and a model; see `tacit.runtime.worker.Engine`."""
        self._session(directory, digest)

    def run(
        self, directory: Path, digest: str, plan: str, frames: Sequence[Frame], observe: Observe
    ) -> Result:
        """Answer one request; see `tacit.runtime.worker.Engine`."""
        return self._session(directory, digest).run(plan, frames, observe)

    def _session(self, directory: Path, digest: str) -> Session:
        with self._lock:
            if (directory, digest) not in self._sessions:
                self._sessions[directory, digest] = self._open_session(directory, digest)
                if len(self._sessions) > _MOST_SESSIONS:
                    self._sessions.popitem(last=False)
            self._sessions.move_to_end((directory, digest))
            return self._sessions[directory, digest]

    def _open_session(self, directory: Path, digest: str) -> Session:
        model = artifact.load(directory)
        if model.signature.private_digest != digest:
            raise ArtifactError("the model changed on disk: load it again in the repository")
        if self._keys is None:
            self._keys = self._load(model)
            self._key_frames = ()
        return Session(model, self._keys, self._threads)

    def _load(self, model: Artifact) -> LoadedKeys:
        try:
            keys = load_session_keys(model, self._key_frames, self._backend)
        except WireError as error:  # they were checked when they came
            raise DamagedKeysError("a stored evaluation key is damaged") from error
        if keys.key_id.hex() != self._key_id:
            raise DamagedKeysError("the stored evaluation keys are not those of this key id")
        return keys


def load_session_keys(
    model: Artifact, key_frames: Sequence[Frame], backend: BackendName = BackendName.OPENFHE
) -> LoadedKeys:
    """Check key frames and load them into a backend.

    Raises:
        WireError: a frame is not a key of this model.
    """
    signature = model.signature
    digests = [hashlib.sha256(frame).digest() for frame in key_frames]
    key_id = wire.key_id(signature.params.digest, digests)
    expected = key_expectation(signature)

    def keys() -> Iterator[wire.EvaluationKey]:
        for frame in key_frames:
            yield wire.decode_evaluation_key(frame, expected)

    return load_keys(backend, signature.params, key_id, keys())


class _StoppedError(Exception):
    """Another evaluation of the request failed."""


class _Progress:
    def __init__(self, observe: Observe, total: int) -> None:
        self._observe = observe
        self._total = total
        self._done = 0
        self._stopped = False
        self._lock = threading.Lock()

    def after_node(self, index: int, node: Node, outputs: Sequence[object]) -> None:
        with self._lock:
            if self._stopped:
                raise _StoppedError
            self._done += 1
            self._stopped = True  # should the observer raise
            self._observe(self._done, self._total)
            self._stopped = False

    def stop(self) -> None:
        """Stop evaluations that still run at their next operation."""
        with self._lock:
            self._stopped = True


class _Clock:
    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.laps: list[float] = []

    def lap(self) -> None:
        now = time.perf_counter()
        self.laps.append(now - self._last)
        self._last = now


def _groups(values: Sequence[Encrypted], size: int) -> Iterator[Sequence[Encrypted]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _settle(futures: Sequence[Future[list[Encrypted]]]) -> None:
    """Wait until nothing runs any more, and raise the first error that stopped it."""
    for future in futures:
        future.cancel()
    wait(futures)
    errors = [future.exception() for future in futures if not future.cancelled()]
    for error in errors:
        if error is not None and not isinstance(error, _StoppedError):
            raise error
