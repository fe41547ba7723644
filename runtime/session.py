"""A model on a backend: ciphertext frames of its key owners in, ciphertext frames out.

    frames --wire: every field and residue checked--> limbs --> the backend's ciphertexts
    --circuit, several evaluations at once--> the backend's ciphertexts --> limbs --wire--> frames

Runs in a worker process, and in process for tests and benchmarks.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import TypeVar

from tacit import wire
from tacit.artifact import Artifact
from tacit.errors import InputShapeError, OutOfMemoryError
from tacit.runtime.backends.loading import (
    Backend,
    BackendName,
    Encrypted,
    LoadedKeys,
    choose_backend,
    open_backend,
)
from tacit.runtime.batch_size import BATCH_BYTES, most_in_batch
from tacit.runtime.evaluation import Evaluation, Observe, PlanEvaluator, Progress
from tacit.runtime.key_rules import key_expectation
from tacit.runtime.requests import Frame, Result, Timing
from tacit.runtime.worker_settings import DEFAULT_JOINED
from tacit.signature import TensorSpec

A = TypeVar("A")
B = TypeVar("B")


def ignore_progress(done: int, total: int) -> None:
    """Observe nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One request.

    Attributes:
        keys: of its owner.
        frames: input ciphertexts of each evaluation in turn.
        observe: called after each operation with (operations done, operations in all), by one
            thread at a time; what it raises ends the request.
    """

    keys: LoadedKeys
    frames: Sequence[Frame]
    observe: Observe = ignore_progress


class LoadedModel:
    """A model whose circuits a backend has prepared; may be used by several threads."""

    def __init__(
        self,
        model: Artifact,
        backend: Backend,
        joined: int = DEFAULT_JOINED,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        """Prepare every plan.

        Args:
            model: both halves.
            backend: computes.
            joined: evaluations in one batch, at most.
            batch_bytes: memory that one batch may take, by an estimate.
        """
        self.model = model
        self.backend = backend
        params = model.signature.params
        self._plans = {}
        for plan in model.signature.plans:
            circuit = model.circuits[plan.name]
            most = most_in_batch(params, circuit, joined if backend.joins else 1, batch_bytes)
            bound = backend.bind(params, circuit)
            self._plans[plan.name] = PlanEvaluator(plan, circuit, backend, bound, most)

    def most_in_batch(self, plan: str) -> int:
        """Return how many evaluations of a plan are computed at once."""
        return self._plans[plan].most

    def evaluations(self, plan: str, frames: Sequence[Frame]) -> int:
        """Count the evaluations that frames fill.

        Raises:
            InputShapeError: frames do not fill whole evaluations.
        """
        inputs = len(self._plans[plan].circuit.inputs)
        if not frames or len(frames) % inputs:
            raise InputShapeError(
                f"plan {plan!r} takes {inputs} ciphertexts per evaluation, got {len(frames)}"
            )
        return len(frames) // inputs

    def run(
        self, plan: str, asked: Sequence[Asked], threads: ThreadPoolExecutor | None = None
    ) -> list[Result | Exception]:
        """Answer requests of one owner or several, all evaluations together.

        Args:
            plan: name of the plan.
            asked: the requests.
            threads: run the batches, and check and write the frames; None does all in the
                caller's thread.

        Returns:
            For each request its output frames, evaluation after evaluation, with the seconds spent
            on all of them together; or the error that ended it.
        """
        clock = _Clock()
        opened = [self._open(plan, request, threads) for request in asked]
        clock.lap()
        evaluations = [e for found in opened if isinstance(found, list) for e in found]
        self._plans[plan].run(evaluations, threads)
        clock.lap()
        answers = [self._close(found, threads) for found in opened]
        clock.lap()
        timing = Timing(*clock.laps)
        return [a if isinstance(a, Exception) else Result(a, timing) for a in answers]

    def _open(
        self, plan: str, request: Asked, threads: ThreadPoolExecutor | None
    ) -> list[Evaluation] | Exception:
        """Read the frames of a request, or say what is wrong with them."""
        circuit = self._plans[plan].circuit
        try:
            count = self.evaluations(plan, request.frames)
            specs = self._specs(plan) * count
            inputs = _each(threads, request.keys, self._decode, request.frames, specs)
        except MemoryError:
            return OutOfMemoryError(
                "the server ran out of memory while it read the ciphertexts: try again later, or "
                "ask for less at once"
            )
        except Exception as error:
            return error
        progress = Progress(request.observe, count * len(circuit.nodes))
        size = len(circuit.inputs)
        groups = (inputs[start : start + size] for start in range(0, len(inputs), size))
        return [Evaluation(request.keys, group, progress) for group in groups]

    def _specs(self, plan: str) -> list[TensorSpec]:
        inputs = self.model.signature.plan(plan).inputs
        return [spec for spec in inputs for _ in range(spec.layout.ciphertexts)]

    def _close(
        self, found: list[Evaluation] | Exception, threads: ThreadPoolExecutor | None
    ) -> Sequence[Frame] | Exception:
        """Write the answers of a request."""
        if isinstance(found, Exception):
            return found
        if found[0].progress.error is not None:
            return found[0].progress.error
        outputs = [output for evaluation in found for output in evaluation.outputs]
        try:
            return _each(threads, found[0].keys, self._encode, outputs, outputs)
        except MemoryError:
            return OutOfMemoryError("the server ran out of memory while it wrote the answer")
        except Exception as error:
            return error

    def _decode(self, keys: LoadedKeys, frame: Frame, spec: TensorSpec) -> Encrypted:
        params = self.model.signature.params
        expected = wire.CiphertextExpectation.exactly(params, spec.level, spec.degree, keys.key_id)
        return keys.ciphertext(wire.decode_ciphertext(frame, expected))

    def _encode(self, keys: LoadedKeys, output: Encrypted, _: Encrypted) -> bytes:
        moduli = self.model.signature.params.moduli
        return wire.encode_ciphertext(keys.frame(output), moduli, wire.Packing.RAW)


class Session:
    """Runs one model's plans for one key owner; may be used by several threads."""

    def __init__(
        self, loaded: LoadedModel, keys: LoadedKeys, threads: ThreadPoolExecutor | None = None
    ) -> None:
        """Bind a model to keys; see `open` for the usual way.

        Args:
            loaded: the model.
            keys: of the owner, from the same backend.
            threads: see `LoadedModel.run`.
        """
        self._loaded = loaded
        self._keys = keys
        self._threads = threads

    @classmethod
    def open(
        cls,
        model: Artifact,
        key_frames: Sequence[Frame],
        threads: ThreadPoolExecutor | None = None,
        backend: BackendName | None = None,
        joined: int = DEFAULT_JOINED,
    ) -> Session:
        """Check key frames, load them into a backend and bind them to a model.

        Args:
            model: both halves.
            key_frames: all that the model needs.
            threads: see `LoadedModel.run`.
            backend: None takes the default of this machine, see `choose_backend`.
            joined: evaluations in one batch, at most.

        Raises:
            WireError: a frame is not a key of this model.
            UnusableEnvironmentError: the backend cannot be used here.
        """
        sharing = 1 if threads is None else threads._max_workers
        opened = open_backend(choose_backend(backend).name, threads=sharing)
        keys = load_session_keys(opened, model, key_frames, threads)
        return cls(LoadedModel(model, opened, joined), keys, threads)

    def with_threads(self, threads: ThreadPoolExecutor | None) -> Session:
        """Return the same session on other threads."""
        return Session(self._loaded, self._keys, threads)

    def run(self, plan: str, frames: Sequence[Frame], observe: Observe = ignore_progress) -> Result:
        """Answer one request of one or more evaluations.

        Args:
            plan: name of the plan.
            frames: input ciphertexts of each evaluation in turn.
            observe: see `Asked`.

        Returns:
            Output frames of each evaluation in turn, and seconds spent.

        Raises:
            InputShapeError: frames do not fill whole evaluations.
            WireError: a frame is damaged or does not belong here.
            OutOfMemoryError: memory ran out.
            InternalError: the circuit or the backend failed.
        """
        (result,) = self._loaded.run(plan, [Asked(self._keys, frames, observe)], self._threads)
        if isinstance(result, Exception):
            raise result
        return result


