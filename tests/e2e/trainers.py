"""Customers who train: keys, rows, uploads and results over HTTP; insecure parameters."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from tacit.client.codec import Codec
from tacit.client.keys import KeyPair
from tacit.client.service import KeyDeclaration, Service
from tacit.runtime.training_store import split_frames
from tacit.training import JobState, JobStatus, TrainingTask
from tacit.training_plan import MOMENTS, PREDICT, PREDICT_ROWS, TrainingPlan

Floats = NDArray[np.float64]
PATIENCE = 300.0


@dataclass(frozen=True)
class Trainer:
    """Keys for a training, made once."""

    name: str
    plan: TrainingPlan
    keys: KeyPair
    codec: Codec

    @classmethod
    def make(cls, url: str, task: TrainingTask, folder: Path) -> Trainer:
        answer = httpx.post(f"{url}/v1/training/plans", json=task.to_json(), timeout=PATIENCE)
        answer.raise_for_status()
        with Service(url) as service:
            signature = service.signature(answer.json()["plan"])
        keys = KeyPair.for_model(signature, folder, allow_insecure=True)
        plan = TrainingPlan.of(signature)
        return cls(answer.json()["plan"], plan, keys, Codec(signature, keys))

    def upload_keys(self, url: str) -> None:
        facts, signature = self.keys.facts, self.plan.signature
        declared = KeyDeclaration(
            self.keys.key_id, facts.params.digest.hex(), signature.key_config, facts.frames
        )
        with Service(url) as service:
            missing = service.declare_keys(declared)
            for entry in facts.frames:
                if entry.sha256 in missing:
                    path = self.keys.folder.file(entry)
                    service.upload_frame(declared.key_id, entry, path, lambda count: None)

    def encrypted(
        self, rows: Floats, labels: Floats | None = None, validation: Floats | None = None
    ) -> list[bytes]:
        return self.encrypted_part(rows, labels, validation, 0)

    def encrypted_part(
        self, rows: Floats, labels: Floats | None, validation: Floats | None, first: int
    ) -> list[bytes]:
        vectors = self.plan.packed(rows, labels, validation, first)
        (frames,) = self.codec.encrypt(self.plan.upload, vectors)
        return frames

    def weights(self, iteration: int, content: bytes) -> Floats:
        plan = self.plan.weights_plan(iteration)
        frames = [[bytes(frame)] for frame in split_frames(memoryview(content))]
        return self.plan.weights(self.codec.decrypt(plan, frames)[:, 0])

    def margins(self, iteration: int, content: bytes, rows: int) -> Floats:
        plan = self.plan.validation_plan(iteration)
        return self._margins(self.codec.decrypt(plan, self._by_class(content)), rows)

    def moments(self, content: bytes) -> Floats:
        frames = [bytes(frame) for frame in split_frames(memoryview(content))]
        return self.plan.moments(self.codec.decrypt(self.plan.signature.plan(MOMENTS), [frames])[0])

    def asked(self, rows: Floats) -> bytes:
        """Encrypt one ciphertext of rows to be predicted."""
        plan = self.plan.signature.plan(PREDICT_ROWS)
        layout = plan.inputs[0].layout
        padded = np.zeros((layout.size, rows.shape[1]))
        padded[: len(rows)] = rows
        ((frame,),) = self.codec.encrypt(plan, layout.pack(padded.T)[None])
        return frame

    def predicted(self, content: bytes, rows: int) -> Floats:
        plan = self.plan.signature.plan(PREDICT)
        return self._margins(self.codec.decrypt(plan, self._by_class(content)), rows)

    def _by_class(self, content: bytes) -> list[list[bytes]]:
        frames = [bytes(frame) for frame in split_frames(memoryview(content))]
        each = len(frames) // self.plan.task.classes
        return [frames[i * each : (i + 1) * each] for i in range(self.plan.task.classes)]

    def _margins(self, vectors: Floats, rows: int) -> Floats:
        return self.plan.margins(vectors, rows)


class Jobs:
    """A client of the training routes; every request is made until it is answered."""

    def __init__(self, url: Callable[[], str], token: str = "") -> None:
        self._url = url
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(headers=headers, timeout=PATIENCE)

    def __enter__(self) -> Jobs:
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.close()

    def ask(self, method: str, path: str, **given: object) -> httpx.Response:
        """Send one request; a server that is not there (yet) is asked again."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                url = f"{self._url()}/v1/training/{path}"
                return self._http.request(method, url, **given)  # type: ignore[arg-type]
            except httpx.TransportError:
                assert time.monotonic() < end
                time.sleep(0.05)

    def create(self, trainer: Trainer, uploads: int = 1, nonce: str = "") -> str:
        fields = {"plan": trainer.name, "key_id": trainer.keys.key_id, "uploads": uploads}
        answer = self.ask("POST", "jobs", json=fields | ({"nonce": nonce} if nonce else {}))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job"])

    def upload(self, job: str, frames: Sequence[bytes], upload: int = 0) -> None:
        for place, frame in enumerate(frames):
            answer = self.ask("PUT", f"jobs/{job}/rows/{upload}/{place}", content=frame)
            assert answer.status_code == 200, answer.text

    def status(self, job: str) -> JobStatus:
        answer = self.ask("GET", f"jobs/{job}")
        assert answer.status_code == 200, answer.text
        return JobStatus.from_json(answer.json())

    def ended(self, job: str) -> JobStatus:
        """Wait for the end."""
        return self.until(job, lambda status: status.state.ended)

    def until(self, job: str, wanted: Callable[[JobStatus], bool]) -> JobStatus:
        end = time.monotonic() + PATIENCE
        while not wanted(status := self.status(job)):
            assert time.monotonic() < end, status
            time.sleep(0.02)
        return status

    def read(self, job: str, what: str) -> bytes:
        answer = self.ask("GET", f"jobs/{job}/{what}")
        assert answer.status_code == 200, answer.text
        return answer.content

    def finished(self, job: str) -> bytes:
        """Wait for a job's success; returns the encrypted weights."""
        status = self.ended(job)
        assert status.state is JobState.DONE, status
        return self.read(job, "weights")
