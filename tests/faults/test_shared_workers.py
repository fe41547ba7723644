"""Worker processes that several owners share, and what the death of one costs."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from tacit.errors import (
    InternalError,
    ResidueError,
    UnknownKeyError,
    WorkerCrashError,
)
from tacit.runtime.isolation import Isolation
from tacit.runtime.options import WorkerLimits
from tacit.runtime.requests import Job, Lane, Owner, Work
from tacit.runtime.workers import WorkerPool
from tests.faults.worker_pools import MODEL, in_pool, job, said


def joint_job(*orders: tuple[str, bytes]) -> Job:
    """A job of several owners, as (key id, order)."""
    lane = Lane("echo", "1", "", "latency", "public", orders[0][0])
    return Job(lane, MODEL, [Work([order], Owner("public", key)) for key, order in orders])


def shared(
    tmp_path: Path,
    scenario: Callable[[WorkerPool], Awaitable[None]],
    isolation: Isolation = Isolation.TENANT,
    limits: WorkerLimits | None = None,
) -> None:
    in_pool(tmp_path, scenario, limits, isolation=isolation, lines=2)


@pytest.mark.parametrize("isolation", list(Isolation), ids=lambda isolation: isolation.value)
def test_who_shares_a_process_is_what_the_isolation_says(
    tmp_path: Path, isolation: Isolation
) -> None:
    async def scenario(pool: WorkerPool) -> None:
        owners = [("a", "t"), ("b", "t"), ("a", "u"), ("b", "u")]
        jobs = [job(key, b"pid", b"keys", tenant=tenant) for key, tenant in owners]
        answers = [said(r) for r in await asyncio.gather(*(pool.run(j) for j in jobs))]
        assert [keys for _, keys in answers] == [b"a", b"b", b"a", b"b"]
        pids = [pid for pid, _ in answers]
        expected = {Isolation.OWNER: 4, Isolation.TENANT: 2, Isolation.NONE: 1}
        assert len(set(pids)) == pool.workers == expected[isolation]
        if isolation is Isolation.TENANT:
            assert pids[0] == pids[1] != pids[2] == pids[3]

    shared(tmp_path, scenario, isolation)


def test_jobs_of_owners_that_share_a_process_run_at_the_same_time(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        await pool.run(job("a", b"warm"))
        start = time.monotonic()
        await asyncio.gather(*(pool.run(job(key, b"sleep:2.0")) for key in "ab"))
        assert time.monotonic() - start < 3.9
        assert pool.workers == 1

    shared(tmp_path, scenario)


def test_in_a_shared_process_only_what_kills_it_alone_is_refused(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        await pool.run(job("a", b"warm"))
        innocent = asyncio.ensure_future(pool.run(job("a", b"sleep:0.5", b"after")))
        await asyncio.sleep(0.2)
        guilty = pool.run(job("b", b"before", b"die", b"behind"))
        assert said(await guilty) == [b"before", WorkerCrashError, b"behind"]
        assert said(await innocent) == [b"sleep:0.5", b"after"]
        assert pool.crashes == 2

    shared(tmp_path, scenario)


def test_killing_a_shared_process_costs_none_of_several_requests(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        await pool.run(job("a", b"warm"))
        running = [asyncio.ensure_future(pool.run(job(key, b"sleep:0.5"))) for key in "ab"]
        await asyncio.sleep(0.2)
        os.kill(pool.pids()[0], signal.SIGKILL)
        assert [said(await one) for one in running] == [[b"sleep:0.5"], [b"sleep:0.5"]]
        assert pool.crashes == 1

    shared(tmp_path, scenario)


def test_a_job_of_several_owners_uses_the_keys_of_each(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        orders = [("a", b"keys"), ("b", b"keys"), ("a", b"fail"), ("c", b"keys")]
        results = said(await pool.run(joint_job(*orders)))
        assert results == [b"a", b"b", ResidueError, b"c"]
        broken = [("a", b"keys"), ("broken", b"keys"), ("damaged", b"keys"), ("b", b"keys")]
        results = said(await pool.run(joint_job(*broken)))
        assert results == [b"a", ResidueError, UnknownKeyError, b"b"]

    shared(tmp_path, scenario)


def test_deleted_keys_leave_a_shared_process_that_goes_on(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        for key in "abc":
            await pool.run(job(key, b"x"))
        pids = pool.pids()
        pool.forget("public", "b")
        await asyncio.sleep(0.2)
        assert said(await pool.run(job("a", b"owners"))) == [b"a,c"]
        assert pool.pids() == pids
        assert pool.memory()[pids[0]].owners == 2

    shared(tmp_path, scenario)


def test_warm_starts_load_keys_into_a_process_that_runs(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        await pool.run(job("a", b"x"))
        for _ in range(3):
            pool.warm("public", "b", [MODEL])
        await asyncio.sleep(0.3)
        assert said(await pool.run(job("a", b"owners", b"prepared"))) == [b"a,b", b"nowhere"]
        assert pool.workers == 1

    shared(tmp_path, scenario)


def test_an_abandoned_job_that_does_not_stop_costs_nobody_else_an_answer(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        await pool.run(job("a", b"warm"))
        abandoned = job("a", b"sleep:60")
        running = asyncio.ensure_future(pool.run(abandoned))
        other = asyncio.ensure_future(pool.run(job("b", b"sleep:1.5")))
        await asyncio.sleep(0.8)
        abandoned.work[0].abandoned = True
        assert said(await asyncio.wait_for(running, 60)) == [WorkerCrashError]
        assert said(await asyncio.wait_for(other, 60)) == [b"sleep:1.5"]

    shared(tmp_path, scenario, limits=WorkerLimits(grace_seconds=0.3))


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_whatever_dies_when_every_request_hears_its_own_outcome(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    outcomes: dict[bytes, object] = {
        b"die": WorkerCrashError,
        b"fail": ResidueError,
        b"bug": InternalError,
        b"exit": WorkerCrashError,
        b"sleep:0.05": b"sleep:0.05",
    }

    async def ask(pool: WorkerPool, jobs: int) -> None:
        for _ in range(jobs):
            key = str(random.choice(list("abc")))
            orders = [
                bytes(random.choice([*outcomes, *[b"keys", b"sleep:0.05"] * 4]))
                for _ in range(random.integers(1, 5))
            ]
            expected = [outcomes.get(order, key.encode()) for order in orders]
            assert said(await pool.run(job(key, *orders))) == expected

    async def scenario(pool: WorkerPool) -> None:
        for key in "abc":
            pool.warm("public", key, [MODEL])
        await asyncio.gather(*(ask(pool, 3) for _ in range(3)))
        assert pool.workers <= 1

    in_pool(tmp_path, scenario, together=2, isolation=Isolation.TENANT, lines=2)
