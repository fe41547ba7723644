"""A pool of worker processes, one per key owner.

A worker starts with its owner's first request, or ahead of it (`warm`), and stops when it was idle
for long, when its keys are deleted, or when another owner needs the place. A worker that dies costs
one request; what waited behind it runs on a new one. A worker that cannot read its keys is stopped,
and the damaged files are dropped, so that the client's next upload replaces them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tacit.errors import TacitError, UnknownKeyError, WorkerCrashError
from tacit.runtime.options import WorkerLimits
from tacit.runtime.refusals import DamagedKeysError
from tacit.runtime.repository import ModelVersion
from tacit.runtime.requests import Job, Result
from tacit.runtime.worker_process import COMMAND, WorkerProcess

_LOG = logging.getLogger("tacit.runtime.workers")
_STOP_SECONDS = 5.0
_WAIT_SECONDS = 0.05
Owner = tuple[str, str]


class KeyFiles(Protocol):
    """Where an owner's evaluation keys lie; methods may block."""

    def frame_paths(self, tenant: str, key_id: str) -> list[Path]:
        """Return the files of a complete key set.

        Raises:
            UnknownKeyError: not there, or not complete.
        """
        ...

    def drop_damaged(self, tenant: str, key_id: str) -> int:
        """Remove files that are not what was declared; returns how many."""
        ...


@dataclass(slots=True, eq=False)
class _Worker:
    process: WorkerProcess | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    used_at: float = field(default_factory=time.monotonic)


