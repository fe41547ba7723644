"""`config.pbtxt`, read by protobuf's own parser into tritonclient's own message."""

import httpx
import pytest
import tritonclient.grpc
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tacit.runtime.config_text import config_text
from tacit.runtime.listeners import Ports

AWKWARD = 'quote " backslash \\ tab \t newline \n zero \0 umlaut ü emoji 🦊 octal 7'


def parsed(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize("model", ["echo", "wide"])
def test_the_text_says_what_triton_clients_hear_over_grpc(ports: Ports, model: str) -> None:
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{ports.grpc}") as client:
        expected = client.get_model_config(model).config
    for path in (f"/v1/models/{model}/versions/1", f"/v1/models/{model}"):
        answer = httpx.get(f"http://127.0.0.1:{ports.http}{path}/config.pbtxt")
        assert answer.headers["content-type"].startswith("text/plain")
        assert parsed(answer.text) == expected
        assert f'name: "{model}"\n' in answer.text
        assert "data_type: TYPE_STRING\n" in answer.text


def test_an_unknown_model_is_named(ports: Ports) -> None:
    url = f"http://127.0.0.1:{ports.http}/v1/models/none/versions/1/config.pbtxt"
    answer = httpx.get(url)
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")


def test_any_text_survives() -> None:
    fields = {"name": AWKWARD, "parameters": {AWKWARD: {"string_value": AWKWARD * 3}}}
    text = config_text(fields)
    assert text.isascii()
    config = parsed(text)
    assert config.name == AWKWARD
    assert config.parameters[AWKWARD].string_value == AWKWARD * 3


def test_numbers_lists_and_nested_fields_survive() -> None:
    fields = {
        "max_batch_size": 64,
        "input": [
            {"name": "a", "data_type": "TYPE_STRING", "dims": [-1, 3]},
            {"name": "b", "data_type": "TYPE_FP32", "dims": []},
        ],
    }
    config = parsed(config_text(fields))
    assert config.max_batch_size == 64
    assert [list(tensor.dims) for tensor in config.input] == [[-1, 3], []]
    assert [tensor.data_type for tensor in config.input] == [13, 11]
