"""What a client asks a server about trainings: plans, jobs, rows, weights; plain HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from tacit.client.service import Service
from tacit.errors import ParameterError, ServiceError, TruncatedError
from tacit.training import JobStatus, TrainingTask
from tacit.wire import frame_length

_PREFIX_BYTES = 64


@dataclass(frozen=True, slots=True)
class PlannedTraining:
    """What the server says of a training before anything is sent.

    Attributes:
        plan: name of the artifact, whose signature is fetched like a model's.
        seconds: predicted.
        key_bytes: of the evaluation keys.
        upload_bytes: of the encrypted rows.
    """

    plan: str
    seconds: float
    key_bytes: int
    upload_bytes: int


class TrainingService(Service):
    """A connection to one server that trains."""

    def __enter__(self) -> TrainingService:
        return self

    def planned(self, task: TrainingTask) -> PlannedTraining:
        """Have a training compiled, or find it.

        Raises:
            ParameterError: it cannot be done at 128 bits, or within the server's limits.
        """
        fields = self._json("POST", "/v1/training/plans", task.to_json())
        if not isinstance(fields, dict):
            raise self._not_ours("a training plan")
        try:
            return PlannedTraining(
                str(fields["plan"]),
                float(str(fields["seconds"])),
                int(str(fields["key_bytes"])),
                int(str(fields["upload_bytes"])),
            )
        except (KeyError, ValueError) as error:
            raise self._not_ours("a training plan") from error

    def begin(self, plan: str, key_id: str, nonce: str, uploads: int = 1) -> JobStatus:
        """Open a job; the same nonce opens it once only. Each of several parties has an upload."""
        body = {"plan": plan, "key_id": key_id, "uploads": uploads, "nonce": nonce}
        return self._status(self._json("POST", "/v1/training/jobs", body))

    def jobs(self) -> list[JobStatus]:
        """List the tenant's jobs, the newest first."""
        fields = self._json("GET", "/v1/training/jobs")
        jobs = fields.get("jobs") if isinstance(fields, dict) else None
        if not isinstance(jobs, list):
            raise self._not_ours("a list of jobs")
        return [self._status(job) for job in jobs]

    def status(self, job: str) -> JobStatus:
        """Ask how far a job is."""
        return self._status(self._json("GET", _path(job)))

    def send_rows(self, job: str, number: int, frame: bytes, upload: int = 0) -> JobStatus:
        """Send one ciphertext of rows; the same bytes may be sent again."""
        with self._reaching():
            answer = self._http.put(f"{_path(job)}/rows/{upload}/{number}", content=frame)
        return self._status(self._body(answer))

    def resume(self, job: str) -> JobStatus:
        """Have a cancelled or failed job go on."""
        return self._status(self._json("POST", f"{_path(job)}/resume"))

    def cancel(self, job: str) -> JobStatus:
        """Stop a job."""
        return self._status(self._json("DELETE", _path(job)))

    def forget(self, job: str) -> None:
        """Have a job and its ciphertexts deleted."""
        self._json("DELETE", f"{_path(job)}?forget=true")

    def weights(self, job: str, iteration: int | None = None) -> list[bytes]:
        """Fetch encrypted weights, or moments."""
        query = "" if iteration is None else f"?iteration={iteration}"
        return self._frames("GET", f"{_path(job)}/weights{query}")

    def validation(self, job: str, iteration: int) -> list[bytes]:
        """Fetch the encrypted margins of the validation rows."""
        return self._frames("GET", f"{_path(job)}/validation/{iteration}")

    def predict(self, job: str, frames: Sequence[bytes]) -> list[bytes]:
        """Have encrypted rows multiplied by the encrypted weights."""
        return self._frames("POST", f"{_path(job)}/predict", b"".join(frames))

    def _frames(self, method: str, path: str, body: bytes | None = None) -> list[bytes]:
        with self._reaching():
            answer = self._http.request(method, path, content=body)
        if answer.status_code != httpx.codes.OK:
            self._body(answer)
        return list(_cut(answer.content))

    def _status(self, fields: object) -> JobStatus:
        if not isinstance(fields, dict):
            raise self._not_ours("the status of a training")
        try:
            return JobStatus.from_json(fields)
        except ParameterError as error:
            raise self._not_ours("the status of a training") from error


def _path(job: str) -> str:
    return f"/v1/training/jobs/{quote(job, safe='')}"


def _cut(content: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(content):
        length = frame_length(content[at : at + _PREFIX_BYTES])
        if length <= 0 or at + length > len(content):
            raise TruncatedError("the answer ends within a ciphertext")
        yield content[at : at + length]
        at += length


def is_unreachable(error: ServiceError) -> bool:
    """Tell a server that nobody reached from one that refused."""
    return isinstance(error.__cause__, httpx.TransportError)
