"""Malformed, mutated, slow and abandoned requests against a running server."""

import asyncio
import functools
import gzip
import json
import socket
import time
import zlib
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest
import tritonclient.grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tacit.errors import OversizedError, TacitError
from tacit.runtime.bodies import inflate
from tacit.runtime.endpoint import RequestLimits
from tacit.runtime.options import ServerOptions
from tacit.runtime.refusals import BadRequestError
from tacit.runtime.server import ServerHandle
from tacit.runtime.statuses import status_of
from tacit.runtime.tensors import join_bytes, split_bytes
from tacit.runtime.v2_json import parse_infer_header
from tests.runtime.echo import HEADERS, EchoExecutor, echo_server
from tests.runtime.models import LARGE, TINY_INSECURE, echo_artifact, write_repository

FRAMES = [b"first\x00", b"second", b"\xff\x00third"]
HEADER = {
    "id": "7",
    "parameters": {"binary_data_output": True, "plan": "latency"},
    "inputs": [
        {
            "name": "ciphertexts",
            "datatype": "BYTES",
            "shape": [1, 3],
            "parameters": {"binary_data_size": len(join_bytes(FRAMES))},
        }
    ],
}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
QUICK = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def executor() -> EchoExecutor:
    return EchoExecutor()


@pytest.fixture(scope="module")
def handle(
    tmp_path_factory: pytest.TempPathFactory, executor: EchoExecutor
) -> Iterator[ServerHandle]:
    root = tmp_path_factory.mktemp("models")
    write_repository(root, wide=echo_artifact(TINY_INSECURE, 3), echo=echo_artifact(LARGE))
    limits = RequestLimits(evaluations=4)
    with echo_server(root, executor, ServerOptions(limits, body_idle_seconds=0.5)) as running:
        yield running


@pytest.fixture(scope="module")
def client(handle: ServerHandle) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{handle.ports.http}", timeout=60) as client:
        yield client


def post(
    client: httpx.Client, header: bytes, tensor: bytes, fields: dict[str, str] | None = None
) -> httpx.Response:
    length = {"inference-header-content-length": str(len(header))}
    return client.post(
        "/v2/models/wide/infer", content=header + tensor, headers=HEADERS | length | (fields or {})
    )


def typed(response: httpx.Response) -> bool:
    """A 200, or an error of the caller's with a JSON body."""
    if response.status_code == 200:
        return True
    body = response.json()
    assert body["error"].startswith(f"{body['code']}: ")
    return 400 <= response.status_code < 500


def test_the_unchanged_request_is_answered(client: httpx.Client) -> None:
    response = post(client, json.dumps(HEADER).encode(), join_bytes(FRAMES))
    length = int(response.headers["inference-header-content-length"])
    assert split_bytes(memoryview(response.content)[length:], 3) == FRAMES
    assert json.loads(response.content[:length])["id"] == "7"
    assert "evaluate;dur=2.000" in response.headers["server-timing"]


@QUICK
@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
    st.integers(0, 60),
    st.binary(max_size=20),
)
def test_mutated_bodies_give_typed_errors(
    client: httpx.Client, flips: list[tuple[int, int]], cut: int, extra: bytes
) -> None:
    header = json.dumps(HEADER).encode()
    body = bytearray(header + join_bytes(FRAMES))
    for position, value in flips:
        body[position % len(body)] = value
    body = body[: len(body) - cut] + extra
    assert typed(post(client, bytes(body[: len(header)]), bytes(body[len(header) :])))


@QUICK
@given(st.sampled_from(["id", "parameters", "inputs", "outputs"]), JSON_VALUES)
def test_fields_of_any_type_give_typed_errors(
    client: httpx.Client, name: str, value: object
) -> None:
    header = json.dumps(HEADER | {name: value}).encode()
    assert typed(post(client, header, join_bytes(FRAMES)))


@QUICK
@given(
    st.sampled_from(["name", "datatype", "shape", "parameters", "data"]),
    JSON_VALUES | st.lists(st.integers(-2, 5), max_size=3),
)
def test_tensor_fields_of_any_type_give_typed_errors(
    client: httpx.Client, name: str, value: object
) -> None:
    tensor = HEADER["inputs"][0] | {name: value}  # type: ignore[index]
    header = json.dumps(HEADER | {"inputs": [tensor]}).encode()
    assert typed(post(client, header, join_bytes(FRAMES)))


