"""Evil structure: subgraphs and functions in each other, versions, damaged and endless bytes."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.model_compiler.evil_parts import ROW, Evil, Make, Source, W, changed, ints, varint
from tests.model_compiler.onnx_models import build


def nesting() -> dict[str, Evil]:
    def branch(depth: int) -> onnx.GraphProto:
        value = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
        nodes = [helper.make_node("Relu", ["X"], ["out"])]
        for _ in range(depth):
            inner = helper.make_graph(nodes, "branch", [], [value])
            nodes = [helper.make_node("If", ["c"], ["out"], then_branch=inner, else_branch=inner)]
            if inner.ByteSize() > 1 << 22:
                break
        return helper.make_graph(nodes, "branch", [], [value])

    def chain(depth: int) -> onnx.GraphProto:
        value = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
        graph = helper.make_graph([helper.make_node("Relu", ["X"], ["out"])], "body", [], [value])
        for _ in range(depth):
            node = helper.make_node("Scan", ["X"], ["out"], body=graph, num_scan_inputs=1)
            graph = helper.make_graph([node], "body", [], [value])
        return graph

    def with_if(depth: int) -> Make:
        def make(_: Path) -> Source:
            model = build("Y = Relu(X)", ROW, {"c": np.array([True])})
            inner = branch(depth)
            node = helper.make_node("If", ["c"], ["Y"], then_branch=inner, else_branch=inner)
            model.graph.node[0].CopyFrom(node)
            return model

        return make

    def with_scan(_: Path) -> Source:
        model = build("Y = Relu(X)", ROW)
        model.graph.node[0].CopyFrom(
            helper.make_node("Scan", ["X"], ["Y"], body=chain(20), num_scan_inputs=1)
        )
        return bytes(model.SerializeToString())

    def deep_bytes(_: Path) -> Source:
        return _nested_message(20_000)

    def functions(bodies: dict[str, list[onnx.NodeProto]]) -> Make:
        def make(_: Path) -> Source:
            model = build("Y = Relu(X)", ROW)
            model.graph.node[0].CopyFrom(helper.make_node("f0", ["X"], ["Y"], domain="local"))
            opset = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
            model.opset_import.append(opset[1])
            for name, nodes in bodies.items():
                model.functions.append(
                    helper.make_function("local", name, ["a"], ["b"], nodes, opset)
                )
            return model

        return make

    def call(name: str, source: str, target: str) -> onnx.NodeProto:
        return helper.make_node(name, [source], [target], domain="local")

    relu = helper.make_node("Relu", ["a"], ["b"])
    doubling = {
        f"f{i}": [call(f"f{i + 1}", "a", "c"), call(f"f{i + 1}", "c", "b")] for i in range(40)
    }
    long = {f"f{i}": [call(f"f{i + 1}", "a", "b")] for i in range(3000)}
    in_branch = helper.make_graph(
        [call("f0", "X", "out")],
        "g",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )
    return {
        "if": Evil(with_if(0), "'Y'.*If.*subgraph"),
        "nested_ifs": Evil(with_if(16), "'Y'.*If.*subgraph"),
        "nested_scans": Evil(with_scan, "subgraph|protobuf"),
        "deep_message": Evil(deep_bytes, "protobuf"),
        "function_that_calls_itself": Evil(
            functions({"f0": [call("f0", "a", "b")]}), "'f0'.*itself"
        ),
        "functions_that_call_each_other": Evil(
            functions({"f0": [call("f1", "a", "b")], "f1": [call("f0", "a", "b")]}), "itself"
        ),
        "function_that_calls_itself_in_a_branch": Evil(
            functions({"f0": [helper.make_node("If", ["a"], ["b"], then_branch=in_branch,
                                               else_branch=in_branch)]}), "f0|subgraph"
        ),
        "doubling_functions": Evil(functions({**doubling, "f40": [relu]}), "more than .* nodes"),
        "long_chain_of_functions": Evil(functions({**long, "f3000": [relu]}), "functions"),
        "function_that_does_not_exist": Evil(functions({"g": [relu]}), "f0"),
        "two_functions_of_one_name": Evil(_two_functions, "f0"),
        "function_with_wrong_names": Evil(
            functions({"f0": [helper.make_node("Relu", ["ghost"], ["b"])]}), "ghost|f0"
        ),
        "function_without_result": Evil(
            functions({"f0": [helper.make_node("Relu", ["a"], ["z"])]}), "b|f0|Y"
        ),
    }  # fmt: skip


def _two_functions(_: Path) -> Source:
    model = build("Y = Relu(X)", ROW)
    model.graph.node[0].CopyFrom(helper.make_node("f0", ["X"], ["Y"], domain="local"))
    opset = [helper.make_opsetid("", 17)]
    model.opset_import.append(helper.make_opsetid("local", 1))
    for op in ("Relu", "Neg"):
        body = [helper.make_node(op, ["a"], ["b"])]
        model.functions.append(helper.make_function("local", "f0", ["a"], ["b"], body, opset))
    return model


def _nested_message(depth: int) -> bytes:
    """Nest graph -> node -> attribute -> graph in raw bytes, deeper than any parser likes."""
    payload = b""
    for _ in range(depth):
        for tag in (0x32, 0x2A, 0x0A):  # attribute.g, node.attribute, graph.node
            payload = bytes([tag]) + varint(len(payload)) + payload
            if len(payload) > 1 << 20:
                break
    return b"\x08\x08" + b"\x3a" + varint(len(payload)) + payload


def headers() -> dict[str, Evil]:
    def opset(version: int, domain: str = "") -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            for item in model.opset_import:
                if item.domain == domain:
                    item.version = version

        return change

    def no_opset(model: onnx.ModelProto) -> None:
        del model.opset_import[:]

    def two_opsets(model: onnx.ModelProto) -> None:
        model.opset_import.append(helper.make_opsetid("", 7))

    def ir(version: int) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            model.ir_version = version

        return change

    def domain(name: str, *, declared: bool) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            model.graph.node[1].domain = name
            if declared:
                model.opset_import.append(helper.make_opsetid(name, 1))

        return change

    def sparse(model: onnx.ModelProto) -> None:
        made = model.graph.sparse_initializer.add()
        made.dims.extend([4, 4])
        made.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "V"))
        made.indices.CopyFrom(numpy_helper.from_array(ints(3), "I"))

    future = r"opset 9\d+|newer"
    return {
        "opset_0": changed(opset(0), "opset 0"),
        "opset_minus_1": changed(opset(-1), "opset"),
        "opset_1": changed(opset(1), "opset 1"),
        "opset_of_the_future": changed(opset(9999), future),
        "opset_beyond_32_bits": changed(opset(1 << 62), "opset"),
        "no_opset": changed(no_opset, "opset"),
        "two_opsets_of_one_domain": changed(two_opsets, "opset"),
        "ml_opset_of_the_future": changed(opset(9999, "ai.onnx.ml"), "opset",
            "S = ai.onnx.ml.Scaler<offset=[1.0], scale=[2.0]>(X)\nH = MatMul(S, W)\nY = Relu(H)"),
        "ir_of_the_future": changed(ir(999), "IR|ir_version"),
        "ir_0": changed(ir(0), "IR|ir_version"),
        "unknown_domain": changed(domain("com.evil", declared=True), "com.evil.Relu"),
        "undeclared_domain": changed(domain("com.evil", declared=False), "com.evil"),
        "sparse_initialiser": changed(sparse, "sparse"),
    }  # fmt: skip


def damaged_bytes() -> dict[str, Evil]:
    def whole() -> bytes:
        data: bytes = build("H = MatMul(X, W)\nY = Relu(H)", ROW, {"W": W}).SerializeToString()
        return data

    def renamed(old: bytes, new: bytes) -> Make:
        return lambda _: whole().replace(old, new)

    def many_nodes(count: int) -> Make:
        def make(_: Path) -> Source:
            node = bytes(helper.make_node("Relu", ["X"], ["X"]).SerializeToString())
            once = b"\x0a" + varint(len(node)) + node
            graph = once * count
            return b"\x08\x08" + b"\x3a" + varint(len(graph)) + graph

        return make

    def many_initialisers(_: Path) -> Source:
        tensor = bytes(numpy_helper.from_array(np.zeros(1, np.float32), "t").SerializeToString())
        model = build("H = MatMul(X, W)\nY = Relu(H)", ROW, {"W": W}).SerializeToString()
        graph = (b"\x2a" + varint(len(tensor)) + tensor) * 200_000
        return bytes(model) + b"\x3a" + varint(len(graph)) + graph

    def sparse_file(directory: Path) -> Source:
        path = directory / "hole.onnx"
        with path.open("wb") as file:
            file.truncate(1 << 40)
        return path

    def zeros_in_text(_: Path) -> Source:
        model = build("H = MatMul(X, W)\nY = Relu(H)", ROW, {"W": W})
        model.doc_string = "A" * (64 << 20)
        model.graph.node[0].op_type = "Z" * (32 << 20)
        return model

    def long_names(_: Path) -> Source:
        model = build("H = MatMul(X, W)\nY = Relu(H)", ROW, {"W": W})
        model.graph.node[0].name = "n" * (8 << 20)
        model.graph.node[0].op_type = "LRN"
        del model.graph.node[0].input[1:]
        return model

    def many_operands(_: Path) -> Source:
        model = build("H = MatMul(X, W)\nY = Relu(H)", ROW, {"W": W})
        model.graph.node[1].CopyFrom(helper.make_node("Sum", ["H"] * 300_000, ["Y"]))
        return model

    protobuf = "protobuf|ONNX"
    return {
        "empty_bytes": Evil(lambda _: b"", "output|graph|ONNX"),
        "random_bytes": Evil(lambda _: np.random.default_rng(3).bytes(4096), protobuf),
        "text": Evil(lambda _: b"#!/bin/sh\nexit 0\n" * 100, protobuf),
        "zip": Evil(lambda _: b"PK\x03\x04" + b"\x00" * 4096, protobuf),
        "gzip_of_a_model": Evil(lambda _: gzip.compress(whole()), protobuf),
        "half_a_model": Evil(lambda _: whole()[: len(whole()) // 2], protobuf),
        "lengths_beyond_the_end": Evil(lambda _: b"\x08\x08\x3a" + varint(1 << 40), protobuf),
        "endless_varint": Evil(lambda _: b"\xff" * 4096, protobuf),
        "deep_groups": Evil(lambda _: b"\x3b" * 100_000, protobuf),
        "names_that_are_not_text": Evil(renamed(b"Relu", b"\xff\xfe\xfd\xfc"), "UTF-8"),
        "zero_bytes_in_names": Evil(renamed(b"Relu", b"Re\x00u"), "Re|ONNX"),
        "newlines_in_names": Evil(renamed(b"Relu", b"R\n\nu"), "R|ONNX"),
        "million_nodes": Evil(many_nodes(1_000_000), "more than .* nodes"),
        "many_initialisers": Evil(many_initialisers, "output|initiali|tensors|name"),
        "sparse_terabyte": Evil(sparse_file, "bytes"),
        "megabytes_of_text": Evil(zeros_in_text, "ZZZ|ONNX"),
        "megabytes_of_name": Evil(long_names, "nnn|H"),
        "operands_by_the_thousand": Evil(many_operands, "Y|operands"),
    }
