"""Models that cannot be compiled: one error with every node, or a sentence on what is malformed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper

from tacit.clear_operations import Array
from tacit.errors import ModelError, UnsupportedModelError, UserError
from tacit.model_compiler.graph import Affine, Graph
from tacit.model_compiler.onnx_import import import_onnx
from tests.model_compiler.onnx_models import build

W = np.random.default_rng(0).normal(size=(4, 4))
INPUT = {"X": (4,)}


def _i(*numbers: int) -> Array:
    return np.array(numbers, dtype=np.int64)


def _dense(rows: int | str = "N") -> onnx.ModelProto:
    return build("H = MatMul(X, W)\nY = Relu(H)", INPUT, {"W": W}, rows=rows)


def _problems(model: onnx.ModelProto, *, keep: bool = False) -> tuple[str, ...]:
    with pytest.raises(UnsupportedModelError) as caught:
        import_onnx(model, name="test", keep_on_server=keep)
    return caught.value.problems


def test_one_error_lists_every_unsupported_node_with_name_reason_and_suggestion() -> None:
    text = """
        A = LRN<size=3>(X)
        B = LpPool<kernel_shape=[4, 4]>(A)
        C = Flatten(B)
        D = MatMul(C, W)
        E = ArgMax<axis=1, keepdims=1>(D)
        F = MatMul(E, V)
        G = Sin(F)
        Y = MatMul(G, U)
    """
    weights = {"W": np.zeros((81, 4)), "V": W[:1], "U": W}
    problems = _problems(build(text, {"X": (1, 12, 12)}, weights))
    assert [problem.split(":")[0] for problem in problems] == [
        "A (LRN)",
        "B (LpPool)",
        "E (ArgMax)",
        "G (Sin)",
    ]
    assert "BatchNormalization" in problems[0]
    assert "last steps" in problems[2]
    assert all(problem.count(":") >= 1 and len(problem) > 40 for problem in problems)


def test_attribute_problems_behind_an_unsupported_node_are_listed_too() -> None:
    text = """
        A = LRN<size=3>(X)
        B = Transpose<perm=[1, 0, 2, 3]>(A)
        Y = Relu(B)
    """
    problems = _problems(build(text, {"X": (1, 5, 5)}))
    assert len(problems) == 2
    assert "perm=[1, 0, 2, 3]" in problems[1]


REJECTED: dict[str, tuple[str, dict[str, Array], str]] = {
    "batch_axis_reduced": ("Y = ReduceSum(H, A)", {"A": _i(0)}, "row axis"),
    "all_axes_reduced": ("Y = ReduceMean(H)", {}, "mix rows"),
    "rows_sliced": ("Y = Slice(H, S, E, A)", {"S": _i(1), "E": _i(3), "A": _i(0)}, "row axis"),
    "rows_gathered": ("Y = Gather<axis=0>(H, A)", {"A": _i(0)}, "row axis"),
    "rows_reshaped": ("Y = Reshape(H, S)", {"S": _i(-1, 2)}, "mix rows"),
    "rows_transposed": ("Y = Transpose(H)", {}, "axis 0"),
    "rows_joined": ("Y = Concat<axis=0>(H, H)", {}, "row axis"),
    "weights_per_row": ("Y = Add(H, C)", {"C": np.zeros((3, 4)) + W[:3]}, "row to row"),
    "extra_axis": ("Y = Add(H, C)", {"C": np.ones((2, 1, 4))}, "adds axes"),
    "gemm_trans_a": ("Y = Gemm<transA=1>(H, W)", {}, "not transposed"),
    "fractional_power": ("Y = Pow(H, C)", {"C": np.array(0.7)}, "exponent"),
    "division_by_zero": ("Y = Div(H, C)", {"C": np.array([1.0, 0.0, 1.0, 1.0])}, "zero"),
    "equality": ("E = Equal(H, H)\nD = Cast<to=1>(E)\nY = MatMul(D, W)", {}, "Equal"),
    "two_encrypted_matrices": ("Y = MatMul(H, H)", {}, "two encrypted"),
    "to_integer": ("D = Cast<to=7>(H)\nF = Cast<to=1>(D)\nY = MatMul(F, W)", {}, "integers"),
    "pad_mode": ('Y = Pad<mode="mirror">(H, P)', {"P": _i(0, 1, 0, 1)}, "mode='mirror'"),
    "misfit": ("Y = MatMul(H, C)", {"C": np.ones((3, 2))}, "4 features"),
    "training": ("Y, M = Dropout(H)", {}, "eval mode"),
    "unknown_domain": ("Y = com.example.Frobnicate(H)", {}, "not supported"),
    "normalizer_inside": ('D = ai.onnx.ml.Normalizer<norm="L2">(H)\nY = MatMul(D, W)', {}, "last"),
    "trees": ("Y = ai.onnx.ml.TreeEnsembleRegressor(H)", {}, "one entry per node"),
}


@pytest.mark.parametrize("key", REJECTED)
def test_what_cannot_be_compiled_is_refused_with_the_reason(key: str) -> None:
    text, constants, reason = REJECTED[key]
    outputs = ("Y", "M") if "M =" in text else ("Y",)
    model = build(f"H = MatMul(X, W)\n{text}", INPUT, {"W": W, **constants}, outputs=outputs)
    if key == "unknown_domain":
        model.opset_import.append(helper.make_opsetid("com.example", 1))
    problems = _problems(model)
    assert len(problems) == 1
    assert reason in problems[0]


def test_a_number_of_rows_used_as_a_weight_is_refused() -> None:
    text = "S = Shape(X)\nF = Cast<to=1>(S)\nH = MatMul(X, W)\nY = Mul(H, F)"
    assert "row" in _problems(build(text, {"X": (2, 4)}, {"W": W}))[0]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("H = MatMul(X, W)\nY = Floor(H)", "Floor"),
        ("H = MatMul(X, W)\nY = ArgMax<axis=1>(H)", "ArgMax"),
        ('N = ai.onnx.ml.Normalizer<norm="L1">(X)\nY = MatMul(N, W)', "Normalizer"),
    ],
)
def test_keep_on_server_names_what_only_the_client_can_do(text: str, word: str) -> None:
    (problem,) = _problems(build(text, INPUT, {"W": W}), keep=True)
    assert word in problem
    assert "--keep-on-server" in problem


@pytest.mark.parametrize(
    "text", ["Y = Softmax(X)", "Y = Identity(X)", "A = Sigmoid(X)\nY = Neg(A)"]
)
def test_a_model_with_nothing_to_encrypt_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="nothing would be encrypted"):
        import_onnx(build(text, INPUT), name="test")


def test_bytes_that_are_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        import_onnx(b"\x00\xffnot a model", name="test")
    with pytest.raises(ModelError, match="cannot read"):
        import_onnx(tmp_path / "absent.onnx", name="test")


def test_a_model_is_read_from_a_path_and_from_bytes(tmp_path: Path) -> None:
    onnx.save(_dense(), tmp_path / "m.onnx")
    for source in (tmp_path / "m.onnx", str(tmp_path / "m.onnx"), _dense().SerializeToString()):
        assert isinstance(import_onnx(source, name="m"), Graph)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    weights = W.copy()
    weights[1, 2] = value
    with pytest.raises(ModelError, match="NaN"):
        import_onnx(build("Y = MatMul(X, W)", INPUT, {"W": weights}), name="test")


def test_external_data_of_a_model_without_a_folder_is_refused() -> None:
    model = _dense()
    external_data_helper.set_external_data(model.graph.initializer[0], location="/etc/hostname")
    model.graph.initializer[0].ClearField("raw_data")
    for source in (model, model.SerializeToString()):
        with pytest.raises(ModelError, match="another file: give the path"):
            import_onnx(source, name="test")


@pytest.mark.parametrize("together", [True, False])
def test_weights_beside_the_model_are_read(tmp_path: Path, together: bool) -> None:
    model, path = _dense(), tmp_path / "net.onnx"
    inside = import_onnx(model, name="test").nodes[0]
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=together,
        location="net.onnx.data" if together else None,
        size_threshold=0,
    )
    assert "net.onnx.data" in os.listdir(tmp_path) or not together
    assert not onnx.load(path, load_external_data=False).graph.initializer[0].raw_data
    outside = import_onnx(path, name="test").nodes[0]
    assert isinstance(inside, Affine)
    assert isinstance(outside, Affine)
    for one, other in zip(inside.matrices, outside.matrices, strict=True):
        np.testing.assert_array_equal(one.toarray(), other.toarray())


def test_an_operator_that_onnx_does_not_have_is_named_with_a_hint() -> None:
    model = build("H = MatMul(X, W)\nY = Erfc(H)", INPUT, {"W": W})
    with pytest.raises(ModelError, match=r"Erfc.*another exporter"):
        import_onnx(model, name="test")


def test_subgraphs_are_refused() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        main (float[N, 4] X, bool c) => (float[N, 4] Y) {
            Y = If (c) <then_branch = t () => (float[N, 4] a) { a = Relu (X) },
                        else_branch = e () => (float[N, 4] b) { b = Neg (X) }>
        }
    """)
    with pytest.raises(ModelError, match="subgraph"):
        import_onnx(model, name="test")


