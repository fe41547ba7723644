"""Routes for evaluation keys under /v1/keys: declare, ask, upload frames, delete."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tacit.runtime.audit import AuditLog
from tacit.runtime.bodies import Body, Memory
from tacit.runtime.http_json import read_small_json
from tacit.runtime.key_declarations import KeyDeclaration, digest_of
from tacit.runtime.keystore import KeyStore
from tacit.runtime.refusals import EncodingError
from tacit.runtime.warm_start import WarmStart

_LARGEST_DECLARATION = 1 << 20


class KeyRoutes:
    """Handlers of the key routes."""

    def __init__(
        self,
        keys: KeyStore,
        memory: Memory,
        idle_seconds: float,
        audit: AuditLog | None,
        warm_start: WarmStart,
    ) -> None:
        self._keys = keys
        self._warm_start = warm_start
        self._memory = memory
        self._idle_seconds = idle_seconds
        self._audit = audit

    async def announce(self, request: Request) -> Response:
        """POST: declare a key set; answers with the frames that are missing."""
        tenant, key_id = _owner(request)
        fields = await read_small_json(request, self._memory, _LARGEST_DECLARATION)
        declared = KeyDeclaration.from_json(fields)
        missing = await asyncio.to_thread(self._keys.announce, tenant, key_id, declared)
        self._record("key_declared", tenant, key_id)
        self._warm_start.keys_seen(tenant, key_id)
        return JSONResponse({"key_id": key_id, "missing": missing})

    async def state(self, request: Request) -> Response:
        """GET, HEAD: 200 if complete, 404 if not, 410 if its configuration is retired."""
        tenant, key_id = _owner(request)
        complete = self._keys.state(tenant, key_id)
        self._warm_start.keys_seen(tenant, key_id)
        status = 200 if complete else 404
        body = {"key_id": key_id, "complete": complete}
        if not complete:
            body["error"] = "key_unknown: the evaluation keys are not complete: finish their upload"
            body["code"] = "key_unknown"
        return JSONResponse(body, status_code=status)

    async def upload(self, request: Request) -> Response:
        """PUT: the bytes of one declared frame, streamed to disk."""
        tenant, key_id = _owner(request)
        sha256 = digest_of(request.path_params["sha256"], "sha256 of the frame")
        headers = dict(request.scope["headers"])
        body = Body(headers, request.receive, self._memory, self._idle_seconds)
        if body.encoding not in ("", "identity"):
            raise EncodingError("key frames are sent as they are, without content encoding")
        with self._keys.open_frame(tenant, key_id, sha256, body.declared) as upload:
            await body.store(upload.write)
            complete = await asyncio.to_thread(upload.finish)
        if complete:
            self._record("key_complete", tenant, key_id)
            self._warm_start.keys_seen(tenant, key_id)
        return JSONResponse({"key_id": key_id, "complete": complete})

    async def delete(self, request: Request) -> Response:
        """DELETE: remove a key set."""
        tenant, key_id = _owner(request)
        await asyncio.to_thread(self._keys.delete, tenant, key_id)
        self._record("key_deleted", tenant, key_id)
        return JSONResponse({"key_id": key_id, "deleted": True})

    def _record(self, event: str, tenant: str, key_id: str) -> None:
        if self._audit is not None:
            self._audit.record(event, {"tenant": tenant, "key_id": key_id})


def key_routes(
    keys: KeyStore,
    memory: Memory,
    idle_seconds: float,
    audit: AuditLog | None,
    warm_start: WarmStart,
) -> list[BaseRoute]:
    """Return the key routes."""
    routes = KeyRoutes(keys, memory, idle_seconds, audit, warm_start)
    key, frame = "/v1/keys/{key_id}", "/v1/keys/{key_id}/frames/{sha256}"
    return [
        Route(key, routes.announce, methods=["POST"]),
        Route(key, routes.state, methods=["GET", "HEAD"]),
        Route(key, routes.delete, methods=["DELETE"]),
        Route(frame, routes.upload, methods=["PUT"]),
    ]


def _owner(request: Request) -> tuple[str, str]:
    key_id = digest_of(request.path_params["key_id"], "key id")
    return str(request.scope["state"]["tenant"]), key_id
