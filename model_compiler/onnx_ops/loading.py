"""Read and check an ONNX model; what comes out is safe to walk and small enough to hold."""

from __future__ import annotations

import heapq
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import inliner, numpy_helper

from tacit.errors import ModelError
from tacit.model_compiler.onnx_ops.checking import (
    check_model,
    node_name,
    opset_versions,
    refuse_many_nodes,
    refuse_sparse,
    refuse_unreadable_names,
    row_shape,
    shown,
)
from tacit.model_compiler.onnx_ops.external import read_outside_weights

MAX_FILE_BYTES = 1 << 30
MAX_ROW_ELEMENTS = 1 << 22


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
        ModelError: unreadable, malformed, too large, dynamic, weights elsewhere, or subgraphs.
    """
    model, folder = _read(source)
    refuse_many_nodes(model)
    refuse_unreadable_names(model)
    read_outside_weights(model, folder)
    refuse_sparse(model)
    versions = opset_versions(model)
    model = _in_order(_inline_functions(model))
    check_model(model)
    constants = {tensor.name: array_from(tensor) for tensor in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in constants]
    return LoadedModel(
        proto=model,
        inputs={item.name: row_shape(item, MAX_ROW_ELEMENTS) for item in inputs},
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
        raise ModelError(
            f"tensor {shown(tensor.name)!r} cannot be decoded: export again"
        ) from error
    if array.dtype.kind == "c":
        raise ModelError(f"tensor {shown(tensor.name)!r} holds complex numbers: use real ones")
    if array.dtype == object:
        texts = [item.decode() if isinstance(item, bytes) else str(item) for item in array.flat]
        return np.array(texts, dtype=str).reshape(array.shape)
    if array.dtype.kind == "V" or array.dtype.name.startswith(("bfloat", "float8")):
        array = array.astype(np.float32)
    if array.dtype.kind == "f" and np.isnan(array).any():
        name = shown(tensor.name)
        raise ModelError(f"tensor {name!r} holds NaN: train or export the model again")
    return array


def _read(source: onnx.ModelProto | bytes | str | Path) -> tuple[onnx.ModelProto, Path | None]:
    """Return the model and the folder it was read from."""
    if isinstance(source, onnx.ModelProto):
        return source, None
    data = source if isinstance(source, bytes) else _read_file(Path(source))
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise ModelError("not an ONNX file: the bytes are not a valid protobuf") from error
    return model, None if isinstance(source, bytes) else Path(source).parent


def _read_file(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ModelError(f"cannot read {path}: it is not a file")
        if found.st_size > MAX_FILE_BYTES:
            raise ModelError(
                f"{path.name} has {found.st_size} bytes, at most {MAX_FILE_BYTES} are read: "
                "a model of this size would not run on encrypted values"
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error


def _inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    if not model.functions:
        return model
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:
        raise ModelError(f"the model's local functions cannot be inlined: {error}") from error


def _in_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every node behind those it reads; onnxruntime takes any order.

    Nodes in a circle stay where they are, for the checker to complain about.
    """
    nodes = list(model.graph.node)
    writers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    needs = [{writers[name] for name in node.input if name in writers} for node in nodes]
    readers: list[list[int]] = [[] for _ in nodes]
    for place, needed in enumerate(needs):
        for writer in needed:
            readers[writer].append(place)
    ready = [place for place, needed in enumerate(needs) if not needed]
    order: list[int] = []
    while ready:
        place = heapq.heappop(ready)
        order.append(place)
        for reader in readers[place]:
            needs[reader].discard(place)
            if not needs[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(nodes) or order == sorted(order):
        return model
    in_order = onnx.ModelProto()
    in_order.CopyFrom(model)
    del in_order.graph.node[:]
    in_order.graph.node.extend(nodes[place] for place in order)
    return in_order


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
        name=node_name(node),
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes={item.name: _attribute(item, node) for item in node.attribute},
        version=versions.get(domain, 1),
        proto=node,
    )


def _attribute(item: onnx.AttributeProto, node: onnx.NodeProto) -> object:
    try:
        value = onnx.helper.get_attribute_value(item)
    except ValueError as error:
        raise ModelError(
            f"node {node_name(node)!r} ({shown(node.op_type)}): the attribute {shown(item.name)!r} "
            "has no value: export the model again"
        ) from error
    if isinstance(value, onnx.TensorProto):
        return array_from(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (int, float, str)):
        return value
    parts = (part.decode("utf-8", "replace") if isinstance(part, bytes) else part for part in value)
    return tuple(parts)
