"""What the training routes refuse, and how jobs move from state to state."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tacit.errors import LevelError, WorkerCrashError
from tacit.runtime.audit import verify
from tacit.runtime.requests import Job
from tacit.runtime.server import ServerHandle
from tacit.runtime.training_runner import RunnerLimits
from tacit.runtime.training_service import TrainingLimits
from tacit.training import Algorithm, JobState, JobStatus, TrainingTask
from tacit.training_plan import TrainingPlan
from tests.runtime.training_servers import (
    FOREIGN_KEY,
    KEY,
    LATE_KEY,
    OTHER_KEY,
    TOKENS,
    SomeKeys,
    ZeroExecutor,
    training_server,
    zeros,
)

TASK = TrainingTask(Algorithm.LOGISTIC, 50, 3, 3, validation_rows=9, validation_every=2)
PATIENCE = 120.0


@dataclass
class Customer:
    """A tenant's requests."""

    http: httpx.Client
    plan: str = ""
    view: TrainingPlan | None = None

    def ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        return self.http.request(method, f"/v1/training/{path}", **given)

    def planned(self, task: TrainingTask = TASK) -> Customer:
        self.plan = self.ask("POST", "plans", json=task.to_json()).json()["plan"]
        fields = self.http.get(f"/v1/models/{self.plan}/signature").json()
        from tacit.signature import Signature

        self.view = TrainingPlan.of(Signature.from_json(fields))
        return self

    def create(self, key_id: str = KEY, **fields: Any) -> httpx.Response:
        return self.ask("POST", "jobs", json={"plan": self.plan, "key_id": key_id, **fields})

    def job(self, key_id: str = KEY, **fields: Any) -> str:
        return str(self.create(key_id, **fields).json()["job"])

    def frames(self, key_id: str = KEY, first: int = 0) -> list[bytes]:
        assert self.view is not None
        return [
            zeros(self.view.signature, spec, key_id, first)
            for spec in self.view.upload.inputs
            for _ in range(spec.layout.ciphertexts)
        ]

    def put(self, job: str, place: int, frame: bytes, upload: int = 0) -> httpx.Response:
        return self.ask("PUT", f"jobs/{job}/rows/{upload}/{place}", content=frame)

    def upload(self, job: str, key_id: str = KEY) -> None:
        for place, frame in enumerate(self.frames(key_id)):
            assert self.put(job, place, frame).status_code == 200

    def status(self, job: str) -> JobStatus:
        return JobStatus.from_json(self.ask("GET", f"jobs/{job}").json())

    def until(self, job: str, *states: JobState) -> JobStatus:
        return self.when(job, lambda status: status.state in states)

    def when(self, job: str, wanted: Callable[[JobStatus], bool]) -> JobStatus:
        end = time.monotonic() + PATIENCE
        while not wanted(status := self.status(job)):
            assert time.monotonic() < end, status
            time.sleep(0.01)
        return status


def customer(handle: ServerHandle, tenant: str = "clinic") -> Customer:
    headers = {"authorization": f"Bearer {TOKENS[tenant]}"}
    url = f"http://127.0.0.1:{handle.ports.http}"
    return Customer(httpx.Client(base_url=url, headers=headers, timeout=PATIENCE))


@contextmanager
def serving(
    root: Path,
    executor: ZeroExecutor | None = None,
    keys: SomeKeys | None = None,
    limits: TrainingLimits | None = None,
) -> Iterator[tuple[Customer, Customer]]:
    """Give the two tenants of a new server, the first with a plan."""
    with training_server(root / "models", executor or ZeroExecutor(), keys, limits) as handle:
        clinic, lab = customer(handle), customer(handle, "lab")
        try:
            yield clinic.planned(), lab
        finally:
            clinic.http.close()
            lab.http.close()


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Customer, Customer]]:
    with serving(tmp_path_factory.mktemp("shared"), limits=TrainingLimits(tenant_jobs=64)) as both:
        yield both


@pytest.fixture(scope="module")
def clinic(tenants: tuple[Customer, Customer]) -> Customer:
    return tenants[0]


@pytest.fixture(scope="module")
def lab(tenants: tuple[Customer, Customer]) -> Customer:
    return tenants[1]


def refused(answer: httpx.Response, status: int, code: str) -> bool:
    assert answer.json().get("code") == code, answer.text
    assert answer.json()["error"].startswith(f"{code}: ")
    return answer.status_code == status


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"algorithm": "svm"}, "algorithm"),
        ({"rows": 0}, "rows must be"),
        ({"degree": 4}, "degree"),
        ({"iterations": 1000}, "iterations must be"),
        ({"surprise": 1}, "surprise"),
        ({"rows": "many"}, "rows must be"),
        ({"decay": 1.5}, "decay"),
        ({"validation_rows": 5, "validation_every": 0}, "validation"),
        ({"predictions": 1}, "predictions"),
    ],
)
def test_an_impossible_task_is_refused(clinic: Customer, change: Any, says: str) -> None:
    answer = clinic.ask("POST", "plans", json=TASK.to_json() | change)
    assert refused(answer, 422, "parameters")
    assert says in answer.json()["error"]


