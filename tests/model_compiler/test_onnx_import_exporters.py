"""Graphs as PyTorch, Keras/tf2onnx and scikit-learn export them, against ONNX's reference."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from skl2onnx import to_onnx
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    Perceptron,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler
from sklearn.svm import LinearSVC

from tacit.clear_operations import Array
from tacit.clear_steps import steps_from_json, steps_to_json
from tacit.model_compiler.graph import Activation, Affine, Graph, Product
from tacit.model_compiler.onnx_import import import_onnx
from tests.model_compiler.onnx_models import build, random_rows, reference, run_imported

ROWS = 6


def _w(*shape: int, seed: int = 1) -> Array:
    return np.asarray(np.random.default_rng(seed).normal(size=shape) / np.sqrt(shape[-1]))


def _i(*numbers: int) -> Array:
    return np.array(numbers, dtype=np.int64)


def _agree(
    model: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]], *, row_by_row: bool = False
) -> Graph:
    graph = import_onnx(model, name="test")
    feeds = random_rows(inputs, ROWS)
    expected = reference(model, feeds, row_by_row=row_by_row)
    for want, got in zip(expected, run_imported(graph, feeds), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    return graph


def _functions(graph: Graph) -> list[str]:
    return [node.function for node in graph.nodes if isinstance(node, Activation)]


TORCH_MLP = """
"/flatten/Flatten_output_0" = Flatten<axis=1>(x)
"/fc1/Gemm_output_0" = Gemm<alpha=1.0, beta=1.0, transB=1>("/flatten/Flatten_output_0", W1, B1)
"/act/Relu_output_0" = Relu("/fc1/Gemm_output_0")
"/drop/Identity_output_0" = Identity("/act/Relu_output_0")
Y = Gemm<alpha=1.0, beta=1.0, transB=1>("/drop/Identity_output_0", W2, B2)
"""
TORCH_VIEW = """
s = Shape(x)
zero = Constant<value_int=0>()
n = Gather<axis=0>(s, zero)
minus = Constant<value_ints=[-1]>()
n1 = Unsqueeze(n, zeros)
target = Concat<axis=0>(n1, minus)
flat = Reshape(x, target)
Y = Gemm<transB=1>(flat, W1, B1)
"""
TORCH_VIEW_11 = (
    TORCH_VIEW.replace("Unsqueeze(n, zeros)", "Unsqueeze<axes=[0]>(n)")
    .replace("Constant<value_int=0>()", "Constant<value = int64 {0}>()")
    .replace("Constant<value_ints=[-1]>()", "Constant<value = int64[1] {-1}>()")
)
MLP_WEIGHTS = {"W1": _w(5, 12), "B1": _w(5), "W2": _w(3, 5), "B2": _w(3)}


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
@pytest.mark.parametrize("rows", ["batch_size", 1])
def test_a_torch_mlp_with_flatten_and_slashed_names(opset: int, rows: int | str) -> None:
    inputs = {"x": (3, 4)}
    model = build(TORCH_MLP, inputs, MLP_WEIGHTS, opset=opset, rows=rows)
    graph = _agree(model, inputs, row_by_row=rows == 1)
    assert [type(node) for node in graph.nodes] == [Affine, Activation, Affine]


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
@pytest.mark.parametrize("rows", ["N", 1])
def test_a_torch_view_computed_from_the_shape(opset: int, rows: int | str) -> None:
    inputs = {"x": (3, 4)}
    text = TORCH_VIEW_11 if opset < 13 else TORCH_VIEW
    weights = MLP_WEIGHTS | {"zeros": _i(0)}
    model = build(text, inputs, weights, opset=opset, rows=rows)
    graph = _agree(model, inputs, row_by_row=rows == 1)
    assert [type(node) for node in graph.nodes] == [Affine]


def test_a_fixed_batch_of_one_with_a_constant_reshape_takes_any_number_of_rows() -> None:
    inputs = {"x": (3, 4)}
    text = "flat = Reshape(x, S)\nY = Gemm<transB=1>(flat, W1, B1)"
    model = build(text, inputs, MLP_WEIGHTS | {"S": _i(1, 12)}, rows=1)
    _agree(model, inputs, row_by_row=True)


def test_a_fixed_batch_of_several_rows_takes_any_number_of_rows() -> None:
    text = "flat = Reshape(x, S)\nh = Add(flat, TABLE)\nY = Gemm<transB=1>(h, W1, B1)"
    table = np.tile(_w(1, 12), (4, 1))
    weights = MLP_WEIGHTS | {"S": _i(4, 12), "TABLE": table}
    graph = import_onnx(build(text, {"x": (3, 4)}, weights, rows=4), name="test")
    rows = random_rows({"x": (3, 4)}, 8)["x"]
    model = build(text, {"x": (3, 4)}, weights, rows=4)
    expected = np.concatenate([reference(model, {"x": rows[i : i + 4]})[0] for i in (0, 4)])
    np.testing.assert_allclose(run_imported(graph, {"x": rows})[0], expected, atol=1e-6)


def test_zeros_made_from_the_batch_size_fold_away() -> None:
    text = """
        s = Shape(x)
        z0 = ConstantOfShape<value = float[1] {0.0}>(s)
        h = Add(x, z0)
        first = Slice(s, a, b)
        rest = Constant<value_ints=[4]>()
        t = Concat<axis=0>(first, rest)
        e = Expand(x, t)
        h2 = Add(h, e)
        Y = Gemm<transB=1>(h2, W, B)
    """
    inputs = {"x": (4,)}
    weights = {"W": _w(3, 4), "B": _w(3), "a": _i(0), "b": _i(1)}
    _agree(build(text, inputs, weights), inputs)


KERAS = """
"model/dense/MatMul:0" = MatMul("input_1:0", "model/dense/W:0")
"model/dense/BiasAdd:0" = Add("model/dense/MatMul:0", "model/dense/b:0")
"model/dense/Relu:0" = Relu("model/dense/BiasAdd:0")
"model/t:0" = Transpose<perm=[0, 2, 1]>("model/dense/Relu:0")
"model/flat:0" = Reshape("model/t:0", "model/shape:0")
"model/out/MatMul:0" = MatMul("model/flat:0", "model/out/W:0")
"model/out/BiasAdd:0" = Add("model/out/MatMul:0", "model/out/b:0")
"model/out/Softmax:0" = Softmax<axis=-1>("model/out/BiasAdd:0")
"Identity:0" = Identity("model/out/Softmax:0")
"""


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_a_keras_model_with_matmul_add_reshape_and_transpose(opset: int) -> None:
    inputs = {"input_1:0": (2, 4)}
    weights = {
        "model/dense/W:0": _w(4, 3),
        "model/dense/b:0": _w(3),
        "model/shape:0": _i(-1, 6),
        "model/out/W:0": _w(6, 3),
        "model/out/b:0": _w(3),
    }
    model = build(KERAS, inputs, weights, outputs=("Identity:0",), opset=opset)
    graph = _agree(model, inputs)
    assert [step.op for step in graph.epilogue] == ["softmax", "identity"]


GATES = {
    "silu": ("s = Sigmoid(h)\na = Mul(h, s)", "silu"),
    "silu_swapped": ("s = Sigmoid(h)\na = Mul(s, h)", "silu"),
    "quick_gelu": ("k = Mul(h, c1702)\ns = Sigmoid(k)\na = Mul(h, s)", "silu"),
    "gelu_torch": (
        "d = Div(h, sqrt2)\ne = Erf(d)\np = Add(e, one)\nm = Mul(h, p)\na = Mul(m, half)",
        "gelu",
    ),
    "gelu_keras": (
        "d = Mul(h, sqrt_half)\ne = Erf(d)\np = Add(one, e)\nq = Mul(half, p)\na = Mul(q, h)",
        "gelu",
    ),
    "gelu_half_first": (
        "g = Mul(h, half)\nd = Div(h, sqrt2)\ne = Erf(d)\np = Add(e, one)\na = Mul(g, p)",
        "gelu",
    ),
    "gelu_tanh_pow": (
        "c = Pow(h, three)\nd = Mul(c, cubic)\nf = Add(h, d)\ng = Mul(f, slope)\nt = Tanh(g)\n"
        "p = Add(t, one)\nq = Mul(h, half)\na = Mul(q, p)",
        "gelu_tanh",
    ),
    "gelu_tanh_mul": (
        "c = Mul(h, h)\nc3 = Mul(c, h)\nd = Mul(cubic, c3)\nf = Add(h, d)\ng = Mul(slope, f)\n"
        "t = Tanh(g)\np = Add(one, t)\nq = Mul(p, h)\na = Mul(half, q)",
        "gelu_tanh",
    ),
    "mish": ("s = Softplus(h)\nt = Tanh(s)\na = Mul(h, t)", "mish"),
    "hard_swish": ("s = HardSigmoid<alpha=0.1666667, beta=0.5>(h)\na = Mul(h, s)", "hard_swish"),
    "hard_swish_clip": (
        "b = Add(h, three)\ns = Clip(b, zero, six)\nm = Mul(h, s)\na = Div(m, six)",
        "hard_swish",
    ),
    "polynomial": (
        "c = Mul(h, h)\nd = Mul(c, half)\nf = Add(d, h)\na = Sub(f, one)",
        "polynomial",
    ),
}
NUMBERS = {
    "c1702": 1.702,
    "sqrt2": 2.0**0.5,
    "sqrt_half": 0.5**0.5,
    "one": 1.0,
    "half": 0.5,
    "zero": 0.0,
    "three": 3.0,
    "six": 6.0,
    "cubic": 0.044715,
    "slope": (2.0 / np.pi) ** 0.5,
}


@pytest.mark.parametrize("pattern", GATES)
def test_decomposed_activations_become_one_node(pattern: str) -> None:
    text, function = GATES[pattern]
    constants = {"W": _w(4, 4), "V": _w(4, 2)}
    constants |= {key: np.asarray(number, dtype=np.float32) for key, number in NUMBERS.items()}
    model = build(f"h = MatMul(x, W)\n{text}\nY = MatMul(a, V)", {"x": (4,)}, constants)
    graph = _agree(model, {"x": (4,)})
    assert _functions(graph) == [function]
    assert not any(isinstance(node, Product) for node in graph.nodes)


def test_a_gate_that_is_used_elsewhere_too_is_kept() -> None:
    text = "h = MatMul(x, W)\ns = Sigmoid(h)\na = Mul(h, s)\nb = Add(a, s)\nY = MatMul(b, V)"
    graph = _agree(build(text, {"x": (4,)}, {"W": _w(4, 4), "V": _w(4, 2)}), {"x": (4,)})
    assert sorted(_functions(graph)) == ["sigmoid", "silu"]


def test_a_gate_of_another_tensor_stays_a_product() -> None:
    text = "h = MatMul(x, W)\ng = MatMul(x, G)\ns = Sigmoid(g)\na = Mul(h, s)\nY = MatMul(a, V)"
    weights = {"W": _w(4, 4), "G": _w(4, 4, seed=2), "V": _w(4, 2)}
    graph = _agree(build(text, {"x": (4,)}, weights), {"x": (4,)})
    assert sum(isinstance(node, Product) for node in graph.nodes) == 1


GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(90, 4)).astype(np.float32)
TWO = (X[:, 0] + X[:, 1] > 0.3).astype(int)
THREE = GENERATOR.integers(0, 3, 90)
NAMED, NAMED_TWO = np.array(["a", "b", "long"])[THREE], np.array(["no", "yes"])[TWO]
REAL = X @ np.array([1.0, -2.0, 0.5, 3.0])

SKLEARN = {
    "logistic_binary": (LogisticRegression(), TWO),
    "logistic_multinomial": (LogisticRegression(), THREE),
    "logistic_string_labels": (LogisticRegression(), NAMED),
    "logistic_binary_strings": (LogisticRegression(), NAMED_TWO),
    "svc_binary": (LinearSVC(), TWO),
    "svc_strings": (LinearSVC(), NAMED),
    "ridge_classifier": (RidgeClassifier(), NAMED),
    "perceptron": (Perceptron(), THREE),
    "mlp_binary": (MLPClassifier((5,), max_iter=9, random_state=0), TWO),
    "mlp_strings": (MLPClassifier((5,), activation="tanh", max_iter=9, random_state=0), NAMED),
    "mlp_logistic": (MLPClassifier((5, 4), activation="logistic", max_iter=9), THREE),
    "sgd_log_binary": (SGDClassifier(loss="log_loss", random_state=0), TWO),
    "sgd_log_three": (SGDClassifier(loss="log_loss", random_state=0), THREE),
    "sgd_hinge": (SGDClassifier(random_state=0), NAMED),
    "standard_scaler": (make_pipeline(StandardScaler(), LogisticRegression()), TWO),
    "min_max_scaler": (make_pipeline(MinMaxScaler(), LogisticRegression()), THREE),
    "min_max_clip": (make_pipeline(MinMaxScaler(clip=True), LogisticRegression()), THREE),
    "normalizer": (make_pipeline(Normalizer(), LogisticRegression()), THREE),
    "one_vs_rest": (OneVsRestClassifier(LogisticRegression()), THREE),
    "linear_regression": (LinearRegression(), REAL),
    "ridge_two_targets": (Ridge(), np.stack([REAL, -REAL], axis=1)),
    "mlp_regressor": (
        MLPRegressor(hidden_layer_sizes=(5,), max_iter=9, random_state=0),
        REAL,
    ),
    "pipeline_ridge": (make_pipeline(StandardScaler(), Ridge()), REAL),
}


def _fit(key: str) -> tuple[object, onnx.ModelProto]:
    estimator, target = SKLEARN[key]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few iterations on purpose
        estimator.fit(X, target)
        return estimator, to_onnx(estimator, X[:1])


@pytest.mark.parametrize("key", SKLEARN)
def test_scikit_learn_models_equal_the_reference_and_scikit_learn(key: str) -> None:
    estimator, model = _fit(key)
    graph = import_onnx(model, name=key)
    got = run_imported(graph, {"X": X})
    for want, have in zip(reference(model, {"X": X.astype(np.float64)}), got, strict=True):
        if want.dtype.kind == "f":
            np.testing.assert_allclose(have, want, rtol=2e-6, atol=2e-6)
        else:
            assert have.tolist() == want.tolist()
    _compare_with_estimator(estimator, got)
    assert steps_to_json(steps_from_json(steps_to_json(graph.epilogue))) == steps_to_json(
        graph.epilogue
    )


def _compare_with_estimator(estimator: object, got: list[Array]) -> None:
    rows = X.astype(np.float64)
    predicted = np.asarray(estimator.predict(rows))  # type: ignore[attr-defined]
    if len(got) == 1:
        np.testing.assert_allclose(got[0].reshape(predicted.shape), predicted, atol=3e-6)
        return
    assert (got[0] == predicted).all()
    if hasattr(estimator, "predict_proba"):
        np.testing.assert_allclose(got[1], estimator.predict_proba(rows), atol=2e-6)


def test_one_input_per_column_becomes_one_encrypted_input() -> None:
    columns = {"age": (1,), "chol": (1,), "bp": (1,)}
    text = """
        all = Concat<axis=1>(age, chol, bp)
        scaled = ai.onnx.ml.Scaler<offset=[1.0, 2.0, 3.0], scale=[0.5, 0.25, 2.0]>(all)
        h = MatMul(scaled, W)
        Y = Sigmoid(h)
    """
    graph = _agree(build(text, columns, {"W": _w(3, 1)}), columns)
    assert [step.op for step in graph.prologue] == ["concat", "scale"]
    assert len(graph.inputs) == 1
    assert graph.model_inputs == columns


def test_label_encoder_maps_the_class_index() -> None:
    text = """
        h = MatMul(x, W)
        i = ArgMax<axis=1, keepdims=0>(h)
        Y = ai.onnx.ml.LabelEncoder<keys_int64s=[0, 1, 2], values_strings=["u", "v", "w"]>(i)
    """
    model = build(text, {"x": (4,)}, {"W": _w(4, 3)})
    graph = import_onnx(model, name="test")
    feeds = random_rows({"x": (4,)}, ROWS)
    assert run_imported(graph, feeds)[0].tolist() == reference(model, feeds)[0].tolist()


def test_local_functions_are_inlined() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        main (float[N, 4] x) => (float[N, 4] Y) { h = local.twice (x)  Y = Relu (h) }
        <opset_import: ["" : 17], domain: "local">
        twice (a) => (b) { b = Add (a, a) }
    """)
    graph = import_onnx(model, name="test")
    rows = random_rows({"x": (4,)}, ROWS)["x"]
    np.testing.assert_allclose(run_imported(graph, {"x": rows})[0], np.maximum(2 * rows, 0))
