"""Runs training jobs, unit after unit, on the same workers as requests; lives on one event loop.

A job keeps its turn for a while before the next one's, so that a worker need not load other keys
for every unit. What a unit computed is on the disk before the unit counts as done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tacit.errors import (
    DeviceLostError,
    OutOfMemoryError,
    TacitError,
    UnknownKeyError,
    WorkerCrashError,
)
from tacit.runtime.refusals import AbandonedError
from tacit.runtime.repository import ModelVersion
from tacit.runtime.requests import Executor, Frame, Job, Lane, Result, Work
from tacit.runtime.statuses import code_of
from tacit.runtime.training_store import JobRow, TrainingStore, write_durably
from tacit.runtime.training_units import Unit, UnitInputs, UnitKind, is_moments, units_of
from tacit.training import JobState
from tacit.training_plan import ADD, VALIDATION, TrainingPlan

_LOG = logging.getLogger("tacit.runtime.training")
_ATTEMPTS = 3
_RETRY_SECONDS = 0.2
_WATCH_SECONDS = 1.0
# What may go better the next time, in another process.
_PASSING = (WorkerCrashError, OutOfMemoryError, DeviceLostError)

Record = Callable[[str, JobRow, str], None]
KeysComplete = Callable[[JobRow, ModelVersion], bool]
FindPlan = Callable[[JobRow], tuple[ModelVersion, TrainingPlan]]


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """Bounds of the runner.

    Attributes:
        parallel: jobs that run at the same time.
        turn_seconds: how long a job keeps its turn while others wait.
    """

    parallel: int = 1
    turn_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Outside:
    """What the runner needs from the server.

    Attributes:
        executor: runs plans.
        find: returns a job's model and plan.
        keys_complete: tells whether the key set of a job can be used.
        record: notes what happened to a job, and why.
    """

    executor: Executor
    find: FindPlan
    keys_complete: KeysComplete
    record: Record


class TrainingRunner:
    """Takes queued jobs in turn."""

    def __init__(self, store: TrainingStore, outside: Outside, limits: RunnerLimits) -> None:
        self._store = store
        self._outside = outside
        self._limits = limits
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._running: dict[str, Work | None] = {}
        self._served: dict[str, float] = {}
        self.units_done = 0

    @property
    def running(self) -> int:
        """Jobs that run now."""
        return len(self._running)

    def start(self) -> None:
        """Begin to take jobs."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._serve()) for _ in range(self._limits.parallel)]
        self._tasks.append(loop.create_task(self._watch_keys()))

    async def stop(self) -> None:
        """Stop; what runs is computed again after the next start."""
        for task in self._tasks:
            task.cancel()
        for work in self._running.values():
            if work is not None:
                work.abandoned = True
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def wake(self) -> None:
        """Look for queued jobs at once."""
        self._wake.set()

    def interrupt(self, job: str) -> None:
        """Let a job that was cancelled stop at the next operation."""
        if (work := self._running.get(job)) is not None:
            work.abandoned = True

    async def settled(self, job: str) -> None:
        """Wait until nothing of a job runs."""
        while job in self._running:
            await asyncio.sleep(0.02)

    async def _serve(self) -> None:
        while True:
            row = await asyncio.to_thread(self._next)
            if row is None or row.job in self._running:
                self._wake.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _WATCH_SECONDS)
                continue
            self._running[row.job] = None
            try:
                await self._turn(row)
            except Exception as error:
                _LOG.error("training job %s failed", row.job, exc_info=error)
                await self._end(row, JobState.FAILED, f"{code_of(error)}: the server failed")
            finally:
                self._served[row.job] = time.monotonic()
                del self._running[row.job]

    def _next(self) -> JobRow | None:
        """Return the queued or running job that waited longest for its turn."""
        rows = self._store.in_states(JobState.QUEUED, JobState.RUNNING)
        free = [row for row in rows if row.job not in self._running]
        self._served = {r.job: self._served[r.job] for r in rows if r.job in self._served}
        return min(free, key=lambda row: self._served.get(row.job, 0.0), default=None)

    async def _turn(self, row: JobRow) -> None:
        """Run units of a job until it ends, or others have waited long enough."""
        started = time.monotonic()
        try:
            model, plan = self._outside.find(row)
            if await self._move(row, JobState.RUNNING, "", JobState.QUEUED):
                self._outside.record("training_running", row, "")
            units = units_of(plan, row.uploads)
            steps = _UnitRun(row, model, plan, self._store, self._call)
            for index in range(row.unit, len(units)):
                spent = await self._attempted(steps, units[index])
                await asyncio.to_thread(
                    self._store.advance, row.job, index + 1, spent, units[index].seconds
                )
                self.units_done += 1
                if not await asyncio.to_thread(self._still_runs, row):
                    return
                if time.monotonic() - started > self._limits.turn_seconds:
                    return
        except AbandonedError:
            return  # cancelled; perhaps resumed meanwhile
        except UnknownKeyError as error:
            await self._end(row, JobState.WAITING_FOR_KEYS, str(error))
        except TacitError as error:
            await self._end(row, JobState.FAILED, f"{code_of(error)}: {error}")
        else:
            await self._end(row, JobState.DONE, "")

    def _still_runs(self, row: JobRow) -> bool:
        rows = self._store.in_states(JobState.RUNNING)
        return any(other.job == row.job for other in rows)

    async def _attempted(self, steps: _UnitRun, unit: Unit) -> float:
        """Run a unit, again if a process died under it; returns the seconds it took."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await steps.run(unit)
            except _PASSING as error:
                if attempt == _ATTEMPTS:
                    raise
                _LOG.warning("training job %s: %s; once more", steps.row.job, error)
                await asyncio.sleep(_RETRY_SECONDS)
                if not await asyncio.to_thread(self._still_runs, steps.row):
                    raise AbandonedError("the job was cancelled") from error
        raise AssertionError

    async def _call(
        self, row: JobRow, model: ModelVersion, plan: str, frames: Sequence[Frame]
    ) -> Result:
        """Run one plan for a job.

        Raises:
            TacitError: what the worker says.
        """
        digest = model.signature.private_digest
        lane = Lane(model.name, model.version, digest, plan, row.tenant, row.key_id)
        work = Work(frames, lane.owner)
        self._running[row.job] = work
        try:
            (result,) = await self._outside.executor.run(Job(lane, model, [work]))
        finally:
            self._running[row.job] = None
        if isinstance(result, Exception):
            raise result
        return result

    async def _end(self, row: JobRow, state: JobState, reason: str) -> None:
        """Leave a job in a state; one that was cancelled meanwhile stays so."""
        out_of = (JobState.RUNNING, JobState.QUEUED)
        if await self._move(row, state, reason, *out_of):
            self._outside.record(f"training_{state.value}", row, reason)

    async def _move(self, row: JobRow, to: JobState, reason: str, *out_of: JobState) -> bool:
        return await asyncio.to_thread(self._store.move, row.job, to, reason, *out_of)

    async def _watch_keys(self) -> None:
        """Queue jobs whose keys have come."""
        while True:
            try:
                await self.queue_ready()
            except TacitError as error:
                _LOG.error("training jobs could not be looked at", exc_info=error)
            await asyncio.sleep(_WATCH_SECONDS)

    async def queue_ready(self) -> None:
        """Queue jobs that waited for keys that are complete now."""
        for row in await asyncio.to_thread(self._store.in_states, JobState.WAITING_FOR_KEYS):
            try:
                ready = self._outside.keys_complete(row, self._outside.find(row)[0])
            except TacitError as error:
                reason = f"{code_of(error)}: {error}"
                await self._move(row, JobState.FAILED, reason, JobState.WAITING_FOR_KEYS)
                continue
            if ready and await self._move(row, JobState.QUEUED, "", JobState.WAITING_FOR_KEYS):
                self._outside.record("training_queued", row, "")
                self.wake()


Call = Callable[[JobRow, ModelVersion, str, Sequence[Frame]], Awaitable[Result]]


@dataclass(slots=True, eq=False)
class _UnitRun:
    """Runs the units of a job and writes what comes out."""

    row: JobRow
    model: ModelVersion
    plan: TrainingPlan
    store: TrainingStore
    call: Call
    seconds: float = 0.0

    async def run(self, unit: Unit) -> float:
        """Run one unit; returns the seconds spent on ciphertexts."""
        self.seconds = 0.0
        files = self.store.files(self.row.job)
        inputs = UnitInputs(self.plan, files, self.row.uploads)
        if unit.kind is UnitKind.ADD:
            total, *others = await asyncio.to_thread(inputs.summands, unit.number)
            for other in others:
                total = await self._asked(ADD, [*total, *other])
            await asyncio.to_thread(write_durably, files.place(unit.number, 2), total)
        elif unit.kind is UnitKind.LABELS:
            labels = await self._asked(unit.plan, await asyncio.to_thread(inputs.labels))
            path = files.of_class("labels", unit.chosen, 0)
            await asyncio.to_thread(write_durably, path, labels)
        else:
            await self._step(unit, inputs)
        return self.seconds

    async def _step(self, unit: Unit, inputs: UnitInputs) -> None:
        state = await self._asked(unit.plan, await asyncio.to_thread(inputs.step, unit))
        files, step = inputs.files, self.plan.steps[unit.number]
        if not step.refreshes:
            await self._readings(unit, inputs, state)
        path = files.of_class("states", unit.chosen, unit.number)
        await asyncio.to_thread(write_durably, path, state)
        if unit.number > 0:
            old = files.of_class("states", unit.chosen, unit.number - 2)
            await asyncio.to_thread(old.unlink, missing_ok=True)

    async def _readings(self, unit: Unit, inputs: UnitInputs, state: Sequence[Frame]) -> None:
        """Write what clients read after an iteration: weights, and validation rows' margins."""
        step = self.plan.steps[unit.number]
        weights = state
        if not is_moments(self.plan):
            name = self.plan.weights_plan(step.iteration).name
            weights = await self._asked(name, state[-1:])
        if self.plan.task.validates(step.iteration):
            name = self.plan.validation_plan(step.iteration).name
            rows = await asyncio.to_thread(inputs.validation, VALIDATION)
            margins = await self._asked(name, [*rows, *state[-1:]])
            path = inputs.files.of_class("margins", unit.chosen, step.iteration)
            await asyncio.to_thread(write_durably, path, margins)
        path = inputs.files.of_class("weights", unit.chosen, step.iteration)
        await asyncio.to_thread(write_durably, path, weights)

    async def _asked(self, plan: str, frames: Sequence[Frame]) -> list[Frame]:
        result = await self.call(self.row, self.model, plan, frames)
        timing = result.timing
        self.seconds += timing.decode_seconds + timing.evaluate_seconds + timing.encode_seconds
        return list(result.frames)