@QUICK
@given(
    st.sampled_from(
        ["inference-header-content-length", "content-encoding", "tacit-key-id", "authorization"]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80),
)
def test_header_fields_of_any_text_give_typed_errors(
    client: httpx.Client, name: str, value: str
) -> None:
    assert typed(
        post(client, json.dumps(HEADER).encode(), join_bytes(FRAMES), {name: value.strip()})
    )


def outcome(action: Callable[[], object]) -> int:
    """Status of what an action raises, 200 if nothing."""
    try:
        action()
    except TacitError as error:
        return status_of(error).http
    return 200


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300))
def test_the_header_parser_raises_only_its_own_errors(text: bytes) -> None:
    for given_text in (text, b'{"inputs":[' + text + b"]}"):
        assert outcome(functools.partial(parse_infer_header, given_text)) < 500


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100), st.integers(0, 10))
def test_split_tensors_are_exactly_what_they_declare(tensor: bytes, count: int) -> None:
    status = outcome(lambda: split_bytes(memoryview(tensor), count))
    assert status in (200, 400, 413)
    if status == 200:
        assert join_bytes(split_bytes(memoryview(tensor), count)) == tensor


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000, b'{"inputs":' * 20_000, b'{"id": ' + b"9" * 200_000 + b"}", b'{"a": NaN}'],
)
def test_hostile_json_is_refused_quickly(client: httpx.Client, text: bytes) -> None:
    start = time.monotonic()
    response = post(client, text, b"")
    assert response.status_code == 400
    assert time.monotonic() - start < 20.0


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_decompression_bomb_is_stopped_at_the_limit(client: httpx.Client, encoding: str) -> None:
    squeeze = gzip.compress if encoding == "gzip" else zlib.compress
    bomb = squeeze(bytes(200 << 20), 9)
    response = post(client, b"", bomb, {"content-encoding": encoding})
    assert response.status_code == 413
    assert response.json()["code"] == "wire_oversized"
    with pytest.raises(OversizedError):
        inflate(bomb, 47, 1 << 20)


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"not gzip at all", 400),
        ("gzip", gzip.compress(b"x" * 1000)[:-9], 400),
        ("gzip", gzip.compress(b"{}") + b"tail", 413),
        ("br", b"x", 415),
    ],
)
def test_bad_compressed_bodies_are_refused(
    client: httpx.Client, encoding: str, body: bytes, status: int
) -> None:
    response = post(client, b"", body, {"content-encoding": encoding})
    assert response.status_code == status
    assert typed(response)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v2/", 404, "not_found"),
        ("GET", "/v2/models/wide/infer", 405, "method_not_allowed"),
        ("DELETE", "/v2", 405, "method_not_allowed"),
        ("GET", "/v2/models/none/config", 404, "unknown_model"),
        ("GET", "/v2/models/../../etc/passwd", 404, "not_found"),
        ("POST", "/v1/keys/..%2f..%2fetc", 404, "not_found"),
        ("GET", "/v1/keys/xyz", 400, "bad_request"),
        ("PUT", f"/v1/keys/{'0' * 64}/frames/nothing", 400, "bad_request"),
        ("POST", "/v2/repository/models/none/load", 404, "unknown_model"),
    ],
)
def test_other_routes_and_methods_answer_in_json(
    client: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.json()["code"]) == (status, code)


def raw(handle: ServerHandle, text: bytes, seconds: float = 30.0) -> bytes:
    with socket.create_connection(("127.0.0.1", handle.ports.http), seconds) as connection:
        connection.sendall(text)
        return connection.recv(65_536)


def test_an_oversized_body_is_refused_by_its_length_alone(handle: ServerHandle) -> None:
    head = b"POST /v2/models/wide/infer HTTP/1.1\r\nHost: t\r\nContent-Length: 9999999999\r\n\r\n"
    assert raw(handle, head).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_stops_coming_is_given_up(handle: ServerHandle) -> None:
    head = b"POST /v2/models/wide/infer HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\nabc"
    start = time.monotonic()
    assert raw(handle, head).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - start < 20.0


def test_a_chunked_body_is_read_within_bounds(client: httpx.Client) -> None:
    header = json.dumps(HEADER).encode()
    pieces = iter([header, join_bytes(FRAMES)])
    fields = HEADERS | {"inference-header-content-length": str(len(header))}
    response = client.post("/v2/models/wide/infer", content=pieces, headers=fields)
    assert response.status_code == 200
    endless = (bytes(1 << 20) for _ in range(64))
    try:
        refused = client.post("/v2/models/wide/infer", content=endless, headers=fields)
        assert refused.status_code == 413
    except httpx.TransportError:
        pass  # the server closed the connection while the client was still sending


