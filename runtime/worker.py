"""A worker process: `python -m tacit.runtime.worker <settings> <descriptors>`.

It holds evaluation keys and models, and runs circuits. Each descriptor is one line, a socket over
which one job at a time comes; the lines of a process share its keys, models and threads. Messages:

    {"prepare": [[directory, digest], …]} + block       {"ready": true} comes back
    {"forget": [tenant, key id]}                        {"ready": true} comes back
    {"run": directory, "digest": …, "plan": …} + block  {"begin": [indices]} before some requests
                                                        run, and one message per request, with its
                                                        index, as soon as it has an answer

Blocks name the key owners and where their frames lie, so that a worker loads the keys it does not
hold (any more) by itself. If this process dies, what had begun and has no answer is in doubt; the
server starts another process.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tacit.errors import InternalError, TacitError
from tacit.runtime.blocks import Block
from tacit.runtime.channel import Channel
from tacit.runtime.refusals import AbandonedError
from tacit.runtime.requests import Frame, Owner, Result
from tacit.runtime.statuses import code_of
from tacit.runtime.worker_settings import WorkerMemory, WorkerSettings

Observe = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """Where an artifact lies, and the digest of its private half as the server knows it."""

    directory: Path
    digest: str


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """An owner, and where its key frames lie."""

    owner: Owner
    frames: tuple[Path, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One request of a job.

    Attributes:
        keys: of its owner.
        frames: input ciphertexts, evaluation after evaluation.
        observe: called with (operations done, operations in all) between operations; raises
            `AbandonedError` once nobody waits for the answer.
    """

    keys: KeyPlace
    frames: Sequence[Frame]
    observe: Observe


Begin = Callable[[Sequence[int]], None]
Answer = Callable[[int, Result | Exception], None]


class Engine(Protocol):
    """What a worker runs requests on; several threads use it at the same time."""

    def prepare(self, model: ModelPlace, keys: KeyPlace) -> None:
        """Load keys and a model ahead of the first request.

        Raises:
            TacitError: they are damaged or do not fit.
        """
        ...

    def run(
        self,
        model: ModelPlace,
        plan: str,
        requests: Sequence[Request],
        begin: Begin,
        answer: Answer,
    ) -> None:
        """Answer the requests of a job.

        Args:
            model: which model.
            plan: name of the plan.
            requests: of one owner or several.
            begin: called with the indices of requests before they run.
            answer: called once per request with its index; from one thread at a time.
        """
        ...

    def forget(self, owner: Owner) -> None:
        """Drop the keys of an owner, if they are loaded."""
        ...

    def memory(self) -> WorkerMemory:
        """Count what is held."""
        ...


def main(descriptors: Sequence[int], engine: Engine) -> None:
    """Serve sockets whose descriptors were inherited, until their other ends close."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channels = [Channel(socket.socket(fileno=descriptor)) for descriptor in descriptors]
    others = [
        threading.Thread(target=_serve_or_die, args=(channel, engine), name="tacit-line")
        for channel in channels[1:]
    ]
    for thread in others:
        thread.start()
    _serve_or_die(channels[0], engine)
    for thread in others:
        thread.join()


def descriptors_of(text: str) -> list[int]:
    """Read the last word of a worker's command line."""
    return [int(word) for word in text.split(",")]


def _serve_or_die(channel: Channel, engine: Engine) -> None:
    """Serve one line; a bug on one line must not leave the server waiting for it."""
    try:
        with contextlib.suppress(ConnectionError):  # nobody listens any more: stop quietly
            _serve(channel, engine)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(70)


def _serve(channel: Channel, engine: Engine) -> None:
    while (received := channel.receive(None)) is not None:
        message, descriptor = received
        block = Block.open(descriptor) if descriptor >= 0 else None
        if "forget" in message:
            engine.forget(Owner(*(str(word) for word in _list(message["forget"]))))
            _ready(channel, engine)
        elif block is not None and "prepare" in message:
            _prepare(channel, engine, _list(message["prepare"]), block)
        elif block is not None:
            _run(channel, engine, message, block)


def _prepare(channel: Channel, engine: Engine, models: Sequence[object], block: Block) -> None:
    try:
        keys = _owners(block.read()[0])
        for model in models:
            directory, digest = _list(model)
            for place in keys:
                engine.prepare(ModelPlace(Path(str(directory)), str(digest)), place)
    except Exception as error:
        channel.send(_failure(error))
        return
    _ready(channel, engine)


def _ready(channel: Channel, engine: Engine) -> None:
    channel.send({"ready": True, "memory": engine.memory().to_json()})


def _run(channel: Channel, engine: Engine, message: Mapping[str, object], block: Block) -> None:
    requests = _requests(block)
    model = ModelPlace(Path(str(message["run"])), str(message["digest"]))
    unanswered = set(range(len(requests)))

    def begin(indices: Sequence[int]) -> None:
        channel.send({"begin": list(indices)})

    def answer(index: int, result: Result | Exception) -> None:
        unanswered.discard(index)
        _send(channel, index, result, engine.memory())

    try:
        engine.run(model, str(message["plan"]), requests, begin, answer)
    except ConnectionError:
        raise
    except Exception as error:
        for index in sorted(unanswered):
            answer(index, error)


def _requests(block: Block) -> list[Request]:
    header, frames = block.read()
    owners = _owners(header)
    requests = []
    start = 0
    counts, owner_of = _list(header["counts"]), _list(header["owner_of"])
    for index, (count, owner) in enumerate(zip(counts, owner_of, strict=True)):
        assert isinstance(count, int)
        assert isinstance(owner, int)
        observe = _observer(block, index)
        requests.append(Request(owners[owner], frames[start : start + count], observe))
        start += count
    return requests


def _observer(block: Block, index: int) -> Observe:
    def observe(done: int, total: int) -> None:
        block.report(done, total)
        if block.is_abandoned(index):
            raise AbandonedError("the client went away while its request ran")

    return observe


def _owners(header: Mapping[str, object]) -> list[KeyPlace]:
    places = []
    for entry in _list(header["owners"]):
        tenant, key_id, paths = _list(entry)
        frames = tuple(Path(str(path)) for path in _list(paths))
        places.append(KeyPlace(Owner(str(tenant), str(key_id)), frames))
    return places


def _send(channel: Channel, index: int, result: Result | Exception, memory: WorkerMemory) -> None:
    fields: dict[str, object] = {"index": index, "memory": memory.to_json()}
    if isinstance(result, Exception):
        channel.send(_failure(result) | fields)
        return
    timing = result.timing
    seconds = [timing.decode_seconds, timing.evaluate_seconds, timing.encode_seconds]
    try:
        block = Block.create({}, result.frames)
    except TacitError as error:
        channel.send(_failure(error) | fields)
        return
    try:
        channel.send({**fields, "seconds": seconds}, block.descriptor)
    finally:
        block.close()


def _failure(error: Exception) -> dict[str, object]:
    if isinstance(error, TacitError):
        return {"code": code_of(error), "error": str(error)[:8192]}
    return {"code": InternalError.code, "error": f"the worker failed: {type(error).__name__}"}


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def _limit_memory(memory_bytes: int) -> None:
    """Let allocations beyond a limit fail, so that they end one request and not the process."""
    if memory_bytes:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, hard))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from tacit.runtime.device_engine import open_engine

    chosen = WorkerSettings.from_text(sys.argv[1])
    _limit_memory(chosen.memory_bytes)
    main(descriptors_of(sys.argv[2]), open_engine(chosen))
