"""Read and check an ONNX model; what comes out is safe to walk and small enough to hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import inliner, numpy_helper

from tacit.errors import ModelError

MAX_FILE_BYTES = 1 << 30
MAX_NODES = 20_000
MAX_ROW_ELEMENTS = 1 << 22
MIN_OPSET = 7
SUBGRAPH_OPS = ("If", "Loop", "Scan", "SequenceMap")


@dataclass(frozen=True, slots=True, eq=False)
class OnnxNode:
    """One operator of the model.

    Attributes:
        op: operator name, e.g. "Gemm".
        domain: "" for ai.onnx, "ai.onnx.ml", or "tacit" for a part of a split operator.
        name: how messages call the node; never empty.
        attributes: decoded: numbers, strings, tuples of those, or numpy arrays.
        version: opset version of the domain.
        proto: the ONNX node it was read from, or None.
    """

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, object]
    version: int
    proto: onnx.NodeProto | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A checked model.

    Attributes:
        inputs: name -> per-row shape, the row axis removed.
        batch: the fixed number of rows the model was exported with, or 0 when it is symbolic.
        constants: the initializers.
        element_types: ONNX element types of inputs, initializers and what is declared between.
    """

    proto: onnx.ModelProto
    inputs: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    batch: int
    constants: Mapping[str, NDArray[np.generic]]
    nodes: tuple[OnnxNode, ...]
    element_types: Mapping[str, int]


def load_model(source: onnx.ModelProto | bytes | str | Path) -> LoadedModel:
    """Read a model and check everything that does not depend on what its operators mean.

    Args:
        source: a path, the bytes of an ONNX file, or a ModelProto.

    Raises:
        ModelError: unreadable, malformed, too large, dynamic, external data, or subgraphs.
    """
    model = _read(source)
    _refuse_external_or_sparse(model)
    model = _inline_functions(model)
    _check(model)
    versions = _opset_versions(model)
    constants = {tensor.name: array_from(tensor) for tensor in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in constants]
    return LoadedModel(
        proto=model,
        inputs={item.name: _row_shape(item) for item in inputs},
        outputs=tuple(item.name for item in model.graph.output),
        batch=_fixed_batch(inputs),
        constants=constants,
        nodes=tuple(_decode(node, versions) for node in model.graph.node),
        element_types=_element_types(model.graph),
    )


def array_from(tensor: onnx.TensorProto) -> NDArray[np.generic]:
    """Decode a tensor; strings become a numpy `str` array.

    Raises:
        ModelError: its bytes do not fill its shape, or it holds NaN.
    """
    try:
        array = np.asarray(numpy_helper.to_array(tensor))
    except Exception as error:
        raise ModelError(f"tensor {tensor.name!r} cannot be decoded: export again") from error
    if array.dtype == object:
        texts = [item.decode() if isinstance(item, bytes) else str(item) for item in array.flat]
        return np.array(texts, dtype=str).reshape(array.shape)
    if array.dtype.kind == "V" or array.dtype.name.startswith(("bfloat", "float8")):
        array = array.astype(np.float32)
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ModelError(f"tensor {tensor.name!r} holds NaN: train or export the model again")
    return array


def _read(source: onnx.ModelProto | bytes | str | Path) -> onnx.ModelProto:
    if isinstance(source, onnx.ModelProto):
        return source
    if not isinstance(source, bytes):
        source = _read_file(Path(source))
    try:
        return onnx.load_model_from_string(source)
    except Exception as error:
        raise ModelError("not an ONNX file: the bytes are not a valid protobuf") from error


