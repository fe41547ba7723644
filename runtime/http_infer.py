"""`POST /v2/models/{model}[/versions/{version}]/infer`, as raw ASGI.

The body goes into one preallocated buffer, ciphertexts are views of it, and the answer is sent as
the JSON header followed by the pieces of the tensor: large tensors are never copied in Python.
While the request runs, the connection is watched; a client that goes away takes its request out of
the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from tacit.errors import TruncatedError
from tacit.runtime.bodies import Body, Memory, Receive
from tacit.runtime.endpoint import KEY_HEADER, Endpoint
from tacit.runtime.refusals import AbandonedError, BadRequestError, MethodError
from tacit.runtime.requests import Frame, InferAnswer, InferRequest
from tacit.runtime.tensors import element_count, join_pieces, joined_length, split_bytes
from tacit.runtime.v2_json import (
    LARGEST_HEADER,
    answer_header,
    parse_infer_header,
)
from tacit.runtime.warm_start import WarmStart

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_HEADER_LENGTH = b"inference-header-content-length"
_PIECE = 1 << 20


class InferRoute:
    """The ASGI application of the infer route."""

    def __init__(
        self, endpoint: Endpoint, memory: Memory, idle_seconds: float, warm_start: WarmStart
    ) -> None:
        self._endpoint = endpoint
        self._warm_start = warm_start
        self._memory = memory
        self._idle_seconds = idle_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; errors are raised for the application's error boundary."""
        if scope["method"] != "POST":
            raise MethodError("infer takes POST")
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        path: Mapping[str, str] = scope["path_params"]
        model = self._endpoint.repository.find(path["model"], path.get("version", ""))
        tenant = str(scope["state"]["tenant"])
        self._warm_start.request_begun(tenant, _key_header(headers), model)
        body = Body(headers, receive, self._memory, self._idle_seconds)
        try:
            limit = self._endpoint.body_limit(model)
            received = await body.read(limit)
            request = _request(received, headers, path, tenant)
            answer = await _unless_gone(self._endpoint.infer(request), receive)
            await _send_answer(answer, send)
        finally:
            body.release()


def _request(
    body: memoryview, headers: Mapping[bytes, bytes], path: Mapping[str, str], tenant: str
) -> InferRequest:
    length = _header_length(headers, len(body))
    key = _key_header(headers)
    version = path.get("version", "")
    if length == 0:
        return InferRequest(path["model"], version, "", {}, (1, 1), [body], key, tenant)
    header = parse_infer_header(body[:length])
    frames = _frames(body[length:], header.shape, header.binary_bytes)
    return InferRequest(
        path["model"], version, header.id, header.parameters, header.shape, frames, key, tenant
    )


def _key_header(headers: Mapping[bytes, bytes]) -> str:
    return headers.get(KEY_HEADER.encode(), b"").decode("latin-1")


def _frames(tensor: memoryview, shape: tuple[int, ...], declared: int | None) -> list[memoryview]:
    if declared != len(tensor):
        raise TruncatedError(
            f"binary_data_size declares {declared} bytes, {len(tensor)} follow the JSON header"
        )
    count = element_count(shape)
    if count > len(tensor):
        raise TruncatedError(f"{count} ciphertexts declared in {len(tensor)} bytes")
    return split_bytes(tensor, count)


def _header_length(headers: Mapping[bytes, bytes], body_bytes: int) -> int:
    """Return the JSON header's length: all of the body without the header field, 0 for raw."""
    text = headers.get(_HEADER_LENGTH)
    if text is None:
        return min(body_bytes, LARGEST_HEADER + 1) or 1
    if not text.isdigit() or len(text) > 15:
        raise BadRequestError("Inference-Header-Content-Length is not a number of bytes")
    if int(text) > body_bytes:
        raise TruncatedError(f"a JSON header of {int(text)} bytes in a body of {body_bytes}")
    return int(text)


async def _unless_gone(answer: Awaitable[InferAnswer], receive: Receive) -> InferAnswer:
    """Await the answer, or cancel it when the client disconnects."""
    running = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            raise AbandonedError("the client went away")
        return running.result()
    finally:
        gone.cancel()
        running.cancel()
        await asyncio.gather(running, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_answer(answer: InferAnswer, send: Send) -> None:
    header = answer_header(answer)
    length = len(header) + joined_length(answer.frames)
    fields = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", str(length).encode()),
        (_HEADER_LENGTH, str(len(header)).encode()),
        (b"server-timing", _server_timing(answer)),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": header, "more_body": True})
    for piece in join_pieces(answer.frames):
        await _send_piece(piece, send)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_piece(piece: Frame, send: Send) -> None:
    """Send in steps, so that other connections get their turn in between."""
    view = memoryview(piece)
    for start in range(0, len(view), _PIECE):
        chunk = view[start : start + _PIECE]
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if len(view) > _PIECE:
            await asyncio.sleep(0)


def _server_timing(answer: InferAnswer) -> bytes:
    timing = answer.timing
    seconds = {
        "queue": answer.queue_seconds,
        "decode": timing.decode_seconds,
        "evaluate": timing.evaluate_seconds,
        "encode": timing.encode_seconds,
    }
    return ", ".join(f"{name};dur={1e3 * s:.3f}" for name, s in seconds.items()).encode()
