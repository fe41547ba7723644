"""Routes of the relay for sessions of several parties, under /v1/parties."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tacit.party_entry import LARGEST_BLOB, LARGEST_ENTRY
from tacit.party_terms import SessionTerms
from tacit.runtime.audit import AuditLog
from tacit.runtime.bodies import Body, Memory
from tacit.runtime.http_json import read_small_json
from tacit.runtime.party_store import Member, PartyStore
from tacit.runtime.refusals import BadRequestError, EncodingError

TOKEN_HEADER = b"tacit-party-token"
_LARGEST_TERMS = 1 << 20


class PartyRoutes:
    """Handlers of the routes."""

    def __init__(
        self, store: PartyStore, memory: Memory, idle_seconds: float, audit: AuditLog | None
    ) -> None:
        self._store = store
        self._memory = memory
        self._idle_seconds = idle_seconds
        self._audit = audit

    async def create(self, request: Request) -> Response:
        """POST: make a session from its terms; answers with each party's token, once."""
        fields = await read_small_json(request, self._memory, _LARGEST_TERMS)
        tenant = request.scope["state"]["tenant"]
        terms = await asyncio.to_thread(SessionTerms.from_json, fields)
        tokens = await asyncio.to_thread(self._store.create, tenant, terms)
        self._record("party_session", tenant, terms.session)
        return JSONResponse({"session": terms.session, "tokens": tokens})

    async def state(self, request: Request) -> Response:
        """GET: terms, entries there are, who is missing."""
        member = await self._member(request)
        return JSONResponse(await asyncio.to_thread(self._store.state, member.session))

    async def delete(self, request: Request) -> Response:
        """DELETE: forget a session of this tenant."""
        tenant, session = request.scope["state"]["tenant"], request.path_params["session"]
        await self._member(request)
        await asyncio.to_thread(self._store.delete, tenant, session)
        self._record("party_session_deleted", tenant, session)
        return JSONResponse({"session": session, "deleted": True})

    async def entry(self, request: Request) -> Response:
        """GET: one signed entry."""
        member = await self._member(request)
        step, party = _place(request)
        content = await asyncio.to_thread(self._store.entry, member.session, step, party)
        return Response(content, media_type="application/octet-stream")

    async def add_entry(self, request: Request) -> Response:
        """PUT: one signed entry, once; the same bytes again are fine."""
        member = await self._member(request)
        step, party = _place(request)
        body = self._body(request)
        try:
            content = bytes(await body.read(LARGEST_ENTRY))
            new = await asyncio.to_thread(self._store.add_entry, member, step, party, content)
        finally:
            body.release()
        if new:
            tenant = request.scope["state"]["tenant"]
            self._record("party_entry", tenant, member.session, step=step, party=party)
        return JSONResponse({"session": member.session, "step": step, "party": party, "new": new})

    async def present(self, request: Request) -> Response:
        """POST: which of these payloads are there."""
        member = await self._member(request)
        fields = await read_small_json(request, self._memory, _LARGEST_TERMS)
        listed = fields.get("sha256")
        if not isinstance(listed, list) or not all(isinstance(s, str) for s in listed):
            raise BadRequestError("`sha256` must list hexadecimal digests")
        found = await asyncio.to_thread(self._store.present, member, listed)
        return JSONResponse({"present": found})

    async def blob(self, request: Request) -> Response:
        """GET: one payload."""
        member = await self._member(request)
        path = self._store.blob_path(member.session, request.path_params["sha256"])
        return FileResponse(path, media_type="application/octet-stream")

    async def add_blob(self, request: Request) -> Response:
        """PUT: one payload, streamed to disk."""
        member = await self._member(request)
        sha256 = request.path_params["sha256"]
        body = self._body(request)
        if body.encoding not in ("", "identity"):
            raise EncodingError("payloads are sent as they are, without content encoding")
        body.check(LARGEST_BLOB)
        with self._store.open_blob(member, sha256, body.declared) as upload:
            await body.store(upload.write)
            await asyncio.to_thread(upload.finish)
        return JSONResponse({"session": member.session, "sha256": sha256})

    async def _member(self, request: Request) -> Member:
        headers = dict(request.scope["headers"])
        token = headers.get(TOKEN_HEADER, b"").decode("latin-1")
        session = request.path_params["session"]
        return await asyncio.to_thread(self._store.member, session, token)

    def _body(self, request: Request) -> Body:
        headers = dict(request.scope["headers"])
        return Body(headers, request.receive, self._memory, self._idle_seconds)

    def _record(self, event: str, tenant: str, session: str, **fields: object) -> None:
        if self._audit is not None:
            self._audit.record(event, {"tenant": tenant, "session": session, **fields})


def party_routes(
    store: PartyStore, memory: Memory, idle_seconds: float, audit: AuditLog | None
) -> list[BaseRoute]:
    """Return the routes."""
    handlers = PartyRoutes(store, memory, idle_seconds, audit)
    session = "/v1/parties/{session}"
    entry, blob = f"{session}/entries/{{step}}/{{party}}", f"{session}/blobs/{{sha256}}"
    return [
        Route("/v1/parties", handlers.create, methods=["POST"]),
        Route(session, handlers.state, methods=["GET"]),
        Route(session, handlers.delete, methods=["DELETE"]),
        Route(entry, handlers.entry, methods=["GET"]),
        Route(entry, handlers.add_entry, methods=["PUT"]),
        Route(f"{session}/blobs", handlers.present, methods=["POST"]),
        Route(blob, handlers.blob, methods=["GET"]),
        Route(blob, handlers.add_blob, methods=["PUT"]),
    ]


def _place(request: Request) -> tuple[str, int]:
    step, party = request.path_params["step"], request.path_params["party"]
    if not party.isdecimal() or len(party) > 2:
        raise BadRequestError("a party's number expected")
    return step, int(party)
