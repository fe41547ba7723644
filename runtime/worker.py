"""The worker process of one key owner: `python -m tacit.runtime.worker <descriptor>`.

It holds one key set and runs circuits for it, several requests at the same time if it has the
threads. Messages come over the socket with the given descriptor:

    {"open": [paths of key frames], "key_id": …, "threads": n}   once; {"ready": true} comes back
    {"prepare": [[directory, digest], …]}                        {"ready": true} comes back
    {"run": directory, "plan": name, …} + block                  one message per request, in order

If this process dies, the first request without an answer is lost; the server starts another
process for the others.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tacit.errors import InternalError, TacitError
from tacit.runtime.blocks import Block
from tacit.runtime.channel import Channel
from tacit.runtime.key_rules import mapped
from tacit.runtime.refusals import AbandonedError, DamagedKeysError
from tacit.runtime.requests import Frame, Result
from tacit.runtime.statuses import code_of

Observe = Callable[[int, int], None]


class Engine(Protocol):
    """What a worker runs requests on: `Session`s, or an echo in tests; used by several threads."""

    def prepare(self, directory: Path, digest: str) -> None:
        """Load keys and a model ahead of the first request.

        Raises:
            TacitError: as in `run`.
        """
        ...

    def run(
        self, directory: Path, digest: str, plan: str, frames: Sequence[Frame], observe: Observe
    ) -> Result:
        """Answer one request.

        Args:
            directory: of the artifact.
            digest: of its private half, as the server knows it.
            plan: name of the plan.
            frames: input ciphertexts, evaluation after evaluation.
            observe: called with (operations done, operations in all) between operations.

        Raises:
            TacitError: the request or our circuit is at fault.
        """
        ...


# Makes an engine from a key id, the bytes of the key frames, and a number of threads.
OpenEngine = Callable[[str, Sequence[memoryview], int], Engine]


def main(descriptor: int, open_engine: OpenEngine) -> None:
    """Serve one socket, whose descriptor was inherited, until its other end closes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel = Channel(socket.socket(fileno=descriptor))
    with contextlib.suppress(ConnectionError):  # nobody listens any more: stop quietly
        _serve(channel, open_engine)


def _serve(channel: Channel, open_engine: OpenEngine) -> None:
    engine: Engine | None = None
    threads = 1
    while (received := channel.receive(None)) is not None:
        message, block = received
        if "open" in message:
            threads = int(str(message["threads"]))
            engine = _open(channel, open_engine, message, threads)
        elif engine is not None and "prepare" in message:
            _prepare(channel, engine, _list(message["prepare"]))
        elif engine is not None and block >= 0:
            _run(channel, engine, message, Block.open(block), threads)


def _open(
    channel: Channel, open_engine: OpenEngine, message: Mapping[str, object], threads: int
) -> Engine | None:
    try:
        frames = _mapped(_list(message["open"]))
        engine = open_engine(str(message["key_id"]), frames, threads)
    except Exception as error:
        channel.send(_failure(error))
        return None
    channel.send({"ready": True})
    return engine


def _mapped(paths: Sequence[object]) -> list[memoryview]:
    try:
        return [mapped(Path(str(path))) for path in paths]
    except (OSError, ValueError) as error:  # gone, unreadable or empty
        raise DamagedKeysError("a stored evaluation key cannot be read") from error


def _prepare(channel: Channel, engine: Engine, models: Sequence[object]) -> None:
    try:
        for model in models:
            directory, digest = _list(model)
            engine.prepare(Path(str(directory)), str(digest))
    except Exception as error:
        channel.send(_failure(error))
        return
    channel.send({"ready": True})


def _run(
    channel: Channel, engine: Engine, message: Mapping[str, object], block: Block, threads: int
) -> None:
    header, frames = block.read()
    parts = list(_parts(frames, _list(header["counts"])))

    def answer(index: int) -> Result | Exception:
        try:
            return _answer(engine, message, parts[index], block, index)
        except Exception as error:
            return error

    if min(threads, len(parts)) == 1:  # each answer leaves before the next request begins
        for index in range(len(parts)):
            _send(channel, index, answer(index))
        return
    with _threads(threads) as pool:
        for index, result in enumerate(pool.map(answer, range(len(parts)))):
            _send(channel, index, result)


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Give a pool that does not begin what waits in it once nobody listens any more."""
    pool = ThreadPoolExecutor(count, "tacit-request")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _parts(frames: Sequence[memoryview], counts: Sequence[object]) -> Iterator[list[memoryview]]:
    start = 0
    for count in counts:
        assert isinstance(count, int)
        yield list(frames[start : start + count])
        start += count


def _send(channel: Channel, index: int, result: Result | Exception) -> None:
    if isinstance(result, Exception):
        channel.send(_failure(result) | {"index": index})
        return
    timing = result.timing
    seconds = [timing.decode_seconds, timing.evaluate_seconds, timing.encode_seconds]
    answer = Block.create({}, result.frames)
    try:
        channel.send({"index": index, "seconds": seconds}, answer.descriptor)
    finally:
        answer.close()


def _answer(
    engine: Engine,
    message: Mapping[str, object],
    frames: Sequence[Frame],
    block: Block,
    index: int,
) -> Result:
    def observe(done: int, total: int) -> None:
        block.report(done, total)
        if block.is_abandoned(index):
            raise AbandonedError("the client went away while its request ran")

    observe(0, 0)
    directory, plan = Path(str(message["run"])), str(message["plan"])
    return engine.run(directory, str(message["digest"]), plan, frames, observe)


def _failure(error: Exception) -> dict[str, object]:
    if isinstance(error, TacitError):
        return {"code": code_of(error), "error": str(error)[:8192]}
    return {"code": InternalError.code, "error": f"the worker failed: {type(error).__name__}"}


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from tacit.runtime.backends.loading import BackendName
    from tacit.runtime.session import KeyedSessions

    chosen = BackendName(sys.argv[1])
    main(int(sys.argv[2]), functools.partial(KeyedSessions.open, backend=chosen))