def load_session_keys(
    backend: Backend,
    model: Artifact,
    key_frames: Iterable[Frame],
    threads: ThreadPoolExecutor | None = None,
) -> LoadedKeys:
    """Check key frames and load them into a backend.

    Args:
        backend: computes.
        model: whose keys they are.
        key_frames: all that the model needs; memory mapped files are read once or twice, and no
            copy of them is kept.
        threads: check the frames.

    Raises:
        WireError: a frame is not a key of this model.
    """
    signature = model.signature
    frames = list(key_frames)
    each = map if threads is None else threads.map
    key_id = wire.key_id(signature.params.digest, list(each(_digest, frames)))
    expected = repeat(key_expectation(signature))
    keys: Iterator[wire.EvaluationKey] = each(wire.decode_evaluation_key, frames, expected)
    return backend.load_keys(signature.params, key_id, keys)


def _digest(frame: Frame) -> bytes:
    return hashlib.sha256(frame).digest()


def _each(
    threads: ThreadPoolExecutor | None,
    keys: LoadedKeys,
    function: Callable[[LoadedKeys, A, B], Encrypted],
    first: Sequence[A],
    second: Sequence[B],
) -> list[Encrypted]:
    """Call a function for each pair, on the threads if there are some."""
    owners = [keys] * len(first)
    if threads is None or len(first) == 1:
        return list(map(function, owners, first, second))
    return list(threads.map(function, owners, first, second))


class _Clock:
    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.laps: list[float] = []

    def lap(self) -> None:
        now = time.perf_counter()
        self.laps.append(now - self._last)
        self._last = now
