"""Routes of training under /v1/training; docs/serving.md describes them."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tacit.runtime.bodies import Body, Memory
from tacit.runtime.http_json import read_small_json
from tacit.runtime.refusals import BadRequestError
from tacit.runtime.requests import Frame
from tacit.runtime.training_service import TrainingService
from tacit.runtime.training_store import JobRow, split_frames
from tacit.training import JobState

_LARGEST_TASK = 1 << 16
_BASE = "/v1/training"
ITERATION_HEADER = "tacit-iteration"


class TrainingRoutes:
    """Handlers of the training routes."""

    def __init__(
        self,
        training: TrainingService,
        memory: Memory,
        idle_seconds: float,
        body_bytes: int,
        seconds: float,
    ) -> None:
        self._training = training
        self._memory = memory
        self._idle_seconds = idle_seconds
        self._body_bytes = body_bytes
        self._seconds = seconds

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        job = f"{_BASE}/jobs/{{job}}"
        return [
            Route(f"{_BASE}/plans", self.plan, methods=["POST"]),
            Route(f"{_BASE}/jobs", self.create, methods=["POST"]),
            Route(f"{_BASE}/jobs", self.jobs, methods=["GET"]),
            Route(job, self.job, methods=["GET"]),
            Route(job, self.cancel, methods=["DELETE"]),
            Route(f"{job}/resume", self.resume, methods=["POST"]),
            Route(f"{job}/rows/{{upload:int}}/{{place:int}}", self.rows, methods=["PUT"]),
            Route(f"{job}/weights", self.weights, methods=["GET"]),
            Route(f"{job}/validation/{{iteration:int}}", self.validation, methods=["GET"]),
            Route(f"{job}/predict", self.predict, methods=["POST"]),
        ]

    async def plan(self, request: Request) -> Response:
        """POST: compile a task, or find it compiled."""
        fields = await read_small_json(request, self._memory, _LARGEST_TASK)
        found = await asyncio.to_thread(self._training.plan, _tenant(request), fields)
        return JSONResponse(found)

    async def create(self, request: Request) -> Response:
        """POST: make a job."""
        fields = await read_small_json(request, self._memory, _LARGEST_TASK)
        row = await asyncio.to_thread(self._training.create, _tenant(request), fields)
        return await self._answer(row)

    async def jobs(self, request: Request) -> Response:
        """GET: the tenant's jobs."""
        found = await asyncio.to_thread(self._training.statuses, _tenant(request))
        return JSONResponse({"jobs": [status.to_json() for status in found]})

    async def job(self, request: Request) -> Response:
        """GET: state and progress of a job."""
        row = await asyncio.to_thread(self._training.find, *_names(request))
        return await self._answer(row)

    async def cancel(self, request: Request) -> Response:
        """DELETE: cancel a job; with ?forget=true remove it."""
        tenant, job = _names(request)
        row = await asyncio.to_thread(self._training.cancel, tenant, job)
        self._training.runner.interrupt(job)
        if request.query_params.get("forget", "false") != "true":
            return await self._answer(row)
        await self._training.runner.settled(job)
        await asyncio.to_thread(self._training.forget, tenant, job)
        return JSONResponse({"job": job, "forgotten": True})

    async def resume(self, request: Request) -> Response:
        """POST: go on with a cancelled or failed job."""
        await asyncio.to_thread(self._training.resume, *_names(request))
        await self._training.runner.queue_ready()
        return await self._answer(await asyncio.to_thread(self._training.find, *_names(request)))

    async def rows(self, request: Request) -> Response:
        """PUT: one ciphertext of an upload."""
        tenant, job = _names(request)
        row = await asyncio.to_thread(self._training.find, tenant, job)
        upload, place = (int(request.path_params[key]) for key in ("upload", "place"))
        body = self._body(request)
        try:
            frame = await body.read(self._training.upload_bytes(row))
            row = await asyncio.to_thread(self._training.upload, tenant, job, upload, place, frame)
        finally:
            body.release()
        if row.state is JobState.WAITING_FOR_KEYS:
            await self._training.runner.queue_ready()
            row = await asyncio.to_thread(self._training.find, tenant, job)
        return await self._answer(row)

    async def weights(self, request: Request) -> Response:
        """GET: the encrypted weights."""
        asked = request.query_params.get("iteration", "")
        if asked and not (asked.isascii() and asked.isdigit() and len(asked) < 6):
            raise BadRequestError("`iteration` is a number")
        iteration = int(asked) if asked else None
        return _frames(
            *await asyncio.to_thread(self._training.weights, *_names(request), iteration)
        )

    async def validation(self, request: Request) -> Response:
        """GET: the encrypted margins of the validation rows."""
        iteration = int(request.path_params["iteration"])
        return _frames(
            *await asyncio.to_thread(self._training.margins, *_names(request), iteration)
        )

    async def predict(self, request: Request) -> Response:
        """POST: encrypted rows; answers with their encrypted margins."""
        tenant, job = _names(request)
        body = self._body(request)
        try:
            received = await body.read(self._body_bytes)
            frames = split_frames(received)
            found = await self._training.predict(tenant, job, frames, self._seconds)
        finally:
            body.release()
        return _frames(0, found)

    def _body(self, request: Request) -> Body:
        headers = dict(request.scope["headers"])
        return Body(headers, request.receive, self._memory, self._idle_seconds)

    async def _answer(self, row: JobRow) -> Response:
        status = await asyncio.to_thread(self._training.status, row)
        return JSONResponse(status.to_json())


def _frames(iteration: int, frames: list[Frame]) -> Response:
    content = b"".join(bytes(frame) for frame in frames)
    headers = {ITERATION_HEADER: str(iteration)}
    return Response(content, media_type="application/octet-stream", headers=headers)


def _names(request: Request) -> tuple[str, str]:
    return _tenant(request), str(request.path_params["job"])


def _tenant(request: Request) -> str:
    return str(request.scope["state"]["tenant"])
