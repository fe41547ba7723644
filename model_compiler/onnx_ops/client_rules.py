"""Operators the client runs in the clear: from an ONNX node to clear steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from tacit.clear_steps import MAX_ARRAY_ELEMENTS, ClearStep
from tacit.model_compiler.graph import Affine, Node
from tacit.model_compiler.onnx_ops import activations, arithmetic, layout, ml
from tacit.model_compiler.onnx_ops.builder import GraphBuilder, Value
from tacit.model_compiler.onnx_ops.call import Call, Constant, rank_of
from tacit.model_compiler.onnx_ops.pair_rules import couple_pairs, pair_votes

Rule = Callable[[Call], list[ClearStep]]
Key = tuple[str, str]
ML = "ai.onnx.ml"

CAST_TARGETS: Mapping[int, str] = MappingProxyType(
    {
        1: "float32",
        2: "uint8",
        3: "int8",
        5: "int16",
        6: "int32",
        7: "int64",
        8: "str",
        9: "bool",
        10: "float16",
        11: "float64",
    }
)


def client_rules() -> Mapping[Key, Rule]:
    """Return (domain, operator) -> function for everything the client can run in the clear."""
    rules: dict[Key, Rule] = {}
    for name, op in _same_operations().items():
        rules["", name] = _plain(op)
    for name, op in _reductions().items():
        rules["", name] = _reduction(op)
    for name in ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Expand"):
        rules["", name] = move
    rules |= {("", name): rule for name, rule in _special_rules().items()}
    rules |= {
        (ML, "Scaler"): scaler,
        (ML, "Normalizer"): normalizer,
        (ML, "LabelEncoder"): label_encoder,
        (ML, "ZipMap"): zip_map,
        (ML, "ArrayFeatureExtractor"): array_feature_extractor,
        ("tacit", "GatherColumns"): gather_columns,
        ("tacit", "ClassIndex"): argmax,
        ("tacit", "ClassLabel"): class_label,
        ("tacit", "PairVotes"): pair_votes,
        ("tacit", "CouplePairs"): couple_pairs,
    }
    return MappingProxyType(rules)


def _same_operations() -> dict[str, str]:
    return {
        "Identity": "identity",
        "Dropout": "identity",
        "Add": "add",
        "Sub": "subtract",
        "Mul": "multiply",
        "Div": "divide",
        "Pow": "power",
        "Max": "maximum",
        "Min": "minimum",
        "Neg": "negate",
        "Sigmoid": "sigmoid",
        "Tanh": "tanh",
        "Softplus": "softplus",
        "Relu": "relu",
        "Exp": "exp",
        "Log": "log",
        "Sqrt": "sqrt",
        "Abs": "abs",
        "Reciprocal": "reciprocal",
        "Not": "not",
        "And": "and",
        "Or": "or",
        "Greater": "greater",
        "GreaterOrEqual": "greater_or_equal",
        "Less": "less",
        "LessOrEqual": "less_or_equal",
        "Equal": "equal",
        "Where": "where",
        "Sign": "sign",
        "Floor": "floor",
        "Ceil": "ceil",
        "Round": "round",
    }


def _reductions() -> dict[str, str]:
    return {
        "ReduceSum": "sum",
        "ReduceMean": "mean",
        "ReduceMax": "max",
        "ReduceMin": "min",
        "ReduceProd": "product",
        "ReduceLogSumExp": "log_sum_exp",
    }


def _special_rules() -> dict[str, Rule]:
    return {
        "Softmax": softmax,
        "LogSoftmax": softmax,
        "ArgMax": argmax,
        "ArgMin": argmax,
        "Cast": cast,
        "Clip": clip,
        "HardSigmoid": hard_sigmoid,
        "Concat": concat,
        "Sum": variadic_sum,
        "Mean": variadic_sum,
        "Split": split,
        "Gather": gather,
    }


def softmax(call: Call) -> list[ClearStep]:
    """Softmax or LogSoftmax; before opset 13 over all axes from `axis` on."""
    rank = rank_of(call.value(0))
    old = call.node.version < 13
    axis = call.row_axis(call.integer("axis", 1 if old else -1), rank) + 1
    axes = tuple(range(axis, rank)) if old else (axis,)
    return [_step(call, "log_softmax" if call.node.op == "LogSoftmax" else "softmax", axes=axes)]


def argmax(call: Call) -> list[ClearStep]:
    """Index of the largest or smallest element along an axis."""
    axis = call.row_axis(call.integer("axis", 0), rank_of(call.value(0))) + 1
    op = "argmin" if call.node.op == "ArgMin" else "argmax"
    keep, last = bool(call.integer("keepdims", 1)), bool(call.integer("select_last_index", 0))
    return [_step(call, op, axis=axis, keepdims=keep, last=last)]


def cast(call: Call) -> list[ClearStep]:
    """Convert the element type."""
    target = CAST_TARGETS.get(call.integer("to", 1))
    if target is None:
        call.reject(f"casting to ONNX type {call.integer('to', 1)} is not supported: use float")
    return [_step(call, "cast", dtype=target)]


def clip(call: Call) -> list[ClearStep]:
    """Limit to an interval."""
    low, high = activations.clip_bounds(call)
    bounds = {"low": low, "high": high}
    given: dict[str, object] = {key: bound for key, bound in bounds.items() if bound is not None}
    return [ClearStep("clip", (call.value(0).tensor,), (call.output,), given)]


def hard_sigmoid(call: Call) -> list[ClearStep]:
    """clip(alpha x + beta, 0, 1)."""
    alpha, beta = np.array(call.number("alpha", 0.2)), np.array(call.number("beta", 0.5))
    name = (call.output,)
    return [
        ClearStep("multiply", (call.value(0).tensor,), name, {"right": alpha}),
        ClearStep("add", name, name, {"right": beta}),
        ClearStep("clip", name, name, {"low": 0.0, "high": 1.0}),
    ]


def concat(call: Call) -> list[ClearStep]:
    """Join tensors along an axis."""
    values = [call.value(position) for position in range(len(call.operands))]
    axis = call.row_axis(call.integer("axis", 1), rank_of(values[0])) + 1
    names = tuple(value.tensor for value in values)
    return [ClearStep("concat", names, (call.output,), {"axis": axis})]


def variadic_sum(call: Call) -> list[ClearStep]:
    """Add any number of tensors one after the other; Mean also divides by their number."""
    values = [call.value(position) for position in range(len(call.operands))]
    if len({rank_of(value) for value in values}) != 1:
        call.reject("tensors with different numbers of axes would mix rows: add axes first")
    shape = values[0].shape
    for value in values[1:]:
        shape = arithmetic.broadcast(call, shape, value.shape)
    total = [ClearStep("identity", (values[0].tensor,), (call.output,))]
    for value in values[1:]:
        total.append(ClearStep("add", (call.output, value.tensor), (call.output,)))
    if call.node.op == "Mean":
        count: dict[str, object] = {"right": np.asarray(float(len(values)))}
        total.append(ClearStep("divide", (call.output,), (call.output,), count))
    return total


def move(call: Call) -> list[ClearStep]:
    """Reshape or pick elements by the rule the encrypted core uses."""
    rules = {
        "Flatten": layout.flatten,
        "Reshape": layout.reshape,
        "Squeeze": layout.squeeze,
        "Unsqueeze": layout.unsqueeze,
        "Transpose": layout.transpose,
        "Slice": layout.slice_,
        "Expand": layout.expand,
    }
    return _moves(call, rules[call.node.op])


def split(call: Call) -> list[ClearStep]:
    """Cut into parts along an axis."""
    return _moves(call, layout.split)


def gather(call: Call) -> list[ClearStep]:
    """Take constant positions, or look computed positions up in a constant table."""
    if call.is_value(0):
        return _moves(call, layout.gather)
    return _lookup(call)


def gather_columns(call: Call) -> list[ClearStep]:
    """Take constant columns."""
    return _moves(call, layout.gather_columns)


def array_feature_extractor(call: Call) -> list[ClearStep]:
    """Take constant columns, or look one computed position per row up in a constant table."""
    if call.is_value(0):
        return _moves(call, ml.array_feature_extractor)
    if call.value(1).size != 1:
        call.reject("more than one position per row is not supported: look up one label per row")
    steps = _lookup(call)
    return [*steps, ClearStep("reshape", (call.output,), (call.output,), {"row_shape": ()})]


def scaler(call: Call) -> list[ClearStep]:
    """(x - offset) * scale, per feature."""
    offset, factor = ml.scaler_parameters(call, call.value(0).shape)
    return [_step(call, "scale", offset=np.array(offset), factor=np.array(factor))]


def normalizer(call: Call) -> list[ClearStep]:
    """Divide each row by its norm."""
    norm = str(call.attribute("norm", "MAX"))
    if rank_of(call.value(0)) != 2 or norm not in ("L1", "L2", "MAX"):
        call.reject(f"norm={norm!r} on rows of shape {list(call.value(0).shape)} is not supported")
    return [_step(call, "normalize", norm=norm)]


def label_encoder(call: Call) -> list[ClearStep]:
    """Replace values by other values."""
    keys, values = _mapping(call, "keys"), _mapping(call, "values")
    if keys is None or values is None or keys.shape != values.shape:
        call.reject("keys and values must be given and have the same length")
    default = call.attribute("default_tensor")
    if not isinstance(default, np.ndarray):
        given = {
            "i": ("default_int64", -1),
            "f": ("default_float", 0.0),
            "U": ("default_string", "_Unused"),
        }
        name, fallback = given[values.dtype.kind]
        default = np.array(call.attribute(name, fallback), dtype=values.dtype.kind)
    attributes: dict[str, object] = {"keys": keys, "values": values, "default": default}
    return [ClearStep("map_values", (call.value(0).tensor,), (call.output,), attributes)]


def zip_map(call: Call) -> list[ClearStep]:
    """Keep the probabilities as an array (rows, classes); the labels become an attribute."""
    return [_step(call, "zip_map", labels=_label_array(call))]


def class_label(call: Call) -> list[ClearStep]:
    """Turn the index of a class into its label."""
    return [_step(call, "lookup", table=np.array(call.attribute("labels")))]


def _step(call: Call, op: str, **attributes: object) -> ClearStep:
    return ClearStep(op, (call.value(0).tensor,), (call.output,), attributes)


def _plain(op: str) -> Rule:
    """Make the rule of an operator whose constant operands become step attributes."""

    def rule(call: Call) -> list[ClearStep]:
        values = [operand for operand in call.operands if isinstance(operand, Value)]
        rank = max(rank_of(value) for value in values)
        names, attributes = [], {}
        sides = {2: ("left", "right"), 3: ("", "left", "right")}.get(len(call.operands), ("",))
        for position, side in enumerate(sides):
            if call.is_value(position):
                if rank_of(call.value(position)) != rank:
                    call.reject("tensors with different numbers of axes would mix rows")
                names.append(call.value(position).tensor)
            else:
                attributes[side] = _constant(call, position, rank)
        shape: tuple[int, ...] = ()
        for operand in (*(v.shape for v in values), *(a.shape for a in attributes.values())):
            shape = arithmetic.broadcast(call, shape, operand)
        return [ClearStep(op, tuple(names), (call.output,), dict(attributes))]

    return rule


def _reduction(op: str) -> Rule:
    def rule(call: Call) -> list[ClearStep]:
        rank = rank_of(call.value(0))
        axes = call.integer_list("axes", 1)
        if not axes:
            call.reject("reducing over all axes would mix rows: name the axes behind the rows")
        positions = tuple(sorted({call.row_axis(axis, rank) + 1 for axis in axes}))
        return [_step(call, op, axes=positions, keepdims=bool(call.integer("keepdims", 1)))]

    return rule


def _constant(call: Call, position: int, rank: int) -> Constant:
    rowless = call.weights(position, rank, "the constant") if not _is_text(call, position) else None
    array = call.constant(position, "the constant")
    kept = array if rowless is None else rowless.astype(array.dtype)
    if kept.size > MAX_ARRAY_ELEMENTS:
        call.reject(f"the constant has {kept.size} elements, too many for the client")
    return kept


def _is_text(call: Call, position: int) -> bool:
    return call.constant(position, "the constant").dtype.kind == "U"


def _moves(call: Call, rule: Callable[[Call], list[Value]]) -> list[ClearStep]:
    """Run a layout rule of the encrypted core on a scratch builder; write it as clear steps."""
    scratch = GraphBuilder(frozenset())
    results = rule(Call(call.node, call.operands, scratch, call.rows))
    steps: list[ClearStep] = []
    for result, output in zip(results, call.node.outputs, strict=True):
        if output:
            made = scratch.producer(result.tensor)
            steps += _move_steps(call.value(0), made, result.shape, output)
    return steps


def _move_steps(
    source: Value, made: Node | None, shape: tuple[int, ...], output: str
) -> list[ClearStep]:
    if not isinstance(made, Affine):
        return [ClearStep("reshape", (source.tensor,), (output,), {"row_shape": shape})]
    numbers = np.asarray(made.matrices[0].indices, dtype=np.int64)
    steps = [
        ClearStep("reshape", (source.tensor,), (output,), {"row_shape": (source.size,)}),
        ClearStep("select", (output,), (output,), {"axis": 1, "indices": numbers}),
        ClearStep("reshape", (output,), (output,), {"row_shape": shape}),
    ]
    first, last = len(source.shape) == 1, len(shape) == 1
    if first:
        picked: dict[str, object] = {"axis": 1, "indices": numbers}
        steps = [ClearStep("select", (source.tensor,), (output,), picked), steps[2]]
    return steps[:-1] if last else steps


def _lookup(call: Call) -> list[ClearStep]:
    table = call.constant(0, "the table")
    if table.ndim != 1 or call.integer("axis", 0) not in (0, -1):
        call.reject(f"a table of shape {list(table.shape)} is not supported: use one axis")
    if table.size > MAX_ARRAY_ELEMENTS:
        call.reject(f"the table has {table.size} elements, too many for the client")
    return [ClearStep("lookup", (call.value(1).tensor,), (call.output,), {"table": table})]


def _label_array(call: Call) -> Constant:
    for key in ("classlabels_strings", "classlabels_int64s"):
        labels = call.attribute(key)
        if isinstance(labels, tuple) and labels:
            return np.array(labels)
    call.reject("classlabels_strings or classlabels_int64s must be given")


def _mapping(call: Call, prefix: str) -> Constant | None:
    dtypes = {"tensor": None, "strings": str, "int64s": np.int64, "floats": np.float32}
    for suffix, dtype in dtypes.items():
        given = call.attribute(f"{prefix}_{suffix}")
        if isinstance(given, np.ndarray):
            return given.ravel()
        if isinstance(given, tuple) and given:
            return np.array(given, dtype=dtype)
    return None