class WorkerPool:
    """An `Executor` on worker processes; lives on one event loop."""

    def __init__(
        self,
        keys: KeyFiles,
        limits: WorkerLimits,
        threads: int = 1,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """Start nothing yet.

        Args:
            keys: where keys lie.
            limits: bounds of the pool.
            threads: of each worker.
            command: starts a worker; the socket's descriptor is appended.
        """
        self._keys = keys
        self._limits = limits
        self._worker_threads = threads
        self._command = command
        self._workers: OrderedDict[Owner, _Worker] = OrderedDict()
        self._threads = ThreadPoolExecutor(2 * limits.processes, "tacit-worker")
        self._starting = 0
        self._warming: set[asyncio.Task[None]] = set()
        self._closing = False
        self.crashes = 0

    @property
    def workers(self) -> int:
        """Worker processes that run."""
        return sum(worker.process is not None for worker in self._workers.values())

    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [w.process.pid for w in self._workers.values() if w.process is not None]

    async def run(self, job: Job) -> Sequence[Result | TacitError]:
        """Run a job on its owner's worker; see `Executor`."""
        owner = (job.lane.tenant, job.lane.key_id)
        while True:
            worker = self._workers.setdefault(owner, _Worker())
            async with worker.lock:
                if self._workers.get(owner) is worker:  # not stopped while we waited
                    return await self._run_all(owner, worker, job)

    def warm(self, tenant: str, key_id: str, models: Sequence[ModelVersion]) -> None:
        """Start an owner's worker in the background, with its keys and models.

        It may take the place of an idle worker, as a request may. Nothing happens if the owner has
        a worker, or if every worker there may be is busy.
        """
        owner = (tenant, key_id)
        if owner in self._workers or self._closing:
            return
        worker = self._workers[owner] = _Worker()
        task = asyncio.get_running_loop().create_task(self._warm(owner, worker, models))
        self._warming.add(task)
        task.add_done_callback(self._warming.discard)

    async def stop_idle(self) -> None:
        """Stop workers that did nothing for long."""
        oldest = time.monotonic() - self._limits.idle_seconds
        for owner, worker in list(self._workers.items()):
            if worker.used_at < oldest and not worker.lock.locked():
                await self._stop(owner)

    def forget(self, tenant: str, key_id: str) -> None:
        """Stop the worker of keys that were deleted, after the request it runs."""
        if (tenant, key_id) in self._workers:
            task = asyncio.get_running_loop().create_task(self._stop((tenant, key_id)))
            task.add_done_callback(lambda done: done.exception())

    async def close(self) -> None:
        """Stop every worker."""
        self._closing = True
        await asyncio.gather(*self._warming, return_exceptions=True)
        await asyncio.gather(*(self._stop(owner) for owner in list(self._workers)))
        self._threads.shutdown(wait=False)

    async def _run_all(self, owner: Owner, worker: _Worker, job: Job) -> list[Result | TacitError]:
        self._workers.move_to_end(owner)
        results: list[Result | TacitError] = []
        while len(results) < len(job.work):
            results += await self._run_part(owner, worker, job, len(results))
        worker.used_at = time.monotonic()
        return results

    async def _run_part(
        self, owner: Owner, worker: _Worker, job: Job, first: int
    ) -> list[Result | TacitError]:
        try:
            process = await self._process_of(owner, worker)
        except TacitError as error:
            return [await self._outcome(owner, worker, error)] * (len(job.work) - first)
        part = job.work[first:]
        grace = self._limits.grace_seconds
        results: list[Result | TacitError] = await self._in_thread(process.run, job, part, grace)
        return [await self._outcome(owner, worker, result) for result in results]

    async def _outcome(
        self, owner: Owner, worker: _Worker, result: Result | TacitError
    ) -> Result | TacitError:
        """Give up a worker that died or cannot read its keys; returns what the client hears."""
        if not isinstance(result, WorkerCrashError | DamagedKeysError):
            return result
        process, worker.process = worker.process, None
        if process is not None:
            await self._in_thread(process.kill)
        if isinstance(result, WorkerCrashError):
            self.crashes += 1
            return result
        await self._in_thread(self._keys.drop_damaged, *owner)
        return UnknownKeyError("evaluation keys stored here were damaged: upload them again")

    async def _warm(self, owner: Owner, worker: _Worker, models: Sequence[ModelVersion]) -> None:
        async with worker.lock:
            try:
                if self._workers.get(owner) is worker and self._has_room():
                    process = await self._process_of(owner, worker)
                    await self._in_thread(process.prepare, models, self._limits.start_seconds)
            except TacitError as error:
                await self._outcome(owner, worker, error)
            except Exception as error:
                _LOG.error("a worker could not be started ahead of its request", exc_info=error)
            worker.used_at = time.monotonic()
            if worker.process is None and self._workers.get(owner) is worker:
                del self._workers[owner]

    async def _process_of(self, owner: Owner, worker: _Worker) -> WorkerProcess:
        if worker.process is not None:
            if worker.process.alive:
                return worker.process
            self.crashes += 1
            dead, worker.process = worker.process, None
            await self._in_thread(dead.kill)
        paths = self._keys.frame_paths(*owner)
        await self._make_room()
        self._starting += 1
        try:
            worker.process = await self._in_thread(self._start, owner[1], paths)
        finally:
            self._starting -= 1
        return worker.process

    async def _make_room(self) -> None:
        """Stop the worker unused longest while there are too many; owners that run are left."""
        while self._is_full():
            if idle := self._idle():
                await self._stop(idle[0])
            else:
                await asyncio.sleep(_WAIT_SECONDS)

    def _has_room(self) -> bool:
        return not self._is_full() or bool(self._idle())

    def _is_full(self) -> bool:
        return self.workers + self._starting >= self._limits.processes

    def _idle(self) -> list[Owner]:
        return [o for o, w in self._workers.items() if w.process and not w.lock.locked()]

    def _start(self, key_id: str, paths: list[Path]) -> WorkerProcess:
        process = WorkerProcess(self._command)
        try:
            process.open(key_id, paths, self._worker_threads, self._limits.start_seconds)
        except BaseException:
            process.kill()
            raise
        return process

    async def _stop(self, owner: Owner) -> None:
        worker = self._workers.get(owner)
        if worker is None:
            return
        async with worker.lock:
            self._workers.pop(owner, None)
            process, worker.process = worker.process, None
            if process is not None:
                await self._in_thread(process.stop, _STOP_SECONDS)

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)
