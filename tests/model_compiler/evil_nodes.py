"""Evil nodes: attributes of wrong type or value, windows that do not fit, impossible shapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper

from tests.model_compiler.evil_parts import IMAGE, KERNEL, ROW, Evil, Source, W, case, changed, ints
from tests.model_compiler.onnx_models import build


def attributes() -> dict[str, Evil]:
    def attribute(node: int, **values: object) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            model.graph.node[node].attribute.extend(
                helper.make_attribute(name, value) for name, value in values.items()
            )

        return change

    def lies_about_its_type(model: onnx.ModelProto) -> None:
        made = model.graph.node[1].attribute.add()
        made.name, made.s, made.type = "alpha", b"0.5", AttributeProto.FLOAT

    def no_type(model: onnx.ModelProto) -> None:
        made = model.graph.node[1].attribute.add()
        made.name, made.f = "alpha", 0.5

    def two_values(model: onnx.ModelProto) -> None:
        made = model.graph.node[1].attribute.add()
        made.name, made.f, made.type, made.i = "alpha", 0.5, AttributeProto.FLOAT, 3

    def twice(model: onnx.ModelProto) -> None:
        attribute(1, alpha=0.5)(model)
        attribute(1, alpha=0.25)(model)

    def reference(model: onnx.ModelProto) -> None:
        made = model.graph.node[1].attribute.add()
        made.name, made.ref_attr_name, made.type = "alpha", "outer", AttributeProto.FLOAT

    leaky, gemm = "H = MatMul(X, W)\nY = LeakyRelu(H)", "H = Gemm(X, W)\nY = Relu(H)"
    flat = "H = MatMul(X, W)\nY = Softmax(H)"
    return {
        "string_for_a_number": changed(attribute(1, alpha="0.5"), "alpha", leaky),
        "list_for_a_number": changed(attribute(1, alpha=[0.5]), "alpha", leaky),
        "integer_for_a_float": changed(attribute(1, alpha=1), "alpha", leaky),
        "tensor_for_a_number": changed(
            attribute(1, alpha=numpy_helper.from_array(W, "t")), "alpha", leaky
        ),
        "lies_about_its_type": changed(lies_about_its_type, "alpha", leaky),
        "attribute_without_type": changed(no_type, "Y.*type", leaky),
        "attribute_with_two_values": changed(two_values, "alpha", leaky),
        "attribute_twice": changed(twice, "alpha", leaky),
        "reference_outside_a_function": changed(reference, "alpha", leaky),
        "unknown_attribute": changed(attribute(1, beta=1.0), "beta", leaky),
        "float_for_a_flag": changed(attribute(0, transB=0.5), "transB", gemm),
        "axis_out_of_range": changed(attribute(1, axis=7), "Y.*axis=7", flat),
        "axis_below_range": changed(attribute(1, axis=-7), "Y.*axis=-7", flat),
        "axis_beyond_32_bits": changed(attribute(1, axis=1 << 62), "Y.*axis", flat),
        "transpose_with_one_axis_twice": case(
            "Y = Transpose<perm=[0, 1, 1, 2]>(X)", r"Y.*perm", IMAGE
        ),
        "transpose_of_other_rank": case("Y = Transpose<perm=[0, 1]>(X)", r"Y.*perm", IMAGE),
        "transpose_below_range": case("Y = Transpose<perm=[0, -1, 2, 3]>(X)", r"Y.*perm", IMAGE),
        "concat_axis_out_of_range": case("H = MatMul(X, W)\nY = Concat<axis=5>(H, H)",
                                          "Y.*axis=5", W=W),
        "unknown_pad_mode": case('H = MatMul(X, W)\nY = Pad<mode="mirror">(H, P)', "Y.*mirror",
                                  W=W, P=ints(0, 1, 0, 1)),
        "unknown_auto_pad": case('Y = Conv<auto_pad="LUCKY">(X, K)', "Y.*LUCKY", IMAGE, K=KERNEL),
        "unknown_einsum": case('H = MatMul(X, W)\nY = Einsum<equation="ij,jk->">(H, W)', "Y", W=W),
        "einsum_bomb": case(
            f'H = MatMul(X, W)\nY = Einsum<equation="{"a" * 5000}">(H)', "Y", W=W
        ),
        "unknown_post_transform": case(
            'Y = ai.onnx.ml.LinearRegressor<coefficients=[1.0, 1.0, 1.0, 1.0], '
            'post_transform="EVIL">(X)', "Y.*EVIL",
        ),
        "regressor_of_other_size": case(
            "Y = ai.onnx.ml.LinearRegressor<coefficients=[1.0, 1.0, 1.0], targets=1>(X)", "Y"
        ),
        "regressor_with_targets_0": case(
            "Y = ai.onnx.ml.LinearRegressor<coefficients=[1.0], targets=0>(X)", "Y"
        ),
        "trees_that_are_no_trees": case(_tree(true=(0, 0, 0)), "Y"),
        "trees_with_absent_children": case(_tree(true=(9, 0, 0)), "Y"),
        "trees_on_absent_features": case(_tree(feature=99), "Y"),
        "trees_without_targets": case(_tree().replace("n_targets=1", "n_targets=-1"), "Y"),
        "trees_with_huge_targets": case(
            _tree().replace("n_targets=1", "n_targets=1099511627776"), "Y"
        ),
        "trees_with_weights_of_no_node": case(
            _tree().replace("target_nodeids=[1, 2]", "target_nodeids=[1, 7]"), "Y.*node 7"
        ),
        "tree_of_20000_levels": Evil(_deep_tree, "Y.*deep"),
    }  # fmt: skip


def _deep_tree(_: Path) -> Source:
    count = 20_000
    branches, nodes = ["BRANCH_LEQ"] * count, list(range(2 * count + 1))
    model = build("Y = ai.onnx.ml.TreeEnsembleRegressor<n_targets=1>(X)", ROW)
    zeros = [0] * (2 * count + 1)
    for name, value in {
        "nodes_treeids": zeros,
        "nodes_nodeids": nodes,
        "nodes_featureids": zeros,
        "nodes_values": [float(n) for n in nodes],
        "nodes_modes": branches + ["LEAF"] * (count + 1),
        "nodes_truenodeids": [*range(1, count + 1), *[0] * (count + 1)],
        "nodes_falsenodeids": [*range(count + 1, 2 * count + 1), *[0] * (count + 1)],
        "target_treeids": [0],
        "target_nodeids": [count],
        "target_ids": [0],
        "target_weights": [1.0],
    }.items():
        model.graph.node[0].attribute.append(helper.make_attribute(name, value))
    return model


def _tree(true: tuple[int, int, int] = (1, 0, 0), feature: int = 1) -> str:
    fields = [
        "n_targets=1",
        "nodes_treeids=[0, 0, 0]",
        "nodes_nodeids=[0, 1, 2]",
        f"nodes_featureids=[{feature}, 0, 0]",
        "nodes_values=[0.5, 0.0, 0.0]",
        'nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"]',
        f"nodes_truenodeids=[{', '.join(map(str, true))}]",
        "nodes_falsenodeids=[2, 0, 0]",
        "target_treeids=[0, 0]",
        "target_nodeids=[1, 2]",
        "target_ids=[0, 0]",
        "target_weights=[1.0, 2.0]",
    ]
    return f"Y = ai.onnx.ml.TreeEnsembleRegressor<{', '.join(fields)}>(X)"


def windows() -> dict[str, Evil]:
    def window(op: str, attributes: str, says: str) -> Evil:
        if op == "Conv":
            return case(f"Y = Conv<{attributes}>(X, K)", says, IMAGE, K=KERNEL)
        if op == "ConvTranspose":
            kernel = KERNEL.swapaxes(0, 1)
            return case(f"Y = ConvTranspose<{attributes}>(X, K)", says, IMAGE, K=kernel)
        return case(f"Y = {op}<kernel_shape=[2, 2], {attributes}>(X)", says, IMAGE)

    found: dict[str, Evil] = {}
    for op in ("Conv", "ConvTranspose", "AveragePool", "MaxPool"):
        for name, attributes in {
            "stride_0": "strides=[0, 1]",
            "negative_stride": "strides=[-1, 1]",
            "huge_stride": f"strides=[{1 << 62}, 1]",
            "one_stride": "strides=[2]",
            "negative_pads": "pads=[-1, -1, -1, -1]",
            "three_pads": "pads=[1, 1, 1]",
            "huge_pads": f"pads=[{1 << 62}, 0, {1 << 62}, 0]",
            "large_pads": f"pads=[{1 << 30}, 0, {1 << 30}, 0]",
        }.items():
            if not (op == "ConvTranspose" and name in ("huge_pads", "large_pads")):
                found[f"{op}_{name}"] = window(op, attributes, r"Y \(")
        if op != "AveragePool":
            for name, attributes in {
                "dilation_0": "dilations=[0, 1]",
                "negative_dilation": "dilations=[-1, -1]",
                "huge_dilation": f"dilations=[{1 << 62}, 1]",
            }.items():
                found[f"{op}_{name}"] = window(op, attributes, r"Y \(")
    for op in ("Conv", "ConvTranspose"):
        for group in (0, -1, 3, 1 << 62):
            found[f"{op}_group_{group}"] = window(op, f"group={group}", r"Y \(.*group")
        found[f"{op}_other_kernel_shape"] = window(op, "kernel_shape=[5, 5]", r"Y \(.*kernel_shape")
    for op in ("AveragePool", "MaxPool"):
        for name, shape in {
            "0": "0, 2",
            "negative": "-2, 2",
            "huge": f"{1 << 62}, 1",
            "one": "2",
        }.items():
            text = f"Y = {op}<kernel_shape=[{shape}]>(X)"
            found[f"{op}_kernel_{name}"] = case(text, r"Y \(.*kernel|Y \(.*window", IMAGE)
        found[f"{op}_of_rows"] = case(f"Y = {op}<kernel_shape=[2]>(X)", r"Y \(")
    return {
        **found,
        "conv_with_other_channels": case("Y = Conv(X, K)", r"Y \(.*channels", {"X": (3, 6, 6)},
                                          K=KERNEL),
        "conv_of_rows": case("Y = Conv(X, K)", r"Y \(", K=KERNEL),
        "conv_with_other_bias": case("Y = Conv(X, K, B)", r"Y \(.*bias", IMAGE, K=KERNEL,
                                      B=np.ones(3)),
        "conv_with_kernel_from_the_input": case("Y = Conv(X, X)", r"Y \(.*kernel", IMAGE),
        "conv_larger_than_the_image": case("Y = Conv(X, K)", r"Y \(.*larger", {"X": (2, 2, 2)},
                                            K=KERNEL),
        "conv_without_taps": case("Y = Conv(X, K)", r"Y \(", IMAGE, K=np.zeros((4, 2, 0, 3))),
        "norm_with_other_channels": case("Y = BatchNormalization(X, S, S, S, S)", r"Y \(", IMAGE,
                                          S=np.ones(3)),
        "depth_to_space_that_does_not_divide": case("Y = DepthToSpace<blocksize=3>(X)", r"Y \(",
                                                     IMAGE),
        "depth_to_space_0": case("Y = DepthToSpace<blocksize=0>(X)", r"Y \(", IMAGE),
        "space_to_depth_negative": case("Y = SpaceToDepth<blocksize=-2>(X)", r"Y \(", IMAGE),
    }  # fmt: skip


def shapes() -> dict[str, Evil]:
    dense = "H = MatMul(X, W)\n"
    return {
        "reshape_with_two_unknowns": case(dense + "Y = Reshape(H, S)", r"Y \(", W=W,
                                           S=ints(-1, -1)),
        "reshape_with_three_unknowns": case(dense + "Y = Reshape(H, S)", r"Y \(", W=W,
                                             S=ints(-1, -1, -1)),
        "reshape_to_another_size": case(dense + "Y = Reshape(H, S)", r"Y \(", W=W, S=ints(-1, 3)),
        "reshape_to_minus_two": case(dense + "Y = Reshape(H, S)", r"Y \(", W=W, S=ints(-1, -2, -2)),
        "reshape_to_huge": case(dense + "Y = Reshape(H, S)", r"Y \(", W=W,
                                 S=ints(-1, 1 << 33, 1 << 33)),
        "reshape_by_floats": case(dense + "Y = Reshape(H, S)", r"Y \(", W=W,
                                   S=np.array([-1.0, 4.0])),
        "reshape_by_the_input": case(dense + "C = Cast<to=7>(X)\nY = Reshape(H, C)", r"C \(|Y \(",
                                      W=W),
        "reshape_to_nothing": case(dense + "Y = Reshape(H, S)", r"Y \(", W=W, S=ints(-1, 0, 0)),
        "squeeze_of_a_long_axis": case(dense + "Y = Squeeze(H, A)", r"Y \(", W=W, A=ints(1)),
        "squeeze_out_of_range": case(dense + "Y = Squeeze(H, A)", r"Y \(", W=W, A=ints(9)),
        "unsqueeze_twice": case(dense + "Y = Unsqueeze(H, A)", r"Y \(", W=W, A=ints(1, 1)),
        "unsqueeze_out_of_range": case(dense + "Y = Unsqueeze(H, A)", r"Y \(", W=W, A=ints(9)),
        "gather_out_of_range": case(dense + "Y = Gather<axis=1>(H, A)", r"Y \(", W=W, A=ints(99)),
        "gather_by_floats": case(dense + "Y = Gather<axis=1>(H, A)", r"Y", W=W,
                                  A=np.array([0.5])),
        "slice_with_step_0": case(dense + "Y = Slice(H, A, E, B, Z)", r"Y", W=W, A=ints(0),
                                   E=ints(2), B=ints(1), Z=ints(0)),
        "slice_to_nothing": case(dense + "Y = Slice(H, A, A, B)", r"Y", W=W, A=ints(2), B=ints(1)),
        "slice_one_axis_twice": case(dense + "Y = Slice(H, A, E, B)", r"Y", W=W, A=ints(0, 1),
                                      E=ints(3, 3), B=ints(1, 1)),
        "slice_of_other_lengths": case(dense + "Y = Slice(H, A, E, B)", r"Y", W=W, A=ints(0, 0),
                                        E=ints(2), B=ints(1)),
        "split_that_does_not_fill": case(dense + "Y, Z = Split<axis=1>(H, S)", r"Y", W=W,
                                          S=ints(1, 1)),
        "split_negative": case(dense + "Y, Z = Split<axis=1>(H, S)", r"Y", W=W, S=ints(-1, 5)),
        "split_to_nothing": case(dense + "A, Z = Split<axis=1>(H, S)\nY = Relu(A)", r"A", W=W,
                                  S=ints(0, 4)),
        "expand_that_does_not_fit": case(dense + "Y = Expand(H, S)", r"Y \(", W=W, S=ints(1, 3)),
        "expand_negative": case(dense + "Y = Expand(H, S)", r"Y", W=W, S=ints(1, -4)),
        "tile_0": case(dense + "Y = Tile(H, S)", r"Y \(", W=W, S=ints(1, 0)),
        "tile_negative": case(dense + "Y = Tile(H, S)", r"Y \(", W=W, S=ints(1, -1)),
        "pad_that_cuts_everything": case(dense + "Y = Pad(H, P)", r"Y", W=W, P=ints(0, -3, 0, -3)),
        "pad_of_other_rank": case(dense + "Y = Pad(H, P)", r"Y \(", W=W, P=ints(0, 1)),
        "matmul_that_does_not_fit": case("Y = MatMul(X, W)", r"Y \(", W=W[:3]),
        "gemm_that_does_not_fit": case("Y = Gemm(X, W, B)", r"Y", W=W, B=np.ones(3)),
        "add_that_does_not_fit": case(dense + "Y = Add(H, B)", r"Y", W=W, B=np.ones(3)),
        "mul_by_no_elements": case(dense + "Y = Mul(H, B)", r"Y", W=W, B=np.zeros((1, 0))),
        "concat_that_does_not_fit": case("Y = Concat<axis=1>(X, Z)", r"Y|nothing",
                                          {"X": (2, 3), "Z": (2, 4)}),
        "clip_upside_down": case(dense + "Y = Clip(H, L, T)", r"Y \(.*above", W=W,
                                  L=np.array(1.0), T=np.array(-1.0)),
        "clip_by_a_vector": case(dense + "Y = Clip(H, L)", r"Y", W=W, L=np.ones(4)),
        "division_by_zero": case(dense + "Y = Div(H, Z)", r"Y \(.*zero", W=W, Z=np.zeros(4)),
        "huge_power": case(dense + "Y = Pow(H, P)", r"Y \(", W=W, P=np.array(1e6)),
        "negative_power": case(dense + "Y = Pow(H, P)", r"Y \(", W=W, P=np.array(-3.0)),
        "resize_to_nothing": case("Y = Resize(X, R, S)", r"Y \(", IMAGE, R=np.zeros(0),
                                   S=np.array([1.0, 1.0, 0.0, 1.0])),
        "resize_negative": case("Y = Resize(X, R, S)", r"Y \(", IMAGE, R=np.zeros(0),
                                 S=np.array([1.0, 1.0, -1.0, 1.0])),
        "resize_nan": case("Y = Resize(X, R, S)", r"'S'.*NaN", IMAGE, R=np.zeros(0),
                            S=np.array([1.0, 1.0, np.nan, 1.0])),
        "prelu_that_does_not_fit": case(dense + "Y = PRelu(H, S)", r"Y", W=W, S=np.arange(3.0)),
        "where_by_a_constant_of_other_shape": case(
            dense + "Z = Greater(H, T)\nY = Where(Z, H, B)", r"Y|Z", W=W, T=np.zeros(()),
            B=np.ones(3)),
    }  # fmt: skip
