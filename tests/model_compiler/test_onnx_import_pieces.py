"""Comparisons, divisions, merged rows and contractions, against ONNX's reference."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.clear_operations import Array
from tacit.errors import UnsupportedModelError
from tacit.model_compiler.graph import Activation, Graph, Product
from tacit.model_compiler.onnx_import import import_onnx
from tests.model_compiler.onnx_models import build, random_rows, reference, run_imported

ROWS = 6
W = np.random.default_rng(1).normal(size=(4, 4))
V = np.random.default_rng(2).normal(size=(4, 3))


def _i(*numbers: int) -> Array:
    return np.array(numbers, dtype=np.int64)


def _c(number: float) -> Array:
    return np.array(number)


def _problems(text: str, inputs: dict[str, tuple[int, ...]], weights: dict[str, Array]) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        import_onnx(build(text, inputs, weights), name="test")
    return "\n".join(caught.value.problems)


def _agree(
    text: str, inputs: dict[str, tuple[int, ...]], weights: dict[str, Array], rows: int | str = "N"
) -> Graph:
    model = build(text, inputs, weights, rows=rows)
    graph = import_onnx(model, name="test")
    feeds = random_rows(inputs, ROWS)
    want = reference(model, feeds)[0]
    (got,) = run_imported(graph, feeds)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    return graph


BETWEEN = "H = MatMul(X, W)\n{}\nY = MatMul(F, V)"
PIECES = {
    "leaky": ("M = Greater(H, ZERO)\nL = Mul(H, TENTH)\nF = Where(M, H, L)", {"relu"}),
    "leaky_mirrored": ("M = Less(ZERO, H)\nL = Mul(H, TENTH)\nF = Where(M, H, L)", {"relu"}),
    "leaky_below": ("M = LessOrEqual(H, ZERO)\nL = Mul(H, TENTH)\nF = Where(M, L, H)", {"relu"}),
    "leaky_not": (
        "B = Greater(H, ZERO)\nM = Not(B)\nL = Mul(H, TENTH)\nF = Where(M, L, H)",
        {"relu"},
    ),
    "falling": (
        "G = Neg(H)\nM = Greater(G, ONE)\nS = Add(G, TENTH)\nF = Where(M, S, TOP)",
        {"relu"},
    ),
    "threshold": ("M = GreaterOrEqual(H, TENTH)\nF = Where(M, H, ZERO)", {"thresholded_relu"}),
    "mask_times": (
        "B = Greater(H, TENTH)\nM = Cast<to=1>(B)\nF = Mul(H, M)",
        {"thresholded_relu"},
    ),
    "elu": (
        "M = Greater(H, ZERO)\nE = Exp(H)\nD = Sub(E, ONE)\nL = Mul(D, TENTH)\nF = Where(M, H, L)",
        {"elu"},
    ),
    "softplus": ("M = Greater(H, FAR)\nS = Softplus(H)\nF = Where(M, H, S)", {"softplus"}),
    "softplus_beta": (
        "T = Mul(H, TWO)\nM = Greater(T, FAR)\nS = Softplus(T)\n"
        "D = Div(S, TWO)\nF = Where(M, H, D)",
        {"softplus"},
    ),
    "softsign": ("A = Abs(H)\nD = Add(A, ONE)\nF = Div(H, D)", {"softsign"}),
    "sigmoid": ("N = Neg(H)\nE = Exp(N)\nD = Add(ONE, E)\nF = Reciprocal(D)", {"sigmoid"}),
    "sigmoid_div": ("N = Neg(H)\nE = Exp(N)\nD = Add(ONE, E)\nF = Div(TWO, D)", {"sigmoid"}),
    "silu": ("N = Neg(H)\nE = Exp(N)\nD = Add(ONE, E)\nF = Div(H, D)", {"silu"}),
    "logsigmoid": ("S = Sigmoid(H)\nF = Log(S)", {"softplus"}),
    "log1pexp": ("E = Exp(H)\nD = Add(E, ONE)\nF = Log(D)", {"softplus"}),
}
NUMBERS = {
    "ZERO": _c(0.0),
    "TENTH": _c(0.1),
    "ONE": _c(1.0),
    "TOP": _c(1.1),
    "TWO": _c(2.0),
    "FAR": _c(20.0),
}


@pytest.mark.parametrize("key", PIECES)
def test_pieces_and_quotients_become_activations(key: str) -> None:
    text, functions = PIECES[key]
    graph = _agree(BETWEEN.format(text), {"X": (4,)}, {"W": W, "V": V, **NUMBERS})
    found = {node.function for node in graph.nodes if isinstance(node, Activation)}
    assert found == functions
    assert not any(isinstance(node, Product) for node in graph.nodes)


JUMPS = {
    "jump": "M = Greater(H, ONE)\nF = Where(M, H, TENTH)",
    "far_piece": "M = Greater(H, ZERO)\nC = Clip(H, LOW, HIGH)\nF = Where(M, H, C)",
    "other_tensor": "G = MatMul(H, W)\nM = Greater(G, ZERO)\nF = Where(M, H, ZERO)",
    "two_tensors": "G = MatMul(H, W)\nM = Greater(G, H)\nF = Where(M, H, ZERO)",
    "mask_alone": "M = Greater(H, ZERO)\nF = Cast<to=1>(M)",
    "quotient": "G = MatMul(H, W)\nF = Div(G, H)",
}


@pytest.mark.parametrize("key", JUMPS)
def test_what_compares_or_divides_otherwise_is_computed(key: str) -> None:
    """By a step or a reciprocal; exactly, while these are exact."""
    weights = {"W": W, "V": V, "LOW": _c(-1.0), "HIGH": _c(100.0), **NUMBERS}
    graph = _agree(BETWEEN.format(JUMPS[key]), {"X": (4,)}, weights)
    found = {node.function for node in graph.nodes if isinstance(node, Activation)}
    assert found & {"step", "reciprocal"}


MERGED = """
flat = Reshape(X, DOWN)
h = MatMul(flat, A)
b = Add(h, BIAS)
r = Relu(b)
g = Gemm<transB=1, alpha=0.5, beta=2.0>(r, C, GBIAS)
up = Reshape(g, UP)
Y = ReduceMean<axes=[1], keepdims=0>(up)
"""
GENERATOR = np.random.default_rng(3)
MERGED_WEIGHTS = {
    "A": GENERATOR.normal(size=(4, 5)),
    "BIAS": GENERATOR.normal(size=5),
    "C": GENERATOR.normal(size=(2, 5)),
    "GBIAS": GENERATOR.normal(size=2),
}


@pytest.mark.parametrize(
    ("rows", "down", "up"),
    [
        ("N", (-1, 4), (-1, 3, 2)),
        ("N", (-1, 4), (0, 3, 2)),
        (6, (18, 4), (6, 3, 2)),
        (6, (18, -1), (6, 3, -1)),
    ],
)
def test_a_layer_on_steps_merged_with_rows_is_computed_per_row(
    rows: int | str, down: tuple[int, ...], up: tuple[int, ...]
) -> None:
    if up[0] == 0:
        up = (-1, 3, 2)
    weights = {**MERGED_WEIGHTS, "DOWN": _i(*down), "UP": _i(*up)}
    graph = _agree(MERGED, {"X": (3, 4)}, weights, rows)
    assert [node.function for node in graph.nodes if isinstance(node, Activation)] == ["relu"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Y = Softmax(h)", "mix rows"),
        ("Y = Identity(h)", "mix rows"),
        ("s = ReduceMean<axes=[1]>(h)\nY = Reshape(s, UP)", "merged"),
        ("s = Add(h, TABLE)\nY = Reshape(s, UP)", "merged"),
    ],
)
def test_merged_rows_are_refused_where_they_would_be_mixed(text: str, reason: str) -> None:
    weights = {**MERGED_WEIGHTS, "DOWN": _i(-1, 4), "UP": _i(-1, 3, 5), "TABLE": np.ones((3, 1))}
    weights["TABLE"] = np.arange(3.0)[:, None]
    start = "flat = Reshape(X, DOWN)\nh = MatMul(flat, A)\n"
    assert reason in _problems(start + text, {"X": (3, 4)}, weights)


@pytest.mark.parametrize(
    ("equation", "shape", "weights"),
    [
        ("bi,oi->bo", (4,), (3, 4)),
        ("bti,io->bto", (2, 4), (4, 3)),
        ("bti,io->bot", (2, 4), (4, 3)),
        ("bti,to->bio", (2, 4), (2, 5)),
        ("bti,ti->b", (2, 4), (2, 4)),
    ],
)
def test_einsum_with_a_constant_is_one_matrix(
    equation: str, shape: tuple[int, ...], weights: tuple[int, ...]
) -> None:
    matrix = np.random.default_rng(4).normal(size=weights)
    text = f'E = Einsum<equation="{equation}">(X, K)\nR = Relu(E)\nY = Identity(R)'
    graph = _agree(text, {"X": shape}, {"K": matrix})
    assert len(graph.nodes) == 2


@pytest.mark.parametrize("equation", ["bi,ob->io", "bi,oi->ob", "...i,oi->...o", "bi,oi,o->bo"])
def test_einsum_that_mixes_rows_or_is_unusual_is_refused(equation: str) -> None:
    operands = "X, K, K" if equation.count(",") == 2 else "X, K"
    text = f'Y = Einsum<equation="{equation}">({operands})'
    assert "Einsum" in _problems(text, {"X": (4,)}, {"K": np.ones((3, 4))})


def test_the_product_of_two_encrypted_matrices_is_computed_per_row() -> None:
    text = "A = Relu(P)\nB = Relu(Q)\nM = MatMul(A, B)\nY = Relu(M)"
    _agree(text, {"P": (2, 3), "Q": (3, 4)}, {})


def test_global_pooling_averages_each_channel() -> None:
    _agree("A = Relu(X)\nY = GlobalAveragePool(A)", {"X": (3, 2, 4)}, {})


LAST = {
    "l1": "Y = ReduceL1<axes=[1], keepdims=0>(H)",
    "l2": "Y = ReduceL2<axes=[1]>(H)",
    "squares": "Y = ReduceSumSquare<axes=[1]>(H)",
    "log_sum": "E = Exp(H)\nY = ReduceLogSum<axes=[1]>(E)",
    "log_sum_exp": "Y = ReduceLogSumExp<axes=[1], keepdims=0>(H)",
    "normalised": "Y = LpNormalization<axis=1, p=2>(H)",
    "normalised_l1": "T = Sigmoid(H)\nY = LpNormalization<axis=-1, p=1>(T)",
    "sum_of_many": "S = Softmax(H)\nT = Sigmoid(H)\nY = Sum(S, T, S)",
    "mean_of_many": "S = Softmax(H)\nT = Sigmoid(H)\nY = Mean(S, T)",
    "sign": "Y = Sign(H)",
}


@pytest.mark.parametrize("key", LAST)
def test_last_steps_equal_the_reference(key: str) -> None:
    _agree(f"H = MatMul(X, W)\n{LAST[key]}", {"X": (4,)}, {"W": W})


FIRST = {
    "root": "A = Abs(X)\nB = Sqrt(A)\nY = MatMul(B, W)",
    "logarithm": "A = Abs(X)\nB = Add(A, ONE)\nC = Log(B)\nY = MatMul(C, W)",
    "indicator": "A = Greater(X, ONE)\nB = Cast<to=1>(A)\nY = MatMul(B, W)",
    "unit_rows": "N = LpNormalization<axis=1>(X)\nY = MatMul(N, W)",
    "product": "A = Gather<axis=1>(X, PAIR)\nB = ReduceProd<axes=[1]>(A)\n"
    "C = Concat<axis=1>(B, X)\nY = MatMul(C, WIDE)",
}


@pytest.mark.parametrize("key", FIRST)
def test_first_steps_that_only_the_client_can_do_come_before_encryption(key: str) -> None:
    weights = {"W": W, "ONE": _c(1.0), "PAIR": _i(0, 2), "WIDE": np.ones((5, 2))}
    graph = _agree(FIRST[key], {"X": (4,)}, weights)
    assert graph.prologue
    assert not any(isinstance(node, Activation) for node in graph.nodes)


def test_a_matrix_of_weights_is_not_shown_to_the_client_for_a_first_step() -> None:
    text = "D = Sub(X3, CENTERS)\nS = Sqrt(D)\nF = Flatten(S)\nY = MatMul(F, K)"
    text = "X3 = Unsqueeze(X, ONE)\n" + text
    weights = {"CENTERS": np.full((1, 3, 4), -9.0), "ONE": _i(1), "K": np.ones((12, 2))}
    graph = import_onnx(build(text, {"X": (4,)}, weights), name="test")
    assert any(isinstance(n, Activation) and n.function == "sqrt" for n in graph.nodes)
    assert {step.op for step in graph.prologue} <= {"reshape"}
