"""Tensors whose row axis an exporter has merged with the axes behind it.

Keras writes a Dense layer on (rows, steps, features) as Reshape to (rows * steps, features),
MatMul, Reshape back. Inside, the tensor is kept with all its axes; what acts on the last axis
alone, or element by element, means the same there.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tacit.errors import UnsupportedModelError
from tacit.model_compiler.onnx_ops.activations import activation_rules
from tacit.model_compiler.onnx_ops.arithmetic import linear_combination
from tacit.model_compiler.onnx_ops.builder import Floats, Value
from tacit.model_compiler.onnx_ops.call import Call, ConstantTensor
from tacit.model_compiler.onnx_ops.layout import reshape
from tacit.model_compiler.onnx_ops.linear import block_product, matmul

ARITHMETIC = frozenset(("Add", "Sub", "Mul", "Div", "Neg", "Pow", "Max", "Min"))
PASSING = frozenset(("Identity", "Cast", "Dropout", "Clip"))


def merge(call: Call) -> Value | None:
    """Return the result of a Reshape that merges the rows with axes behind them, or None."""
    shape_operand = call.operands[1] if call.has(1) else None
    if call.node.op != "Reshape" or not isinstance(shape_operand, ConstantTensor):
        return None
    value = call.value_or_mask(0)
    target = [int(length) for length in shape_operand.array.ravel()]
    if len(target) < 2 or 0 in target or min(target[1:]) < -1:
        return None
    first, rest = target[0], target[1:]
    known = math.prod(length for length in rest if length > 0)
    if -1 in rest:
        steps = first // call.rows.value
        if steps < 1 or value.size % (steps * known):
            return None
        rest = [value.size // (steps * known) if length == -1 else length for length in rest]
    steps = value.size // math.prod(rest)
    if steps * math.prod(rest) != value.size or steps < 2:
        return None
    other = first if shape_operand.other is None else int(shape_operand.other.ravel()[0])
    scales = first == steps * call.rows.value and other == steps * call.rows.other
    return Value(value.tensor, (steps, *rest)) if first == -1 or scales else None


def split_up(call: Call) -> Value | None:
    """Return the result of a Reshape that gives merged rows their axes back, or None."""
    if call.node.op != "Reshape":
        return None
    try:
        return reshape(call)[0]
    except UnsupportedModelError:
        return None


def check_row_wise(call: Call) -> None:
    """Refuse what would mean something else if the rows were not merged.

    Raises:
        UnsupportedModelError: the operator mixes axes, or a constant varies along the merged axis.
    """
    node, values = call.node, [item for item in call.operands if isinstance(item, Value)]
    row_wise = node.op in ARITHMETIC | PASSING or node.op in activation_rules()
    product = node.op in ("MatMul", "Gemm") and len(values) == 1 and call.is_value(0)
    axes = max(len(value.shape) for value in values)
    same = all(value.shape[0] == values[0].shape[0] for value in values)
    if not (row_wise or product) or node.domain or not same:
        call.reject(
            "the axes behind the rows were merged with the rows before this node, which it may "
            "not see: reshape back to (rows, ...) first"
        )
    constants = [item.array for item in call.operands if isinstance(item, ConstantTensor)]
    if row_wise and any(item.ndim >= axes and item.shape[0] != 1 for item in constants):
        call.reject("a constant may not vary along merged rows: reshape back first")


def product_with_merged(call: Call) -> list[Value]:
    """Compute MatMul or Gemm on the last axis of merged rows."""
    if call.node.op == "MatMul":
        return matmul(call)
    if call.integer("transA", 0):
        call.reject("the first operand must not be transposed")
    value = call.value(0)
    weights: Floats = call.constant(1, "the weight matrix").astype(np.float64)
    weights = weights.T if call.integer("transB", 0) else weights
    bias: Floats = np.zeros(weights.shape[1])
    if call.has(2):
        bias = call.number("beta", 1.0) * call.weights(2, 2, "the bias")
    inner = dataclasses.replace(
        call, node=dataclasses.replace(call.node, outputs=(call.inner("product"),))
    )
    weights = call.number("alpha", 1.0) * weights
    made = block_product(inner, value, weights, (*value.shape[:-1], weights.shape[1]))
    return [linear_combination(call, [(made, 1.0)], np.asarray(bias), call.output)]
