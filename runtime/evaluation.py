"""Evaluations of several requests, joined into batches and spread over threads.

A batch costs fewer calls than its evaluations one by one, and reads each weight once; threads use
more cores. So the evaluations are dealt out evenly over the threads first, and what falls to one
thread is joined, up to a limit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from tacit.circuit import Circuit, Evaluator, Node, execute
from tacit.errors import CircuitError, OutOfMemoryError, TacitError
from tacit.runtime.backends.loading import Backend, BoundCircuit, Encrypted, LoadedKeys
from tacit.signature import Plan

Observe = Callable[[int, int], None]


class Progress:
    """How far a request's evaluations are, and the error that ended it; used by several threads."""

    def __init__(self, observe: Observe, total: int) -> None:
        """Count operations.

        Args:
            observe: called with (done, total), by one thread at a time, until it raises or the
                request has failed.
            total: operations of all evaluations.
        """
        self._observe = observe
        self._total = total
        self._done = 0
        self._lock = threading.Lock()
        self.error: Exception | None = None

    def advance(self, operations: int) -> None:
        """Count operations as done."""
        with self._lock:
            if self.error is None:
                self._done = min(self._total, self._done + operations)
                try:
                    self._observe(self._done, self._total)
                except Exception as error:
                    self.error = error

    def fail(self, error: Exception) -> None:
        """End the request; its first error counts."""
        with self._lock:
            self.error = self.error or error


@dataclass(slots=True, eq=False)
class Evaluation:
    """One run of a circuit: `outputs` are set when it is done.

    Attributes:
        keys: of its owner.
        inputs: the circuit's inputs.
        progress: of the request it belongs to.
    """

    keys: LoadedKeys
    inputs: Sequence[Encrypted]
    progress: Progress
    outputs: Sequence[Encrypted] = ()


class _NobodyWaitsError(Exception):
    """Every request of a batch has ended."""


@dataclass(frozen=True, slots=True, eq=False)
class PlanEvaluator:
    """Evaluates one plan of a model on a backend; may be used by several threads.

    Attributes:
        plan: names the outputs and their types.
        circuit: of the plan.
        backend: computes.
        bound: the circuit, prepared by the backend.
        most: evaluations in a batch; 1 for backends that join none.
    """

    plan: Plan
    circuit: Circuit
    backend: Backend
    bound: BoundCircuit
    most: int

    def run(self, evaluations: Sequence[Evaluation], pool: ThreadPoolExecutor | None) -> None:
        """Run evaluations of any owners; outputs and errors are left in them."""
        threads = 1 if pool is None or not self.backend.spreads else pool._max_workers
        batches = list(deal(evaluations, threads, self.most))
        if pool is None or len(batches) == 1:
            for batch in batches:
                self._run_batch(batch)
            return
        futures = [pool.submit(self._run_batch, batch) for batch in batches]
        try:
            wait(futures)
        finally:
            for evaluation in evaluations if not all(f.done() for f in futures) else ():
                evaluation.progress.fail(_NobodyWaitsError())  # the caller was interrupted
            wait(futures)
        for future in futures:
            future.result()

    def _run_batch(self, batch: Sequence[Evaluation]) -> None:
        """Run a batch; what fails in company is tried again alone, so that it fails alone."""
        batch = [evaluation for evaluation in batch if evaluation.progress.error is None]
        if not batch:
            return
        try:
            self._evaluate(batch)
        except _NobodyWaitsError:
            return
        except (TacitError, MemoryError) as error:
            if len(batch) > 1:
                for evaluation in batch:
                    self._run_batch([evaluation])
                return
            batch[0].progress.fail(_explained(error))
        except Exception as error:
            for evaluation in batch:
                evaluation.progress.fail(error)

    def _evaluate(self, batch: Sequence[Evaluation]) -> None:
        owners = [evaluation.keys for evaluation in batch]
        evaluator = self.bound.evaluator(owners)
        columns = zip(*(evaluation.inputs for evaluation in batch), strict=True)
        inputs = [self.backend.join(column) for column in columns]

        def observe(index: int, node: Node, outputs: Sequence[Encrypted]) -> None:
            for evaluation in batch:
                evaluation.progress.advance(1)
            if all(evaluation.progress.error for evaluation in batch):
                raise _NobodyWaitsError

        outputs = self.bound.at_once(owners, inputs)
        if outputs is None:
            outputs = execute(self.circuit, inputs, evaluator, observe)
        else:
            for evaluation in batch:
                evaluation.progress.advance(len(self.circuit.nodes))
        self._check(outputs, evaluator)
        rows = zip(*(self.backend.split(output) for output in outputs), strict=True)
        for evaluation, row in zip(batch, rows, strict=True):
            evaluation.outputs = row

    def _check(self, outputs: Sequence[Encrypted], evaluator: Evaluator[Encrypted]) -> None:
        specs = [spec for spec in self.plan.outputs for _ in range(spec.layout.ciphertexts)]
        for output, spec in zip(outputs, specs, strict=True):
            found = evaluator.type_of(output)
            if (found.level, found.degree) != (spec.level, spec.degree):
                raise CircuitError(
                    f"output {spec.name!r}: level {spec.level}, degree {spec.degree} promised, "
                    f"got level {found.level}, degree {found.degree}"
                )


def _explained(error: TacitError | MemoryError) -> TacitError:
    """Return what the client hears; memory that ran out inside the circuit names its node."""
    if isinstance(error, TacitError):
        return error
    return OutOfMemoryError(
        "memory ran out before or after the circuit: try again later, or ask for less at once"
    )


def deal(
    evaluations: Sequence[Evaluation], threads: int, most: int
) -> Iterator[Sequence[Evaluation]]:
    """Deal evaluations out over threads, and each thread's share into batches of at most `most`.

    Batches differ by at most one evaluation in size, and there is one for every thread if there are
    enough evaluations.
    """
    count = len(evaluations)
    if not count:
        return
    per_thread = -(-count // threads)
    batches = min(count, threads) * -(-per_thread // most)
    batches = min(batches, count)
    start = 0
    for index in range(batches):
        size = count // batches + (index < count % batches)
        yield evaluations[start : start + size]
        start += size
