"""An unmodified tritonclient over gRPC against an echoing server."""

import json
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tacit.runtime.listeners import Ports
from tests.runtime.echo import HEADERS, KEY

Client = Any
"""tritonclient ships no types."""


@pytest.fixture
def client(ports: Ports) -> Iterator[Client]:
    with triton.InferenceServerClient(f"127.0.0.1:{ports.grpc}") as client:
        yield client


def tensor(*rows: list[bytes]) -> Any:
    values = np.array(rows, dtype=np.object_)
    given = triton.InferInput("ciphertexts", list(values.shape), "BYTES")
    given.set_data_from_numpy(values)
    return given


@pytest.mark.parametrize("size", [1, 10, 65_536, 1 << 20, 16_000_000])
def test_random_bytes_of_any_size_come_back_unchanged(client: Client, size: int) -> None:
    payload = np.random.default_rng(size).bytes(size)
    result = client.infer("echo", [tensor([payload])], headers=HEADERS)
    assert result.as_numpy("ciphertexts").tolist() == [[payload]]


def test_trailing_zero_bytes_are_kept_and_order_too(client: Client) -> None:
    rows = [[b"\x00\xff\x00" * row, b"b\x00", b"c"] for row in range(1, 4)]
    result = client.infer("wide", [tensor(*rows)], headers=HEADERS)
    assert result.as_numpy("ciphertexts").tolist() == rows


def test_compressed_requests_are_read(client: Client) -> None:
    result = client.infer(
        "echo", [tensor([bytes(100_000)])], headers=HEADERS, compression_algorithm="gzip"
    )
    assert result.as_numpy("ciphertexts").item() == bytes(100_000)


def test_id_parameters_and_timing_are_answered(client: Client) -> None:
    result = client.infer(
        "echo", [tensor([b"x"])], request_id="7", parameters={"key_id": KEY, "plan": "latency"}
    )
    answer = result.get_response()
    assert answer.id == "7"
    assert answer.parameters["evaluate_seconds"].double_param == 0.002
    assert answer.parameters["plan"].string_param == "latency"


def test_health_metadata_config_statistics_and_index_are_answered(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("echo", "1")
    assert client.get_server_metadata().name == "tacit"
    assert list(client.get_model_metadata("wide").inputs[0].shape) == [-1, 3]
    config = client.get_model_config("wide").config
    signature = json.loads(config.parameters["tacit_signature"].string_value)
    assert signature["plans"][0]["name"] == "latency"
    client.infer("echo", [tensor([b"x"])], headers=HEADERS)
    statistics = client.get_inference_statistics("echo").model_stats[0]
    assert statistics.inference_count >= 1
    assert statistics.version == "1"
    assert {model.name for model in client.get_model_repository_index().models} == {"echo", "wide"}


def test_models_are_unloaded_and_loaded(client: Client) -> None:
    client.unload_model("wide")
    assert not client.is_model_ready("wide")
    client.load_model("wide")
    assert client.is_model_ready("wide")


@pytest.mark.parametrize(
    ("model", "rows", "headers", "status", "code"),
    [
        ("nothing", [[b"x"]], HEADERS, "NOT_FOUND", "unknown_model"),
        ("wide", [[b"x"]], HEADERS, "INVALID_ARGUMENT", "input_shape"),
        ("echo", [[b"x"]], {"tacit-key-id": "00" * 32}, "NOT_FOUND", "key_unknown"),
        ("echo", [[b"x"]], {}, "INVALID_ARGUMENT", "wire_truncated"),
        ("echo", [[b"x"]] * 65, HEADERS, "RESOURCE_EXHAUSTED", "wire_oversized"),
    ],
)
def test_each_mistake_has_its_status_and_code(
    client: Client,
    model: str,
    rows: list[list[bytes]],
    headers: dict[str, str],
    status: str,
    code: str,
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor(*rows)], headers=headers)
    assert caught.value.status() == f"StatusCode.{status}"
    assert caught.value.message().startswith(f"{code}: ")


def test_asynchronous_requests_are_answered(client: Client) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for index in range(4):
        client.async_infer(
            "echo",
            [tensor([bytes([index])])],
            callback=lambda result, error: answers.put((result, error)),
            headers=HEADERS,
        )
    received = [answers.get(timeout=60) for _ in range(4)]
    assert all(error is None for _, error in received)
    values = {result.as_numpy("ciphertexts").item() for result, _ in received}
    assert values == {bytes([index]) for index in range(4)}


def test_a_stream_answers_in_order_and_survives_a_failed_request(client: Client) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=HEADERS)
    client.async_stream_infer("echo", [tensor([b"first"])], request_id="1")
    client.async_stream_infer("nothing", [tensor([b"second"])], request_id="2")
    client.async_stream_infer("echo", [tensor([b"third"])], request_id="3")
    received = [answers.get(timeout=60) for _ in range(3)]
    client.stop_stream()
    assert received[0][0].as_numpy("ciphertexts").item() == b"first"
    assert "unknown_model" in str(received[1][1])
    assert received[2][0].as_numpy("ciphertexts").item() == b"third"
