"""Queues by lane: joining, bounds, deadlines, abandoned requests, never two keys in one job."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.errors import InternalError, ResidueError, TacitError
from tacit.runtime.batcher import Batcher, QueueLimits
from tacit.runtime.refusals import BusyError, DeadlineError, StoppingError
from tacit.runtime.repository import ModelVersion
from tacit.runtime.requests import Job, Lane, Result, Timing
from tests.runtime.models import TINY_INSECURE, echo_artifact

MODEL = ModelVersion("m", "1", Path("/nowhere"), echo_artifact(TINY_INSECURE).signature)


def lane(key_id: str = "a", tenant: str = "t") -> Lane:
    return Lane("m", "1", "digest", "latency", tenant, key_id)


@dataclass
class Gate:
    """An executor that waits for `open`, and fails on frames that say so."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    jobs: list[Job] = field(default_factory=list)
    running: int = 0
    most_running: int = 0

    async def run(self, job: Job) -> Sequence[Result | TacitError]:
        self.jobs.append(job)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await self.open.wait()
        self.running -= 1
        if any(work.frames == [b"explode"] for work in job.work):
            raise ZeroDivisionError
        return [
            ResidueError("bad") if work.frames == [b"bad"] else Result(work.frames, Timing())
            for work in job.work
        ]

    async def close(self) -> None:
        return None


def play(
    scenario: Callable[[Batcher, Gate], Awaitable[None]], limits: QueueLimits | None = None
) -> None:
    async def main() -> None:
        gate = Gate()
        batcher = Batcher(gate, limits or QueueLimits(), lambda job: None)
        await asyncio.wait_for(scenario(batcher, gate), 120)

    asyncio.run(main())


async def ask(batcher: Batcher, frame: bytes, to: Lane, seconds: float = 10.0) -> bytes:
    result, _ = await batcher.submit(to, MODEL, [frame], seconds)
    return bytes(result.frames[0])


OWNERS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("tu")), min_size=1, max_size=20)


async def all_ask(batcher: Batcher, gate: Gate, owners: list[tuple[str, str]]) -> None:
    """Have owners, (key, tenant), ask at once; each must hear its own answer."""
    asking = [
        asyncio.ensure_future(ask(batcher, f"{key}{tenant}{i}".encode(), lane(key, tenant)))
        for i, (key, tenant) in enumerate(owners)
    ]
    await asyncio.sleep(0)
    gate.open.set()
    answers = await asyncio.gather(*asking)
    assert answers == [f"{k}{t}{i}".encode() for i, (k, t) in enumerate(owners)]


def test_what_waits_for_one_key_is_joined_up_to_the_limit() -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        asking = [asyncio.ensure_future(ask(batcher, bytes([i]), lane())) for i in range(6)]
        await asyncio.sleep(0.01)
        gate.open.set()
        assert await asyncio.gather(*asking) == [bytes([i]) for i in range(6)]
        assert [len(job.work) for job in gate.jobs] == [4, 2]

    play(scenario, QueueLimits(joined=4, parallel=1))


@settings(max_examples=30, deadline=None)
@given(OWNERS, st.integers(1, 4), st.integers(1, 3))
def test_a_job_never_mixes_keys_or_tenants(
    owners: list[tuple[str, str]], joined: int, parallel: int
) -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        await all_ask(batcher, gate, owners)
        for job in gate.jobs:
            owner = f"{job.lane.key_id}{job.lane.tenant}".encode()
            assert all(bytes(work.frames[0]).startswith(owner) for work in job.work)
        assert gate.most_running <= parallel

    play(scenario, QueueLimits(waiting=100, joined=joined, parallel=parallel))


def test_a_full_queue_refuses_at_once() -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = asyncio.ensure_future(ask(batcher, b"runs", lane()))
        await asyncio.sleep(0.01)
        waiting = [asyncio.ensure_future(ask(batcher, b"waits", lane())) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(BusyError, match="2 requests are waiting"):
            await ask(batcher, b"late", lane("b"))
        gate.open.set()
        await asyncio.gather(first, *waiting)
        assert await ask(batcher, b"again", lane("b")) == b"again"

    play(scenario, QueueLimits(waiting=2, parallel=1))


def test_a_deadline_passes_in_the_queue_and_in_the_worker() -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        asking = [asyncio.ensure_future(ask(batcher, b"x", lane(key), 0.05)) for key in ("a", "b")]
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(answer) for answer in answers] == [DeadlineError, DeadlineError]
        gate.open.set()
        assert await ask(batcher, b"next", lane("b")) == b"next"
        assert len(gate.jobs) == 2  # the one that waited in the queue never ran

    play(scenario, QueueLimits(parallel=1))


