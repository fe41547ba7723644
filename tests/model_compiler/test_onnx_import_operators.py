"""Every operator: prologue, graph and epilogue equal ONNX's reference evaluator."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import pytest

from tacit.clear_operations import Array
from tacit.model_compiler.graph import Activation, Graph
from tacit.model_compiler.onnx_import import import_onnx
from tests.model_compiler.onnx_models import build, random_rows, reference, run_imported

ROWS = 7
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Case:
    name: str
    text: str
    shape: tuple[int, ...] = (4,)
    constants: dict[str, Array] = field(default_factory=dict)
    opset: int = 17
    second: tuple[int, ...] | None = None

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        return {"X": self.shape} | ({} if self.second is None else {"Z": self.second})


def _w(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def _f(number: float) -> Array:
    return np.array(number, dtype=np.float32)


def _i(*numbers: int) -> Array:
    return np.array(numbers, dtype=np.int64)


W43, W34, B3 = _w(4, 3), _w(3, 4), _w(3, seed=2)
POSITIVE = np.abs(_w(4)) + 0.5

LINEAR = [
    Case("gemm", "Y = Gemm(X, W, B)", constants={"W": W43, "B": B3}),
    Case("gemm_without_bias", "Y = Gemm(X, W)", constants={"W": W43}),
    Case(
        "gemm_torch",
        "Y = Gemm<alpha=1.0, beta=1.0, transB=1>(X, W, B)",
        constants={"W": W34, "B": B3},
    ),
    Case(
        "gemm_alpha_beta",
        "Y = Gemm<alpha=0.5, beta=-2.0, transB=1>(X, W, B)",
        constants={"W": W34, "B": _w(1, 3)},
    ),
    Case("gemm_data_bias", "Y = Gemm<beta=2.0>(X, W, Z)", constants={"W": W43}, second=(3,)),
    Case("gemm_scalar_bias", "Y = Gemm(X, W, B)", constants={"W": W43, "B": _f(0.5)}),
    Case("matmul_right", "Y = MatMul(X, W)", constants={"W": W43}),
    Case("matmul_vector", "Y = MatMul(X, W)", (2, 4), {"W": _w(4)}),
    Case("matmul_last_axis", "Y = MatMul(X, W)", (2, 5, 4), {"W": W43}),
    Case("matmul_batched", "Y = MatMul(X, W)", (2, 5, 4), {"W": _w(2, 4, 3)}),
    Case("matmul_batched_lead_1", "Y = MatMul(X, W)", (2, 5, 4), {"W": _w(1, 2, 4, 3)}),
    Case("matmul_batch_broadcast", "Y = MatMul(X, W)", (1, 5, 4), {"W": _w(2, 4, 3)}),
    Case("matmul_left", "Y = MatMul(W, X)", (4, 5), {"W": _w(3, 4)}),
    Case("matmul_left_batched", "Y = MatMul(W, X)", (2, 4, 5), {"W": _w(2, 3, 4)}),
    Case("matmul_left_vector", "Y = MatMul(W, X)", (2, 4, 5), {"W": _w(4)}),
    Case(
        "batch_normalization",
        "Y = BatchNormalization<epsilon=0.001>(X, S, B, M, V)",
        constants={"S": _w(4), "B": _w(4, seed=2), "M": _w(4, seed=3), "V": POSITIVE},
    ),
    Case(
        "batch_normalization_channels",
        "Y = BatchNormalization(X, S, B, M, V)",
        (4, 2, 3),
        {"S": _w(4), "B": _w(4, seed=2), "M": _w(4, seed=3), "V": POSITIVE},
        opset=14,
    ),
    Case("reduce_mean_11", "Y = ReduceMean<axes=[1]>(X)", (3, 4), opset=11),
    Case("reduce_mean_no_keep", "Y = ReduceMean<axes=[-1, 1], keepdims=0>(X)", (3, 2, 4)),
    Case("reduce_mean_18", "Y = ReduceMean(X, A)", (3, 4), {"A": _i(2)}, opset=18),
    Case("reduce_sum_13", "Y = ReduceSum<keepdims=0>(X, A)", (3, 4), {"A": _i(1)}),
    Case("reduce_sum_11", "Y = ReduceSum<axes=[2], keepdims=1>(X)", (3, 4), opset=11),
]

ARITHMETIC = [
    Case("add_vector", "Y = Add(X, C)", constants={"C": _w(4)}),
    Case("add_left", "Y = Add(C, X)", constants={"C": _w(1, 4)}),
    Case("add_channel", "Y = Add(X, C)", (3, 2, 4), {"C": _w(3, 1, 1)}),
    Case("add_widens", "Y = Add(X, C)", (1, 4), {"C": _w(3, 4)}),
    Case("add_data", "Y = Add(X, Z)", second=(4,)),
    Case("add_data_broadcast", "Y = Add(X, Z)", (3, 4), second=(3, 1)),
    Case("add_itself", "Y = Add(X, X)"),
    Case("sub_constant", "Y = Sub(X, C)", constants={"C": _w(4)}),
    Case("sub_from_constant", "Y = Sub(C, X)", constants={"C": _w(4)}),
    Case("sub_data", "Y = Sub(X, Z)", second=(4,)),
    Case("mul_vector", "Y = Mul(X, C)", constants={"C": _w(4)}),
    Case("mul_widens", "Y = Mul(X, C)", (1, 4), {"C": _w(3, 1)}),
    Case("mul_data", "Y = Mul(X, Z)", second=(4,)),
    Case("mul_data_broadcast", "Y = Mul(X, Z)", (3, 4), second=(1, 4)),
    Case("mul_by_zero", "Y = Mul(X, C)", constants={"C": _f(0.0)}),
    Case("square", "Y = Mul(X, X)"),
    Case("div_vector", "Y = Div(X, C)", constants={"C": POSITIVE}),
    Case("neg", "Y = Neg(X)"),
    Case("pow_2", "Y = Pow(X, C)", constants={"C": _f(2)}),
    Case("pow_3_integer", "Y = Pow(X, C)", constants={"C": _i(3)}),
    Case("pow_0", "Y = Pow(X, C)", constants={"C": _f(0)}),
    Case("pow_1", "Y = Pow(X, C)", constants={"C": _f(1)}),
    Case("sum_three", "Y = Sum(X, Z, C)", constants={"C": _w(4)}, second=(4,)),
    Case("mean_two", "Y = Mean(X, Z)", second=(4,)),
    Case("max_constant", "Y = Max(X, C)", constants={"C": _w(4)}),
    Case("max_data", "Y = Max(X, Z)", second=(4,)),
    Case("min_constant", "Y = Min(C, X)", constants={"C": _f(0.3)}),
    Case("min_data", "Y = Min(X, Z)", second=(4,)),
]

LAYOUT = [
    Case("flatten", "Y = Flatten(X)", (2, 3)),
    Case("reshape_minus_1_first", "Y = Reshape(X, S)", (2, 3), {"S": _i(-1, 6)}),
    Case("reshape_zero_first", "Y = Reshape(X, S)", (2, 6), {"S": _i(0, 3, -1)}),
    Case("reshape_zero_copies", "Y = Reshape(X, S)", (2, 6), {"S": _i(0, 0, 3, 2)}),
    Case("reshape_to_vector", "Y = Reshape(X, S)", (1,), {"S": _i(-1)}),
    Case("squeeze_13", "Y = Squeeze(X, A)", (1, 4, 1), {"A": _i(1, -1)}),
    Case("squeeze_11", "Y = Squeeze<axes=[1]>(X)", (1, 4), opset=11),
    Case("unsqueeze_13", "Y = Unsqueeze(X, A)", (4,), {"A": _i(1, -1)}),
    Case("unsqueeze_11", "Y = Unsqueeze<axes=[2]>(X)", (4,), opset=11),
    Case("identity", "Y = Identity(X)"),
    Case("dropout", "Y = Dropout(X)"),
    Case("dropout_11", "Y = Dropout<ratio=0.3>(X)", opset=11),
    Case("cast", "Y = Cast<to=1>(X)"),
    Case("transpose", "Y = Transpose<perm=[0, 3, 1, 2]>(X)", (2, 3, 4)),
    Case("concat", "Y = Concat<axis=1>(X, Z)", (4,), second=(2,)),
    Case("concat_last", "Y = Concat<axis=-1>(X, Z, X)", (2, 3), second=(2, 1)),
    Case("slice", "Y = Slice(X, S, E, A)", (6, 5), {"S": _i(1, 0), "E": _i(5, 3), "A": _i(1, 2)}),
    Case(
        "slice_steps",
        "Y = Slice(X, S, E, A, T)",
        (6, 5),
        {"S": _i(-1, 1), "E": _i(-100, 99), "A": _i(1, 2), "T": _i(-2, 2)},
    ),
    Case(
        "slice_all_rows",
        "Y = Slice(X, S, E)",
        (6,),
        {"S": _i(0, 2), "E": _i(9223372036854775807, 9223372036854775807)},
    ),
    Case("slice_9", "Y = Slice<axes=[1], starts=[1], ends=[3]>(X)", opset=9),
    Case("gather", "Y = Gather<axis=1>(X, I)", (5, 2), {"I": _i(3, 0, 3, -1)}),
    Case("gather_scalar", "Y = Gather<axis=1>(X, I)", (5, 2), {"I": np.array(2)}),
    Case("gather_matrix", "Y = Gather<axis=-1>(X, I)", (5,), {"I": np.array([[0, 1], [4, 4]])}),
    Case("expand", "Y = Expand(X, S)", (1, 4), {"S": _i(1, 3, 4)}),
    Case("expand_short", "Y = Expand(X, S)", (1, 4), {"S": _i(3, 1)}),
    Case("tile", "Y = Tile(X, R)", (2, 3), {"R": _i(1, 2, 2)}),
    Case("pad_zero", "Y = Pad(X, P)", (2, 3), {"P": _i(0, 1, 0, 0, 0, 2)}),
    Case("pad_value", "Y = Pad(X, P, V)", (4,), {"P": _i(0, 1, 0, 1), "V": _f(0.25)}),
    Case("pad_2", "Y = Pad<pads=[0, 1, 0, 1], value=1.5>(X)", (4,), opset=10),
    Case("pad_axes", "Y = Pad(X, P, , A)", (2, 3), {"P": _i(1, 1), "A": _i(2)}, opset=18),
]

ACTIVATIONS = [
    Case("relu", "Y = Relu(X)"),
    Case("leaky_relu", "Y = LeakyRelu<alpha=0.2>(X)"),
    Case("leaky_relu_default", "Y = LeakyRelu(X)"),
    Case("prelu_scalar", "Y = PRelu(X, S)", constants={"S": np.array([0.3])}),
    Case("prelu_channels", "Y = PRelu(X, S)", (3, 2), {"S": _w(3, 1)}),
    Case("elu", "Y = Elu<alpha=0.7>(X)"),
    Case("selu", "Y = Selu(X)"),
    Case("celu", "Y = Celu<alpha=1.5>(X)"),
    Case("sigmoid", "Y = Sigmoid(X)"),
    Case("tanh", "Y = Tanh(X)"),
    Case("softplus", "Y = Softplus(X)"),
    Case("softsign", "Y = Softsign(X)"),
    Case("gelu", "Y = Gelu(X)", opset=20),
    Case("gelu_tanh", 'Y = Gelu<approximate="tanh">(X)', opset=20),
    Case("erf", "Y = Erf(X)"),
    Case("mish", "Y = Mish(X)", opset=18),
    Case("hard_sigmoid", "Y = HardSigmoid<alpha=0.3, beta=0.4>(X)"),
    Case("hard_swish", "Y = HardSwish(X)"),
    Case("thresholded_relu", "Y = ThresholdedRelu<alpha=0.5>(X)"),
    Case("exp", "Y = Exp(X)"),
    Case("abs", "Y = Abs(X)"),
    Case(
        "clip",
        "Y = Clip(X, L, H)",
        constants={"L": _f(-0.5), "H": _f(0.75)},
    ),
    Case("clip_6", "Y = Clip<min=-0.5, max=0.5>(X)", opset=6 + 3),
    Case("clip_low", "Y = Clip(X, L)", constants={"L": _f(-0.5)}),
    Case("clip_high", "Y = Clip(X, , H)", constants={"H": _f(0.5)}),
    Case("clip_zero", "Y = Clip(X, L)", constants={"L": _f(0.0)}),
    Case("clip_none", "Y = Clip(X)"),
]

LEARNING = [
    Case(
        "scaler",
        "Y = ai.onnx.ml.Scaler<offset=[1.0, 2.0, 3.0, 4.0], scale=[0.5, 2.0, 1.0, 3.0]>(X)",
    ),
    Case("scaler_one", "Y = ai.onnx.ml.Scaler<offset=[1.0], scale=[2.0]>(X)"),
    Case(
        "regressor",
        "Y = ai.onnx.ml.LinearRegressor<coefficients=[1.0, -2.0, 0.5, 3.0, 0.0, 1.0, 1.0, 2.0], "
        "intercepts=[0.1, 0.2], targets=2>(X)",
    ),
    Case("columns", "Y = ai.onnx.ml.ArrayFeatureExtractor(X, I)", constants={"I": _i(2, 0)}),
]

CASES = [*LINEAR, *ARITHMETIC, *LAYOUT, *ACTIVATIONS, *LEARNING]
FREE = {"identity", "dropout", "dropout_11", "flatten", "cast", "clip_none", "pow_1"}


def _free(case: Case) -> bool:
    return case.name in FREE or case.name.startswith(("reshape", "squeeze", "unsqueeze"))


def _check(
    case: Case, text: str, constants: dict[str, Array], outputs: list[str], *, keep: bool
) -> Graph:
    model = build(text, case.inputs, constants, outputs=outputs, opset=case.opset)
    graph = import_onnx(model, name="test", keep_on_server=keep)
    feeds = random_rows(case.inputs, ROWS)
    for expected, got in zip(reference(model, feeds), run_imported(graph, feeds), strict=True):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)
    return graph


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_operator_equals_the_reference_when_it_stays_encrypted(case: Case) -> None:
    constants: dict[str, Array] = {**case.constants, "FACTOR": _f(1.5)}
    graph = _check(case, f"{case.text}\nOUT = Mul(Y, FACTOR)", constants, ["OUT"], keep=True)
    assert {step.op for step in graph.epilogue} <= {"reshape"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_operator_equals_the_reference_between_two_layers(case: Case) -> None:
    layered = re.sub(r"\bX\b", "FIRST", case.text)
    text = f"FIRST = Mul(X, VECTOR)\n{layered}\nLAST = Tanh(Y)"
    constants = {**case.constants, "VECTOR": _w(*case.shape, seed=5)}
    _check(case, text, constants, ["LAST", "Y"], keep=False)


@pytest.mark.parametrize("case", [c for c in LAYOUT if _free(c)], ids=lambda case: case.name)
def test_relabelling_operators_create_no_nodes(case: Case) -> None:
    text = f"FIRST = Relu(X)\n{case.text.replace('X', 'FIRST')}"
    graph = _check(case, text, case.constants, ["Y"], keep=False)
    assert [type(node) for node in graph.nodes] == [Activation]


def test_negative_padding_cuts_elements() -> None:
    model = build("R = Relu(X)\nY = Pad(R, P)", {"X": (4,)}, {"P": _i(0, -1, 0, 1)})
    got = run_imported(import_onnx(model, name="test"), {"X": np.array([[1.0, 2.0, 3.0, 4.0]])})[0]
    assert got.tolist() == [[2.0, 3.0, 4.0, 0.0]]
