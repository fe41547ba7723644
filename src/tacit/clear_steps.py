"""Exact steps the client runs in the clear: the model's prologue and epilogue.

A step reads named tensors, runs one numpy operation and writes one named tensor. Every tensor has
the rows on axis 0. Steps travel in the public half of an artifact, so `from_json` trusts nothing:
unknown operations, attributes or element types are refused before anything runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tacit.clear_operations import OPERATIONS, Array, Operation
from tacit.errors import ArtifactError, InputShapeError

DTYPES = (
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "bool",
    "str",
)
MAX_ARRAY_ELEMENTS = 1 << 20
MAX_RANK = 32


@dataclass(frozen=True, slots=True)
class ClearStep:
    """One numpy step on named tensors; `op` is one of the names this module knows.

    Attributes:
        op: a name in `known_operations()`.
        inputs: tensors read, in order; constant operands are attributes instead.
        outputs: the one tensor written; a step may write over a tensor it read.
        attributes: axes count the rows as axis 0; arrays are numpy arrays, lists of integers are
            tuples (a JSON list is read back as a tuple).
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        operation = OPERATIONS.get(self.op)
        if operation is None:
            raise ArtifactError(
                f"unknown clear step {self.op!r}; known: {', '.join(known_operations())}. "
                "Update the client, or compile the model again with this version"
            )
        _check_step(self, operation)

    def to_json(self) -> dict[str, object]:
        """Return a dict of JSON types; `from_json` reads it back."""
        attributes = {key: _attribute_to_json(value) for key, value in self.attributes.items()}
        return {
            "op": self.op,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "attributes": attributes,
        }

    @classmethod
    def from_json(cls, document: object) -> ClearStep:
        """Read a step written by `to_json`.

        Raises:
            ArtifactError: unknown operation, attribute or element type, or wrong structure.
        """
        keys = {"op", "inputs", "outputs", "attributes"}
        if not isinstance(document, dict) or set(document) != keys:
            raise ArtifactError(f"a clear step must be an object with the keys {sorted(keys)}")
        attributes = document["attributes"]
        if not isinstance(attributes, dict) or not all(isinstance(key, str) for key in attributes):
            raise ArtifactError("clear step attributes must be an object")
        if not isinstance(document["op"], str):
            raise ArtifactError("clear step operation must be a string")
        return cls(
            document["op"],
            _names_from_json(document["inputs"]),
            _names_from_json(document["outputs"]),
            {key: _attribute_from_json(value) for key, value in attributes.items()},
        )


def known_operations() -> tuple[str, ...]:
    """List the operation names, sorted."""
    return tuple(sorted(OPERATIONS))


def steps_to_json(steps: Iterable[ClearStep]) -> list[dict[str, object]]:
    """Return the steps as a list of JSON objects, in order."""
    return [step.to_json() for step in steps]


def steps_from_json(documents: object) -> tuple[ClearStep, ...]:
    """Read a list written by `steps_to_json`.

    Raises:
        ArtifactError: anything but a list of valid steps.
    """
    if not isinstance(documents, list):
        raise ArtifactError("clear steps must be a list")
    return tuple(ClearStep.from_json(document) for document in documents)


