"""What tools write after the exporter: onnxruntime's fused operators, half precision, disorder."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tacit.clear_operations import Array
from tacit.errors import ModelError, UnsupportedModelError
from tacit.model_compiler.graph import Activation, Graph
from tacit.model_compiler.onnx_import import import_onnx
from tests.model_compiler.onnx_models import build, random_rows, reference, run_imported

GENERATOR = np.random.default_rng(5)
IMAGE: dict[str, tuple[int, ...]] = {"X": (2, 6, 6)}
ROW: dict[str, tuple[int, ...]] = {"X": (5,)}
CONSTANTS = {
    "k": GENERATOR.normal(size=(3, 2, 3, 3)),
    "b": GENERATOR.normal(size=3),
    "W": GENERATOR.normal(size=(5, 4)),
    "c": GENERATOR.normal(size=4),
    "gamma": GENERATOR.normal(size=5),
    "beta": GENERATOR.normal(size=5),
    "d": GENERATOR.normal(size=5),
    "two": np.array(2.0),
    "one": np.eye(5),
}
CONV = "pads=[1, 1, 1, 1], strides=[2, 2]"
FUSED: dict[str, tuple[dict[str, tuple[int, ...]], str, str]] = {
    "conv_relu": (
        IMAGE,
        f'Y = com.microsoft.FusedConv<activation="Relu", {CONV}>(X, k, b)',
        f"H = Conv<{CONV}>(X, k, b)\nY = Relu(H)",
    ),
    "conv_leaky_relu": (
        IMAGE,
        f'Y = com.microsoft.FusedConv<activation="LeakyRelu", activation_params=[0.2], {CONV}>'
        "(X, k)",
        f"H = Conv<{CONV}>(X, k)\nY = LeakyRelu<alpha=0.2>(H)",
    ),
    "conv_clip": (
        IMAGE,
        f'Y = com.microsoft.FusedConv<activation="Clip", activation_params=[0.0, 1.5], {CONV}>'
        "(X, k, b)",
        f"L = Constant<value_float=0.0>()\nU = Constant<value_float=1.5>()\n"
        f"H = Conv<{CONV}>(X, k, b)\nY = Clip(H, L, U)",
    ),
    "conv_sum_relu": (
        IMAGE,
        f"Z = Conv<{CONV}>(X, k, b)\n"
        f'Y = com.microsoft.FusedConv<activation="Relu", {CONV}>(X, k, b, Z)',
        f"Z = Conv<{CONV}>(X, k, b)\nH = Add(Z, Z)\nY = Relu(H)",
    ),
    "gemm_hard_sigmoid": (
        ROW,
        'Y = com.microsoft.FusedGemm<activation="HardSigmoid", activation_alpha=0.3, '
        "activation_beta=0.4, alpha=0.5>(X, W, c)",
        "H = Gemm<alpha=0.5>(X, W, c)\nY = HardSigmoid<alpha=0.3, beta=0.4>(H)",
    ),
    "scaled_product": (
        ROW,
        "H = com.microsoft.FusedMatMul<alpha=2.0>(X, W)\nY = com.microsoft.Gelu(H)",
        "G = MatMul(X, W)\nH = Mul(G, two)\nY = Gelu(H)",
    ),
    "biased_gelu": (ROW, "Y = com.microsoft.BiasGelu(X, d)", "H = Add(X, d)\nY = Gelu(H)"),
    "fast_gelu": (
        ROW,
        "Y = com.microsoft.FastGelu(X)",
        'Y = Gelu<approximate="tanh">(X)',
    ),
    "quick_gelu": (
        ROW,
        "G = com.microsoft.QuickGelu<alpha=2.0>(X)\nY = MatMul(G, W)",
        "Z = MatMul(X, one)\nH = Mul(Z, two)\nS = Sigmoid(H)\nG = Mul(Z, S)\nY = MatMul(G, W)",
    ),
    "skip_layer_normalization": (
        ROW,
        "Y = com.microsoft.SkipLayerNormalization<epsilon=0.01>(X, X, gamma, beta, d)",
        "S = Add(X, X)\nT = Add(S, d)\nY = LayerNormalization<epsilon=0.01>(T, gamma, beta)",
    ),
}


@pytest.mark.parametrize("name", FUSED)
def test_an_operator_that_onnxruntime_fused_means_what_it_was_fused_from(name: str) -> None:
    shapes, fused, standard = FUSED[name]
    plain = build(standard, shapes, _used(standard), opset=20)
    feeds = random_rows(shapes, 4)
    (wanted,) = reference(plain, feeds)
    graph = import_onnx(build(fused, shapes, _used(fused), opset=20), name=name)
    (got,) = run_imported(graph, feeds)
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)
    assert _functions(graph) == _functions(import_onnx(plain, name=name))


REFUSED: dict[str, tuple[str, dict[str, tuple[int, ...]], str]] = {
    "nchwc": ("Y = com.microsoft.nchwc.Conv(X, k)", IMAGE, "compile the file that was optimised"),
    "activation": (
        'Y = com.microsoft.FusedConv<activation="Sine">(X, k)',
        IMAGE,
        "compile the file that was optimised",
    ),
    "transposed": (
        "Y = com.microsoft.FusedMatMul<transB=1>(X, W)",
        ROW,
        "compile the file that was optimised",
    ),
    "quantised": (
        "S = Constant<value_float=0.1>()\nQ = QuantizeLinear(X, S)\n"
        "D = DequantizeLinear(Q, S)\nY = MatMul(D, W)",
        ROW,
        "Q .QuantizeLinear.*floating point.*D .DequantizeLinear.*floating point",
    ),
    "quantised_operator": ("Y = com.microsoft.QGemm(X, W)", ROW, "before quantisation"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_apart_is_refused_with_the_remedy(name: str) -> None:
    text, shapes, says = REFUSED[name]
    with pytest.raises(UnsupportedModelError, match=rf"(?s){says}"):
        import_onnx(build(text, shapes, _used(text)), name=name)


@pytest.mark.parametrize("opset", [13, 21])
def test_quantised_weights_of_a_model_in_floating_point_are_widened(opset: int) -> None:
    text = "V = DequantizeLinear(q, s, z)\nH = MatMul(X, V)\nY = Relu(H)"
    whole = GENERATOR.integers(-9, 9, (5, 4)).astype(np.int8)
    scale, zero = np.array(0.25), np.array(2, dtype=np.int8)
    model = build(text, ROW, {"q": whole, "s": scale, "z": zero}, opset=opset)
    feeds = random_rows(ROW, 3)
    (got,) = run_imported(import_onnx(model, name="weights"), feeds)
    np.testing.assert_allclose(got, np.maximum(feeds["X"] @ (0.25 * (whole - 2.0)), 0), atol=1e-9)


def test_nodes_in_any_order_are_sorted_and_circles_refused() -> None:
    text = "Y = MatMul(R, V)\nR = Relu(H)\nH = MatMul(X, W)"
    model = build(text, ROW, {"W": CONSTANTS["W"], "V": CONSTANTS["W"].T})
    before = model.SerializeToString()
    feeds = random_rows(ROW, 3)
    (got,) = run_imported(import_onnx(model, name="disorder"), feeds)
    weights = CONSTANTS["W"].astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(got, np.maximum(feeds["X"] @ weights, 0) @ weights.T, atol=1e-9)
    assert model.SerializeToString() == before
    model.graph.node[2].input[0] = "R"
    with pytest.raises(ModelError, match="topologically sorted"):
        import_onnx(model, name="circle")


def test_gelu_with_a_rounded_constant_stays_one_activation() -> None:
    root = float(np.float16(math.sqrt(2.0)))
    text = f"""
        Z = MatMul(X, W)
        r = Constant<value_float={root}>()
        o = Constant<value_float=1.0>()
        h = Constant<value_float=0.5>()
        D = Div(Z, r)
        E = Erf(D)
        S = Add(E, o)
        P = Mul(Z, S)
        Y = Mul(P, h)
    """
    model = build(text, ROW, {"W": CONSTANTS["W"]})
    graph = import_onnx(model, name="gelu")
    feeds = random_rows(ROW, 50)
    np.testing.assert_allclose(
        run_imported(graph, feeds)[0], reference(model, feeds)[0], rtol=1e-6, atol=1e-7
    )
    assert _functions(graph) == ["gelu"]


def _functions(graph: Graph) -> list[str]:
    return [node.function for node in graph.nodes if isinstance(node, Activation)]


def _used(text: str) -> dict[str, Array]:
    """Return the constants that a text names as operands."""
    words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return {name: array for name, array in CONSTANTS.items() if name in words}
