"""A worker process and the places in it: how many jobs use it at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tacit.runtime.requests import Owner
from tacit.runtime.worker_process import WorkerProcess


@dataclass(slots=True, eq=False)
class SharedWorker:
    """One group's worker process, or the place for one.

    Attributes:
        places: free ones, of `lines`.
        lines: jobs that the process runs at the same time.
        process: None while there is none.
        starting: held by who starts the process.
        loaded: owners and digests of models that it should have loaded.
        busy: places taken; all of them, for one who needs to be alone, count as one.
        used_at: when a place was last given back, on the monotonic clock.
    """

    places: asyncio.Semaphore
    lines: int
    process: WorkerProcess | None = None
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    one_by_one: asyncio.Lock = field(default_factory=asyncio.Lock)
    loaded: set[tuple[Owner, str]] = field(default_factory=set)
    busy: int = 0
    used_at: float = field(default_factory=time.monotonic)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Take one place."""
        async with self.places:
            self.busy += 1
            try:
                yield
            finally:
                self.busy -= 1
                self.used_at = time.monotonic()

    @asynccontextmanager
    async def all_places(self) -> AsyncIterator[None]:
        """Take every place: nothing else runs meanwhile."""
        taken = 0
        async with self.one_by_one:
            try:
                for _ in range(self.lines):
                    await self.places.acquire()
                    taken += 1
                self.busy += 1
                yield
            finally:
                self.busy -= taken == self.lines
                self.used_at = time.monotonic()
                for _ in range(taken):
                    self.places.release()
