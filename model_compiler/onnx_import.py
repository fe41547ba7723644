"""ONNX to tensor graph: the front end of the compiler.

`import_onnx` checks the model, folds constants, decides what the client runs in the clear before
and after, and translates the rest, operator by operator, to the four kinds of node of `graph`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from tacit.clear_operations import Array
from tacit.clear_steps import ClearStep, apply_steps
from tacit.errors import InputShapeError, ModelError, UnsupportedModelError
from tacit.model_compiler.graph import Graph
from tacit.model_compiler.onnx_ops.arithmetic import identity_matrix
from tacit.model_compiler.onnx_ops.builder import GraphBuilder, Value
from tacit.model_compiler.onnx_ops.call import Call, ConstantTensor, RowCount, describe
from tacit.model_compiler.onnx_ops.client_rules import Rule as ClientRule
from tacit.model_compiler.onnx_ops.client_rules import client_rules
from tacit.model_compiler.onnx_ops.folding import (
    SHAPE_OPS,
    choose_row_count,
    fold,
    shape_constant,
    tensor_lengths,
)
from tacit.model_compiler.onnx_ops.inference import infer_row_shapes
from tacit.model_compiler.onnx_ops.loading import (
    MAX_ROW_ELEMENTS,
    LoadedModel,
    OnnxNode,
    load_model,
)
from tacit.model_compiler.onnx_ops.merged import (
    check_row_wise,
    merge,
    product_with_merged,
    split_up,
)
from tacit.model_compiler.onnx_ops.partition import Place, partition, wire
from tacit.model_compiler.onnx_ops.rewrite import rewrite
from tacit.model_compiler.onnx_ops.table import Key, Rule, core_rules, why_unsupported

SAMPLE_ROWS = 2


@dataclass(slots=True, eq=False)
class _Import:
    """What is known while the nodes are walked in order."""

    model: LoadedModel
    rows: RowCount
    builder: GraphBuilder
    core: Mapping[Key, Rule]
    client: Mapping[Key, ClientRule]
    keep_on_server: bool
    constants: dict[str, ConstantTensor]
    values: dict[str, Value] = field(default_factory=dict)
    before: dict[str, Array] = field(default_factory=dict)  # sample rows of prologue tensors
    after: dict[str, Array] = field(default_factory=dict)  # sample rows of epilogue tensors
    prologue: list[ClearStep] = field(default_factory=list)
    epilogue: list[ClearStep] = field(default_factory=list)
    core_inputs: list[str] = field(default_factory=list)
    core_outputs: list[str] = field(default_factory=list)
    passed: set[str] = field(default_factory=set)  # core outputs that only repeat an input
    merged: set[str] = field(default_factory=set)  # tensors with axes merged into the rows
    problems: list[str] = field(default_factory=list)
    inferred: dict[str, tuple[int, ...]] | None = None


def import_onnx(
    path_or_model: str | Path | bytes | onnx.ModelProto,
    *,
    name: str,
    keep_on_server: bool = False,
) -> Graph:
    """Translate an ONNX model to a tensor graph with a clear prologue and epilogue.

    Axis 0 of every input counts rows, whether it is symbolic or fixed in the file.

    Args:
        path_or_model: a path, the bytes of a file, or a loaded model.
        name: the graph's name.
        keep_on_server: keep input scaling and a final Sigmoid in the encrypted core.

    Raises:
        UnsupportedModelError: lists every node that cannot be compiled.
        ModelError: the model is malformed, dynamic, too large or not finite.
    """
    model = load_model(path_or_model)
    state = _start(model, keep_on_server)
    nodes = rewrite(model.nodes, model.inputs, model.outputs, model.element_types)
    elements = _fold_ahead(state, nodes)
    wiring = wire(nodes, model.inputs, model.outputs, elements)
    places = partition(wiring, keep_on_server=keep_on_server)
    for node, place in zip(nodes, places, strict=True):
        _translate_safely(state, node, place)
    for output in model.outputs:
        _finish_output(state, output)
    if state.problems:
        raise UnsupportedModelError(list(dict.fromkeys(state.problems)))
    return _assemble(state, name)


def _start(model: LoadedModel, keep_on_server: bool) -> _Import:
    lengths = tensor_lengths(model.constants)
    lengths.update(length for shape in model.inputs.values() for length in shape)
    reserved = {name for node in model.nodes for name in (*node.inputs, *node.outputs)}
    state = _Import(
        model=model,
        rows=choose_row_count(model.batch, lengths),
        builder=GraphBuilder(frozenset(reserved)),
        core=core_rules(),
        client=client_rules(),
        keep_on_server=keep_on_server,
        constants={key: ConstantTensor(array) for key, array in model.constants.items()},
    )
    for key, shape in model.inputs.items():
        state.before[key] = np.full((SAMPLE_ROWS, *shape), 0.5)
    return state


def _fold_ahead(state: _Import, nodes: Sequence[OnnxNode]) -> dict[str, int]:
    """Fold what no shape is needed for; return the sizes of all constants known then."""
    for node in nodes:
        if all(name in state.constants for name in node.inputs if name):
            _translate_safely(state, node, Place.CONSTANT)
    return {key: int(tensor.array.size) for key, tensor in state.constants.items()}


def _translate_safely(state: _Import, node: OnnxNode, place: Place) -> None:
    """Translate one node; remember why if it cannot be, so that all problems are listed."""
    try:
        _translate(state, node, place)
    except UnsupportedModelError as error:
        state.problems.extend(error.problems)
    except (InputShapeError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise ModelError(
            f"node {node.name!r} ({node.op}) does not fit its operands: export the model again"
        ) from error


def _translate(state: _Import, node: OnnxNode, place: Place) -> None:
    if place is Place.CONSTANT:
        if not all(name in state.constants for name in node.outputs if name):
            _translate_constant(state, node)
    elif place is Place.PROLOGUE:
        _translate_client(state, node, state.before, state.prologue)
    elif place is Place.EPILOGUE:
        for operand in node.inputs:
            if operand and operand not in state.constants and operand not in state.after:
                _leave_core(state, operand)
        _translate_client(state, node, state.after, state.epilogue)
    else:
        _translate_core(state, node)


def _translate_constant(state: _Import, node: OnnxNode) -> None:
    if node.op in SHAPE_OPS and node.inputs[0] not in state.constants:
        if node.inputs[0] in state.merged:
            raise UnsupportedModelError([describe(node, "the rows are merged with other axes")])
        shape = _row_shape(state, node.inputs[0])
        results = [shape_constant(node, shape, state.rows)]
    else:
        if any(name and name not in state.constants for name in node.inputs):
            raise UnsupportedModelError([])  # behind a refused node, which is already listed
        results = fold(node, [state.constants[name] if name else None for name in node.inputs])
    outputs = [name for name in node.outputs if name]
    state.constants.update(zip(outputs, results, strict=True))


def _translate_client(
    state: _Import, node: OnnxNode, samples: dict[str, Array], steps: list[ClearStep]
) -> None:
    """Append the clear steps of a node; sample rows tell the shapes of what they write."""
    operands = tuple(_client_operand(state, samples, name) for name in node.inputs)
    call = Call(node, operands, state.builder, state.rows)
    made = state.client[node.domain, node.op](call)
    results = apply_steps(made, samples)
    for name in node.outputs:
        if name:
            if results[name].shape[:1] != (SAMPLE_ROWS,):
                call.reject("it would mix rows: keep axis 0 for the rows")
            samples[name] = results[name]
    steps.extend(made)


def _client_operand(
    state: _Import, samples: dict[str, Array], name: str
) -> Value | ConstantTensor | None:
    if not name:
        return None
    constant = state.constants.get(name)
    if constant is not None:
        return constant
    if name not in samples:
        samples[name] = np.full((SAMPLE_ROWS, *_shape_behind_a_problem(state, name)), 0.5)
    return Value(name, samples[name].shape[1:])


def _translate_core(state: _Import, node: OnnxNode) -> None:
    rule = state.core.get((node.domain, node.op))
    if rule is None:
        raise UnsupportedModelError([describe(node, _why(state, node))])
    operands = tuple(_core_operand(state, name) for name in node.inputs)
    call = Call(node, operands, state.builder, state.rows)
    if state.merged.intersection(node.inputs):
        results = _on_merged(state, call, rule)
    else:
        results = _results(state, call, rule)
    if not results:
        raise UnsupportedModelError([describe(node, _why(state, node))])
    outputs = [name for name in node.outputs if name]
    state.values.update(zip(outputs, results, strict=False))


def _results(state: _Import, call: Call, rule: Rule) -> list[Value]:
    try:
        return rule(call)
    except UnsupportedModelError:
        value = merge(call)
        if value is None:
            raise
        state.merged.update(call.node.outputs)
        return [value]


def _on_merged(state: _Import, call: Call, rule: Rule) -> list[Value]:
    """Translate a node that reads a tensor whose rows are merged with other axes."""
    back = split_up(call)
    if back is not None:
        return [back]
    again = merge(call)
    state.merged.update(call.node.outputs)
    if again is not None:
        return [again]
    check_row_wise(call)
    return product_with_merged(call) if call.node.op in ("MatMul", "Gemm") else rule(call)


def _why(state: _Import, node: OnnxNode) -> str:
    at_client = (node.domain, node.op) in state.client
    reason = why_unsupported(node, at_client=at_client)
    if at_client and state.keep_on_server:
        return f"{reason}. Drop --keep-on-server to let the client run it"
    return reason


def _core_operand(state: _Import, name: str) -> Value | ConstantTensor | None:
    if not name:
        return None
    constant = state.constants.get(name)
    return constant if constant is not None else _enter_core(state, name)


def _enter_core(state: _Import, name: str) -> Value:
    """Return a core tensor; a prologue tensor becomes an input of the core."""
    if name not in state.values:
        if name in state.before:
            state.core_inputs.append(name)
            shape = state.before[name].shape[1:]
        else:
            shape = _shape_behind_a_problem(state, name)
        state.values[name] = state.builder.add_input(name, shape)
    return state.values[name]


def _leave_core(state: _Import, name: str) -> None:
    """Make a core tensor an output of the core, named and shaped as ONNX knows it."""
    value = _enter_core(state, name)
    if value.tensor in state.builder.masks:
        raise UnsupportedModelError(
            [f"{name}: a comparison of encrypted values cannot be an output: return the values"]
        )
    if name in state.merged:
        raise UnsupportedModelError(
            [f"{name}: merging rows with other axes would mix rows: reshape to (rows, ...) before"]
        )
    if state.builder.producer(value.tensor) is None:
        matrix = identity_matrix(value.size)
        inner = state.builder.inner_name(name, "passed")
        value = state.builder.affine([(value, matrix)], 0.0, value.shape, inner, name)
        state.passed.add(value.tensor)
    if value.tensor not in state.core_outputs:
        state.core_outputs.append(value.tensor)
    if value.tensor != name or len(value.shape) != 1 or _shape_of(state, value) != value.shape:
        shape: dict[str, object] = {"row_shape": value.shape}
        state.epilogue.append(ClearStep("reshape", (value.tensor,), (name,), shape))
    state.after[name] = np.full((SAMPLE_ROWS, *value.shape), 0.5)


def _shape_of(state: _Import, value: Value) -> tuple[int, ...]:
    """Return the shape a tensor was made with; `value` may be a reshape of it."""
    return state.builder.shapes[value.tensor]


def _finish_output(state: _Import, name: str) -> None:
    if name in state.constants:
        raise ModelError(f"output {name!r} is constant: remove it from the model's outputs")
    if name in state.after:
        return
    if name in state.values or name in state.before:
        _leave_core(state, name)
    elif not state.problems:
        raise ModelError(f"output {name!r} is never computed")


def _row_shape(state: _Import, name: str) -> tuple[int, ...]:
    if name in state.values:
        return state.values[name].shape
    for samples in (state.after, state.before):
        if name in samples:
            return tuple(samples[name].shape[1:])
    return _shape_behind_a_problem(state, name)


def _shape_behind_a_problem(state: _Import, name: str) -> tuple[int, ...]:
    """Ask ONNX's inference for the shape of what a refused node would write.

    Raises:
        UnsupportedModelError: without a problem, as the refused node is already listed.
    """
    if state.inferred is None:
        state.inferred = infer_row_shapes(state.model) if state.problems else {}
    shape = state.inferred.get(name)
    if shape is None or math.prod(shape) > MAX_ROW_ELEMENTS:
        raise UnsupportedModelError([])
    return shape


def _assemble(state: _Import, name: str) -> Graph:
    nodes = state.builder.live_nodes(state.core_outputs)
    used = {tensor for node in nodes for tensor in node.inputs}
    inputs = tuple(tensor for tensor in state.core_inputs if tensor in used)
    if not inputs or all(node.output in state.passed for node in nodes):
        raise ModelError(
            "nothing would be encrypted: every operator of this model runs at the client in the "
            "clear. Pass keep_on_server=True (--keep-on-server) to compute on the server"
        )
    flat = [_flatten_step(state, tensor) for tensor in inputs if state.before[tensor].ndim != 2]
    kept = {*inputs, *(node.output for node in nodes)}
    return Graph(
        name=name,
        inputs=inputs,
        outputs=tuple(state.core_outputs),
        shapes={tensor: shape for tensor, shape in state.builder.shapes.items() if tensor in kept},
        nodes=nodes,
        prologue=_live_steps([*state.prologue, *flat], inputs),
        epilogue=_live_steps(state.epilogue, state.model.outputs),
        model_inputs=dict(state.model.inputs),
        model_outputs=state.model.outputs,
        images={tensor: shape for tensor, shape in state.builder.images.items() if tensor in kept},
    )


def _flatten_step(state: _Import, tensor: str) -> ClearStep:
    size = int(np.prod(state.before[tensor].shape[1:], dtype=np.int64))
    return ClearStep("reshape", (tensor,), (tensor,), {"row_shape": (size,)})


def _live_steps(steps: Sequence[ClearStep], needed: Sequence[str]) -> tuple[ClearStep, ...]:
    """Drop the steps nobody reads; a tensor may be written more than once."""
    wanted, live = set(needed), []
    for step in reversed(steps):
        if step.outputs[0] in wanted:
            wanted.discard(step.outputs[0])
            wanted.update(step.inputs)
            live.append(step)
    return tuple(reversed(live))
