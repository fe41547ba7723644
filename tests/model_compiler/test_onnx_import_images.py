"""Operators on images: random attributes, against ONNX's reference evaluator."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest

from tacit.clear_operations import Array
from tacit.errors import TacitError, UnsupportedModelError
from tacit.model_compiler.graph import Affine, Graph
from tacit.model_compiler.onnx_import import import_onnx
from tests.model_compiler.onnx_models import build, random_rows, reference, run_imported

ROWS = 3
TOLERANCE = 1e-6


def _assert_equals_reference(
    model: onnx.ModelProto, shape: tuple[int, ...], tolerance: float = TOLERANCE
) -> None:
    feeds = random_rows({"X": shape}, ROWS)
    expected = reference(model, feeds)
    for got, wanted in zip(run_imported(_imported(model), feeds), expected, strict=True):
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() < tolerance


def _imported(model: onnx.ModelProto) -> Graph:
    return import_onnx(model, name="test", keep_on_server=True)


def _listed(numbers: list[int]) -> str:
    return "[" + ", ".join(map(str, numbers)) + "]"


def _drawn(generator: np.random.Generator, low: int, high: int, count: int) -> list[int]:
    return [int(number) for number in generator.integers(low, high, count)]


def _padding(generator: np.random.Generator, rank: int, kernel: list[int]) -> str:
    kind = str(generator.choice(["pads", "none", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if kind == "pads":
        pads = [int(generator.integers(0, kernel[i % rank])) for i in range(2 * rank)]
        return f", pads={_listed(pads)}"
    return "" if kind == "none" else f', auto_pad="{kind}"'


@pytest.mark.parametrize("seed", range(60))
def test_convolutions_equal_the_reference(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rank = int(generator.integers(1, 4))
    groups = int(generator.choice([1, 1, 2, 3]))
    inputs, outputs = groups * int(generator.integers(1, 3)), groups * int(generator.integers(1, 3))
    kernel, stride = _drawn(generator, 1, 4, rank), _drawn(generator, 1, 4, rank)
    padding = _padding(generator, rank, kernel)
    # The reference evaluator's SAME padding ignores dilations.
    dilation = [1] * rank if "SAME" in padding else _drawn(generator, 1, 3, rank)
    shape = (inputs, *_drawn(generator, 6, 9, rank))
    constants: dict[str, Array] = {
        "W": generator.normal(size=(outputs, inputs // groups, *kernel)),
        "B": generator.normal(size=outputs),
    }
    text = (
        f"Y = Conv<kernel_shape={_listed(kernel)}, strides={_listed(stride)}, group={groups}, "
        f"dilations={_listed(dilation)}{padding}>(X, W{', B' if seed % 2 else ''})"
    )
    _assert_equals_reference(build(text, {"X": shape}, constants), shape)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_padding_equals_the_explicit_padding_it_stands_for(
    auto_pad: str, dilation: int, stride: int
) -> None:
    length, kernel = 11, 3
    total = max((-(-length // stride) - 1) * stride + (kernel - 1) * dilation + 1 - length, 0)
    small, large = total // 2, total - total // 2
    pads = [small, large] if auto_pad == "SAME_UPPER" else [large, small]
    rest = f"strides=[{stride}], dilations=[{dilation}], kernel_shape=[{kernel}]"
    weights: dict[str, Array] = {"W": np.random.default_rng(0).normal(size=(2, 1, kernel))}
    same = build(f'Y = Conv<auto_pad="{auto_pad}", {rest}>(X, W)', {"X": (1, length)}, weights)
    given = build(f"Y = Conv<pads={_listed(pads)}, {rest}>(X, W)", {"X": (1, length)}, weights)
    feeds = random_rows({"X": (1, length)}, ROWS)
    (expected,) = reference(given, feeds)
    (got,) = run_imported(_imported(same), feeds)
    assert np.abs(got - expected).max() < TOLERANCE


@pytest.mark.parametrize("seed", range(60))
def test_transposed_convolutions_equal_the_reference(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rank = int(generator.integers(1, 3))
    inputs, outputs = int(generator.integers(1, 4)), int(generator.integers(1, 4))
    kernel, stride = _drawn(generator, 2, 5, rank), _drawn(generator, 1, 4, rank)
    kernel = [max(k, s) for k, s in zip(kernel, stride, strict=True)]
    shape = (inputs, *_drawn(generator, 3, 6, rank))
    constants: dict[str, Array] = {
        "W": generator.normal(size=(inputs, outputs, *kernel)),
        "B": generator.normal(size=outputs),
    }
    text = (
        f"Y = ConvTranspose<kernel_shape={_listed(kernel)}, strides={_listed(stride)}, "
        f"{_cut(generator, shape[1:], kernel, stride)}>(X, W, B)"
    )
    _assert_equals_reference(build(text, {"X": shape}, constants), shape)


def _cut(
    generator: np.random.Generator, lengths: tuple[int, ...], kernel: list[int], stride: list[int]
) -> str:
    """Draw how a transposed convolution's result is cut."""
    rank = len(kernel)
    same = str(generator.choice(["SAME_UPPER", "SAME_LOWER"]))
    match int(generator.integers(0, 3)):
        case 0:
            pads = [int(generator.integers(0, kernel[i % rank] // 2 + 1)) for i in range(2 * rank)]
            extra = [int(generator.integers(0, s)) for s in stride]
            dilation = _drawn(generator, 1, 3, rank)
            return (
                f"pads={_listed(pads)}, output_padding={_listed(extra)}, "
                f"dilations={_listed(dilation)}"
            )
        case 1:
            wanted = [n * s for n, s in zip(lengths, stride, strict=True)]
            return f'output_shape={_listed(wanted)}, auto_pad="{same}"'
    return f'auto_pad="{same}"'


@pytest.mark.parametrize("groups", [2, 3])
def test_groups_of_a_transposed_convolution_are_independent(groups: int) -> None:
    """The reference evaluator gets groups of several outputs wrong, so each is run alone."""
    generator = np.random.default_rng(groups)
    kernels = generator.normal(size=(groups, 2, 3, 3, 2)).astype(np.float32)
    shape, head = (2 * groups, 4, 5), "ConvTranspose<strides=[2, 1], pads=[1, 0, 0, 1]"
    weights: dict[str, Array] = {"W": kernels.reshape(2 * groups, 3, 3, 2)}
    model = build(f"Y = {head}, group={groups}>(X, W)", {"X": shape}, weights)
    feeds = random_rows({"X": shape}, ROWS)
    (got,) = run_imported(_imported(model), feeds)
    for group, (part, kernel) in enumerate(
        zip(np.split(feeds["X"], groups, axis=1), kernels, strict=True)
    ):
        alone = build(f"Y = {head}>(X, W)", {"X": (2, 4, 5)}, {"W": kernel})
        (expected,) = reference(alone, {"X": part})
        assert np.abs(got[:, 3 * group : 3 * group + 3] - expected).max() < TOLERANCE


@pytest.mark.parametrize("seed", range(60))
def test_average_pooling_equals_the_reference(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rank = int(generator.integers(1, 4))
    kernel, stride = _drawn(generator, 2, 4, rank), _drawn(generator, 1, 4, rank)
    shape = (int(generator.integers(1, 4)), *_drawn(generator, 6, 9, rank))
    ceil, include = (int(v) for v in generator.integers(0, 2, 2))
    padding = _padding(generator, rank, kernel)
    if "auto_pad" in padding:
        ceil = 0
    if "SAME" in padding:  # else the reference pads by negative numbers
        stride = [min(s, k) for s, k in zip(stride, kernel, strict=True)]
    text = (
        f"Y = AveragePool<kernel_shape={_listed(kernel)}, strides={_listed(stride)}, "
        f"ceil_mode={ceil}, count_include_pad={include}{padding}>(X)"
    )
    _assert_equals_reference(build(text, {"X": shape}, opset=19), shape)


COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("seed", range(6))
def test_resizing_equals_the_reference(seed: int, mode: str, coordinates: str) -> None:
    generator = np.random.default_rng(seed)
    shape = (2, *_drawn(generator, 3, 7, 2))
    rounding = str(generator.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]))
    nearest = f', nearest_mode="{rounding}"' if mode == "nearest" else ""
    head = f'Resize<mode="{mode}", coordinate_transformation_mode="{coordinates}"{nearest}>'
    if seed % 2:
        sizes = np.array([ROWS, 2, *_drawn(generator, 2, 9, 2)], dtype=np.int64)
        constants: dict[str, Array] = {"S": sizes}
        text, rows = f"Y = {head}(X, , , S)", ROWS
    else:
        scales = np.array([1.0, 1.0, *generator.choice([0.5, 1.5, 2.0, 3.0], 2)])
        constants = {"S": scales}
        text, rows = f"Y = {head}(X, , S)", ROWS
    model = build(text, {"X": shape}, constants, opset=18, rows=rows)
    _assert_equals_reference(model, shape, 1e-5)  # the reference computes weights in float32


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_resizing_keeps_the_aspect_ratio(policy: str) -> None:
    text = f'Y = Resize<axes=[2, 3], keep_aspect_ratio_policy="{policy}">(X, , , S)'
    constants: dict[str, Array] = {"S": np.array([7, 8], dtype=np.int64)}
    model = build(text, {"X": (1, 4, 6)}, constants, opset=18)
    _assert_equals_reference(model, (1, 4, 6))


def test_old_upsampling_and_resizing_repeat_pixels() -> None:
    constants: dict[str, Array] = {"S": np.array([1.0, 1.0, 2.0, 3.0])}
    old = build('Y = Upsample<mode="nearest">(X, S)', {"X": (2, 3, 2)}, constants, opset=9)
    new = build('Y = Resize<mode="nearest">(X, S)', {"X": (2, 3, 2)}, constants, opset=10)
    feeds = random_rows({"X": (2, 3, 2)}, ROWS)
    expected = feeds["X"].repeat(2, axis=2).repeat(3, axis=3)
    for model in (old, new):
        (got,) = run_imported(_imported(model), feeds)
        assert np.array_equal(got, expected)


CASES = [
    ("Y = DepthToSpace<blocksize=2>(X)", (8, 2, 3), {}),
    ('Y = DepthToSpace<blocksize=2, mode="CRD">(X)', (8, 2, 3), {}),
    ("Y = SpaceToDepth<blocksize=2>(X)", (2, 4, 6), {}),
    ("Y = CumSum(X, A)", (2, 4, 3), {"A": np.array(2, dtype=np.int64)}),
    ("Y = CumSum<exclusive=1, reverse=1>(X, A)", (2, 4), {"A": np.array(-1, dtype=np.int64)}),
    ("Y = Trilu(X, K)", (3, 4), {"K": np.array(1, dtype=np.int64)}),
    ("Y = Trilu<upper=0>(X)", (2, 3, 4), {}),
    ("Y = CenterCropPad<axes=[2, 3]>(X, S)", (2, 5, 4), {"S": np.array([3, 7])}),
    ('Y = Pad<mode="reflect">(X, P)', (1, 4, 5), {"P": np.array([0, 0, 1, 2, 0, 0, 3, 1])}),
    ('Y = Pad<mode="edge">(X, P)', (1, 4, 5), {"P": np.array([0, 0, 1, 2, 0, 0, 3, 1])}),
    ('Y = Einsum<equation="nchw,dc->ndhw">(X, W)', (3, 2, 2), {"W": np.ones((4, 3))}),
    ("Y = GlobalAveragePool(X)", (3, 4, 5), {}),
]


@pytest.mark.parametrize(("text", "shape", "constants"), CASES, ids=[c[0][:34] for c in CASES])
def test_fixed_rearrangements_equal_the_reference(
    text: str, shape: tuple[int, ...], constants: dict[str, Array]
) -> None:
    _assert_equals_reference(build(text, {"X": shape}, constants, opset=18), shape)


REFUSED = [
    ("Y = Conv<kernel_shape=[3, 3]>(X, W)", {"W": np.ones((2, 2, 3, 3))}, "weights"),
    ("Y = Conv<kernel_shape=[2, 2]>(X, W)", {"W": np.ones((2, 1, 3, 3))}, "contradicts"),
    ("Y = Conv(X, W)", {"W": np.ones((2, 1, 9, 9))}, "larger than the padded"),
    ("Y = Conv<strides=[0, 1]>(X, W)", {"W": np.ones((2, 1, 3, 3))}, "strides"),
    ("Y = Conv<pads=[-1, 0, 0, 0]>(X, W)", {"W": np.ones((2, 1, 3, 3))}, "pads"),
    (f"Y = Conv<pads=[{2**40}, 0, 0, 0]>(X, W)", {"W": np.ones((2, 1, 3, 3))}, "huge"),
    (f"Y = Conv<pads=[{2**30}, 0, 0, 0]>(X, W)", {"W": np.ones((2, 1, 3, 3))}, "a row would have"),
    (f"Y = Conv<dilations=[{2**62}, 1]>(X, W)", {"W": np.ones((2, 1, 3, 3))}, "dilations"),
    (f"Y = AveragePool<kernel_shape=[{2**31}, 1]>(X)", {}, "larger than the padded"),
    (
        f"Y = AveragePool<kernel_shape=[{2**30}, 1], pads=[{2**30}, 0, 0, 0]>(X)",
        {},
        "the matrix would hold",
    ),
    ("Y = Resize(X, , S)", {"S": np.array([1.0, 1, 2e9, 2])}, "a row would have"),
    ("Y = Resize(X, , S)", {"S": np.array([1.0, 1, np.nan, 2])}, "NaN"),
    ('Y = Conv<auto_pad="OTHER">(X, W)', {"W": np.ones((2, 1, 3, 3))}, "auto_pad"),
    ("Y = AveragePool<kernel_shape=[2]>(X)", {}, "kernel"),
    ('Y = Resize<mode="other">(X, , S)', {"S": np.array([1.0, 1, 2, 2])}, "mode"),
    ("Y = Resize(X, , S)", {"S": np.array([2.0, 1, 2, 2])}, "scales"),
]


@pytest.mark.parametrize(("text", "constants", "message"), REFUSED)
def test_impossible_attributes_are_refused_by_name(
    text: str, constants: dict[str, Array], message: str
) -> None:
    model = build(text, {"X": (1, 5, 5)}, constants)
    with pytest.raises(TacitError, match=message):
        _imported(model)


def test_a_kernel_that_is_computed_is_refused() -> None:
    model = build("Y = Conv(X, Z)", {"X": (1, 5, 5), "Z": (1, 3, 3)})
    with pytest.raises(UnsupportedModelError, match="constant"):
        _imported(model)


def test_a_large_convolution_is_built_without_a_loop_over_its_elements() -> None:
    weights: dict[str, Array] = {"W": np.random.default_rng(0).normal(size=(16, 16, 3, 3))}
    model = build("Y = Conv<pads=[1, 1, 1, 1]>(X, W)", {"X": (16, 32, 32)}, weights)
    start = time.process_time()
    (node,) = _imported(model).nodes
    assert isinstance(node, Affine)
    assert node.matrices[0].nnz == 16 * 16 * (3 * 32 - 2) ** 2
    assert time.process_time() - start < 3.0
