"""Pools of echoing workers, whose keys are files named after the key id."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tacit.errors import (
    TacitError,
)
from tacit.runtime.isolation import Isolation
from tacit.runtime.options import WorkerLimits
from tacit.runtime.repository import ModelVersion
from tacit.runtime.requests import Job, Lane, Result, Work
from tacit.runtime.workers import WorkerPool
from tests.runtime.models import TINY_INSECURE, echo_artifact

COMMAND = (sys.executable, str(Path(__file__).with_name("echo_worker.py")))
MODEL = ModelVersion("echo", "1", Path("/nowhere"), echo_artifact(TINY_INSECURE).signature)


def job(key_id: str, *orders: bytes, tenant: str = "public") -> Job:
    lane = Lane("echo", "1", "", "latency", tenant, key_id)
    return Job(lane, MODEL, [Work([order], lane.owner) for order in orders])


def said(results: Sequence[Result | TacitError]) -> list[object]:
    return [
        b"".join(bytes(f) for f in r.frames) if isinstance(r, Result) else type(r) for r in results
    ]


@dataclass
class NamedKeys:
    """Keys that hold their own name, unless they were removed from disk or are damaged."""

    folder: Path

    def frame_paths(self, tenant: str, key_id: str) -> list[Path]:
        if key_id == "removed":
            return [self.folder / "nothing"]
        path = self.folder / key_id
        if not path.exists():
            path.write_bytes(key_id.encode())
        return [path]

    def drop_damaged(self, tenant: str, key_id: str) -> int:
        (self.folder / key_id).write_bytes(b"whole")
        return 1


def in_pool(
    tmp_path: Path,
    scenario: Callable[[WorkerPool], Awaitable[None]],
    limits: WorkerLimits | None = None,
    together: int = 1,
    isolation: Isolation = Isolation.OWNER,
    lines: int = 1,
) -> None:
    """Run a scenario on a pool whose keys are files named after the key id."""

    async def main() -> None:
        command, kept = (*COMMAND, str(together)), limits or WorkerLimits()
        pool = WorkerPool(NamedKeys(tmp_path), kept, command, isolation, lines)
        try:
            await scenario(pool)
        finally:
            pids = pool.pids()
            await pool.close()
            assert not any(alive(pid) for pid in pids)

    asyncio.run(main())


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
