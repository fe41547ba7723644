"""Pooling, normalisations, roots and comparisons between two layers, against ONNX's reference."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import pytest

from tacit.clear_operations import Array
from tacit.errors import UnsupportedModelError
from tacit.model_compiler.graph import Activation, Graph
from tacit.model_compiler.onnx_import import import_onnx
from tests.model_compiler.onnx_models import build, random_rows, reference, run_imported

ROWS = 5


@dataclass(frozen=True)
class Case:
    name: str
    text: str
    shape: tuple[int, ...] = (4,)
    constants: dict[str, Array] = field(default_factory=dict)
    opset: int = 17


def _w(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def _f(number: float) -> Array:
    return np.array(number, dtype=np.float32)


def _i(*numbers: int) -> Array:
    return np.array(numbers, dtype=np.int64)


POOLS = [
    Case("max_2x2", "Y = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(X)", (3, 6, 8)),
    Case("max_3x3_stride_1", "Y = MaxPool<kernel_shape=[3, 3]>(X)", (2, 6, 7)),
    Case(
        "max_3x3_padded",
        "Y = MaxPool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]>(X)",
        (2, 7, 8),
    ),
    Case(
        "max_uneven_pads",
        "Y = MaxPool<kernel_shape=[3, 2], strides=[3, 2], pads=[0, 1, 2, 0]>(X)",
        (1, 7, 7),
    ),
    Case("max_5", "Y = MaxPool<kernel_shape=[5], strides=[2], pads=[2, 2]>(X)", (2, 11)),
    Case("max_1", "Y = MaxPool<kernel_shape=[1, 1], strides=[2, 2]>(X)", (2, 5, 5)),
    Case("max_dilated", "Y = MaxPool<kernel_shape=[3], dilations=[2], strides=[2]>(X)", (2, 11)),
    Case(
        "max_ceil",
        "Y = MaxPool<kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1>(X)",
        (1, 5, 7),
    ),
    Case(
        "max_same_upper",
        'Y = MaxPool<kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_UPPER">(X)',
        (1, 5, 6),
    ),
    Case("max_3d", "Y = MaxPool<kernel_shape=[2, 2, 2], strides=[2, 2, 2]>(X)", (1, 4, 4, 2)),
    Case("global_max", "Y = GlobalMaxPool(X)", (3, 4, 5)),
    Case("reduce_max", "Y = ReduceMax<axes=[1], keepdims=0>(X)", (5, 3)),
    Case("reduce_max_18", "Y = ReduceMax(X, A)", (5, 3), {"A": _i(-1)}, opset=18),
    Case("reduce_min", "Y = ReduceMin<axes=[1, 2]>(X)", (3, 3)),
    Case("max_of_three", "Z = Mul(X, C)\nY = Max(X, Z, D)", constants={"C": _w(4), "D": _w(4)}),
    Case(
        "max_of_five",
        "P = Mul(X, C)\nQ = Add(X, D)\nR = Neg(X)\nY = Max(X, P, Q, R, D)",
        constants={"C": _w(4), "D": _w(4)},
    ),
    Case("min_of_two_constants", "Y = Min(X, C, D)", constants={"C": _w(4), "D": _w(1)}),
]
NORMS = [
    Case("softmax", "Y = Softmax<axis=-1>(X)", (3, 4)),
    Case("softmax_first", "Y = Softmax<axis=1>(X)", (3, 4)),
    Case("log_softmax", "Y = LogSoftmax<axis=-1>(X)", (3, 4)),
    Case(
        "layer",
        "Y = LayerNormalization<axis=-1, epsilon=0.001>(X, S, B)",
        (3, 4),
        {"S": _w(4), "B": _w(4, seed=2)},
    ),
    Case("layer_two_axes", "Y = LayerNormalization<axis=1>(X, S)", (3, 4), {"S": _w(3, 4)}),
    Case(
        "instance",
        "Y = InstanceNormalization(X, S, B)",
        (3, 4, 2),
        {"S": _w(3), "B": _w(3, seed=2)},
    ),
    Case(
        "group_21",
        "Y = GroupNormalization<num_groups=2>(X, S, B)",
        (4, 3),
        {"S": _w(4), "B": _w(4, seed=2)},
        opset=21,
    ),
    Case("rms", "Y = RMSNormalization<axis=-1>(X, S)", (3, 4), {"S": _w(4)}, opset=23),
]
ROOTS = [
    Case("sqrt", "S = Mul(X, X)\nP = Add(S, ONE)\nY = Sqrt(P)"),
    Case("half_power", "S = Mul(X, X)\nP = Add(S, ONE)\nY = Pow(P, C)", constants={"C": _f(0.5)}),
    Case("inverse", "S = Mul(X, X)\nP = Add(S, ONE)\nY = Pow(P, C)", constants={"C": _f(-1)}),
    Case("rsqrt", "S = Mul(X, X)\nP = Add(S, ONE)\nY = Pow(P, C)", constants={"C": _f(-0.5)}),
    Case("over_root", "S = Mul(X, X)\nP = Add(S, ONE)\nQ = Sqrt(P)\nY = Div(X, Q)"),
    Case("reciprocal", "S = Mul(X, X)\nP = Add(S, ONE)\nY = Reciprocal(P)"),
    Case("vector_over", "S = Mul(X, X)\nP = Add(S, ONE)\nY = Div(C, P)", constants={"C": _w(4)}),
    Case("log", "S = Mul(X, X)\nP = Add(S, ONE)\nY = Log(P)"),
    Case("atan", "Y = Atan(X)"),
    Case("sinh", "Y = Sinh(X)"),
    Case("cosh", "Y = Cosh(X)"),
    Case("asinh", "Y = Asinh(X)"),
    Case("shrink", "Y = Shrink<lambd=0.5, bias=0.25>(X)"),
    Case("sign", "Y = Sign(X)"),
]
COMPARISONS = [
    Case("greater", "M = Greater(X, C)\nY = Cast<to=1>(M)", constants={"C": _w(4)}),
    Case("less_scalar", "M = Less(X, C)\nY = Cast<to=1>(M)", constants={"C": _f(0.3)}),
    Case("constant_first", "M = Less(C, X)\nY = Cast<to=1>(M)", constants={"C": _w(4)}),
    Case("not", "M = Greater(X, C)\nN = Not(M)\nY = Cast<to=1>(N)", constants={"C": _w(4)}),
    Case(
        "and",
        "M = Greater(X, C)\nN = Less(X, ONE)\nA = And(M, N)\nY = Cast<to=1>(A)",
        constants={"C": _w(4)},
    ),
    Case(
        "or",
        "M = Greater(X, ONE)\nN = Less(X, C)\nA = Or(M, N)\nB = Not(A)\nY = Cast<to=1>(B)",
        constants={"C": _w(4)},
    ),
    Case(
        "xor",
        "M = Greater(X, ONE)\nN = Less(X, C)\nA = Xor(M, N)\nY = Cast<to=1>(A)",
        constants={"C": _w(4)},
    ),
    Case(
        "where_constants",
        "M = Greater(X, ONE)\nY = Where(M, C, D)",
        constants={"C": _w(4), "D": _w(4, seed=3)},
    ),
    Case(
        "where_value",
        "M = Greater(X, ONE)\nZ = Mul(X, C)\nY = Where(M, C, Z)",
        constants={"C": _w(4)},
    ),
    Case("where_widens", "M = Greater(X, ONE)\nY = Where(M, C, X)", (1, 4), {"C": _w(3, 4)}),
    Case(
        "where_and",
        "M = Greater(X, C)\nN = Less(X, ONE)\nA = And(M, N)\nZ = Neg(X)\nY = Where(A, X, Z)",
        constants={"C": _w(4)},
    ),
]
CASES = [*POOLS, *NORMS, *ROOTS, *COMPARISONS]


def _between_layers(case: Case) -> Graph:
    layered = re.sub(r"\bX\b", "FIRST", case.text)
    text = f"FIRST = Mul(X, VECTOR)\n{layered}\nLAST = Tanh(Y)\nOUT = Mul(LAST, FACTOR)"
    constants = {**case.constants, "VECTOR": _w(*case.shape, seed=5), "FACTOR": _f(1.5)}
    constants["ONE"] = _f(1.0)
    model = build(text, {"X": case.shape}, constants, outputs=("OUT",), opset=case.opset)
    graph = import_onnx(model, name="test", keep_on_server=True)
    feeds = random_rows({"X": case.shape}, ROWS)
    for expected, got in zip(reference(model, feeds), run_imported(graph, feeds), strict=True):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    return graph


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_operator_between_two_layers_equals_the_reference(case: Case) -> None:
    graph = _between_layers(case)
    assert {step.op for step in graph.epilogue} <= {"reshape"}


def test_padding_below_equals_onnxruntime() -> None:
    """ONNX's own reference pads above instead."""
    runtime = pytest.importorskip("onnxruntime")
    text = 'H = Relu(X)\nY = MaxPool<kernel_shape=[2, 3], strides=[2, 2], auto_pad="{}">(H)'
    model = build(text.format("SAME_LOWER"), {"X": (1, 6, 6)}, {})
    feeds = random_rows({"X": (1, 6, 6)}, ROWS)
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    session = runtime.InferenceSession(model.SerializeToString())
    (expected,) = session.run(None, {"X": feeds["X"].astype(np.float32)})
    graph = import_onnx(model, name="test", keep_on_server=True)
    np.testing.assert_allclose(run_imported(graph, feeds)[0], expected, atol=1e-6)


