"""Worker processes that die, hang, fail to start, or have to make room."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tacit.errors import (
    InternalError,
    ResidueError,
    UnknownKeyError,
    WorkerCrashError,
)
from tacit.runtime.options import WorkerLimits
from tacit.runtime.refusals import AbandonedError
from tacit.runtime.workers import WorkerPool
from tests.faults.worker_pools import MODEL, NamedKeys, in_pool, job, said


def test_frames_of_any_content_go_through_shared_memory(tmp_path: Path) -> None:
    orders = [b"x" * 3_000_001, b"y\x00\x00", b"z" * 64]

    async def scenario(pool: WorkerPool) -> None:
        assert said(await pool.run(job("a", *orders))) == orders

    in_pool(tmp_path, scenario)


@pytest.mark.parametrize("order", [b"die", b"exit"])
def test_a_dead_worker_fails_one_request_and_what_waited_runs_on_a_new_one(
    tmp_path: Path, order: bytes
) -> None:
    async def scenario(pool: WorkerPool) -> None:
        results = await pool.run(job("a", b"one", order, b"two", b"three"))
        assert said(results) == [b"one", WorkerCrashError, b"two", b"three"]
        assert pool.crashes == 1
        assert said(await pool.run(job("a", b"four"))) == [b"four"]

    in_pool(tmp_path, scenario)


def test_a_worker_killed_from_outside_fails_the_request_it_runs(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        await pool.run(job("a", b"warm"))
        running = asyncio.ensure_future(pool.run(job("a", b"sleep:30")))
        await asyncio.sleep(0.2)
        os.kill(pool.pids()[0], signal.SIGKILL)
        results = await asyncio.wait_for(running, 60)
        assert said(results) == [WorkerCrashError]
        assert "signal 9" in str(results[0])
        assert said(await pool.run(job("a", b"next"))) == [b"next"]

    in_pool(tmp_path, scenario)


def test_a_worker_that_died_while_idle_is_replaced_without_an_error(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        await pool.run(job("a", b"warm"))
        os.kill(pool.pids()[0], signal.SIGKILL)
        await asyncio.sleep(0.2)
        assert said(await pool.run(job("a", b"next"))) == [b"next"]
        assert pool.crashes == 1

    in_pool(tmp_path, scenario)


def test_errors_of_a_request_keep_their_class_and_bugs_do_not_leak(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        results = await pool.run(job("a", b"fail", b"bug", b"fine"))
        assert said(results) == [ResidueError, InternalError, b"fine"]
        assert "secret" not in str(results[1])
        assert pool.crashes == 0

    in_pool(tmp_path, scenario)


def test_each_key_has_its_own_process_and_its_own_keys(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        jobs = [job(key, b"pid", b"keys") for key in ("a", "b", "a", "b")]
        answers = [said(r) for r in await asyncio.gather(*(pool.run(j) for j in jobs))]
        assert [keys for _, keys in answers] == [b"a", b"b", b"a", b"b"]
        assert answers[0][0] == answers[2][0] != answers[1][0] == answers[3][0]

    in_pool(tmp_path, scenario)


def test_the_worker_unused_longest_makes_room(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        first = said(await pool.run(job("a", b"pid")))
        second = said(await pool.run(job("b", b"pid")))
        assert said(await pool.run(job("a", b"pid"))) == first
        await pool.run(job("c", b"pid"))
        assert pool.workers == 2
        assert said(await pool.run(job("a", b"pid"))) == first
        assert said(await pool.run(job("b", b"pid"))) != second

    in_pool(tmp_path, scenario, WorkerLimits(processes=2))


def test_idle_workers_stop_and_deleted_keys_take_their_worker_along(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        await pool.run(job("a", b"x"))
        await pool.run(job("b", b"x"))
        pool.forget("public", "a")
        await asyncio.sleep(0.5)
        assert pool.workers == 1
        await asyncio.sleep(0.6)
        await pool.stop_idle()
        assert pool.workers == 0

    in_pool(tmp_path, scenario, WorkerLimits(idle_seconds=1.0))


def test_keys_a_worker_refuses_or_dies_of_fail_the_request(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        assert said(await pool.run(job("broken", b"x", b"y"))) == [ResidueError, ResidueError]
        assert said(await pool.run(job("deadly", b"x"))) == [WorkerCrashError]
        assert pool.crashes == 1

    in_pool(tmp_path, scenario)


def test_an_abandoned_request_stops_at_the_next_operation(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        await pool.run(job("a", b"warm"))
        abandoned = job("a", b"steps", b"after")
        running = asyncio.ensure_future(pool.run(abandoned))
        await asyncio.sleep(0.2)
        abandoned.work[0].abandoned = True
        start = time.monotonic()
        results = await running
        assert time.monotonic() - start < 10.0  # it would have gone on for 20 seconds
        assert said(results) == [AbandonedError, b"after"]

    in_pool(tmp_path, scenario)


def test_a_worker_that_does_not_notice_is_killed_after_its_grace(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        await pool.run(job("a", b"warm"))
        abandoned = job("a", b"sleep:60")
        running = asyncio.ensure_future(pool.run(abandoned))
        await asyncio.sleep(0.5)
        abandoned.work[0].abandoned = True
        assert said(await asyncio.wait_for(running, 60)) == [WorkerCrashError]

    in_pool(tmp_path, scenario, WorkerLimits(grace_seconds=0.3))


def test_a_command_that_cannot_start_is_a_worker_crash(tmp_path: Path) -> None:
    async def main() -> Any:
        command = (sys.executable, "-c", "raise SystemExit(7)")
        pool = WorkerPool(NamedKeys(tmp_path), WorkerLimits(), command)
        results = await pool.run(job("a", b"x"))
        await pool.close()
        return results

    assert said(asyncio.run(main())) == [WorkerCrashError]


def test_descriptors_and_processes_do_not_leak(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        await pool.run(job("a", b"x", b"die"))
        await pool.run(job("a", b"x"))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            await pool.run(job("a", b"x" * 100_000, b"fail", b"die", b"y"))
        await pool.run(job("a", b"x"))
        assert len(os.listdir("/proc/self/fd")) <= before

    in_pool(tmp_path, scenario)


def test_a_warm_worker_has_its_keys_and_models_and_answers(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        pool.warm("public", "a", [MODEL])
        pool.warm("public", "a", [MODEL])
        while not pool.workers:
            await asyncio.sleep(0.01)
        pids = pool.pids()
        assert said(await pool.run(job("a", b"prepared", b"keys"))) == [b"nowhere", b"a"]
        assert pool.pids() == pids

    in_pool(tmp_path, scenario)


def test_warm_starts_take_the_place_of_idle_workers_and_never_of_busy_ones(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        busy = [asyncio.ensure_future(pool.run(job(key, b"sleep:1", b"pid"))) for key in "ab"]
        while pool.workers < 2:
            await asyncio.sleep(0.01)
        pids = pool.pids()
        pool.warm("public", "c", [MODEL])
        await asyncio.sleep(0.3)
        assert pool.pids() == pids
        answers = [said(await running)[1] for running in busy]
        assert answers == [str(pid).encode() for pid in pids]
        pool.warm("public", "c", [MODEL])
        while len(set(pool.pids()) - set(pids)) < 1:
            assert pool.workers <= 2
            await asyncio.sleep(0.01)
        assert said(await pool.run(job("c", b"prepared"))) == [b"nowhere"]
        assert pool.workers == 2
        assert pool.crashes == 0

    in_pool(tmp_path, scenario, WorkerLimits(processes=2))


def test_many_warm_starts_at_once_stay_within_the_limit(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        for key in "abcdef":
            pool.warm("public", key, [MODEL])
        answers = asyncio.gather(*(pool.run(job(key, b"keys")) for key in "fedcba"))
        while not answers.done():
            assert pool.workers <= 2
            await asyncio.sleep(0.01)
        assert [said(answer) for answer in await answers] == [[k.encode()] for k in "fedcba"]

    in_pool(tmp_path, scenario, WorkerLimits(processes=2))


def test_a_warm_start_that_fails_leaves_the_error_to_the_request(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        for key in ("broken", "deadly"):
            pool.warm("public", key, [MODEL])
        assert said(await pool.run(job("broken", b"x"))) == [ResidueError]
        assert said(await pool.run(job("deadly", b"x"))) == [WorkerCrashError]

    in_pool(tmp_path, scenario)


def test_a_closed_pool_starts_nothing(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        pool.warm("public", "a", [MODEL])
        await pool.close()
        pool.warm("public", "b", [MODEL])
        assert pool.workers == 0

    in_pool(tmp_path, scenario)


def test_damaged_keys_are_dropped_and_fail_the_request_as_unknown(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        assert said(await pool.run(job("damaged", b"x", b"y"))) == [UnknownKeyError] * 2
        assert (tmp_path / "damaged").read_bytes() == b"whole"
        assert said(await pool.run(job("damaged", b"keys"))) == [b"whole"]
        assert said(await pool.run(job("removed", b"x"))) == [UnknownKeyError]
        assert pool.crashes == 0

    in_pool(tmp_path, scenario)


def test_queued_requests_of_one_key_run_at_the_same_time_and_are_answered_in_order(
    tmp_path: Path,
) -> None:
    async def scenario(pool: WorkerPool) -> None:
        await pool.run(job("a", b"warm"))
        start = time.monotonic()
        orders = [b"sleep:2.0", b"fail", b"sleep:1.9", b"sleep:1.8"]
        results = said(await pool.run(job("a", *orders)))
        assert results == [b"sleep:2.0", ResidueError, b"sleep:1.9", b"sleep:1.8"]
        assert time.monotonic() - start < 5.5  # 5.7 s of sleep in turn, 2 s at the same time

    in_pool(tmp_path, scenario, together=4)


def test_of_requests_that_ran_together_only_the_deadly_one_is_refused(tmp_path: Path) -> None:
    async def scenario(pool: WorkerPool) -> None:
        results = said(await pool.run(job("a", b"one", b"two", b"die", b"three", b"four")))
        assert results == [b"one", b"two", WorkerCrashError, b"three", b"four"]
        assert pool.crashes == 2  # in company, and alone
        assert said(await pool.run(job("a", b"next"))) == [b"next"]

    in_pool(tmp_path, scenario, together=5)
