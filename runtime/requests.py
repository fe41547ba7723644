"""What travels between protocol, batcher and executor, and the Executor protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tacit.errors import TacitError
from tacit.runtime.repository import ModelVersion

TENSOR = "ciphertexts"
Scalar = bool | int | float | str
Frame = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """A KServe v2 request after the protocol layer, whatever the transport.

    Attributes:
        version: "" asks for the latest.
        id: the client's own identifier, echoed.
        shape: [evaluations, ciphertexts per evaluation] as declared.
        frames: one buffer per ciphertext; views of the received body.
        key_header: key id from the header or gRPC metadata, "" if absent.
        tenant: whom the bearer token names.
    """

    model: str
    version: str
    id: str
    parameters: Mapping[str, Scalar]
    shape: tuple[int, ...]
    frames: Sequence[Frame]
    key_header: str
    tenant: str


@dataclass(frozen=True, slots=True, eq=False)
class InferAnswer:
    """The answer to an `InferRequest`; `frames` in row-major order of `shape`."""

    model: str
    version: str
    id: str
    shape: tuple[int, int]
    frames: Sequence[Frame]
    parameters: Mapping[str, Scalar]
    timing: Timing
    queue_seconds: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds spent on one request inside the executor."""

    decode_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    encode_seconds: float = 0.0


class Owner(NamedTuple):
    """A key set of a tenant."""

    tenant: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Lane:
    """Requests that may run together: same model, version, build, plan, tenant and key."""

    model: str
    version: str
    digest: str
    plan: str
    tenant: str
    key_id: str

    @property
    def owner(self) -> Owner:
        """Whose keys are used."""
        return Owner(self.tenant, self.key_id)


@dataclass(slots=True, eq=False)
class Work:
    """One request's part of a job.

    Attributes:
        owner: whose keys the frames were made under.
        abandoned: set once nobody waits for the answer; executors stop at the next operation.
    """

    frames: Sequence[Frame]
    owner: Owner
    abandoned: bool = field(default=False)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Work for one model and plan, done by one worker.

    All of it is the lane's owner's, unless the batcher was told to join owners; each work's frames
    are only ever used with the keys of its own owner.
    """

    lane: Lane
    model: ModelVersion
    work: Sequence[Work]


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Output frames of one `Work`."""

    frames: Sequence[Frame]
    timing: Timing


class Executor(Protocol):
    """Runs jobs: in worker processes, or in process for tests."""

    async def run(self, job: Job) -> Sequence[Result | TacitError]:
        """Run a job; one result or error per work, in order, and no exception for either."""
        ...

    async def close(self) -> None:
        """Finish running jobs and release everything."""
        ...