def test_an_old_softmax_is_over_all_axes_from_its_own_on() -> None:
    text = "H = Mul(X, TWO)\nS = Softmax<axis=1>(H)\nY = Mul(S, TWO)"
    model = build(text, {"X": (3, 4)}, {"TWO": _f(2.0)}, opset=11)
    graph = import_onnx(model, name="test", keep_on_server=True)
    feeds = random_rows({"X": (3, 4)}, ROWS)
    powers = np.exp(2.0 * feeds["X"])
    expected = 2.0 * powers / powers.sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(run_imported(graph, feeds)[0], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("kernel", "stride", "comparisons"), [(2, 2, 2), (3, 2, 4), (4, 4, 4), (3, 1, 4), (8, 8, 6)]
)
def test_a_window_takes_as_many_rounds_as_its_logarithm(
    kernel: int, stride: int, comparisons: int
) -> None:
    attributes = f"kernel_shape=[{kernel}, {kernel}], strides=[{stride}, {stride}]"
    graph = _between_layers(Case("pool", f"Y = MaxPool<{attributes}>(X)", (1, 16, 16)))
    relus = [n for n in graph.nodes if isinstance(n, Activation) and n.function == "relu"]
    assert len(relus) == comparisons


def test_neighbouring_windows_share_their_comparisons() -> None:
    """A 2x2 pool of 16x16 compares 16 x 8 pairs, then 8 x 8, not 3 for each of 64 windows."""
    text = "Y = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(X)"
    graph = _between_layers(Case("pool", text, (1, 16, 16)))
    sizes = [graph.size(n.output) for n in graph.nodes if isinstance(n, Activation)]
    assert sorted(sizes[:2]) == [64, 128]