def test_a_plan_is_compiled_once_and_served_like_a_model(clinic: Customer, lab: Customer) -> None:
    first = clinic.ask("POST", "plans", json=TASK.to_json()).json()
    again = lab.ask("POST", "plans", json=TASK.to_json()).json()
    assert again == first
    assert clinic.view is not None
    assert first["signature_digest"] == clinic.view.signature.digest
    assert first["frames"] == clinic.view.frames == 2
    assert first["upload_bytes"] >= sum(map(len, clinic.frames()))


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"plan": "training-none"}, 404, "unknown_model"),
        ({"key_id": "xyz"}, 400, "bad_request"),
        ({"uploads": 0}, 400, "bad_request"),
        ({"uploads": True}, 400, "bad_request"),
        ({"uploads": 1000}, 400, "bad_request"),
        ({"plan": 3}, 400, "bad_request"),
        ({"key_id": FOREIGN_KEY}, 409, "wire_parameters"),
    ],
)
def test_a_malformed_job_is_refused(clinic: Customer, fields: Any, status: int, code: str) -> None:
    given = {"plan": clinic.plan, "key_id": KEY, **fields}
    assert refused(clinic.ask("POST", "jobs", json=given), status, code)


def test_another_tenants_job_is_unknown(clinic: Customer, lab: Customer) -> None:
    job = clinic.job()
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("DELETE", "?forget=true"),
        ("POST", "/resume"),
        ("GET", "/weights"),
        ("GET", "/validation/2"),
        ("POST", "/predict"),
        ("PUT", "/rows/0/0"),
    ):
        assert refused(lab.ask(method, f"jobs/{job}{path}"), 404, "job_unknown")
    assert job in [each["job"] for each in clinic.ask("GET", "jobs").json()["jobs"]]
    assert job not in [each["job"] for each in lab.ask("GET", "jobs").json()["jobs"]]


def test_nobody_trains_without_a_token(clinic: Customer) -> None:
    answer = httpx.get(f"{clinic.http.base_url}/v1/training/jobs")
    assert refused(answer, 401, "unauthorized")


def test_frames_that_do_not_belong_are_refused(clinic: Customer) -> None:
    job = clinic.job()
    good = clinic.frames()[0]
    flipped = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]
    assert clinic.put(job, 0, flipped).status_code in (400, 422)
    assert clinic.put(job, 0, good[:-1]).status_code == 400
    assert refused(clinic.put(job, 0, good + bytes(1 << 20)), 413, "wire_oversized")
    assert refused(clinic.put(job, 0, clinic.frames(OTHER_KEY)[0]), 409, "wire_key")
    assert clinic.view is not None
    low = replace(clinic.view.upload.inputs[0], level=1)
    assert refused(clinic.put(job, 0, zeros(clinic.view.signature, low)), 422, "wire_level")
    assert refused(clinic.put(job, 2, good), 400, "bad_request")
    assert refused(clinic.put(job, 0, good, upload=1), 400, "bad_request")
    assert clinic.status(job).missing == ((0, 1),)


def test_an_upload_is_write_once_and_may_be_repeated(clinic: Customer) -> None:
    job = clinic.job()
    frame, other = clinic.frames()[0], clinic.frames(first=1)[0]
    assert clinic.put(job, 0, frame).status_code == 200
    assert clinic.put(job, 0, frame).status_code == 200
    assert refused(clinic.put(job, 0, other), 409, "conflict")
    assert clinic.status(job).missing == ((1,),)


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


def test_results_that_are_not_there_are_refused(clinic: Customer) -> None:
    job = clinic.job()
    assert refused(clinic.ask("GET", f"jobs/{job}/weights"), 409, "job_state")
    assert refused(clinic.ask("GET", f"jobs/{job}/weights?iteration=x"), 400, "bad_request")
    assert refused(clinic.ask("GET", f"jobs/{job}/validation/1"), 409, "job_state")
    assert refused(clinic.ask("GET", "jobs/none"), 404, "job_unknown")


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


def test_a_nonce_names_a_job_once(clinic: Customer, lab: Customer) -> None:
    job = clinic.job(nonce="first")
    assert clinic.job(nonce="first") == job
    assert clinic.job(nonce="second") != job
    lab.planned()
    assert lab.job(nonce="first") != job


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
