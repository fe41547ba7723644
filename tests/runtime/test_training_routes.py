"""What the training routes refuse, and what they answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tacit.runtime.training_service import TrainingLimits
from tests.runtime.training_customers import TASK, Customer, refused, serving
from tests.runtime.training_servers import (
    FOREIGN_KEY,
    KEY,
    OTHER_KEY,
    zeros,
)


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


def test_results_that_are_not_there_are_refused(clinic: Customer) -> None:
    job = clinic.job()
    assert refused(clinic.ask("GET", f"jobs/{job}/weights"), 409, "job_state")
    assert refused(clinic.ask("GET", f"jobs/{job}/weights?iteration=x"), 400, "bad_request")
    assert refused(clinic.ask("GET", f"jobs/{job}/validation/1"), 409, "job_state")
    assert refused(clinic.ask("GET", "jobs/none"), 404, "job_unknown")


def test_a_nonce_names_a_job_once(clinic: Customer, lab: Customer) -> None:
    job = clinic.job(nonce="first")
    assert clinic.job(nonce="first") == job
    assert clinic.job(nonce="second") != job
    lab.planned()
    assert lab.job(nonce="first") != job
