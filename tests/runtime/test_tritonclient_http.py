"""An unmodified tritonclient over HTTP against an echoing server."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tacit.runtime.listeners import Ports
from tests.runtime.echo import HEADERS, KEY

Client = Any
"""tritonclient ships no types."""


@pytest.fixture
def client(ports: Ports) -> Iterator[Client]:
    with triton.InferenceServerClient(f"127.0.0.1:{ports.http}") as client:
        yield client


def tensor(*rows: list[bytes], name: str = "ciphertexts", datatype: str = "BYTES") -> Any:
    values = np.array(rows, dtype=np.object_)
    given = triton.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values)
    return given


@pytest.mark.parametrize("size", [1, 10, 65_536, 1 << 20, 16_000_000])
def test_random_bytes_of_any_size_come_back_unchanged(client: Client, size: int) -> None:
    payload = np.random.default_rng(size).bytes(size)
    result = client.infer("echo", [tensor([payload])], headers=dict(HEADERS))
    assert result.as_numpy("ciphertexts").tolist() == [[payload]]


def test_trailing_zero_bytes_are_kept(client: Client) -> None:
    payload = b"\x00frame\x00\xff\x00\x00"
    result = client.infer("echo", [tensor([payload])], headers=dict(HEADERS))
    assert result.as_numpy("ciphertexts").tolist() == [[payload]]


def test_several_evaluations_keep_their_order(client: Client) -> None:
    rows = [[bytes([row, column]) * 5 for column in range(3)] for row in range(4)]
    result = client.infer("wide", [tensor(*rows)], headers=dict(HEADERS))
    assert result.as_numpy("ciphertexts").tolist() == rows


def test_id_parameters_and_requested_output_are_honoured(client: Client) -> None:
    result = client.infer(
        "echo",
        [tensor([b"x"])],
        request_id="patient-7",
        parameters={"plan": "latency", "key_id": KEY},
        outputs=[triton.InferRequestedOutput("ciphertexts", binary_data=True)],
    )
    answer = result.get_response()
    assert answer["id"] == "patient-7"
    assert answer["parameters"]["plan"] == "latency"
    assert answer["parameters"]["evaluate_seconds"] == 0.002
    assert answer["model_version"] == "1"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_read(client: Client, algorithm: str) -> None:
    payload = bytes(500_000)
    result = client.infer(
        "echo", [tensor([payload])], headers=dict(HEADERS), request_compression_algorithm=algorithm
    )
    assert result.as_numpy("ciphertexts").tolist() == [[payload]]


def test_asynchronous_requests_are_answered(client: Client) -> None:
    pending = [
        client.async_infer("echo", [tensor([bytes([i])])], headers=dict(HEADERS)) for i in range(4)
    ]
    answers = [request.get_result().as_numpy("ciphertexts").item() for request in pending]
    assert answers == [bytes([i]) for i in range(4)]


def test_a_raw_body_is_one_ciphertext(client: Client) -> None:
    body = triton.InferenceServerClient.generate_request_body([tensor([b"raw"])])
    assert body  # the client has a body builder, but sends no raw bodies itself: use its transport
    response = client._post(
        "v2/models/echo/infer",
        b"raw body",
        HEADERS | {"Inference-Header-Content-Length": "0"},
        None,
    )
    assert response.status_code == 200
    assert response.read().endswith(b"\x08\x00\x00\x00raw body")


def test_health_and_readiness_are_answered(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("echo")
    assert client.is_model_ready("echo", "1")
    assert not client.is_model_ready("nothing")


def test_metadata_and_configuration_carry_the_signature(client: Client) -> None:
    metadata = client.get_model_metadata("wide")
    assert metadata["inputs"] == [{"name": "ciphertexts", "datatype": "BYTES", "shape": [-1, 3]}]
    assert metadata["parameters"]["tacit_signature"]["model"] == "echo"
    config = client.get_model_config("wide")
    assert "tacit_signature" in config["parameters"]
    assert client.get_server_metadata()["name"] == "tacit"


def test_statistics_count_requests(client: Client) -> None:
    before = client.get_inference_statistics("wide")["model_stats"][0]["inference_count"]
    client.infer("wide", [tensor([b"a", b"b", b"c"], [b"d", b"e", b"f"])], headers=dict(HEADERS))
    statistics = client.get_inference_statistics("wide")["model_stats"][0]
    assert statistics["inference_count"] == before + 2
    assert statistics["inference_stats"]["success"]["ns"] > 0


def test_the_repository_is_listed_unloaded_and_loaded(client: Client) -> None:
    listed = {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}
    assert listed == {"echo": "READY", "wide": "READY"}
    client.unload_model("wide")
    assert not client.is_model_ready("wide")
    client.load_model("wide")
    assert client.is_model_ready("wide")


@pytest.mark.parametrize(
    ("model", "rows", "options", "status", "code"),
    [
        ("nothing", [[b"x"]], {}, "404", "unknown_model"),
        ("echo", [[b"x"]], {"model_version": "9"}, "404", "unknown_model"),
        ("echo", [[b"x", b"y"]], {}, "400", "input_shape"),
        ("wide", [[b"x"]], {}, "400", "input_shape"),
        ("echo", [[b"x"]], {"headers": {"tacit-key-id": "00" * 32}}, "404", "key_unknown"),
        ("echo", [[b"x"]], {"headers": {}}, "400", "wire_truncated"),
        ("echo", [[b"x"]], {"parameters": {"plan": "other"}}, "400", "bad_request"),
        ("echo", [[b"x"]], {"parameters": {"key_id": "cd" * 32}}, "409", "wire_key"),
        ("echo", [[b"x"]] * 65, {}, "413", "wire_oversized"),
    ],
)
def test_each_mistake_has_its_status_and_code(
    client: Client,
    model: str,
    rows: list[list[bytes]],
    options: dict[str, Any],
    status: str,
    code: str,
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor(*rows)], **({"headers": dict(HEADERS)} | options))
    assert caught.value.status() == status
    assert caught.value.message().startswith(f"{code}: ")


def test_other_tensors_are_refused(client: Client) -> None:
    other = triton.InferInput("pixels", [1], "FP32")
    other.set_data_from_numpy(np.zeros(1, dtype=np.float32))
    with pytest.raises(InferenceServerException, match="the only input is 'ciphertexts'"):
        client.infer("echo", [other], headers=dict(HEADERS))


def test_json_tensors_are_refused_with_a_reason(client: Client) -> None:
    given = triton.InferInput("ciphertexts", [1, 1], "BYTES")
    given.set_data_from_numpy(np.array([["text"]], dtype=np.object_), binary_data=False)
    with pytest.raises(InferenceServerException, match="cannot be sent as JSON strings"):
        client.infer("echo", [given], headers=dict(HEADERS))
    wanted = triton.InferRequestedOutput("ciphertexts", binary_data=False)
    with pytest.raises(InferenceServerException, match="cannot be sent as JSON"):
        client.infer("echo", [tensor([b"x"])], outputs=[wanted], headers=dict(HEADERS))


def test_a_replayed_nonce_is_refused(client: Client) -> None:
    options = {"headers": dict(HEADERS), "parameters": {"nonce": "once"}}
    client.infer("echo", [tensor([b"x"])], **options)
    with pytest.raises(InferenceServerException) as caught:
        client.infer("echo", [tensor([b"x"])], **options)
    assert caught.value.status() == "409"
    assert caught.value.message().startswith("replayed: ")