def test_an_abandoned_request_leaves_the_queue_or_is_marked() -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        runs = asyncio.ensure_future(ask(batcher, b"runs", lane()))
        await asyncio.sleep(0.01)
        waits = asyncio.ensure_future(ask(batcher, b"waits", lane()))
        await asyncio.sleep(0.01)
        assert batcher.waiting == 1
        for asking in (waits, runs):
            asking.cancel()
        await asyncio.gather(runs, waits, return_exceptions=True)
        assert batcher.waiting == 0
        assert gate.jobs[0].work[0].abandoned
        gate.open.set()
        assert await ask(batcher, b"next", lane()) == b"next"
        assert [work.frames for job in gate.jobs for work in job.work] == [[b"runs"], [b"next"]]

    play(scenario, QueueLimits(parallel=1))


def test_one_failed_request_of_a_job_fails_alone() -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        gate.open.set()
        asking = [ask(batcher, frame, lane()) for frame in (b"good", b"bad", b"fine")]
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(answer) for answer in answers] == [bytes, ResidueError, bytes]

    play(scenario)


def test_an_executor_that_breaks_fails_its_requests_and_not_the_next() -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        gate.open.set()
        with pytest.raises(InternalError, match="ZeroDivisionError"):
            await ask(batcher, b"explode", lane())
        assert await ask(batcher, b"next", lane()) == b"next"

    play(scenario)


def test_draining_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        accepted = asyncio.ensure_future(ask(batcher, b"accepted", lane()))
        await asyncio.sleep(0.01)
        draining = asyncio.ensure_future(batcher.drain(10))
        await asyncio.sleep(0.01)
        with pytest.raises(StoppingError):
            await ask(batcher, b"late", lane())
        gate.open.set()
        assert await accepted == b"accepted"
        await draining

    play(scenario)


def test_draining_gives_up_after_its_time() -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        asking = [asyncio.ensure_future(ask(batcher, b"x", lane(key))) for key in ("a", "b")]
        await asyncio.sleep(0.01)
        await batcher.drain(0.05)
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoppingError, StoppingError]

    play(scenario, QueueLimits(parallel=1))


def shared_by_tenant(lane: Lane) -> tuple[str, ...]:
    return lane.model, lane.version, lane.digest, lane.plan, lane.tenant


def play_shared(scenario: Callable[[Batcher, Gate], Awaitable[None]], limits: QueueLimits) -> None:
    async def main() -> None:
        gate = Gate()
        batcher = Batcher(gate, limits, lambda job: None, shared_by_tenant)
        await asyncio.wait_for(scenario(batcher, gate), 120)

    asyncio.run(main())


def test_owners_of_a_tenant_are_joined_into_one_job_each_with_its_own_keys() -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = asyncio.ensure_future(ask(batcher, b"first", lane("a")))
        await asyncio.sleep(0.01)
        asking = [asyncio.ensure_future(ask(batcher, key.encode(), lane(key))) for key in "abcab"]
        await asyncio.sleep(0.01)
        gate.open.set()
        assert await first == b"first"
        assert await asyncio.gather(*asking) == [b"a", b"b", b"c", b"a", b"b"]
        (joint,) = gate.jobs[1:]
        used = sorted((work.owner.key_id, bytes(work.frames[0])) for work in joint.work)
        assert used == [("a", b"a"), ("a", b"a"), ("b", b"b"), ("b", b"b"), ("c", b"c")]

    play_shared(scenario, QueueLimits(parallel=1, owners=3))


@settings(max_examples=30, deadline=None)
@given(OWNERS, st.integers(1, 4), st.integers(1, 3))
def test_a_joint_job_keeps_its_limits_and_never_mixes_tenants(
    owners: list[tuple[str, str]], joined: int, most_owners: int
) -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        await all_ask(batcher, gate, owners)
        for job in gate.jobs:
            assert len(job.work) <= joined
            assert len({work.owner for work in job.work}) <= most_owners
            for work in job.work:
                assert work.owner.tenant == job.lane.tenant
                assert bytes(work.frames[0]).startswith("".join(reversed(work.owner)).encode())

    limits = QueueLimits(waiting=100, joined=joined, parallel=2, owners=most_owners)
    play_shared(scenario, limits)


def test_an_abandoned_request_of_another_owner_leaves_the_joint_job_as_it_is() -> None:
    async def scenario(batcher: Batcher, gate: Gate) -> None:
        first = asyncio.ensure_future(ask(batcher, b"first", lane("a")))
        await asyncio.sleep(0.01)
        asking = [asyncio.ensure_future(ask(batcher, k.encode(), lane(k))) for k in "abc"]
        await asyncio.sleep(0.01)
        asking[1].cancel()
        gate.open.set()
        answers = await asyncio.gather(first, *asking, return_exceptions=True)
        assert answers[:2] == [b"first", b"a"]
        assert answers[3] == b"c"
        assert [len(job.work) for job in gate.jobs] == [1, 2]

    play_shared(scenario, QueueLimits(parallel=1, owners=3))