def _read_file(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ModelError(f"{path.name} has {size} bytes, at most {MAX_FILE_BYTES} are read")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error


def _refuse_external_or_sparse(model: onnx.ModelProto) -> None:
    for tensor in _all_tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ModelError(
                f"tensor {tensor.name!r} is stored in another file: save the model with all "
                "weights inside (onnx.save(model, path, save_as_external_data=False))"
            )
    if model.graph.sparse_initializer:
        raise ModelError("sparse initializers are not read: store the weights as dense tensors")


def _all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    for nodes in bodies:
        for node in nodes:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    _refuse_many_nodes(model)
    if not model.functions:
        return model
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:
        raise ModelError(f"the model's local functions cannot be inlined: {error}") from error


def _refuse_many_nodes(model: onnx.ModelProto) -> None:
    """Count the nodes there will be once local functions are inlined, without inlining them."""
    bodies = {(function.domain, function.name): function.node for function in model.functions}
    counts: dict[tuple[str, str], int] = {}

    def count(nodes: object, open_calls: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in nodes:  # type: ignore[attr-defined]
            key = (node.domain, node.op_type)
            if key in open_calls:
                raise ModelError(f"the local function {node.op_type!r} calls itself")
            if key in bodies and key not in counts:
                counts[key] = count(bodies[key], (*open_calls, key))
            total += counts.get(key, 1)
        if total > MAX_NODES:
            raise ModelError(f"the model has more than {MAX_NODES} nodes: simplify it first")
        return total

    count(model.graph.node, ())


def _check(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type in SUBGRAPH_OPS or any(
            attribute.HasField("g") or attribute.graphs for attribute in node.attribute
        ):
            raise ModelError(
                f"node {node.name or node.output[0]!r} ({node.op_type}) holds a subgraph: export "
                "the model without control flow (unroll loops, fix conditions)"
            )
    try:
        onnx.checker.check_model(model, full_check=False, skip_opset_compatibility_check=True)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "the checker gives no reason")
        hint = ""
        if "No Op registered" in reason:
            hint = (
                ". The exporter wrote an operator that ONNX does not have: write that layer "
                "differently (Keras: gelu with approximate=True) or use another exporter"
            )
        raise ModelError(f"not a valid ONNX model: {reason}{hint}") from error
    if not model.graph.output:
        raise ModelError("the model has no output")


def _opset_versions(model: onnx.ModelProto) -> dict[str, int]:
    versions: dict[str, int] = {}
    for opset in model.opset_import:
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        versions[domain] = max(opset.version, versions.get(domain, 0))
    if versions.get("", MIN_OPSET) < MIN_OPSET:
        raise ModelError(
            f"the model uses ONNX opset {versions['']}, at least {MIN_OPSET} is needed: "
            "export it with a newer opset"
        )
    return versions


def _row_shape(item: onnx.ValueInfoProto) -> tuple[int, ...]:
    tensor = item.type.tensor_type
    if not item.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise ModelError(f"input {item.name!r} must be a tensor with a declared shape")
    if tensor.elem_type == onnx.TensorProto.STRING:
        raise ModelError(
            f"input {item.name!r} holds strings: encode categories as numbers before the model"
        )
    axes = tensor.shape.dim
    if not axes:
        raise ModelError(f"input {item.name!r} is a scalar: its first axis must count the rows")
    for position, axis in enumerate(axes[1:], start=1):
        if axis.dim_value <= 0:
            raise ModelError(
                f"input {item.name!r} has the dynamic axis {position} ({axis.dim_param or '?'}): "
                "only the first axis (rows) may vary, export with fixed lengths elsewhere"
            )
    shape = tuple(int(axis.dim_value) for axis in axes[1:])
    if np.prod(shape, dtype=float) > MAX_ROW_ELEMENTS:
        raise ModelError(f"input {item.name!r} has shape {shape}: too large to encrypt")
    return shape


def _fixed_batch(inputs: list[onnx.ValueInfoProto]) -> int:
    found = {item.type.tensor_type.shape.dim[0].dim_value for item in inputs} - {0}
    if len(found) > 1:
        raise ModelError(f"the inputs have different numbers of rows on axis 0: {sorted(found)}")
    return int(found.pop()) if found else 0


def _element_types(graph: onnx.GraphProto) -> dict[str, int]:
    declared = {
        item.name: int(item.type.tensor_type.elem_type)
        for item in (*graph.value_info, *graph.input)
        if item.type.HasField("tensor_type")
    }
    return declared | {tensor.name: int(tensor.data_type) for tensor in graph.initializer}


def _decode(node: onnx.NodeProto, versions: dict[str, int]) -> OnnxNode:
    domain = "" if node.domain == "ai.onnx" else node.domain
    return OnnxNode(
        op=node.op_type,
        domain=domain,
        name=node.name or next((name for name in node.output if name), node.op_type),
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes={item.name: _attribute(item) for item in node.attribute},
        version=versions.get(domain, 1),
        proto=node,
    )


def _attribute(item: onnx.AttributeProto) -> object:
    value = onnx.helper.get_attribute_value(item)
    if isinstance(value, onnx.TensorProto):
        return array_from(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (int, float, str)):
        return value
    parts = (part.decode("utf-8", "replace") if isinstance(part, bytes) else part for part in value)
    return tuple(parts)
