"""Tenants of a training server whose executor answers zeros."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tacit.runtime.server import ServerHandle
from tacit.runtime.training_service import TrainingLimits
from tacit.training import Algorithm, JobState, JobStatus, TrainingTask
from tacit.training_plan import TrainingPlan
from tests.runtime.training_servers import (
    KEY,
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


def refused(answer: httpx.Response, status: int, code: str) -> bool:
    assert answer.json().get("code") == code, answer.text
    assert answer.json()["error"].startswith(f"{code}: ")
    return answer.status_code == status
