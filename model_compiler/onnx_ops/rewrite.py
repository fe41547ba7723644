"""Rewrites operators that are short for others, so that one rule each serves core and client.

Exporters write x / |x| as LpNormalization, columns side by side as FeatureVectorizer, and so on.
What comes out are standard nodes with the same name; constants become Constant nodes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from onnx import TensorProto, helper

from tacit.model_compiler.onnx_ops.folding import SHAPE_OPS
from tacit.model_compiler.onnx_ops.fused import fused_rules
from tacit.model_compiler.onnx_ops.loading import OnnxNode
from tacit.model_compiler.onnx_ops.ml import expand_classifier
from tacit.model_compiler.onnx_ops.parts import constant_part, part
from tacit.model_compiler.onnx_ops.trees import expand_tree_classifier
from tacit.model_compiler.onnx_ops.vector_machine import expand_vector_machine

Rule = Callable[[OnnxNode], list[OnnxNode]]
SMALLEST_NORM = 1e-30
ML = "ai.onnx.ml"


def rewrite(
    nodes: Sequence[OnnxNode],
    inputs: Iterable[str],
    outputs: Sequence[str],
    element_types: Mapping[str, int],
) -> list[OnnxNode]:
    """Return the nodes that stand for these nodes; most stand for themselves.

    Args:
        nodes: in order.
        inputs: the model's inputs.
        outputs: the model's outputs; what none of them depends on is dropped.
        element_types: ONNX element type of the tensors it is known of.
    """
    rules, made = _rules(), []
    for node in _concat_apart(_needed(_gather_columns(nodes), outputs), inputs):
        if (node.domain, node.op) == ("", "CastLike"):
            made.append(_cast_like(node, element_types))
            continue
        rule = rules.get((node.domain, node.op))
        made += [node] if rule is None else rule(node)
    return made


def _needed(nodes: Sequence[OnnxNode], outputs: Sequence[str]) -> list[OnnxNode]:
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _concat_apart(nodes: Sequence[OnnxNode], inputs: Iterable[str]) -> list[OnnxNode]:
    """Join neighbouring computed operands of a Concat first, where others are constant.

    So the client can join what it computes, and the constants stay encrypted.
    """
    computed, made = set(inputs), []
    for node in nodes:
        if node.op in SHAPE_OPS or not computed.intersection(node.inputs):
            made.append(node)
            continue
        computed.update(name for name in node.outputs if name)
        mixed = node.op == "Concat" and not computed.issuperset(node.inputs)
        made += _joined_first(node, computed) if mixed else [node]
    return made


def _joined_first(node: OnnxNode, computed: set[str]) -> list[OnnxNode]:
    parts: list[OnnxNode] = []
    operands: list[str] = []
    for known, run in itertools.groupby(node.inputs, computed.__contains__):
        names = tuple(run)
        if known and len(names) > 1:
            joined = f"{node.outputs[0]}/joined{len(operands)}"
            parts.append(part(node, "Concat", names, joined, node.attributes))
            names = (joined,)
        operands += names
    return [*parts, dataclasses.replace(node, inputs=tuple(operands), proto=None)]


def _rules() -> Mapping[tuple[str, str], Rule]:
    return MappingProxyType(
        {
            (ML, "LinearClassifier"): expand_classifier,
            (ML, "SVMClassifier"): expand_vector_machine,
            (ML, "TreeEnsembleClassifier"): expand_tree_classifier,
            (ML, "FeatureVectorizer"): _feature_vectorizer,
            (ML, "Binarizer"): _binarizer,
            (ML, "Imputer"): _imputer,
            (ML, "OneHotEncoder"): _one_hot_encoder,
            **fused_rules(),
            ("", "IsNaN"): _is_nan,
            ("", "LpNormalization"): _lp_normalization,
            ("", "ReduceL1"): _reduce_l1,
            ("", "ReduceL2"): _reduce_l2,
            ("", "ReduceSumSquare"): _reduce_sum_square,
            ("", "ReduceLogSum"): _reduce_log_sum,
        }
    )


def _cast_like(node: OnnxNode, element_types: Mapping[str, int]) -> OnnxNode:
    """Cast to the type of the second operand; what is computed counts as float."""
    target = element_types.get(node.inputs[1], TensorProto.FLOAT)
    attributes = {"to": target}
    proto = helper.make_node("Cast", node.inputs[:1], node.outputs, name=node.name, to=target)
    return dataclasses.replace(
        node, op="Cast", inputs=node.inputs[:1], attributes=attributes, proto=proto
    )


def _feature_vectorizer(node: OnnxNode) -> list[OnnxNode]:
    return [part(node, "Concat", node.inputs, node.outputs[0], {"axis": 1})]


def _binarizer(node: OnnxNode) -> list[OnnxNode]:
    threshold, above = f"{node.outputs[0]}/threshold", f"{node.outputs[0]}/above"
    limit = node.attributes.get("threshold", 0.0)
    return [
        constant_part(node, threshold, np.asarray(limit, dtype=np.float32)),
        part(node, "Greater", (node.inputs[0], threshold), above),
        part(node, "Cast", (above,), node.outputs[0], {"to": TensorProto.FLOAT}),
    ]


def _imputer(node: OnnxNode) -> list[OnnxNode]:
    """Where x is the replaced value take the imputed one; x != x finds NaN."""
    (x, output), attributes = (node.inputs[0], node.outputs[0]), node.attributes
    kind = "floats" if attributes.get("imputed_value_floats") else "int64s"
    values, found = attributes.get(f"imputed_value_{kind}"), f"{output}/found"
    if not isinstance(values, tuple) or not values:
        return [node]
    imputed, marker = f"{output}/imputed", f"{output}/marker"
    dtype = np.float32 if kind == "floats" else np.int64
    nodes = [constant_part(node, imputed, np.array([values], dtype=dtype))]
    replaced = attributes.get(
        "replaced_value_float" if kind == "floats" else "replaced_value_int64"
    )
    if replaced is None or replaced != replaced:
        nodes.append(part(node, "Equal", (x, x), found))
        return [*nodes, part(node, "Where", (found, x, imputed), output)]
    nodes.append(constant_part(node, marker, np.asarray(replaced, dtype=dtype)))
    nodes.append(part(node, "Equal", (x, marker), found))
    return [*nodes, part(node, "Where", (found, imputed, x), output)]


def _one_hot_encoder(node: OnnxNode) -> list[OnnxNode]:
    """Compare a new last axis with the categories; an unknown category gives zeros."""
    categories = node.attributes.get("cats_int64s")
    if not isinstance(categories, tuple) or not categories:
        return [node]
    output = node.outputs[0]
    known, axis = f"{output}/categories", f"{output}/axis"
    column, equal = f"{output}/column", f"{output}/equal"
    return [
        constant_part(node, known, np.array(categories, dtype=np.int64)),
        constant_part(node, axis, np.array([-1], dtype=np.int64)),
        part(node, "Unsqueeze", (node.inputs[0], axis), column),
        part(node, "Equal", (column, known), equal),
        part(node, "Cast", (equal,), output, {"to": TensorProto.FLOAT}),
    ]


def _is_nan(node: OnnxNode) -> list[OnnxNode]:
    equal, x = f"{node.outputs[0]}/equal", node.inputs[0]
    return [part(node, "Equal", (x, x), equal), part(node, "Not", (equal,), node.outputs[0])]


def _lp_normalization(node: OnnxNode) -> list[OnnxNode]:
    (x, output), order = (node.inputs[0], node.outputs[0]), node.attributes.get("p", 2)
    sizes, axes, total = f"{output}/sizes", f"{output}/axes", f"{output}/total"
    smallest, norm = f"{output}/smallest", f"{output}/norm"
    size = part(node, "Abs", (x,), sizes) if order == 1 else part(node, "Mul", (x, x), sizes)
    nodes = [
        size,
        constant_part(node, axes, np.array([node.attributes.get("axis", -1)], dtype=np.int64)),
        part(node, "ReduceSum", (sizes, axes), total, {"keepdims": 1}),
        constant_part(node, smallest, np.asarray(SMALLEST_NORM, dtype=np.float64)),
    ]
    if order != 1:
        root = f"{output}/root"
        nodes.append(part(node, "Sqrt", (total,), root))
        total = root
    nodes.append(part(node, "Max", (total, smallest), norm))
    return [*nodes, part(node, "Div", (x, norm), output)]


def _reduce_l1(node: OnnxNode) -> list[OnnxNode]:
    sizes = f"{node.outputs[0]}/sizes"
    return [part(node, "Abs", node.inputs[:1], sizes), _summed(node, sizes, node.outputs[0])]


def _reduce_l2(node: OnnxNode) -> list[OnnxNode]:
    squares, total = f"{node.outputs[0]}/squares", f"{node.outputs[0]}/total"
    x = node.inputs[0]
    return [
        part(node, "Mul", (x, x), squares),
        _summed(node, squares, total),
        part(node, "Sqrt", (total,), node.outputs[0]),
    ]


def _reduce_sum_square(node: OnnxNode) -> list[OnnxNode]:
    squares, x = f"{node.outputs[0]}/squares", node.inputs[0]
    return [part(node, "Mul", (x, x), squares), _summed(node, squares, node.outputs[0])]


def _reduce_log_sum(node: OnnxNode) -> list[OnnxNode]:
    total = f"{node.outputs[0]}/total"
    return [_summed(node, node.inputs[0], total), part(node, "Log", (total,), node.outputs[0])]


def _summed(node: OnnxNode, operand: str, output: str) -> OnnxNode:
    made = part(node, "ReduceSum", (operand, *node.inputs[1:]), output, dict(node.attributes))
    return dataclasses.replace(made, version=11 if "axes" in node.attributes else 13)


def _gather_columns(nodes: Sequence[OnnxNode]) -> list[OnnxNode]:
    """Undo transpose, GatherND, transpose: how torch writes x[:, [0, 3, 5]] and x[:, :, i, j]."""
    writers = {name: node for node in nodes for name in node.outputs}
    return [_as_gather(node, writers) or node for node in nodes]


def _as_gather(node: OnnxNode, writers: Mapping[str, OnnxNode]) -> OnnxNode | None:
    back = _permutation(node)
    taken = writers.get(node.inputs[0]) if back else None
    if taken is None or taken.op != "GatherND" or taken.attributes.get("batch_dims", 0) != 0:
        return None
    source, numbers = writers.get(taken.inputs[0]), taken.inputs[1]
    order = _permutation(source) if source else None
    if source is None or order is None:
        return None
    inputs, output = (source.inputs[0], numbers), node.outputs[0]
    if order == back == (1, 0):
        return part(node, "GatherColumns", inputs, output, domain="tacit")
    permutations = {"before": order, "after": back}
    return part(node, "GatherPoints", inputs, output, permutations, domain="tacit")


def _permutation(node: OnnxNode) -> tuple[int, ...] | None:
    found = node.attributes.get("perm")
    is_transpose = (node.domain, node.op) == ("", "Transpose")
    return found if is_transpose and isinstance(found, tuple) else None