def test_a_comparison_is_computed_once_for_all_that_read_it() -> None:
    text = "M = Greater(X, C)\nA = Cast<to=1>(M)\nB = Where(M, C, X)\nY = Add(A, B)"
    graph = _between_layers(Case("twice", text, constants={"C": _w(4)}))
    steps = [n for n in graph.nodes if isinstance(n, Activation) and n.function == "step"]
    assert len(steps) == 1


@pytest.mark.parametrize(
    ("text", "shape", "reason"),
    [
        ("Y, I = MaxPool<kernel_shape=[2]>(H)", (1, 6), "positions"),
        ("Y = MaxPool<kernel_shape=[2, 2]>(H)", (1, 6), "spatial axes"),
        ("Y = MaxPool<kernel_shape=[9]>(H)", (1, 6), "larger"),
        ("Y = MaxPool<kernel_shape=[2], dilations=[2], pads=[1, 1]>(H)", (1, 6), "dilated"),
        ("Y = ReduceMax(H)", (6,), "mix rows"),
    ],
)
def test_pools_that_cannot_be_compiled_say_why(
    text: str, shape: tuple[int, ...], reason: str
) -> None:
    outputs = ("OUT", "I") if "I =" in text else ("OUT",)
    whole = f"H = Mul(X, C)\n{text}\nT = Tanh(Y)\nOUT = Mul(T, C)"
    model = build(whole, {"X": shape}, {"C": _f(2.0)}, outputs=outputs)
    with pytest.raises(UnsupportedModelError, match=reason):
        import_onnx(model, name="test", keep_on_server=True)
