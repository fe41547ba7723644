"""Who runs what: the client before, the encrypted core, the client after."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.clear_operations import Array
from tacit.model_compiler.graph import Activation, Graph
from tacit.model_compiler.onnx_import import import_onnx
from tests.model_compiler.onnx_models import build, random_rows, reference, run_imported

W = np.random.default_rng(0).normal(size=(4, 4))
ZERO, HALF, ONE = (np.array(number, dtype=np.float32) for number in (0.0, 0.5, 1.0))
VECTOR = np.array([1.0, 2.0, 3.0, 4.0])
INPUT = {"X": (4,)}
SCALER = "S = ai.onnx.ml.Scaler<offset=[1.0], scale=[2.0]>(X)"


def _import(
    text: str,
    *,
    keep: bool = False,
    outputs: tuple[str, ...] = ("Y",),
    constants: dict[str, Array] | None = None,
) -> Graph:
    model = build(text, INPUT, {"W": W, **(constants or {})}, outputs=outputs)
    graph = import_onnx(model, name="test", keep_on_server=keep)
    feeds = random_rows(INPUT, 5)
    for want, got in zip(reference(model, feeds), run_imported(graph, feeds), strict=True):
        assert want.shape == got.shape
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    return graph


def _before(graph: Graph) -> list[str]:
    return [step.op for step in graph.prologue]


def _after(graph: Graph) -> list[str]:
    return [step.op for step in graph.epilogue]


def _functions(graph: Graph) -> list[str]:
    return [node.function for node in graph.nodes if isinstance(node, Activation)]


def test_scaling_and_scalar_arithmetic_on_the_input_go_to_the_client() -> None:
    text = f"{SCALER}\nT = Mul(S, ONE)\nU = Sub(ONE, T)\nY = MatMul(U, W)"
    graph = _import(text, constants={"ONE": HALF})
    assert _before(graph) == ["scale", "multiply", "subtract"]
    assert len(graph.nodes) == 1


def test_keep_on_server_encrypts_scaling_arithmetic_and_sigmoid() -> None:
    graph = _import(
        f"{SCALER}\nT = Add(S, ONE)\nH = MatMul(T, W)\nY = Sigmoid(H)",
        keep=True,
        constants={"ONE": ONE},
    )
    assert _before(graph) == []
    assert _after(graph) == []
    assert _functions(graph) == ["sigmoid"]


def test_a_vector_of_weights_on_the_input_stays_on_the_server() -> None:
    graph = _import("A = Mul(X, V)\nB = Add(A, V)\nY = MatMul(B, W)", constants={"V": VECTOR})
    assert _before(graph) == []


def test_a_vector_goes_to_the_client_when_an_exact_clip_follows() -> None:
    text = "A = Mul(X, V)\nC = Clip(A, LOW, ONE)\nY = MatMul(C, W)"
    graph = _import(text, constants={"V": VECTOR, "LOW": ZERO, "ONE": ONE})
    assert _before(graph) == ["multiply", "clip"]
    assert _functions(graph) == []


def test_an_input_read_raw_and_scaled_is_encrypted_twice() -> None:
    graph = _import(f"{SCALER}\nA = MatMul(S, W)\nY = Add(A, X)")
    assert set(graph.inputs) == {"S", "X"}


def test_slices_of_one_input_do_not_multiply_the_inputs() -> None:
    halves = "A = Slice(X, I0, I2, I1)\nB = Slice(X, I2, I4, I1)"
    text = f"{halves}\nC = MatMul(A, V)\nD = MatMul(B, V)\nY = Sub(C, D)"
    numbers = {f"I{k}": np.array([k], dtype=np.int64) for k in (0, 1, 2, 4)}
    graph = _import(text, constants={**numbers, "V": W[:2]})
    assert graph.inputs == ("X",)


@pytest.mark.parametrize("final", ["Softmax<axis=-1>", "LogSoftmax<axis=1>", "Sigmoid"])
def test_a_final_probability_goes_to_the_client(final: str) -> None:
    graph = _import(f"H = MatMul(X, W)\nY = {final}(H)")
    assert len(_after(graph)) == 1
    assert _functions(graph) == []


def test_a_sigmoid_between_layers_stays_encrypted() -> None:
    assert _functions(_import("H = Sigmoid(X)\nY = MatMul(H, W)")) == ["sigmoid"]


def test_a_final_relu_stays_encrypted_unless_a_client_step_follows() -> None:
    assert _functions(_import("H = MatMul(X, W)\nY = Relu(H)")) == ["relu"]
    graph = _import("H = MatMul(X, W)\nR = Relu(H)\nY = Softmax<axis=-1>(R)")
    assert _functions(graph) == []
    assert _after(graph) == ["relu", "softmax"]


def test_a_final_bias_and_temperature_stay_encrypted() -> None:
    text = "H = MatMul(X, W)\nB = Add(H, V)\nT = Mul(B, ONE)\nY = Softmax<axis=-1>(T)"
    graph = _import(text, constants={"V": VECTOR, "ONE": HALF})
    assert _after(graph) == ["softmax"]


def test_argmax_and_scores_share_one_encrypted_output() -> None:
    text = "H = MatMul(X, W)\nS = Slice(H, I1, I2, I1)\nA = ArgMax<axis=1, keepdims=0>(H)"
    numbers = {f"I{k}": np.array([k], dtype=np.int64) for k in (1, 2)}
    graph = _import(text, outputs=("A", "S"), constants=numbers)
    assert len(graph.outputs) == 1


def test_a_slice_that_alone_reads_a_layer_shortens_the_encrypted_output() -> None:
    text = "H = MatMul(X, W)\nS = Slice(H, I1, I2, I1)\nY = Sigmoid(S)"
    numbers = {f"I{k}": np.array([k], dtype=np.int64) for k in (1, 2)}
    graph = _import(text, constants=numbers)
    assert [graph.size(name) for name in graph.outputs] == [1]


def test_an_intermediate_tensor_may_be_an_output_too() -> None:
    graph = _import("H = MatMul(X, W)\nR = Relu(H)\nY = MatMul(R, W)", outputs=("Y", "H", "X"))
    assert len(graph.outputs) == 3


def test_outputs_with_several_axes_get_their_shape_back() -> None:
    text = "H = MatMul(X, W)\nR = Reshape(H, SHAPE)\nY = Transpose<perm=[0, 2, 1]>(R)"
    _import(text, constants={"SHAPE": np.array([-1, 2, 2], dtype=np.int64)}, outputs=("Y", "R"))


def test_nodes_nobody_reads_are_dropped() -> None:
    graph = _import("H = MatMul(X, W)\nU = Relu(H)\nV = Softmax(H)\nY = Neg(H)")
    assert _functions(graph) == []
    assert _after(graph) == []


def test_labels_of_a_classifier_stay_at_the_client_when_the_rest_is_kept_on_the_server() -> None:
    text = (
        "L, P = ai.onnx.ml.LinearClassifier<classlabels_ints=[3, 5], coefficients=[1.0, 2.0, 3.0, "
        '4.0, -1.0, -2.0, -3.0, -4.0], intercepts=[0.5, -0.5], post_transform="LOGISTIC">(X)'
    )
    graph = _import(text, keep=True, outputs=("L", "P"))
    assert _functions(graph) == ["sigmoid"]
    assert _after(graph) == ["argmax", "lookup"] or _after(graph) == ["reshape", "argmax", "lookup"]


def test_one_row_of_coefficients_for_two_classes_gives_both_scores() -> None:
    text = (
        "L, P = ai.onnx.ml.LinearClassifier<classlabels_ints=[0, 1], coefficients=[1.0, 2.0, 3.0, "
        '4.0], intercepts=[0.5], post_transform="NONE">(X)'
    )
    graph = _import(text, outputs=("P",))
    assert [graph.size(name) for name in graph.outputs] == [2]