def test_an_abandoned_http_request_is_dropped(handle: ServerHandle, executor: EchoExecutor) -> None:
    header = json.dumps(HEADER).encode()
    tensor = join_bytes(FRAMES)
    head = (
        f"POST /v2/models/wide/infer HTTP/1.1\r\nHost: t\r\ntacit-key-id: {'ab' * 32}\r\n"
        f"Inference-Header-Content-Length: {len(header)}\r\n"
        f"Content-Length: {len(header) + len(tensor)}\r\n\r\n"
    )
    executor.seconds, before = 1.0, len(executor.jobs)
    try:
        with socket.create_connection(("127.0.0.1", handle.ports.http), 5) as connection:
            connection.sendall(head.encode() + header + tensor)
            while len(executor.jobs) == before:
                time.sleep(0.01)
        wait_until(lambda: executor.jobs[-1].work[0].abandoned)
    finally:
        executor.seconds = 0.0
    assert memory_in_use(handle) == 0


def test_a_cancelled_grpc_request_is_dropped(handle: ServerHandle, executor: EchoExecutor) -> None:
    executor.seconds, before = 1.0, len(executor.jobs)
    try:
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{handle.ports.grpc}") as client:
            given_input = tritonclient.grpc.InferInput("ciphertexts", [1, 1], "BYTES")
            given_input.set_data_from_numpy(np.array([[b"x"]], dtype=np.object_))
            call = client.async_infer(
                "echo", [given_input], lambda result, error: None, headers=HEADERS
            )
            while len(executor.jobs) == before:
                time.sleep(0.01)
            call.cancel()
            wait_until(lambda: executor.jobs[-1].work[0].abandoned)
    finally:
        executor.seconds = 0.0
    assert memory_in_use(handle) == 0


def wait_until(true: object, seconds: float = 60.0) -> None:
    assert callable(true)
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def memory_in_use(handle: ServerHandle) -> int:
    """Bytes of request bodies the server still counts, once it had a moment to finish."""

    def gauge() -> int:
        text = httpx.get(f"http://127.0.0.1:{handle.ports.metrics}/metrics").text
        return int(float(text.split("\ntacit_body_bytes ")[1].split("\n")[0]))

    end = time.monotonic() + 60.0
    while gauge() and time.monotonic() < end:
        time.sleep(0.02)
    return gauge()


def test_a_deadline_is_kept(client: httpx.Client, executor: EchoExecutor) -> None:
    executor.seconds = 5.0
    try:
        parameters = {"binary_data_output": True, "timeout": 50_000}
        header = json.dumps(HEADER | {"parameters": parameters}).encode()
        start = time.monotonic()
        response = post(client, header, join_bytes(FRAMES))
        assert (response.status_code, response.json()["code"]) == (504, "deadline")
        assert time.monotonic() - start < 4.5
    finally:
        executor.seconds = 0.0


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(-3, 5), max_size=3))
def test_grpc_messages_of_any_content_give_typed_errors(
    handle: ServerHandle, raw_input: bytes, shape: list[int]
) -> None:
    request = service_pb2.ModelInferRequest(model_name="wide")
    request.inputs.add(name="ciphertexts", datatype="BYTES", shape=shape)
    request.raw_input_contents.append(raw_input)

    async def call() -> tuple[str, str]:
        import grpc

        address = f"127.0.0.1:{handle.ports.grpc}"
        async with grpc.aio.insecure_channel(address) as channel:
            method = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=service_pb2.ModelInferRequest.SerializeToString,
                response_deserializer=service_pb2.ModelInferResponse.FromString,
            )
            try:
                await method(request, metadata=tuple(HEADERS.items()))
            except grpc.aio.AioRpcError as error:
                codes = [value for key, value in error.trailing_metadata() if key == "tacit-code"]
                return error.code().name, codes[0]
        return "OK", ""

    status, code = asyncio.run(call())
    assert status in ("OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
    assert code != "internal"


def test_parameters_must_be_simple() -> None:
    parameters = {"plan": [1], "binary_data_output": True}
    text = json.dumps(HEADER | {"parameters": parameters}).encode()
    with pytest.raises(BadRequestError, match="a text, number or boolean expected"):
        parse_infer_header(text)
