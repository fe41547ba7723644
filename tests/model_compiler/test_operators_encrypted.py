"""Every operator on ciphertexts: a few models hold all that the server computes, on tiny rings.

Polynomials may be coarse here: what is compared is the encrypted circuit with the simulated one,
and the simulated one, where no polynomial stands in, with ONNX's reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from onnx import parser

from tacit.clear_operations import Array
from tacit.model_compiler import CompileOptions, compile_model
from tacit.model_compiler.onnx_ops.table import core_rules
from tacit.runtime.simulate import simulate
from tests.model_compiler.encrypted import run_encrypted, tiny_insecure
from tests.model_compiler.onnx_models import build, random_rows, reference

GENERATOR = np.random.default_rng(0)


def _w(*shape: int) -> Array:
    return np.asarray(GENERATOR.normal(size=shape))


def _i(*numbers: int) -> Array:
    return np.array(numbers, dtype=np.int64)


@dataclass(frozen=True)
class Group:
    """Operators in one model; Y0, Y1, ... are its outputs.

    Attributes:
        levels: of the tiny parameters.
        exact: no polynomial stands in for a function.
        keep: whether the client leaves everything to the server.
        accuracy: asked of the polynomials; coarse, so that few levels are needed.
    """

    text: str
    levels: int
    shape: tuple[int, ...] = (6,)
    constants: Mapping[str, Array] = field(default_factory=dict)
    opset: int = 21
    exact: bool = False
    keep: bool = True
    accuracy: float = 0.03


TREES = (
    "nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2], nodes_featureids=[1, 0, 0], "
    'nodes_values=[0.5, 0.0, 0.0], nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], '
    "nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0], "
)
GROUPS = {
    "rearranging": Group(
        """
        Y0 = Concat<axis=1>(X, X)
        Y1, Z1 = Split<axis=2, num_outputs=2>(X)
        Y2 = Slice(X, one, three, axis3)
        Y3 = Gather<axis=2>(X, picked)
        Y4 = Transpose<perm=[0, 2, 3, 1]>(X)
        A = Reshape(X, shape)
        B = Flatten(A)
        C = Unsqueeze(B, axis2)
        Y5 = Squeeze(C, axis2)
        Y6 = Pad(X, pads)
        Y7 = Tile(X, repeats)
        D = ReduceSum(X, axis3)
        Y8 = Expand(D, wide)
        Y9 = DepthToSpace<blocksize=2>(X)
        Y10 = SpaceToDepth<blocksize=2>(X)
        Y11 = CenterCropPad<axes=[2, 3]>(X, crop)
        Y12 = Trilu(X)
        Y13 = CumSum(X, axis_of_sum)
        E = Identity(X)
        F = Dropout(E)
        G = Cast<to=1>(F)
        Y14 = Neg(G)
        """,
        2, (4, 4, 4),
        {"one": _i(1), "three": _i(3), "axis3": _i(3), "axis2": _i(2), "picked": _i(3, 0),
         "shape": _i(-1, 8, 8), "pads": _i(0, 0, 1, 0, 0, 0, 0, 1), "repeats": _i(1, 1, 1, 2),
         "wide": _i(1, 4, 4, 3), "crop": _i(2, 6), "axis_of_sum": np.array(2)}, exact=True,
    ),
    "linear": Group(
        """
        Y0 = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(X, k)
        Y1 = ConvTranspose<strides=[2, 2]>(X, t)
        Y2 = AveragePool<kernel_shape=[2, 2]>(X)
        Y3 = GlobalAveragePool(X)
        Y4 = BatchNormalization(X, s, s, s, s)
        Y5 = Resize<mode="linear">(X, , scales)
        F = Flatten(X)
        Y6 = Gemm(F, w)
        Y7 = MatMul(F, w)
        Y8 = Einsum<equation="bchw,wk->bchk">(X, e)
        Y9 = ReduceMean(X, axes)
        A = Add(X, b)
        B = Sub(A, X)
        C = Mul(A, b)
        D = Div(C, five)
        E = Sum(A, C, D)
        Y10 = Mean(E, X)
        """,
        2, (2, 4, 4),
        {"k": _w(3, 2, 3, 3), "t": _w(2, 1, 2, 2), "s": np.array([0.5, 1.5]), "w": _w(32, 3),
         "e": _w(4, 2), "axes": _i(2), "b": _w(2, 1, 1), "five": np.array(5.0),
         "scales": np.array([1.0, 1.0, 1.5, 1.5], dtype=np.float32)}, exact=True,
    ),
    "upsampling": Group(
        "Y0 = Upsample(X, scales)", 2, (1, 3, 3),
        {"scales": np.array([1.0, 1.0, 2.0, 2.0], dtype=np.float32)}, opset=9, exact=True,
    ),
    "products": Group(
        """
        A = MatMul(X, w)
        Y0 = Mul(X, A)
        Y1 = Pow(X, three)
        B = Reshape(X, square)
        Y2 = MatMul(B, B)
        """,
        4, (4,), {"w": _w(4, 4), "three": np.array(3.0), "square": _i(-1, 2, 2)}, exact=True,
    ),
    "smooth": Group(
        """
        Y0 = Sigmoid(X)
        Y1 = Tanh(X)
        Y2 = Softplus(X)
        Y3 = Softsign(X)
        Y4 = Gelu(X)
        Y5 = Erf(X)
        Y6 = Mish(X)
        Y7 = Exp(X)
        Y8 = Atan(X)
        Y9 = Sinh(X)
        Y10 = Cosh(X)
        Y11 = Asinh(X)
        Y12 = Elu(X)
        Y13 = Selu(X)
        Y14 = Celu(X)
        """,
        5,
    ),
    "swish": Group("Y0 = Swish<alpha=1.5>(X)", 5, opset=24),
    "kinked": Group(
        """
        Y0 = Relu(X)
        Y1 = LeakyRelu<alpha=0.2>(X)
        Y2 = PRelu(X, slope)
        Y3 = Abs(X)
        Y4 = Clip(X, low, high)
        Y5 = HardSigmoid(X)
        Y6 = HardSwish(X)
        Y7 = ThresholdedRelu<alpha=0.5>(X)
        Y8 = Shrink<lambd=0.5, bias=0.5>(X)
        Y9 = Sign(X)
        Y10 = Max(X, high)
        Y11 = Min(X, low)
        """,
        8, (6,), {"slope": _w(6), "low": np.array(-0.5), "high": np.array(0.5)},
        accuracy=0.2,
    ),
    "greatest": Group(
        """
        Y0 = MaxPool<kernel_shape=[1, 2], strides=[1, 2]>(X)
        Y1 = ReduceMax(X, axis)
        Y2 = ReduceMin(X, axis)
        G = GlobalMaxPool(X)
        Y3 = Neg(G)
        """,
        10, (1, 2, 2), {"axis": _i(3)},
    ),
    "compared": Group(
        """
        A = Greater(X, zero)
        B = Less(X, one)
        C = GreaterOrEqual(X, one)
        D = LessOrEqual(X, zero)
        E = And(A, B)
        F = Or(C, D)
        G = Xor(A, C)
        H = Not(D)
        K = Neg(X)
        Y0 = Where(E, X, K)
        Y1 = Where(F, X, K)
        Y2 = Where(G, X, K)
        Y3 = Where(H, X, K)
        """,
        12, (6,), {"zero": np.array(0.1), "one": np.array(1.0)}, accuracy=0.2,
    ),
    "divided": Group(
        """
        Q = Mul(X, X)
        P = Add(Q, one)
        Y0 = Reciprocal(P)
        Y1 = Div(X, P)
        Y2 = Log(P)
        Y3 = Sqrt(P)
        """,
        8, (6,), {"one": np.array(1.0)},
    ),
    "normalised": Group(
        """
        Y0 = Softmax(X)
        Y1 = LogSoftmax(X)
        Y2 = LayerNormalization<epsilon=0.1>(X, s)
        """,
        13, (4,), {"s": np.abs(_w(4)) + 0.5},
    ),
    "normalised_images": Group(
        """
        Y0 = InstanceNormalization<epsilon=0.1>(X, s, s)
        Y1 = GroupNormalization<num_groups=1, epsilon=0.1>(X, s, s)
        """,
        13, (2, 2, 2), {"s": np.array([0.5, 1.5])},
    ),
    "root_mean_square": Group(
        "Y0 = RMSNormalization<epsilon=0.1>(X, s)", 13, (4,), {"s": np.abs(_w(4)) + 0.5}, opset=23
    ),
    "mean_variance": Group(
        "Y0 = MeanVarianceNormalization<axes=[2, 3]>(X)", 13, (1, 2, 3),
    ),
    "classical": Group(
        f"""
        A = MatMul(X, w)
        S = ai.onnx.ml.Scaler<offset=[0.5], scale=[2.0]>(A)
        Y0 = ai.onnx.ml.LinearRegressor<coefficients=[1.0, 2.0, 3.0], targets=1>(S)
        L1, Y1 = ai.onnx.ml.LinearClassifier<classlabels_ints=[0, 1, 2], coefficients=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]>(X)
        Y2 = ai.onnx.ml.SVMRegressor<kernel_type="LINEAR", coefficients=[1.0, 2.0, 3.0], rho=[0.5], n_supports=0>(X)
        Y3 = ai.onnx.ml.SVMRegressor<kernel_type="POLY", kernel_params=[0.5, 1.0, 2.0], coefficients=[1.0, -2.0], support_vectors=[1.0, 2.0, 3.0, 0.5, 0.0, 1.0], rho=[0.5], n_supports=2>(X)
        L4, Y4 = ai.onnx.ml.SVMClassifier<kernel_type="LINEAR", classlabels_ints=[0, 1], coefficients=[1.0, -1.0], support_vectors=[1.0, 2.0, 3.0, 0.5, 0.0, 1.0], vectors_per_class=[1, 1], rho=[0.5]>(X)
        Y5 = ai.onnx.ml.TreeEnsembleRegressor<n_targets=1, {TREES}target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[1.0, 2.0]>(X)
        L6, Y6 = ai.onnx.ml.TreeEnsembleClassifier<classlabels_int64s=[0, 1, 2], {TREES}class_treeids=[0, 0, 0], class_nodeids=[1, 2, 2], class_ids=[0, 1, 2], class_weights=[1.0, 0.5, 0.5]>(X)
        Y7 = ai.onnx.ml.ArrayFeatureExtractor(A, picked)
        """,  # noqa: E501
        8, (3,), {"w": _w(3, 3), "picked": _i(2, 0)}, opset=17, keep=False, accuracy=0.2,
    ),
}  # fmt: skip


def _compiled_group(name: str, folder: Path) -> None:
    group = GROUPS[name]
    outputs = tuple(dict.fromkeys(re.findall(r"\bY\d+\b", group.text)))
    model = build(group.text, {"X": group.shape}, group.constants, opset=group.opset,
                  outputs=outputs)  # fmt: skip
    rows = np.clip(random_rows({"X": group.shape}, 200, seed=1)["X"], -1.5, 1.5)
    options = CompileOptions(
        name=name, calibration=rows, plans=("latency",), keep_on_server=group.keep,
        accuracy=group.accuracy,
        keep_argmax=False, params=tiny_insecure(group.levels, 10),
    )  # fmt: skip
    artifact = compile_model(model, folder, options=options)
    assert group.exact or len(artifact.report["activations"]) > 0  # type: ignore[arg-type]
    some = rows[:2]
    simulated = simulate(artifact, some, "latency").outputs
    encrypted = run_encrypted(artifact, {"X": some})
    expected = reference(model, {"X": some}) if group.exact else []
    for output in outputs:
        span = max(float(np.abs(simulated[output]).max()), 1e-3)
        assert np.abs(encrypted[output] - simulated[output]).max() <= 2.0**-7 * span, output
        assert encrypted[output].shape == simulated[output].shape
    for output, wanted in zip(outputs, expected, strict=False):
        np.testing.assert_allclose(simulated[output], wanted, rtol=1e-4, atol=1e-4)


# The others take many levels, and so minutes in all.
SHALLOW = ("rearranging", "upsampling", "products", "smooth", "divided")


def _marked(name: str) -> object:
    return name if name in SHALLOW else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [_marked(name) for name in GROUPS])
def test_operators_on_ciphertexts_give_what_they_give_in_the_clear(
    name: str, tmp_path: Path
) -> None:
    pytest.importorskip("openfhe", reason="openfhe does not import here")
    _compiled_group(name, tmp_path)


def test_every_operator_of_the_server_is_in_one_of_the_models() -> None:
    lines = [line.strip() for group in GROUPS.values() for line in group.text.splitlines()]
    nodes = [parser.parse_node(line) for line in lines if line]
    held = {(node.domain, node.op_type) for node in nodes}
    assert {key for key in core_rules() if key[0] != "tacit"} <= held
