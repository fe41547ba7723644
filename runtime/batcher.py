"""Queues of requests by lane: the same model, version, plan, tenant and key.

Whatever waits in a lane when a worker comes free is joined into one job, up to a limit; nothing
waits on purpose. If `QueueLimits.owners` allows it, a job also takes what waits in lanes of other
owners for the same model and plan, as long as these owners may share a process. The queue is
bounded, every request has a deadline, and a request whose client went away leaves the queue, or is
marked so that its worker stops at the next operation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from tacit.errors import InternalError, TacitError
from tacit.runtime.refusals import BusyError, DeadlineError, StoppingError
from tacit.runtime.repository import ModelVersion
from tacit.runtime.requests import Executor, Frame, Job, Lane, Result, Work

_LOG = logging.getLogger("tacit.runtime.batcher")


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of the batcher.

    Attributes:
        waiting: requests that may wait, over all lanes.
        joined: requests that may run as one job.
        parallel: jobs that run at the same time.
        owners: key owners whose requests may run as one job.
    """

    waiting: int = 64
    joined: int = 16
    parallel: int = 2
    owners: int = 1


Shared = Callable[[Lane], Hashable]


def alone(lane: Lane) -> Hashable:
    """Let no lane be joined with another one."""
    return lane


@dataclass(slots=True, eq=False)
class _Waiting:
    work: Work
    model: ModelVersion
    arrived: float
    started: float
    answer: asyncio.Future[Result]


class Batcher:
    """Feeds an executor from bounded queues; lives on one event loop."""

    def __init__(
        self,
        executor: Executor,
        limits: QueueLimits,
        on_job: Callable[[Job], None],
        shared: Shared = alone,
    ) -> None:
        """Start with empty queues.

        Args:
            executor: runs the jobs.
            limits: of queue and jobs.
            on_job: hears of every job that begins.
            shared: lanes for which it gives the same may be joined.
        """
        self._executor = executor
        self._shared = shared
        self._limits = limits
        self._on_job = on_job
        self._slots = asyncio.Semaphore(limits.parallel)
        self._lanes: dict[Lane, deque[_Waiting]] = {}
        self._runners: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def waiting(self) -> int:
        """Requests in the queues, not counting those that run."""
        return sum(len(queue) for queue in self._lanes.values())

    async def submit(
        self, lane: Lane, model: ModelVersion, frames: Sequence[Frame], seconds: float
    ) -> tuple[Result, float]:
        """Queue a request and wait for its result.

        Returns:
            The result, and the seconds it waited in the queue.

        Raises:
            BusyError: the queue is full.
            DeadlineError: no result within `seconds`.
            StoppingError: the server is shutting down.
            TacitError: what went wrong with this request in the worker.
        """
        if self._stopping:
            raise StoppingError("the server is shutting down: send the request to another one")
        if self.waiting >= self._limits.waiting:
            raise BusyError(f"{self.waiting} requests are waiting already: try again later")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        item = _Waiting(Work(frames, lane.owner), model, time.monotonic(), 0.0, future)
        self._enqueue(lane, item)
        try:
            done, _ = await asyncio.wait({future}, timeout=seconds)
        except asyncio.CancelledError:
            self._abandon(lane, item)
            raise
        if not done:
            self._abandon(lane, item)
            raise DeadlineError(
                f"no answer within {seconds:g} s: ask for less per request, or for more time"
            )
        return future.result(), item.started - item.arrived

    async def drain(self, seconds: float) -> None:
        """Refuse new requests and wait for accepted ones, at most `seconds`."""
        self._stopping = True
        if self._runners:
            await asyncio.wait(set(self._runners), timeout=seconds)
        for runner in set(self._runners):
            runner.cancel()

    def _enqueue(self, lane: Lane, item: _Waiting) -> None:
        if lane in self._lanes:
            self._lanes[lane].append(item)
            return
        self._lanes[lane] = deque([item])
        runner = asyncio.get_running_loop().create_task(self._run_lane(lane))
        self._runners.add(runner)
        runner.add_done_callback(self._runners.discard)

    def _abandon(self, lane: Lane, item: _Waiting) -> None:
        item.work.abandoned = True
        item.answer.cancel()
        queue = self._lanes.get(lane)
        if queue is not None and item in queue:
            queue.remove(item)

    async def _run_lane(self, lane: Lane) -> None:
        try:
            while self._lanes[lane]:
                async with self._slots:
                    batch = self._next_batch(lane)
                    if batch:
                        await self._run_batch(lane, batch)
        finally:
            for item in self._lanes.pop(lane):
                _settle(item, StoppingError("the server shut down before this request ran"))

    def _next_batch(self, lane: Lane) -> list[_Waiting]:
        """Take what waits in a lane, then what waits in lanes that may be joined with it."""
        batch: list[_Waiting] = []
        if not self._lanes[lane]:
            return batch
        for joined in [lane, *self._others(lane)][: self._limits.owners]:
            queue = self._lanes[joined]
            room = self._limits.joined - len(batch)
            batch += [queue.popleft() for _ in range(min(len(queue), room))]
        return batch

    def _others(self, lane: Lane) -> list[Lane]:
        """Return lanes with waiting requests that may be joined, who waits longest first."""
        if self._limits.owners == 1:
            return []
        group = self._shared(lane)
        found = [
            (queue[0].arrived, other)
            for other, queue in self._lanes.items()
            if queue and other != lane and self._shared(other) == group
        ]
        return [other for _, other in sorted(found, key=lambda pair: pair[0])]

    async def _run_batch(self, lane: Lane, batch: list[_Waiting]) -> None:
        job = Job(lane, batch[0].model, [item.work for item in batch])
        now = time.monotonic()
        for item in batch:
            item.started = now
        self._on_job(job)
        results: Sequence[Result | TacitError]
        try:
            results = await self._executor.run(job)
        except asyncio.CancelledError:
            results = [StoppingError("the server shut down while this request ran")] * len(batch)
            raise
        except Exception as error:
            _LOG.error("the executor failed", exc_info=error)
            results = [InternalError(f"the executor failed: {type(error).__name__}")] * len(batch)
        finally:
            for item, result in zip(batch, results, strict=True):
                _settle(item, result)


def _settle(item: _Waiting, result: Result | TacitError) -> None:
    if item.answer.done():
        return
    if isinstance(result, TacitError):
        item.answer.set_exception(result)
    else:
        item.answer.set_result(result)
