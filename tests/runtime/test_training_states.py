"""How training jobs move from state to state, through failures and quotas too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tacit.errors import LevelError, WorkerCrashError
from tacit.runtime.audit import verify
from tacit.runtime.requests import Job
from tacit.runtime.training_runner import RunnerLimits
from tacit.runtime.training_service import TrainingLimits
from tacit.training import JobState, JobStatus
from tests.runtime.training_customers import TASK, refused, serving
from tests.runtime.training_servers import (
    KEY,
    LATE_KEY,
    SomeKeys,
    ZeroExecutor,
)


def test_a_job_runs_by_itself_once_rows_and_keys_are_there(tmp_path: Path) -> None:
    executor, keys = ZeroExecutor(), SomeKeys()
    with serving(tmp_path, executor, keys) as (clinic, _):
        job = clinic.job(LATE_KEY)
        assert clinic.status(job).state is JobState.WAITING_FOR_ROWS
        clinic.upload(job, LATE_KEY)
        assert clinic.status(job).state is JobState.WAITING_FOR_KEYS
        keys.there.add(LATE_KEY)
        status = clinic.until(job, JobState.DONE)
        assert (status.done, status.of, status.validations) == (3, 3, (2,))
        names = [plan for _, plan in executor.ran]
        assert [n for n in names if n.startswith("iteration")] == [
            "iteration-1",
            "iteration-2",
            "iteration-3",
        ]
        assert status.seconds == pytest.approx(0.004 * len(names))
        assert clinic.ask("GET", f"jobs/{job}/weights").headers["tacit-iteration"] == "3"
        assert refused(clinic.put(job, 0, clinic.frames(LATE_KEY, 1)[0]), 409, "conflict")
        assert refused(clinic.ask("POST", f"jobs/{job}/resume"), 409, "job_state")
        assert refused(clinic.ask("POST", f"jobs/{job}/predict", content=b""), 409, "job_state")
    lines = (tmp_path / "models-audit").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert events[:5] == [
        "training_plan",
        "training_created",
        "training_queued",
        "training_running",
        "training_done",
    ]
    verify(tmp_path / "models-audit")


def test_a_cancelled_job_keeps_what_is_done_and_can_be_resumed(tmp_path: Path) -> None:
    reached: list[str] = []
    executor = ZeroExecutor(seconds=0.05, before=lambda job: reached.append(job.lane.plan))
    with serving(tmp_path, executor) as (clinic, _):
        job = clinic.job()
        clinic.upload(job)
        clinic.when(job, lambda status: status.done >= 1)
        cancelled = JobStatus.from_json(clinic.ask("DELETE", f"jobs/{job}").json())
        assert cancelled.state is JobState.CANCELLED
        assert "cancelled" in cancelled.reason
        frame = clinic.frames(first=1)[0]
        assert refused(clinic.put(job, 0, frame), 409, "conflict")
        assert clinic.ask("GET", f"jobs/{job}/weights").status_code == 200
        reached.clear()
        assert clinic.ask("POST", f"jobs/{job}/resume").status_code == 200
        assert clinic.until(job, JobState.DONE).done == 3
        assert "iteration-1" not in reached
        ended = clinic.ask("DELETE", f"jobs/{job}")
        assert ended.json()["state"] == "done"


def test_a_forgotten_job_leaves_no_ciphertext(tmp_path: Path) -> None:
    executor = ZeroExecutor(seconds=0.05)
    with serving(tmp_path, executor) as (clinic, _):
        job = clinic.job()
        clinic.upload(job)
        clinic.until(job, JobState.RUNNING, JobState.DONE)
        answer = clinic.ask("DELETE", f"jobs/{job}?forget=true")
        assert answer.json() == {"job": job, "forgotten": True}
        assert refused(clinic.ask("GET", f"jobs/{job}"), 404, "job_unknown")
        assert not list((tmp_path / "models" / ".tacit-training" / "jobs").iterdir())


def test_a_failure_says_why_and_the_job_may_go_on(tmp_path: Path) -> None:
    executor = ZeroExecutor(errors=[LevelError("no level is left")])
    with serving(tmp_path, executor) as (clinic, _):
        job = clinic.job()
        clinic.upload(job)
        failed = clinic.until(job, JobState.FAILED)
        assert failed.reason == "level: no level is left"
        clinic.ask("POST", f"jobs/{job}/resume")
        assert clinic.until(job, JobState.DONE).reason == ""


def test_a_worker_that_dies_is_tried_again_but_not_for_ever(tmp_path: Path) -> None:
    crash = WorkerCrashError("the worker process died")
    executor = ZeroExecutor(errors=[crash, crash])
    with serving(tmp_path, executor) as (clinic, _):
        job = clinic.job()
        clinic.upload(job)
        assert clinic.until(job, JobState.DONE, JobState.FAILED).state is JobState.DONE
        executor.errors += [crash] * 3
        job = clinic.job()
        clinic.upload(job)
        failed = clinic.until(job, JobState.DONE, JobState.FAILED)
        assert failed.reason == "worker_crash: the worker process died"


def test_keys_that_are_deleted_under_a_job_make_it_wait(tmp_path: Path) -> None:
    from tacit.errors import UnknownKeyError

    keys = SomeKeys()

    def lose(job: Job) -> None:
        keys.there.discard(KEY)

    executor = ZeroExecutor(errors=[UnknownKeyError("upload the keys again")], before=lose)
    with serving(tmp_path, executor, keys) as (clinic, _):
        job = clinic.job()
        clinic.upload(job)
        waiting = clinic.until(job, JobState.WAITING_FOR_KEYS)
        assert "upload the keys again" in waiting.reason
        executor.before = lambda job: None
        keys.there.add(KEY)
        clinic.until(job, JobState.DONE)


def test_quotas_of_jobs_and_bytes_are_kept(tmp_path: Path) -> None:
    with serving(tmp_path, limits=TrainingLimits(tenant_jobs=2)) as (clinic, lab):
        jobs = [clinic.job() for _ in range(2)]
        assert refused(clinic.create(), 429, "busy")
        lab.planned()
        assert lab.create().status_code == 200
        clinic.ask("DELETE", f"jobs/{jobs[0]}")
        assert clinic.create().status_code == 200
        assert refused(clinic.ask("POST", f"jobs/{jobs[0]}/resume"), 429, "busy")


def test_the_quota_of_bytes_counts_jobs_until_they_are_forgotten(tmp_path: Path) -> None:
    with serving(tmp_path, limits=TrainingLimits(tenant_bytes=3 << 20)) as (clinic, _):
        job = clinic.job()
        assert refused(clinic.create(), 507, "storage_full")
        clinic.ask("DELETE", f"jobs/{job}?forget=true")
        assert clinic.create().status_code == 200


def test_compiled_trainings_make_room_unless_a_job_needs_them(tmp_path: Path) -> None:
    with serving(tmp_path, limits=TrainingLimits(plans=2)) as (clinic, _):
        first, job = clinic.plan, clinic.job()
        second = clinic.planned(replace(TASK, iterations=2)).plan
        clinic.planned(replace(TASK, iterations=1))
        kept = {path.name for path in (tmp_path / "models" / ".tacit-training/plans").iterdir()}
        assert kept == {first, clinic.plan}
        gone = clinic.ask("POST", "jobs", json={"plan": second, "key_id": KEY})
        assert refused(gone, 404, "unknown_model")
        clinic.job()
        answer = clinic.ask("POST", "plans", json=replace(TASK, features=2).to_json())
        assert refused(answer, 507, "storage_full")
        clinic.ask("DELETE", f"jobs/{job}?forget=true")
        assert clinic.ask("POST", "plans", json=replace(TASK, features=2).to_json()).is_success


def test_jobs_take_turns(tmp_path: Path) -> None:
    executor = ZeroExecutor(seconds=0.01)
    limits = TrainingLimits(runner=RunnerLimits(turn_seconds=0.0))
    with serving(tmp_path, executor, limits=limits) as (clinic, lab):
        lab.planned()
        jobs = [(who, who.job()) for who in (clinic, lab)]
        for who, job in jobs:
            who.upload(job)
        for who, job in jobs:
            who.until(job, JobState.DONE)
        order = [who for who, plan in executor.ran if plan.startswith("iteration")]
        assert sorted(order) == ["clinic"] * 3 + ["lab"] * 3


def test_a_server_that_starts_again_goes_on_with_every_job(tmp_path: Path) -> None:
    keys = SomeKeys()
    with serving(tmp_path, keys=keys) as (clinic, _):
        waiting = clinic.job(LATE_KEY)
        clinic.upload(waiting, LATE_KEY)
        half = clinic.job()
        clinic.put(half, 1, clinic.frames()[1])
        cancelled = clinic.job()
        clinic.ask("DELETE", f"jobs/{cancelled}")
    keys.there.add(LATE_KEY)
    with serving(tmp_path, keys=keys) as (clinic, _):
        clinic.until(waiting, JobState.DONE)
        assert clinic.status(half).missing == ((0,),)
        assert clinic.status(cancelled).state is JobState.CANCELLED


def test_progress_and_metrics_are_there(tmp_path: Path) -> None:
    with serving(tmp_path, ZeroExecutor(seconds=0.05)) as (clinic, _):
        job = clinic.job()
        clinic.upload(job)
        seen = clinic.when(job, lambda status: status.done >= 1)
        assert seen.seconds_left is not None
        clinic.until(job, JobState.DONE)
        assert "tacit_training_units 3" in clinic.http.get("/metrics").text
        counts = clinic.http.get("/v1/status").json()["training_jobs"]
        assert counts["done"] == 1
