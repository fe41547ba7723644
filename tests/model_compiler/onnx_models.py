"""Builds small ONNX models from text; runs them by ONNX's reference and as imported graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from tacit.clear_operations import Array
from tacit.clear_steps import apply_steps
from tacit.model_compiler.graph import Graph, evaluate

Floats = NDArray[np.float64]


def build(
    text: str,
    inputs: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, Array] | None = None,
    *,
    outputs: Sequence[str] = ("Y",),
    opset: int = 17,
    rows: int | str = "N",
    ml_opset: int = 3,
) -> onnx.ModelProto:
    """Make a model.

    Args:
        text: one node per line in ONNX's text syntax.
        inputs: name -> per-row shape.
        constants: initializers; float64 arrays are stored as float32.
        outputs: names of the model's outputs.
        opset: version of ai.onnx.
        rows: length of axis 0, a number or a symbol.
        ml_opset: version of ai.onnx.ml.
    """
    nodes = [parser.parse_node(line.strip()) for line in text.strip().splitlines()]
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, *shape])
            for name, shape in inputs.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [
            numpy_helper.from_array(_stored(array), name)
            for name, array in (constants or {}).items()
        ],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml_opset)]
    others = {node.domain for node in nodes} - {"", "ai.onnx.ml"}
    imports += [helper.make_opsetid(domain, 1) for domain in sorted(others)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    for item in model.graph.output:
        item.type.tensor_type.elem_type = TensorProto.FLOAT
        item.type.tensor_type.shape.SetInParent()
    return model


def random_rows(
    inputs: Mapping[str, tuple[int, ...]], rows: int, seed: int = 0
) -> dict[str, Floats]:
    """Draw standard normal input rows."""
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=(rows, *shape)) for name, shape in inputs.items()}


def reference(
    model: onnx.ModelProto, feeds: Mapping[str, Array], *, row_by_row: bool = False
) -> list[Array]:
    """Run ONNX's reference evaluator in double precision.

    ZipMap passes its array on, as the reference does not know it.

    Args:
        model: the model.
        feeds: the inputs.
        row_by_row: feed one row at a time and stack, for models with a fixed batch of 1.
    """
    evaluator = ReferenceEvaluator(_in_double(model))
    with np.errstate(all="ignore"):
        if not row_by_row:
            return [np.asarray(result) for result in evaluator.run(None, dict(feeds))]
        rows = len(next(iter(feeds.values())))
        each = [
            evaluator.run(None, {name: array[i : i + 1] for name, array in feeds.items()})
            for i in range(rows)
        ]
    return [np.concatenate(parts) for parts in zip(*each, strict=True)]


def _in_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy the model with float64 weights, so that only the translation is compared."""
    double = onnx.ModelProto()
    double.CopyFrom(model)
    for tensor in double.graph.initializer:
        _widen(tensor)
    for node in double.graph.node:
        if node.op_type == "ZipMap":
            node.CopyFrom(helper.make_node("Identity", list(node.input), list(node.output)))
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen(attribute.t)
            if node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                value = np.array(helper.get_attribute_value(attribute), dtype=np.float32)
                wide = numpy_helper.from_array(value.astype(np.float64))
                attribute.CopyFrom(helper.make_attribute("value", wide))
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == 1:
                attribute.i = TensorProto.DOUBLE
    return double


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        wide = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))


def run_imported(graph: Graph, feeds: Mapping[str, Array]) -> list[Array]:
    """Run prologue, encrypted core in the clear, epilogue."""
    before = apply_steps(graph.prologue, feeds)
    core_inputs = {name: np.asarray(before[name], dtype=np.float64) for name in graph.inputs}
    for name, array in core_inputs.items():
        assert array.shape[1:] == (graph.size(name),) or graph.shapes[name] == array.shape[1:]
    after = apply_steps(graph.epilogue, evaluate(graph, core_inputs))
    return [after[name] for name in graph.model_outputs]


def _stored(array: Array) -> Array:
    array = np.asarray(array)
    return array.astype(np.float32) if array.dtype == np.float64 else array
