"""A pool of worker processes, shared by key owners as far as they may share one.

A worker starts with a group's first request, or ahead of it (`warm`), and stops when it was idle
for long, or when another group needs the place. Where a group is a single owner it stops with the
owner's keys, too; otherwise the process drops the keys and goes on.

A request that is alone in a process that dies is refused. If several ran in it, each of them is run
again alone in the process, and only what kills it then is refused. Damaged key files are dropped,
so that the client's next upload replaces them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from tacit.errors import (
    TacitError,
    UnknownKeyError,
    UnusableEnvironmentError,
    WorkerCrashError,
)
from tacit.runtime.isolation import Group, Isolation, group_of
from tacit.runtime.options import WorkerLimits
from tacit.runtime.refusals import DamagedKeysError
from tacit.runtime.repository import ModelVersion
from tacit.runtime.requests import Job, Owner, Result
from tacit.runtime.shared_worker import SharedWorker
from tacit.runtime.worker_keys import KeyFiles, Results, key_paths
from tacit.runtime.worker_process import Attempt, Line, WorkerProcess
from tacit.runtime.worker_settings import WorkerMemory

_LOG = logging.getLogger("tacit.runtime.workers")
_STOP_SECONDS = 5.0
_WAIT_SECONDS = 0.05


class WorkerPool:
    """An `Executor` on worker processes; lives on one event loop."""

    def __init__(
        self,
        keys: KeyFiles,
        limits: WorkerLimits,
        command: Sequence[str],
        isolation: Isolation = Isolation.OWNER,
        lines: int = 1,
    ) -> None:
        """Start nothing yet.

        Args:
            keys: where keys lie.
            limits: bounds of the pool.
            command: starts a worker; the sockets' descriptors are appended.
            isolation: which owners share a process.
            lines: jobs that one process runs at the same time.
        """
        self._keys = keys
        self._limits = limits
        self._command = command
        self._isolation = isolation
        self._lines = lines
        self._workers: OrderedDict[Group, SharedWorker] = OrderedDict()
        self._threads = ThreadPoolExecutor(2 * limits.processes * lines, "tacit-worker")
        self._starting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self.crashes = 0
        # Why requests fail on the device that is to compute them; empty while none does.
        self.device_error = ""

    @property
    def workers(self) -> int:
        """Worker processes that run."""
        return len(self._processes())

    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [process.pid for process in self._processes()]

    def memory(self) -> dict[int, WorkerMemory]:
        """Return what each worker last said of its memory, by process id."""
        return {process.pid: process.memory for process in self._processes()}

    async def run(self, job: Job) -> Sequence[Result | TacitError]:
        """Run a job on a worker that its owners may share; see `Executor`."""
        (group,) = {group_of(self._isolation, work.owner) for work in job.work}
        results: Results = {}
        async with self._worker(group) as worker:
            doubtful = await self._run_together(worker, job, results)
        for index in sorted(doubtful):
            async with self._worker(group, alone=True) as worker:
                attempt = await self._attempt(worker, job, [index])
            results |= {index: _crash(attempt)} | attempt.results
        return [results[index] for index in range(len(job.work))]

    def warm(self, tenant: str, key_id: str, models: Sequence[ModelVersion]) -> None:
        """Load an owner's keys, and models, in the background, in a worker that may start for it.

        It may take the place of an idle worker, as a request may. Nothing happens if all of it is
        loaded, or if every worker there may be is busy.
        """
        if self._closing:
            return
        owner = Owner(tenant, key_id)
        group = group_of(self._isolation, owner)
        worker = self._workers.setdefault(group, self._new_worker())
        missing = [model for model in models if _mark(owner, model) not in worker.loaded]
        if missing and not worker.places.locked():
            worker.loaded |= {_mark(owner, model) for model in missing}
            self._in_background(self._warm(group, worker, owner, missing))

    async def stop_idle(self) -> None:
        """Stop workers that did nothing for long."""
        oldest = time.monotonic() - self._limits.idle_seconds
        for group, worker in list(self._workers.items()):
            if worker.used_at < oldest and not worker.busy:
                await self._stop(group)

    def forget(self, tenant: str, key_id: str) -> None:
        """Have keys that were deleted dropped, after what runs."""
        owner = Owner(tenant, key_id)
        if group_of(self._isolation, owner) in self._workers:
            self._in_background(self._forget(owner))

    async def close(self) -> None:
        """Stop every worker."""
        self._closing = True
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(self._stop(group) for group in list(self._workers)))
        self._threads.shutdown(wait=False)

    def _new_worker(self) -> SharedWorker:
        return SharedWorker(asyncio.Semaphore(self._lines), self._lines)

    @asynccontextmanager
    async def _worker(self, group: Group, *, alone: bool = False) -> AsyncIterator[SharedWorker]:
        """Take a place in a group's worker, or all of them."""
        while True:
            worker = self._workers.setdefault(group, self._new_worker())
            async with worker.all_places() if alone else worker.place():
                if self._workers.get(group) is worker:  # not stopped while we waited
                    self._workers.move_to_end(group)
                    yield worker
                    return

    async def _run_together(self, worker: SharedWorker, job: Job, results: Results) -> set[int]:
        """Run all of a job; returns what was running, and not alone, when its process died."""
        doubtful: set[int] = set()
        wasted = lost = 0
        while pending := _open(job, results, doubtful):
            attempt = await self._attempt(worker, job, pending)
            lost += self._note_device(attempt)
            if lost == 1:  # a new process may find the device well again
                attempt.drop_lost()
            results |= attempt.results
            if not attempt.ending:
                continue
            if attempt.alone and len(attempt.running) == 1:
                results[attempt.running.pop()] = _crash(attempt)
            elif not attempt.running | attempt.results.keys():
                wasted += 1
            if wasted > 1:  # it dies before it begins anything
                results |= dict.fromkeys(pending, _crash(attempt))
            doubtful |= attempt.running
        return doubtful

    async def _attempt(self, worker: SharedWorker, job: Job, indices: Sequence[int]) -> Attempt:
        """Run some of a job once."""
        keys, unknown = key_paths(self._keys, job, indices)
        known = [index for index in indices if index not in unknown]
        if not known:
            return Attempt(unknown)
        try:
            process = await self._process_of(worker)
        except TacitError as error:
            return Attempt(unknown | dict.fromkeys(known, error))
        with _line(process) as line:
            grace = self._limits.grace_seconds
            attempt: Attempt = await self._on_line(process, line.run, job, known, keys, grace)
            if attempt.ending:
                await self._give_up(worker, process)
            elif attempt.lost:
                await self._give_up(worker, process, crashed=False)
        attempt.alone = process.crowd == 1
        attempt.results = unknown | {
            index: await self._heard(worker, job.work[index].owner, result)
            for index, result in attempt.results.items()
        }
        model = job.model
        answered = [i for i, result in attempt.results.items() if isinstance(result, Result)]
        worker.loaded |= {_mark(job.work[index].owner, model) for index in answered}
        return attempt

    def _note_device(self, attempt: Attempt) -> bool:
        """Remember whether the device fails; returns whether it was lost."""
        unusable = [e for e in attempt.results.values() if isinstance(e, UnusableEnvironmentError)]
        if failed := [*attempt.lost, *unusable]:
            self.device_error = str(failed[0])
        elif any(isinstance(result, Result) for result in attempt.results.values()):
            self.device_error = ""
        return bool(attempt.lost)

    async def _heard(
        self, worker: SharedWorker, owner: Owner, result: Result | TacitError
    ) -> Result | TacitError:
        """Drop keys a worker could not read; returns what the client hears."""
        if not isinstance(result, DamagedKeysError):
            return result
        if self._isolation is Isolation.OWNER and worker.process is not None:
            await self._give_up(worker, worker.process, crashed=False)
        worker.loaded = {mark for mark in worker.loaded if mark[0] != owner}
        await self._in_thread(self._keys.drop_damaged, *owner)
        return UnknownKeyError("evaluation keys stored here were damaged: upload them again")

    async def _warm(
        self, group: Group, worker: SharedWorker, owner: Owner, models: Sequence[ModelVersion]
    ) -> None:
        marks = {_mark(owner, model) for model in models}
        try:
            async with worker.place():
                if self._workers.get(group) is worker and (worker.process or self._has_room()):
                    await self._prepare(worker, owner, models)
                    marks.clear()
        except TacitError as error:
            await self._heard(worker, owner, error)
        finally:
            worker.loaded -= marks
            unused = worker.process is None and not worker.busy
            if unused and self._workers.get(group) is worker:
                del self._workers[group]

    async def _prepare(
        self, worker: SharedWorker, owner: Owner, models: Sequence[ModelVersion]
    ) -> None:
        paths = {owner: self._keys.frame_paths(*owner)}
        process = await self._process_of(worker)
        seconds = self._limits.start_seconds
        with _line(process) as line:
            try:
                await self._on_line(process, line.prepare, paths, models, seconds)
            except WorkerCrashError:
                await self._give_up(worker, process)
                raise

    async def _forget(self, owner: Owner) -> None:
        group = group_of(self._isolation, owner)
        if self._isolation is Isolation.OWNER:
            await self._stop(group)
            return
        async with self._worker(group) as worker:
            worker.loaded = {mark for mark in worker.loaded if mark[0] != owner}
            process = worker.process
            if process is None or not process.alive:
                return
            with _line(process) as line:
                await self._on_line(process, line.forget, owner, self._limits.start_seconds)

    async def _process_of(self, worker: SharedWorker) -> WorkerProcess:
        async with worker.starting:
            if worker.process is not None:
                if worker.process.alive:
                    return worker.process
                await self._give_up(worker, worker.process)
            await self._make_room()
            self._starting += 1
            try:
                command, lines = self._command, self._lines
                worker.process = await self._in_thread(WorkerProcess, command, lines)
            finally:
                self._starting -= 1
            return worker.process

    async def _give_up(
        self, worker: SharedWorker, process: WorkerProcess, *, crashed: bool = True
    ) -> None:
        """Part with a process that died, or whose keys are in doubt; the first to notice counts."""
        process.crowd = process.crowd or max(1, process.lines_in_use)
        if worker.process is process:
            worker.process = None
            worker.loaded.clear()
            self.crashes += crashed
            process.close()
            await self._in_thread(process.kill)

    async def _make_room(self) -> None:
        """Stop the worker unused longest while there are too many; busy ones are left."""
        while self._is_full():
            if idle := self._idle():
                await self._stop(idle[0])
            else:
                await asyncio.sleep(_WAIT_SECONDS)

    def _has_room(self) -> bool:
        return not self._is_full() or bool(self._idle())

    def _is_full(self) -> bool:
        return self.workers + self._starting >= self._limits.processes

    def _idle(self) -> list[Group]:
        return [group for group, w in self._workers.items() if w.process and not w.busy]

    def _processes(self) -> list[WorkerProcess]:
        found = [worker.process for worker in self._workers.values()]
        return [process for process in found if process is not None]

    async def _stop(self, group: Group) -> None:
        worker = self._workers.get(group)
        if worker is None:
            return
        async with worker.all_places():
            if self._workers.get(group) is worker:
                del self._workers[group]
            process, worker.process = worker.process, None
            if process is not None:
                process.close()
                await self._in_thread(process.wait, _STOP_SECONDS)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _LOG.error("a worker could not be prepared or told", exc_info=error)

    async def _on_line(
        self, process: WorkerProcess, function: Callable[..., Any], *arguments: Any
    ) -> Any:
        """Use a line; if we are cancelled meanwhile, the process ends with what runs in it."""
        try:
            return await self._in_thread(function, *arguments)
        except asyncio.CancelledError:
            process.kill()
            raise

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)


@contextmanager
def _line(process: WorkerProcess) -> Iterator[Line]:
    line = process.take_line()
    try:
        yield line
    finally:
        process.give_back(line)


def _open(job: Job, results: Results, doubtful: set[int]) -> list[int]:
    return [i for i in range(len(job.work)) if i not in results and i not in doubtful]


def _mark(owner: Owner, model: ModelVersion) -> tuple[Owner, str]:
    return owner, model.signature.private_digest


def _crash(attempt: Attempt) -> WorkerCrashError:
    return WorkerCrashError(
        f"the worker process died while it answered this request ({attempt.ending}); "
        "the next request gets a new one"
    )