def apply_steps(steps: Iterable[ClearStep], tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Run the steps in order.

    Args:
        steps: the steps.
        tensors: arrays with the rows on axis 0.

    Returns:
        The given tensors and every tensor the steps wrote.

    Raises:
        InputShapeError: a tensor is missing or its shape or dtype does not fit a step.
    """
    values = dict(tensors)
    for step in steps:
        missing = [name for name in step.inputs if name not in values]
        if missing:
            raise InputShapeError(f"clear step {step.op!r} needs the tensors {missing}: pass them")
        operands = [np.asarray(values[name]) for name in step.inputs]
        values[step.outputs[0]] = _run_step(step, operands)
    return values


def _run_step(step: ClearStep, operands: list[Array]) -> Array:
    try:
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            return np.asarray(OPERATIONS[step.op].run(operands, step.attributes))
    except (ValueError, IndexError, TypeError) as error:
        found = [
            f"{name}: {value.dtype}{list(value.shape)}"
            for name, value in zip(step.inputs, operands, strict=True)
        ]
        raise InputShapeError(
            f"clear step {step.op!r} cannot run on {'; '.join(found)}: "
            "give tensors with the shapes and types the model's signature names"
        ) from error


# -- validation and JSON ------------------------------------------------------------------------


def _check_step(step: ClearStep, operation: Operation) -> None:
    low, high = operation.inputs
    if not low <= len(step.inputs) <= high:
        raise ArtifactError(f"clear step {step.op!r} takes {low} to {high} inputs")
    constants = sum(key in step.attributes for key in ("left", "right"))
    if operation.operands and len(step.inputs) + constants != operation.operands:
        raise ArtifactError(f"clear step {step.op!r} takes {operation.operands} operands")
    if len(step.outputs) != 1:
        raise ArtifactError(f"clear step {step.op!r} writes exactly one tensor")
    unknown = set(step.attributes) - set(operation.attributes)
    if unknown:
        raise ArtifactError(f"clear step {step.op!r} has unknown attributes {sorted(unknown)}")
    for key, kind in operation.attributes.items():
        if key not in step.attributes and kind.endswith("?"):
            continue
        if not _is_kind(step.attributes.get(key), kind.rstrip("?")):
            raise ArtifactError(
                f"clear step {step.op!r} needs the attribute {key!r} of kind {kind!r}"
            )


def _is_kind(value: object, kind: str) -> bool:
    match kind:
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "bool":
            return isinstance(value, bool)
        case "float":
            return isinstance(value, float) and math.isfinite(value)
        case "dtype":
            return value in DTYPES
        case "ints":
            return (
                isinstance(value, tuple)
                and len(value) <= MAX_RANK
                and all(_is_kind(item, "int") for item in value)
            )
        case "array":
            return isinstance(value, np.ndarray) and _dtype_name(value) in DTYPES
    return kind == "norm" and value in ("L1", "L2", "MAX")


def _dtype_name(array: Array) -> str:
    return "str" if array.dtype.kind == "U" else array.dtype.name


def _attribute_to_json(value: object) -> object:
    if isinstance(value, np.ndarray):
        shape = list(value.shape)
        return {"dtype": _dtype_name(value), "shape": shape, "values": value.ravel().tolist()}
    return list(value) if isinstance(value, tuple) else value


def _attribute_from_json(value: object) -> object:
    if isinstance(value, list):
        if len(value) > MAX_RANK:
            raise ArtifactError(f"a clear step attribute lists more than {MAX_RANK} numbers")
        return tuple(value)
    return _array_from_json(value) if isinstance(value, dict) else value


def _array_from_json(document: dict[object, object]) -> Array:
    if set(document) != {"dtype", "shape", "values"} or document["dtype"] not in DTYPES:
        raise ArtifactError(f"a clear step array needs dtype (one of {DTYPES}), shape and values")
    shape, values = document["shape"], document["values"]
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not isinstance(values, list):
        raise ArtifactError("a clear step array needs lists as shape and values")
    if not all(_is_kind(length, "int") and length >= 0 for length in shape):
        raise ArtifactError("a clear step array's shape must hold non-negative integers")
    if len(values) > MAX_ARRAY_ELEMENTS or math.prod(shape) != len(values):
        raise ArtifactError(
            f"a clear step array of shape {shape} needs {math.prod(shape)} values, at most "
            f"{MAX_ARRAY_ELEMENTS}; got {len(values)}"
        )
    expected: tuple[type, ...] = (str,) if document["dtype"] == "str" else (bool, int, float)
    if not all(isinstance(item, expected) for item in values):
        raise ArtifactError(f"a clear step array of {document['dtype']} holds other values")
    try:
        return np.array(values, dtype=str(document["dtype"])).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise ArtifactError(f"a clear step array does not hold {document['dtype']}") from error


def _names_from_json(names: object) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ArtifactError("clear step inputs and outputs must be lists of tensor names")
    return tuple(names)
