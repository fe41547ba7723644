"""Computes what does not depend on the encrypted input: weights and shape arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from onnx import NodeProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tacit.errors import ModelError, UnsupportedModelError
from tacit.model_compiler.onnx_ops.call import Constant, ConstantTensor, RowCount, describe
from tacit.model_compiler.onnx_ops.loading import OnnxNode

MAX_FOLDED_ELEMENTS = 1 << 24
CANDIDATE_ROW_COUNTS = (1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049, 1051, 1061)
SHAPE_OPS = ("Shape", "Size")


def _names(text: str) -> frozenset[str]:
    """Split a list of operator names."""
    return frozenset(text.split())


ELEMENTWISE = _names(
    "Add Sub Mul Div Neg Sqrt Pow Exp Log Abs Floor Ceil Reciprocal Mod Max Min Equal Not And Or "
    "Greater GreaterOrEqual Less LessOrEqual Where Sign Round Cast Identity Relu Sigmoid "
    "Tanh"
)
OTHER = _names(
    "Concat Gather Slice Squeeze Unsqueeze Reshape Flatten Transpose Split ReduceProd ReduceSum "
    "ReduceMean ReduceMax ReduceMin Range ConstantOfShape Expand Tile MatMul Gemm "
    "QuantizeLinear DequantizeLinear Shape Size Constant Pad ArgMax OneHot Trilu ReduceL1 ReduceL2 "
    "ReduceSumSquare ReduceLogSum"
)


def choose_row_count(fixed: int, lengths: set[int]) -> RowCount:
    """Pick the row numbers shapes are folded with.

    Args:
        fixed: the number of rows the model was exported with, or 0.
        lengths: axis lengths that occur in the model; a stand-in must differ from all of them.
    """
    if fixed:
        return RowCount(fixed, fixed)
    free = [count for count in CANDIDATE_ROW_COUNTS if count not in lengths]
    if len(free) < 2:
        raise ModelError("the model has too many axes of prime length: export with fixed rows")
    return RowCount(free[0], free[1])


def shape_constant(node: OnnxNode, shape: tuple[int, ...], rows: RowCount) -> ConstantTensor:
    """Fold Shape or Size of a computed tensor.

    Args:
        node: the Shape or Size node.
        shape: the per-row shape of its operand.
        rows: what stands for the number of rows.
    """
    arrays = []
    for count in (rows.value, rows.other):
        full = np.array((count, *shape), dtype=np.int64)
        start, end = node.attributes.get("start", 0), node.attributes.get("end")
        arrays.append(full[start:end] if node.op == "Shape" else np.asarray(full.prod()))
    return ConstantTensor(arrays[0], arrays[1])


def fold(node: OnnxNode, operands: list[ConstantTensor | None]) -> list[ConstantTensor]:
    """Run a node whose operands are all constant.

    Raises:
        UnsupportedModelError: the operator is not one that is folded.
        ModelError: it cannot run, or its result is too large.
    """
    if node.op == "Constant":
        return [ConstantTensor(constant_value(node))]
    if node.domain != "" or node.op not in ELEMENTWISE | OTHER:
        reason = "its operands are constant and the compiler does not compute it ahead of time"
        raise UnsupportedModelError([describe(node, f"{reason}: simplify the model first")])
    arrays = [None if operand is None else operand.array for operand in operands]
    results = _run(node, arrays)
    if not any(operand is not None and operand.other is not None for operand in operands):
        return [ConstantTensor(array) for array in results]
    others = [
        None if operand is None else operand.array if operand.other is None else operand.other
        for operand in operands
    ]
    return [ConstantTensor(a, b) for a, b in zip(results, _run(node, others), strict=True)]


def constant_value(node: OnnxNode) -> Constant:
    """Decode the value of a Constant node."""
    for key, value in node.attributes.items():
        if isinstance(value, np.ndarray):
            return value
        if key in ("value_float", "value_floats"):
            numbers = np.asarray(value, dtype=np.float32)
            if np.isnan(numbers).any():
                raise ModelError(f"node {node.name!r} (Constant) holds NaN: export again")
            return numbers
        if key in ("value_int", "value_ints"):
            return np.asarray(value, dtype=np.int64)
        if key in ("value_string", "value_strings"):
            return np.asarray(value, dtype=str)
    raise ModelError(f"node {node.name!r} (Constant) has no dense value: export again")


def _run(node: OnnxNode, arrays: list[Constant | None]) -> list[Constant]:
    if _result_elements(node, arrays) > MAX_FOLDED_ELEMENTS:
        raise ModelError(
            f"node {node.name!r} ({node.op}) makes a constant that is too large: at most "
            f"{MAX_FOLDED_ELEMENTS} elements are computed ahead of time"
        )
    names = [name for name, array in zip(node.inputs, arrays, strict=True) if array is not None]
    inputs = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in names]
    outputs = [
        helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in node.outputs if n
    ]
    proto = node.proto or _proto(node)
    graph = helper.make_graph([proto], "fold", inputs, outputs)
    # ONNX's reference has forgotten the older versions, which mean the same
    oldest = 19 if node.op in ("QuantizeLinear", "DequantizeLinear") else node.version
    opset = helper.make_opsetid("", max(node.version, oldest))
    feeds = {n: a for n, a in zip(node.inputs, arrays, strict=True) if a is not None}
    try:
        with np.errstate(all="ignore"):
            model = helper.make_model(graph, opset_imports=[opset])
            results = ReferenceEvaluator(model).run(None, feeds)
    except Exception as error:
        raise ModelError(
            f"node {node.name!r} ({node.op}) cannot be computed from its constants: export again"
        ) from error
    return [np.asarray(result) for result in results]


def _proto(node: OnnxNode) -> NodeProto:
    proto = helper.make_node(node.op, node.inputs, node.outputs)
    proto.attribute.extend(helper.make_attribute(*item) for item in node.attributes.items())
    return proto


def _result_elements(node: OnnxNode, arrays: list[Constant | None]) -> float:
    """Bound the size of a result before it is computed."""
    given = [array for array in arrays if array is not None]
    total = float(sum(array.size for array in given))
    if node.op in ELEMENTWISE:
        rank = max((array.ndim for array in given), default=0)
        shapes = [(1,) * (rank - array.ndim) + array.shape for array in given]
        return math.prod(map(float, (max(lengths) for lengths in zip(*shapes, strict=True))))
    match node.op:
        case "ConstantOfShape" | "Expand":
            shape = np.asarray(given[-1], dtype=np.float64)
            return float(np.prod(np.maximum(shape, 1.0))) * max(given[0].size, 1)
        case "Tile":
            return given[0].size * float(np.prod(np.asarray(given[1], dtype=np.float64)))
        case "Range":
            start, limit, delta = (float(array.item()) for array in given)
            return abs((limit - start) / delta) if delta else math.inf
        case "Gather":
            return float(given[0].size) * given[1].size
        case "MatMul" | "Gemm" | "OneHot":
            return float(given[0].size) * given[1].size
        case "Pad":
            return total + math.prod(
                float(n + 2 * np.abs(given[1]).max(initial=0)) for n in given[0].shape
            )
    return total


def tensor_lengths(constants: Mapping[str, Constant]) -> set[int]:
    """Collect the axis lengths and the integers of small constants."""
    lengths: set[int] = set()
    for array in constants.values():
        lengths.update(array.shape)
        if array.dtype.kind in "iu" and array.size <= 64:
            lengths.update(int(item) for item in array.ravel())
    return lengths
