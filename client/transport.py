"""Sending ciphertexts: KServe v2 inference through tritonclient, over HTTP or gRPC.

The tensor `ciphertexts` has datatype BYTES and shape [evaluations, ciphertexts per evaluation]; the
plan is a request parameter, the key id travels in a header. Each request carries a fresh nonce, so
that a recorded request cannot be answered twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import numpy as np

from tacit.client.answers import error_of, timed_out, unreachable
from tacit.errors import ServiceError, UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TENSOR = "ciphertexts"
KEY_HEADER = "tacit-key-id"
_GRPC_PORT = 8001
_LENGTH_PREFIX = 4
_SERVER_TIMES = ("queue_seconds", "decode_seconds", "evaluate_seconds", "encode_seconds")

Frames = list[list[bytes]]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One inference request.

    Attributes:
        frames: for each evaluation, its ciphertext frames.
        version: "" asks for the latest.
        model_digest: the private digest of the signature it was packed for; "" does not say.
    """

    model: str
    version: str
    plan: str
    key_id: str
    frames: Frames = field(repr=False)
    model_digest: str = ""

    @property
    def tensor_bytes(self) -> int:
        """Bytes of the BYTES tensor."""
        return tensor_bytes(self.frames)


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """The answer: frames by evaluation, and the server's own timings in milliseconds."""

    frames: Frames = field(repr=False)
    server_ms: Mapping[str, float]


class Transport(Protocol):
    """Asks one server; may be used from several threads."""

    def infer(self, question: Question) -> Reply:
        """Send ciphertexts and wait for the answer.

        Raises:
            TacitError: what the server reported, or `ServiceError` if it cannot be reached.
        """
        ...


@dataclass(frozen=True, slots=True)
class HttpTransport:
    """KServe v2 over HTTP with the binary-tensor extension."""

    url: str
    token: str | None = field(repr=False)
    timeout: float

    def infer(self, question: Question) -> Reply:
        """Send ciphertexts and wait for the answer; see `Transport`."""
        import tritonclient.http as triton

        parts = urlsplit(self.url)
        with _failures(self.url, self.timeout):
            client = triton.InferenceServerClient(
                parts.netloc + parts.path,
                connection_timeout=min(self.timeout, 10.0),
                network_timeout=self.timeout,
                ssl=parts.scheme == "https",
            )
            try:
                result = client.infer(
                    question.model,
                    [_input(triton, question)],
                    model_version=question.version,
                    outputs=[triton.InferRequestedOutput(TENSOR, binary_data=True)],
                    headers=_headers(question, self.token),
                    parameters=_parameters(question),
                )
                response: dict[str, Any] = result.get_response()
                return _reply(result.as_numpy(TENSOR), response.get("parameters", {}))
            finally:
                client.close()


@dataclass(frozen=True, slots=True)
class GrpcTransport:
    """KServe v2 over gRPC; `url` is host:port, `tls` follows the HTTP URL's scheme."""

    url: str
    token: str | None = field(repr=False)
    timeout: float
    tls: bool = False

    def infer(self, question: Question) -> Reply:
        """Send ciphertexts and wait for the answer; see `Transport`."""
        import tritonclient.grpc as triton

        with _failures(self.url, self.timeout):
            client = triton.InferenceServerClient(self.url, ssl=self.tls)
            try:
                result = client.infer(
                    question.model,
                    [_input(triton, question)],
                    model_version=question.version,
                    outputs=[triton.InferRequestedOutput(TENSOR)],
                    headers=_headers(question, self.token),
                    parameters=_parameters(question),
                    client_timeout=self.timeout,
                )
                response = result.get_response()
                parameters = {name: p.double_param for name, p in response.parameters.items()}
                return _reply(result.as_numpy(TENSOR), parameters)
            finally:
                client.close()


def tensor_bytes(frames: Sequence[Sequence[bytes]]) -> int:
    """Bytes of the BYTES tensor that holds these frames."""
    return sum(_LENGTH_PREFIX + len(frame) for row in frames for frame in row)


def _input(triton: Any, question: Question) -> Any:
    rows, columns = len(question.frames), len(question.frames[0])
    tensor = np.empty((rows, columns), dtype=np.object_)
    for row, frames in enumerate(question.frames):
        for column, frame in enumerate(frames):
            tensor[row, column] = frame
    value = triton.InferInput(TENSOR, [rows, columns], "BYTES")
    value.set_data_from_numpy(tensor)
    return value


def _headers(question: Question, token: str | None) -> dict[str, str]:
    headers = {KEY_HEADER: question.key_id}
    return {**headers, "authorization": f"Bearer {token}"} if token else headers


def _parameters(question: Question) -> dict[str, str]:
    parameters = {"plan": question.plan, "nonce": secrets.token_hex(16)}
    if question.model_digest:
        parameters["model_digest"] = question.model_digest
    return parameters


def _reply(tensor: NDArray[np.object_] | None, parameters: Mapping[str, object]) -> Reply:
    if tensor is None or tensor.ndim != 2:
        raise ServiceError(f"the answer holds no tensor {TENSOR!r} with two axes")
    times = {name: parameters[name] for name in _SERVER_TIMES if name in parameters}
    server_ms = {
        name.removesuffix("_seconds"): 1e3 * float(seconds)
        for name, seconds in times.items()
        if isinstance(seconds, int | float)
    }
    return Reply([[bytes(frame) for frame in row] for row in tensor], server_ms)


@contextmanager
def _failures(url: str, timeout: float) -> Iterator[None]:
    """Turn tritonclient's exceptions into ours."""
    from tritonclient.utils import InferenceServerException

    try:
        yield
    except InferenceServerException as error:
        status = str(error.status() or "")
        if "DEADLINE_EXCEEDED" in status and ": " not in str(error.message()):
            raise timed_out(url, timeout) from error
        if "UNAVAILABLE" in status and not _is_ours(error):
            raise unreachable(url, error) from error
        raise error_of(str(error.message()), None, status) from error
    except TimeoutError as error:
        raise timed_out(url, timeout) from error
    except OSError as error:
        raise unreachable(url, error) from error


def _is_ours(error: Any) -> bool:
    """Tell a server's own words from gRPC's when it cannot connect."""
    return not str(error.message()).startswith("failed to connect")


def transport_for(
    kind: str, url: str, grpc_url: str | None, token: str | None, timeout: float
) -> Transport:
    """Return the transport of that kind; arguments as for `tacit.Client`.

    Raises:
        UserError: an unknown kind.
    """
    match kind:
        case "http":
            return HttpTransport(url, token, timeout)
        case "grpc":
            parts = urlsplit(url)
            host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
            address = grpc_url or f"{host}:{_GRPC_PORT}"
            return GrpcTransport(address, token, timeout, parts.scheme == "https")
        case _:
            raise UserError(f"unknown transport {kind!r}: 'http' or 'grpc'")
