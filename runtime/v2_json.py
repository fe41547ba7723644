"""The JSON header of a KServe v2 inference request and response, read strictly.

One input tensor `ciphertexts` of datatype BYTES, given in binary (the binary tensor data
extension). Ciphertexts are not text, so JSON tensors are refused in both directions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tacit.errors import InputShapeError
from tacit.runtime.refusals import BadRequestError
from tacit.runtime.requests import TENSOR, InferAnswer, Scalar
from tacit.runtime.tensors import joined_length

LARGEST_HEADER = 256 * 1024
_LONGEST_NUMBER = 20
_LONGEST_TEXT = 4096


@dataclass(frozen=True, slots=True)
class InferHeader:
    """What the JSON part of a request says.

    Attributes:
        shape: of the one input tensor.
        binary_bytes: its declared length behind the JSON; None for a raw request.
    """

    id: str
    parameters: Mapping[str, Scalar]
    shape: tuple[int, ...]
    binary_bytes: int | None


def parse_object(
    text: bytes | bytearray | memoryview, limit_bytes: int = LARGEST_HEADER
) -> dict[str, object]:
    """Parse a small JSON object from outside.

    Raises:
        BadRequestError: too large, not JSON, not an object, or numbers beyond 64 bits.
    """
    if len(text) > limit_bytes:
        raise BadRequestError(f"JSON of more than {limit_bytes} bytes")
    try:
        fields = json.loads(bytes(text), parse_int=_integer, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"not a JSON object: {type(error).__name__}") from error
    if not isinstance(fields, dict):
        raise BadRequestError(f"a JSON object expected, got {type(fields).__name__}")
    return fields


def parse_infer_header(text: bytes | bytearray | memoryview) -> InferHeader:
    """Read the JSON header of an inference request.

    Raises:
        BadRequestError: anything but one binary BYTES input named `ciphertexts`.
        InputShapeError: a shape that is not a list of positive integers.
    """
    fields = parse_object(text)
    inputs = fields.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadRequestError(f"exactly one input tensor expected, named {TENSOR!r}")
    tensor = inputs[0]
    check_tensor(tensor.get("name"), tensor.get("datatype"))
    _check_outputs(fields)
    return InferHeader(
        id=_text(fields.get("id", ""), "id"),
        parameters=parse_parameters(fields.get("parameters", {})),
        shape=_shape(tensor.get("shape")),
        binary_bytes=_binary_bytes(tensor),
    )


def check_tensor(name: object, datatype: object) -> None:
    """Refuse input tensors other than `ciphertexts`, BYTES."""
    if name != TENSOR:
        raise BadRequestError(f"unknown input {str(name)[:64]!r}: the only input is {TENSOR!r}")
    if datatype != "BYTES":
        raise BadRequestError(f"input {TENSOR!r}: datatype BYTES expected, got {datatype!r:.64}")


def parse_parameters(value: object) -> dict[str, Scalar]:
    """Check request parameters: an object of short texts, numbers and booleans."""
    if not isinstance(value, dict):
        raise BadRequestError("`parameters` must be a JSON object")
    for name, item in value.items():
        if not isinstance(item, bool | int | float | str):
            raise BadRequestError(f"parameter {name[:64]!r}: a text, number or boolean expected")
        if isinstance(item, str):
            _text(item, f"parameter {name[:64]!r}")
    return value


def answer_header(answer: InferAnswer) -> bytes:
    """Write the JSON header of a response."""
    output = {
        "name": TENSOR,
        "datatype": "BYTES",
        "shape": list(answer.shape),
        "parameters": {"binary_data_size": joined_length(answer.frames)},
    }
    fields: dict[str, object] = {
        "model_name": answer.model,
        "model_version": answer.version,
        "parameters": dict(answer.parameters),
        "outputs": [output],
    }
    if answer.id:
        fields["id"] = answer.id
    return json.dumps(fields).encode()


def _check_outputs(fields: Mapping[str, object]) -> None:
    outputs = fields.get("outputs")
    if outputs is None:
        parameters = fields.get("parameters", {})
        wanted = isinstance(parameters, dict) and parameters.get("binary_data_output", False)
        _check_binary(wanted)
        return
    if not isinstance(outputs, list) or len(outputs) > 1:
        raise BadRequestError(f"at most one output can be asked for: {TENSOR!r}")
    for output in outputs:
        if not isinstance(output, dict) or output.get("name") != TENSOR:
            raise BadRequestError(f"unknown output: the only output is {TENSOR!r}")
        parameters = output.get("parameters", {})
        if not isinstance(parameters, dict) or "classification" in parameters:
            raise BadRequestError("the server cannot classify: outputs are ciphertexts")
        _check_binary(parameters.get("binary_data", False))


def _check_binary(wanted: object) -> None:
    if wanted is not True:
        raise BadRequestError(
            "ciphertexts cannot be sent as JSON: ask for binary output (`binary_data: true` of the "
            "output, or the request parameter `binary_data_output: true`)"
        )


def _binary_bytes(tensor: Mapping[str, object]) -> int:
    parameters = tensor.get("parameters", {})
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if "data" in tensor or size is None:
        raise BadRequestError(
            "ciphertexts cannot be sent as JSON strings: use the binary tensor data extension "
            "(tritonclient's default, `binary_data_size` in the input's parameters)"
        )
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BadRequestError("binary_data_size must be a number of bytes")
    return size


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 8:
        raise InputShapeError("a tensor needs a shape, a list of positive integers")
    if not all(isinstance(e, int) and not isinstance(e, bool) and e > 0 for e in value):
        raise InputShapeError("a tensor needs a shape, a list of positive integers")
    return tuple(value)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise BadRequestError(f"{what} must be a text of at most {_LONGEST_TEXT} characters")
    if not value.isprintable():
        raise BadRequestError(f"{what} must be printable text")
    return value


def _integer(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError("a number beyond 64 bits")
    return int(text)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
