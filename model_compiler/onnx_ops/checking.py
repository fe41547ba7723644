"""Checks on an ONNX file before anything is computed from it: what is wrong, and in which node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import onnx
from onnx import TensorProto

from tacit.errors import ModelError

MAX_NODES = 20_000
MAX_OPERANDS = 1 << 16  # of one node
MAX_CALLS = 100  # of local functions inside each other
MAX_ROWS = (1 << 31) - 1
MIN_OPSET = 7
SUBGRAPH_OPS = ("If", "Loop", "Scan", "SequenceMap")
LONGEST_NAME = 120
LONGEST_REASON = 400

_NUMBERS = frozenset(
    (
        *(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16),
        *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
        *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
        TensorProto.BOOL,
    )
)


def shown(name: str | bytes) -> str:
    """Return a name as messages show it: printable, and not longer than a line.

    Protobuf hands out bytes where a name is not UTF-8.
    """
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    text = "".join(letter if letter.isprintable() else "?" for letter in name[:LONGEST_NAME])
    return text if len(name) <= LONGEST_NAME else text + "..."


def node_name(node: onnx.NodeProto) -> str:
    """Return what messages call a node: its name, else its first output, else its operator."""
    return shown(node.name or next((name for name in node.output if name), node.op_type))


def refuse_unreadable_names(model: onnx.ModelProto) -> None:
    """Refuse names that are not UTF-8, which protobuf hands out as bytes.

    Raises:
        ModelError: shows what can be read of the name.
    """
    for name in _names(model):
        if isinstance(name, bytes):
            raise ModelError(f"the name {shown(name)!r} is not UTF-8 text: export the model again")


def refuse_sparse(model: onnx.ModelProto) -> None:
    """Refuse sparse weights.

    Raises:
        ModelError: says what to do.
    """
    if model.graph.sparse_initializer:
        raise ModelError("sparse initializers are not read: store the weights as dense tensors")


def refuse_many_nodes(model: onnx.ModelProto) -> None:
    """Count the nodes there will be once local functions are inlined, without inlining them.

    Raises:
        ModelError: too many, or functions that call themselves.
    """
    bodies = {(function.domain, function.name): function.node for function in model.functions}
    if len(bodies) < len(model.functions):
        twice = _repeated(function.name for function in model.functions)
        raise ModelError(
            f"two local functions are called {shown(twice or '')!r}: export the model again"
        )
    counts: dict[tuple[str, str], int] = {}

    def count(nodes: Sequence[onnx.NodeProto], open_calls: tuple[tuple[str, str], ...]) -> int:
        if len(open_calls) > MAX_CALLS:
            raise ModelError(
                f"local functions call each other more than {MAX_CALLS} deep: inline them "
                "(onnx.inliner.inline_local_functions) before"
            )
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in open_calls:
                raise ModelError(
                    f"the local function {shown(node.op_type)!r} calls itself: export the model "
                    "without local functions"
                )
            if key in bodies and key not in counts:
                counts[key] = count(bodies[key], (*open_calls, key))
            total += counts.get(key, 1)
            if total > MAX_NODES:
                raise ModelError(f"the model has more than {MAX_NODES} nodes: simplify it first")
        return total

    count(model.graph.node, ())


def opset_versions(model: onnx.ModelProto) -> dict[str, int]:
    """Return domain -> version.

    Raises:
        ModelError: too old, newer than the installed ONNX knows, or two versions of one domain.
    """
    versions: dict[str, int] = {}
    for opset in model.opset_import:
        domain = _domain(opset.domain)
        if versions.setdefault(domain, opset.version) != opset.version:
            raise ModelError(
                f"the model imports opset {versions[domain]} and opset {opset.version} of "
                f"{shown(domain) or 'ai.onnx'}: export it with one of them"
            )
    if "" in versions and versions[""] < MIN_OPSET:
        raise ModelError(
            f"the model uses ONNX opset {versions['']}, at least {MIN_OPSET} is needed: "
            "export it with a newer opset"
        )
    newest = {"": onnx.defs.onnx_opset_version(), "ai.onnx.ml": onnx.defs.onnx_ml_opset_version()}
    for domain, known in newest.items():
        if versions.get(domain, known) > known:
            raise ModelError(
                f"the model uses opset {versions[domain]} of {domain or 'ai.onnx'}, the installed "
                f"onnx {onnx.__version__} knows {known}: upgrade onnx, or export with an older one"
            )
    return versions


def check_model(model: onnx.ModelProto) -> None:
    """Run ONNX's checker and our own rules.

    Raises:
        ModelError: names the node, input or tensor at fault.
    """
    for node in model.graph.node:
        if node.op_type in SUBGRAPH_OPS or any(
            attribute.HasField("g") or attribute.graphs for attribute in node.attribute
        ):
            raise ModelError(
                f"node {node_name(node)!r} ({shown(node.op_type)}) holds a subgraph: export "
                "the model without control flow (unroll loops, fix conditions)"
            )
        if len(node.input) > MAX_OPERANDS:
            raise ModelError(
                f"node {node_name(node)!r} ({shown(node.op_type)}) reads {len(node.input)} "
                f"tensors, at most {MAX_OPERANDS} are compiled: read one tensor with more columns"
            )
    try:
        onnx.checker.check_model(model, full_check=False, skip_opset_compatibility_check=True)
    except Exception as error:
        raise ModelError(_explained(model, _first_line(error))) from error
    _check_interface(model.graph)


def _check_interface(graph: onnx.GraphProto) -> None:
    if not graph.output:
        raise ModelError("the model has no output: export it again with the tensors to return")
    twice = _repeated(item.name for item in graph.output)
    if twice is not None:
        raise ModelError(f"output {shown(twice)!r} is listed twice: list every output once")


def _repeated(names: Iterable[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def row_shape(item: onnx.ValueInfoProto, largest: int) -> tuple[int, ...]:
    """Return an input's shape without the row axis.

    Args:
        item: the input.
        largest: elements a row may have.

    Raises:
        ModelError: not a tensor of numbers, or a shape that is dynamic, negative or huge.
    """
    tensor, name = item.type.tensor_type, shown(item.name)
    if not item.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise ModelError(f"input {name!r} must be a tensor with a declared shape: export again")
    if tensor.elem_type == TensorProto.STRING:
        raise ModelError(
            f"input {name!r} holds strings: encode categories as numbers before the model"
        )
    if tensor.elem_type not in _NUMBERS:
        raise ModelError(
            f"input {name!r} has the element type {_type_name(tensor.elem_type)}: real numbers are "
            "encrypted, declare it as float"
        )
    axes = tensor.shape.dim
    if not axes:
        raise ModelError(f"input {name!r} is a scalar: its first axis must count the rows")
    if not 0 <= axes[0].dim_value <= MAX_ROWS:
        raise ModelError(
            f"input {name!r} declares {axes[0].dim_value} rows: give the first axis a name instead"
        )
    for position, axis in enumerate(axes[1:], start=1):
        if axis.dim_value <= 0:
            raise ModelError(
                f"input {name!r} has the dynamic axis {position} "
                f"({shown(axis.dim_param) or axis.dim_value or '?'}): "
                "only the first axis (rows) may vary, export with fixed lengths elsewhere"
            )
    elements = 1
    for axis in axes[1:]:
        elements *= axis.dim_value
        if elements > largest:
            raise ModelError(
                f"input {name!r} has rows of at least {elements} elements: too large to encrypt, "
                f"at most {largest}"
            )
    return tuple(int(axis.dim_value) for axis in axes[1:])


def _type_name(kind: int) -> str:
    known = {number: name for name, number in TensorProto.DataType.items()}
    return str(known.get(kind, kind)).lower()


def _explained(model: onnx.ModelProto, reason: str) -> str:
    """Say which part of the model the checker means, and what to do."""
    if "No Op registered" in reason:
        return (
            f"not a valid ONNX model: {reason}. The exporter wrote an operator that ONNX does not "
            "have: write that layer differently (Keras: gelu with approximate=True) or use another "
            "exporter"
        )
    part = _part_at_fault(model)
    return f"not a valid ONNX model: {part}{reason}: export it again"


def _part_at_fault(model: onnx.ModelProto) -> str:
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {item.domain: item.version for item in model.opset_import}
    for node in model.graph.node:
        try:
            onnx.checker.check_node(node, context)
        except Exception:
            return f"node {node_name(node)!r} ({shown(node.op_type)}): "
    for kind, items in (("input", model.graph.input), ("output", model.graph.output)):
        for item in items:
            try:
                onnx.checker.check_value_info(item, context)
            except Exception:
                return f"{kind} {shown(item.name)!r}: "
    return ""


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).splitlines()), "the checker gives no reason")
    return line if len(line) <= LONGEST_REASON else line[:LONGEST_REASON] + "..."


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _names(model: onnx.ModelProto) -> Iterator[str | bytes]:
    graph = model.graph
    for opset in model.opset_import:
        yield opset.domain
    for function in model.functions:
        yield from (function.domain, function.name, *function.input, *function.output)
        yield from function.attribute
        yield from (opset.domain for opset in function.opset_import)
    for nodes in (graph.node, *(function.node for function in model.functions)):
        for node in nodes:
            yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
            for attribute in node.attribute:
                yield from (attribute.name, attribute.ref_attr_name)
    for item in (*graph.input, *graph.output, *graph.value_info):
        yield item.name
        yield from (axis.dim_param for axis in item.type.tensor_type.shape.dim)
    yield from (tensor.name for tensor in all_tensors(model))


def all_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Return the initializers and the tensors in attributes of nodes and local functions."""
    yield from model.graph.initializer
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    for nodes in bodies:
        for node in nodes:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
