"""Malformed, hostile and merely odd ONNX files, made by code, and what must be said about each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from tacit.clear_operations import Array
from tests.model_compiler.evil_bytes import damaged_bytes, headers, nesting
from tests.model_compiler.evil_nodes import attributes, shapes, windows
from tests.model_compiler.evil_parts import (
    IMAGE,
    KERNEL,
    ROW,
    Evil,
    Make,
    Source,
    W,
    case,
    changed,
    ints,
    weight_of,
)
from tests.model_compiler.onnx_models import build


def corpus() -> dict[str, Evil]:
    """Return every file by name."""
    return {
        **_weights(),
        **_external(),
        **_dimensions(),
        **_graphs(),
        **nesting(),
        **headers(),
        **attributes(),
        **windows(),
        **shapes(),
        **damaged_bytes(),
    }


def _weights() -> dict[str, Evil]:
    def holding(value: float) -> Array:
        weights = W.copy()
        weights[1, 2] = value
        return weights

    dense = "H = MatMul(X, W)\nY = Relu(H)"
    finite = r"NaN|infinite"
    return {
        "nan_weight": case(dense, "'W'.*NaN", W=holding(np.nan)),
        "infinite_weight": case(dense, finite, W=holding(np.inf)),
        "nan_in_a_constant_node": case(
            "C = Constant<value_float=nan>()\nH = Mul(X, C)\nY = Relu(H)", "NaN"
        ),
        "folding_overflows": case("V = Mul(W, W)\nH = MatMul(X, V)\nY = Relu(H)", "H.*infinite",
                                   W=np.full((4, 4), 1e30)),
        "folding_divides_by_zero": case(
            "V = Div(W, Z)\nH = MatMul(X, V)\nY = Relu(H)", "H.*infinite", W=W, Z=np.zeros(4)
        ),
        "negative_variance": case(
            "H = MatMul(X, W)\nY = BatchNormalization(H, S, S, S, V)", "H|Y.*variance",
            W=W, S=np.ones(4), V=-np.ones(4),
        ),
        "nan_epsilon": case(
            "H = MatMul(X, W)\nY = BatchNormalization<epsilon=nan>(H, S, S, S, S)", "Y", W=W,
            S=np.ones(4),
        ),
        "infinite_alpha": case("H = MatMul(X, W)\nY = LeakyRelu<alpha=inf>(H)", "Y", W=W),
        "nan_alpha": case("H = MatMul(X, W)\nY = Elu<alpha=nan>(H)", "Y", W=W),
        "nan_clip": case("H = MatMul(X, W)\nY = Clip(H, L, T)", "'L'.*NaN", W=W,
                          L=np.array(np.nan), T=np.array(1.0)),
        "weights_of_no_size": case(dense, "Y|H|empty|fit", W=np.zeros((4, 0))),
        "string_weights": changed(
            lambda m: weight_of(m).CopyFrom(
                numpy_helper.from_array(np.full((4, 4), "x", dtype=object), "W")
            ),
            "H",
        ),
        "complex_weights": changed(
            lambda m: weight_of(m).CopyFrom(numpy_helper.from_array(W.astype(np.complex64), "W")),
            "W",
        ),
    }  # fmt: skip


def _external() -> dict[str, Evil]:
    def stored(location: str, **where: int) -> Make:
        def make(directory: Path) -> Source:
            model = build("H = MatMul(X, W)\nY = Relu(H)", ROW, {"W": W})
            external_data_helper.set_external_data(
                weight_of(model), location, offset=where.get("offset"), length=where.get("length")
            )
            weight_of(model).ClearField("raw_data")
            (directory / "weights.bin").write_bytes(W.astype(np.float32).tobytes())
            if not (directory / "link.bin").exists():
                os.symlink("/etc/passwd", directory / "link.bin")
                os.mkfifo(directory / "pipe.bin")
            (directory / "model.onnx").write_bytes(model.SerializeToString())
            return directory / "model.onnx"

        return make

    def hidden(directory: Path) -> Source:
        model = build("C = Identity(W)\nH = MatMul(X, C)\nY = Relu(H)", ROW, {"W": W})
        node = helper.make_node("Constant", [], ["C"], value=numpy_helper.from_array(W, "inner"))
        external_data_helper.set_external_data(node.attribute[0].t, "/etc/passwd")
        node.attribute[0].t.ClearField("raw_data")
        model.graph.node[0].CopyFrom(node)
        return model

    def two_keys(directory: Path) -> Source:
        made = stored("weights.bin")(directory)
        model = onnx.load_model(str(made), load_external_data=False)
        entry = weight_of(model).external_data.add()
        entry.key, entry.value = "location", "../../etc/passwd"
        Path(str(made)).write_bytes(model.SerializeToString())
        return made

    def wide(directory: Path) -> Source:
        made = stored("weights.bin")(directory)
        model = onnx.load_model(str(made), load_external_data=False)
        weight_of(model).dims[:] = [1 << 20, 1 << 20]
        Path(str(made)).write_bytes(model.SerializeToString())
        return made

    elsewhere = "not in the model's own folder"
    files = {
        "absolute": (stored("/etc/passwd"), elsewhere),
        "parent": (stored("../../../../etc/passwd"), elsewhere),
        "backslashes": (stored("..\\weights.bin"), elsewhere),
        "nowhere": (stored(""), elsewhere),
        "folder": (stored(".."), elsewhere),
        "device": (stored("/dev/zero"), elsewhere),
        "symlink": (stored("link.bin"), "a link"),
        "missing": (stored("other.bin"), "No such file"),
        "pipe": (stored("pipe.bin"), "not a regular file"),
        "huge_offset": (stored("weights.bin", offset=1 << 62), r"bytes, \d+ are needed"),
        "past_the_end": (stored("weights.bin", offset=4), "bytes, 68 are needed"),
        "huge_length": (stored("weights.bin", length=1 << 62), "64 are needed"),
        "negative_offset": (stored("weights.bin", offset=-1), "at -1"),
        "two_locations": (two_keys, "not named once"),
    }
    return {
        **{
            f"external_{name}": Evil(make, f"'W' is stored in .*{says}.*save the model")
            for name, (make, says) in files.items()
        },
        "external_with_a_huge_shape": Evil(wide, "'W'.*more than"),
        "external_in_a_constant_node": Evil(hidden, "'inner'.*another file"),
        "a_directory": Evil(lambda directory: directory, "cannot read"),
        "no_file": Evil(lambda directory: directory / "absent.onnx", "cannot read"),
        "endless_file": Evil(lambda _: Path("/dev/zero"), "cannot read|not a file"),
    }


def _dimensions() -> dict[str, Evil]:
    def dims(*lengths: int) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            del weight_of(model).dims[:]
            weight_of(model).dims.extend(lengths)

        return change

    def axis(position: int, length: int | str) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            field = model.graph.input[0].type.tensor_type.shape.dim[position]
            field.Clear()
            if isinstance(length, str):
                field.dim_param = length
            else:
                field.dim_value = length

        return change

    huge = 1 << 40
    return {
        "huge_initialiser": changed(dims(huge, huge), r"tensor.*\bW\b"),
        "overflowing_initialiser": changed(dims(1 << 32, 1 << 32), r"tensor.*\bW\b"),
        "negative_initialiser": changed(dims(-4, -4), r"tensor.*\bW\b"),
        "minus_one_initialiser": changed(dims(-1, 4), r"tensor.*\bW\b"),
        "truncated_initialiser": changed(dims(4, 5), r"tensor.*\bW\b"),
        "overfull_initialiser": changed(dims(4, 3), r"tensor.*\bW\b"),
        "zero_initialiser_with_bytes": changed(dims(0, 4), r"tensor.*\bW\b"),
        "huge_rank": changed(dims(*[1] * 4000), r"\bW\b|H"),
        "dynamic_feature_axis": changed(axis(1, "features"), "'X'.*dynamic axis 1"),
        "unnamed_feature_axis": changed(axis(1, 0), "'X'.*dynamic axis 1"),
        "negative_feature_axis": changed(axis(1, -4), "'X'.*axis 1"),
        "huge_feature_axis": changed(axis(1, huge), "'X'.*too large"),
        "negative_rows": changed(axis(0, -2), "'X'.*rows"),
        "huge_row_count": changed(axis(0, 1 << 62), "'X'.*rows"),
        "feature_axis_that_does_not_fit": changed(axis(1, 5), "H.*5|H.*fit"),
        "huge_constant_of_shape": case(
            "Z = ConstantOfShape(S)\nH = MatMul(X, W)\nY = Add(H, Z)", "Z.*too large", W=W,
            S=ints(huge, huge),
        ),
        "huge_expand": case("H = MatMul(X, W)\nE = Unsqueeze(H, A)\nY = Expand(E, S)",
                             "Y.*elements", W=W, A=ints(2), S=ints(1, 4, huge)),
        "huge_tile": case("H = MatMul(X, W)\nY = Tile(H, R)", "Y.*elements", W=W,
                           R=ints(1, huge)),
        "huge_pad": case("H = MatMul(X, W)\nY = Pad(H, P)", "Y.*elements", W=W,
                          P=ints(0, huge, 0, huge)),
        "huge_range": case("R = Range(A, L, D)\nF = Cast<to=1>(R)\nH = MatMul(X, W)\nY = Mul(H, F)",
                            "R.*too large", W=W, A=np.array(0), L=np.array(huge), D=np.array(1)),
        "huge_one_hot": case(
            "O = OneHot(I, D, V)\nH = MatMul(X, W)\nY = Mul(H, O)", "O.*too large|O.*computed", W=W,
            I=ints(1, 2, 3), D=np.array(huge), V=ints(0, 1),
        ),
        "huge_resize": case("Y = Resize(X, R, S)", "Y.*elements", IMAGE, R=np.zeros(0),
                             S=np.array([1.0, 1.0, 1e9, 1e9])),
        "huge_upsample": case("Y = Upsample(X, S)", "Y", IMAGE, opset=9,
                               S=np.array([1.0, 1.0, 1e12, 1.0])),
        "huge_output_shape": case(
            f"Y = ConvTranspose<output_shape=[{huge}, {huge}]>(X, K)", "Y", IMAGE,
            K=KERNEL.swapaxes(0, 1),
        ),
    }  # fmt: skip


def _graphs() -> dict[str, Evil]:
    def add_node(op: str, inputs: list[str], outputs: list[str]) -> Callable[..., None]:
        return lambda m: m.graph.node.append(helper.make_node(op, inputs, outputs))

    def cycle(model: onnx.ModelProto) -> None:
        model.graph.node[0].input[0] = "Y"

    def second_initialiser(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(2 * W, "W"))

    def node_over_weight(model: onnx.ModelProto) -> None:
        model.graph.node.insert(0, helper.make_node("Neg", ["X"], ["W"]))

    def twice(field: str) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            items = getattr(model.graph, field)
            items.append(items[0])

        return change

    def no_outputs(model: onnx.ModelProto) -> None:
        del model.graph.output[:]

    def no_inputs(model: onnx.ModelProto) -> None:
        del model.graph.input[:]

    def no_nodes(model: onnx.ModelProto) -> None:
        del model.graph.node[:]

    def sequence_input(model: onnx.ModelProto) -> None:
        kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [4]))
        model.graph.input[0].type.CopyFrom(kind)

    def shapeless(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.ClearField("shape")

    def typeless(model: onnx.ModelProto) -> None:
        model.graph.input[0].ClearField("type")

    def scalar(model: onnx.ModelProto) -> None:
        del model.graph.input[0].type.tensor_type.shape.dim[:]

    def drop_operand(model: onnx.ModelProto) -> None:
        del model.graph.node[0].input[1:]

    def extra_operands(model: onnx.ModelProto) -> None:
        model.graph.node[0].input.extend(["W", "W"])

    def empty_operand(model: onnx.ModelProto) -> None:
        model.graph.node[0].input[0] = ""

    def no_results(model: onnx.ModelProto) -> None:
        del model.graph.node[1].output[:]

    def element_type(kind: int) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            model.graph.input[0].type.tensor_type.elem_type = kind

        return change

    return {
        "cycle": changed(cycle, "Y|cycl|order|sorted"),
        "reads_itself": changed(add_node("Add", ["Z", "X"], ["Z"]), "Z"),
        "missing_input": changed(add_node("Add", ["Y", "ghost"], ["Z"]), "ghost"),
        "written_twice": changed(add_node("Neg", ["H"], ["Y"]), "Y"),
        "node_writes_a_weight": changed(node_over_weight, "W"),
        "node_writes_an_input": changed(add_node("Neg", ["H"], ["X"]), "X"),
        "two_initialisers_of_one_name": changed(second_initialiser, "W"),
        "two_inputs_of_one_name": changed(twice("input"), "X"),
        "two_outputs_of_one_name": changed(twice("output"), "Y"),
        "no_outputs": changed(no_outputs, "no output"),
        "no_inputs": changed(no_inputs, "X|input"),
        "no_nodes": changed(no_nodes, "Y"),
        "no_graph": Evil(lambda _: onnx.ModelProto(ir_version=8), "ONNX|graph|output"),
        "output_never_computed": changed(
            lambda m: m.graph.output.append(helper.make_empty_tensor_value_info("ghost")), "ghost"
        ),
        "sequence_input": changed(sequence_input, "'X'.*tensor"),
        "input_without_shape": changed(shapeless, "'X'.*shape"),
        "input_without_type": changed(typeless, "X"),
        "scalar_input": changed(scalar, "'X'.*rows"),
        "too_few_operands": changed(drop_operand, "MatMul|H"),
        "too_many_operands": changed(extra_operands, "MatMul|H"),
        "empty_operand": changed(empty_operand, "H|MatMul"),
        "node_without_outputs": changed(no_results, "Relu|Y"),
        "string_input": changed(element_type(TensorProto.STRING), "'X'.*strings"),
        "complex_input": changed(element_type(TensorProto.COMPLEX64), "'X'.*complex"),
        "input_of_unknown_type": changed(element_type(99), "'X'"),
        "input_of_undefined_type": changed(element_type(0), "'X'|X"),
        "output_padding_beyond_the_stride": case(
            "Y = ConvTranspose<strides=[2, 2], output_padding=[2, 0]>(X, K)", "Y", IMAGE,
            K=KERNEL.swapaxes(0, 1),
        ),
        "unsupported_operators": case(
            "A = LRN<size=3>(X)\nB = Sin(A)\nC = Tan(B)\nY = Relu(C)",
            r"3 unsupported(?s:.*)A \(LRN\)(?s:.*)B \(Sin\)(?s:.*)C \(Tan\)", IMAGE,
        ),
        "random_numbers": case("R = RandomNormalLike(X)\nY = Add(X, R)", "R"),
        "non_maximum_suppression": case(
            "Y = NonZero(X)", "Y"
        ),
        "data_dependent_loop": case("Y = Unique(X)", "Y"),
    }  # fmt: skip
