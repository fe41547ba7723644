"""Request bodies over ASGI: bounded, read into one buffer, decompressed within bounds.

`Content-Length` over the limit is refused before a byte is read. All requests in flight share one
`Memory`, so many large uploads at once are refused instead of filling the machine.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from tacit.errors import OversizedError, TruncatedError
from tacit.runtime.refusals import (
    AbandonedError,
    BadRequestError,
    BusyError,
    EncodingError,
    SlowBodyError,
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
_CHUNK = 1 << 20
_WRITE_BYTES = 1 << 20


class Memory:
    """Bytes of request bodies in flight, against a limit."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def take(self, count: int) -> None:
        """Reserve bytes.

        Raises:
            BusyError: the limit would be passed.
        """
        if self.used_bytes + count > self.limit_bytes:
            raise BusyError(
                f"requests in flight already hold {self.used_bytes} of {self.limit_bytes} bytes: "
                "try again later"
            )
        self.used_bytes += count

    def give(self, count: int) -> None:
        """Return bytes taken before."""
        self.used_bytes -= count


class Body:
    """One request's body; `release` gives its memory back."""

    def __init__(
        self, headers: Mapping[bytes, bytes], receive: Receive, memory: Memory, idle_seconds: float
    ) -> None:
        self._receive = receive
        self._memory = memory
        self._idle_seconds = idle_seconds
        self._taken = 0
        self.encoding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
        self.declared = _content_length(headers)

    def check(self, limit_bytes: int) -> None:
        """Refuse a declared length over the limit, before reading.

        Raises:
            OversizedError: it is.
        """
        if self.declared is not None and self.declared > limit_bytes:
            raise OversizedError(
                f"a body of {self.declared} bytes, at most {limit_bytes} are accepted here"
            )

    async def read(self, limit_bytes: int) -> memoryview:
        """Read and, where encoded, decompress the body.

        Raises:
            OversizedError: larger than the limit, before or after decompression.
            TruncatedError, BadRequestError, EncodingError, SlowBodyError, AbandonedError,
            BusyError.
        """
        if self.encoding not in ("", "identity", *_WINDOW_BITS):
            raise EncodingError(
                f"content encoding {self.encoding[:32]!r}: gzip or deflate expected"
            )
        self.check(limit_bytes)
        if self.declared is None:
            received = await self._read_unknown(limit_bytes)
        else:
            received = await self._read_declared(self.declared)
        if self.encoding in _WINDOW_BITS:
            return await self._decompressed(received, limit_bytes)
        return memoryview(received)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, without keeping it.

        Raises:
            SlowBodyError: nothing came for a while.
            AbandonedError: the client went away.
        """
        idle = _IdleTimer(self._idle_seconds)
        more = True
        while more:
            message = await idle.watch(self._receive())
            if message["type"] == "http.disconnect":
                raise AbandonedError("the client went away while it sent the body")
            more = bool(message.get("more_body", False))
            yield message.get("body", b"")

    async def store(self, write: Callable[[bytes], None]) -> None:
        """Hand the body on as it arrives, in pieces of a megabyte or so, from another thread.

        Raises:
            SlowBodyError, AbandonedError: see `chunks`.
        """
        gathered = bytearray()
        async for chunk in self.chunks():
            gathered += chunk
            if len(gathered) >= _WRITE_BYTES:
                await asyncio.to_thread(write, bytes(gathered))
                gathered.clear()
        await asyncio.to_thread(write, bytes(gathered))

    def release(self) -> None:
        """Give the reserved memory back; may be called twice."""
        self._memory.give(self._taken)
        self._taken = 0

    def _take(self, count: int) -> None:
        self._memory.take(count)
        self._taken += count

    async def _read_declared(self, length: int) -> bytearray:
        self._take(length)
        buffer = bytearray(length)
        offset = 0
        async for chunk in self.chunks():
            if offset + len(chunk) > length:
                raise OversizedError(f"more bytes than the declared {length}")
            buffer[offset : offset + len(chunk)] = chunk
            offset += len(chunk)
        if offset != length:
            raise TruncatedError(f"{length} bytes declared, {offset} came")
        return buffer

    async def _read_unknown(self, limit_bytes: int) -> bytearray:
        buffer = bytearray()
        async for chunk in self.chunks():
            if len(buffer) + len(chunk) > limit_bytes:
                raise OversizedError(f"a body of more than {limit_bytes} bytes")
            self._take(len(chunk))
            buffer += chunk
        return buffer

    async def _decompressed(self, received: bytearray, limit_bytes: int) -> memoryview:
        room = min(limit_bytes, self._memory.limit_bytes - self._memory.used_bytes)
        window = _WINDOW_BITS[self.encoding]
        inflated = await asyncio.to_thread(inflate, received, window, room)
        self._take(len(inflated))
        return memoryview(inflated)


class _IdleTimer:
    """Cancels a wait that takes too long; cheaper per chunk than `asyncio.wait_for`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._expired = False

    async def watch(self, waiting: Awaitable[Message]) -> Message:
        task = asyncio.current_task()
        assert task is not None
        handle = asyncio.get_running_loop().call_later(self._seconds, self._expire, task)
        try:
            return await waiting
        except asyncio.CancelledError as error:
            if not self._expired:
                raise
            raise SlowBodyError(f"no byte of the body for {self._seconds:g} s") from error
        finally:
            handle.cancel()

    def _expire(self, task: asyncio.Task[Any]) -> None:
        self._expired = True
        task.cancel()


def inflate(received: bytes | bytearray, window_bits: int, limit_bytes: int) -> bytearray:
    """Decompress one gzip or zlib stream.

    Raises:
        OversizedError: it grows over the limit, or bytes follow its end.
        TruncatedError: it ends early.
        BadRequestError: it is no such stream.
    """
    stream = zlib.decompressobj(window_bits)
    output = bytearray()
    pending: bytes | bytearray = received
    try:
        while pending and not stream.eof:
            output += stream.decompress(pending, _CHUNK)
            pending = stream.unconsumed_tail
            if len(output) > limit_bytes:
                raise OversizedError(f"the body decompresses to more than {limit_bytes} bytes")
        while not stream.eof and (tail := stream.decompress(b"", _CHUNK)):
            output += tail
    except zlib.error as error:
        raise BadRequestError("the body is not what its content encoding says") from error
    if not stream.eof:
        raise TruncatedError("the compressed body ends early")
    if stream.unused_data or len(output) > limit_bytes:
        raise OversizedError("the compressed body is longer than its content or its limit")
    return output


def _content_length(headers: Mapping[bytes, bytes]) -> int | None:
    text = headers.get(b"content-length")
    if text is None:
        return None
    if not text.isdigit() or len(text) > 15:
        raise BadRequestError("Content-Length is not a number of bytes")
    return int(text)