def _with_dimension(position: int, *, value: int = 0, symbol: str = "") -> onnx.ModelProto:
    model = build("R = Flatten(X)\nY = MatMul(R, W)", {"X": (2, 2)}, {"W": W})
    axis = model.graph.input[0].type.tensor_type.shape.dim[position]
    axis.Clear()
    if value:
        axis.dim_value = value
    if symbol:
        axis.dim_param = symbol
    return model


def test_dynamic_and_huge_shapes_are_refused() -> None:
    with pytest.raises(ModelError, match="dynamic axis 2"):
        import_onnx(_with_dimension(2, symbol="length"), name="test")
    with pytest.raises(ModelError, match="dynamic axis 1"):
        import_onnx(_with_dimension(1), name="test")
    with pytest.raises(ModelError, match="too large"):
        import_onnx(_with_dimension(1, value=2**40), name="test")


def test_a_huge_constant_is_refused_before_it_is_made() -> None:
    text = "Z = ConstantOfShape(S)\nH = MatMul(X, W)\nY = Add(H, Z)"
    model = build(text, INPUT, {"W": W, "S": _i(1 << 20, 1 << 20)})
    with pytest.raises(ModelError, match="too large"):
        import_onnx(model, name="test")


def test_local_functions_that_multiply_are_refused_before_inlining() -> None:
    levels = [
        f"f{i} (a) => (b) {{ c = local.f{i + 1} (a)  b = local.f{i + 1} (c) }}" for i in range(30)
    ]
    functions = "\n".join(
        f'<opset_import: ["" : 17, "local" : 1], domain: "local">\n{f}' for f in levels
    )
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        main (float[N, 4] X) => (float[N, 4] Y) {{ Y = local.f0 (X) }}
        {functions}
        <opset_import: ["" : 17], domain: "local">
        f30 (a) => (b) {{ b = Relu (a) }}
    """)
    with pytest.raises(ModelError, match="nodes"):
        import_onnx(model, name="test")


def test_old_opsets_string_inputs_and_constant_outputs_are_refused() -> None:
    with pytest.raises(ModelError, match="opset"):
        import_onnx(build("Y = Relu(X)", INPUT, opset=5), name="test")
    strings = _dense()
    strings.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(ModelError, match="strings"):
        import_onnx(strings, name="test")
    constant = build("Y = MatMul(X, W)\nZ = Neg(W)", INPUT, {"W": W}, outputs=("Y", "Z"))
    with pytest.raises(ModelError, match="constant"):
        import_onnx(constant, name="test")


def test_damaged_models_raise_only_user_errors() -> None:
    text = """
        S = ai.onnx.ml.Scaler<offset=[1.0], scale=[2.0]>(X)
        A = Gemm<transB=1>(S, W, B)
        R = Relu(A)
        T = Reshape(R, SHAPE)
        P = Transpose<perm=[0, 2, 1]>(T)
        F = Flatten(P)
        H = MatMul(F, W)
        Y = Softmax<axis=-1>(H)
    """
    weights = {"W": W, "B": W[0], "SHAPE": _i(-1, 2, 2)}
    whole = build(text, INPUT, weights).SerializeToString()
    generator = np.random.default_rng(7)
    outcomes = {"graph": 0, "error": 0}
    for _ in range(150):
        damaged = bytearray(whole)
        for position in generator.integers(0, len(whole), generator.integers(1, 4)):
            damaged[position] = generator.integers(0, 256)
        try:
            import_onnx(bytes(damaged), name="test")
            outcomes["graph"] += 1
        except UserError:
            outcomes["error"] += 1
    assert min(outcomes.values()) > 5
