"""Named functions, against the ONNX reference and dense sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tacit.errors import CircuitError, ModelError
from tacit.model_compiler.functions import (
    BOUND_BY_ZERO,
    function_names,
    interval_image,
    real_function,
)

Floats = NDArray[np.float64]

PARAMETERS: dict[str, tuple[float, ...]] = {
    "celu": (1.7,),
    "clip": (-0.75, 2.25),
    "elu": (0.6,),
    "hard_sigmoid": (0.2, 0.5),
    "leaky_relu": (0.1,),
    "polynomial": (0.5, -1.0, 0.25, 0.125, -0.0625),
    "shrink": (0.75, 0.25),
    "reciprocal_above": (1.5,),
    "selu": (1.6732632, 1.0507010),
    "thresholded_relu": (0.82,),
}
ONNX: dict[str, tuple[str, dict[str, float | str]]] = {
    "abs": ("Abs", {}),
    "asinh": ("Asinh", {}),
    "atan": ("Atan", {}),
    "celu": ("Celu", {"alpha": 1.7}),
    "cosh": ("Cosh", {}),
    "elu": ("Elu", {"alpha": 0.6}),
    "erf": ("Erf", {}),
    "exp": ("Exp", {}),
    "gelu": ("Gelu", {}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 0.2, "beta": 0.5}),
    "hard_swish": ("HardSwish", {}),
    "identity": ("Identity", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.1}),
    "log": ("Log", {}),
    "mish": ("Mish", {}),
    "reciprocal": ("Reciprocal", {}),
    "relu": ("Relu", {}),
    "selu": ("Selu", {"alpha": 1.6732632, "gamma": 1.0507010}),
    "sigmoid": ("Sigmoid", {}),
    "shrink": ("Shrink", {"lambd": 0.75, "bias": 0.25}),
    "sign": ("Sign", {}),
    "sinh": ("Sinh", {}),
    "softplus": ("Softplus", {}),
    "softsign": ("Softsign", {}),
    "sqrt": ("Sqrt", {}),
    "tanh": ("Tanh", {}),
    "thresholded_relu": ("ThresholdedRelu", {"alpha": 0.82}),
}


def parameters_of(name: str) -> tuple[float, ...]:
    return PARAMETERS.get(name, ())


def onnx_values(name: str, x: Floats) -> Floats:
    operator, attributes = ONNX[name]
    node = helper.make_node(operator, ["x"], ["y"])
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, list(x.shape))],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, list(x.shape))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])
    outputs = dict(enumerate(ReferenceEvaluator(model).run(None, {"x": x})))
    return np.asarray(outputs[0], dtype=np.float64)


@pytest.mark.parametrize("name", sorted(ONNX))
def test_a_function_equals_the_onnx_reference(name: str) -> None:
    x: Floats = np.linspace(-6.0, 6.0, 241, dtype=np.float64)
    x = x[x > 0.0] if name in BOUND_BY_ZERO else x
    got = real_function(name, parameters_of(name))(x)
    # Attributes are stored as float32 in ONNX, and some reference kernels compute with them so.
    np.testing.assert_allclose(got, onnx_values(name, x), rtol=3e-7, atol=3e-7)


@pytest.mark.parametrize("x", [-5.5, -1.0, 0.0, 0.3, 4.0])
def test_functions_without_an_onnx_operator_equal_their_formula(x: float) -> None:
    at = np.array([x])
    assert real_function("silu", ())(at)[0] == pytest.approx(x / (1.0 + math.exp(-x)), rel=1e-14)
    assert real_function("clip", (-0.75, 2.25))(at)[0] == max(-0.75, min(2.25, x))
    assert real_function("step", ())(at)[0] == (1.0 if x > 0.0 else 0.0)
    assert real_function("reciprocal_above", (2.0,))(at)[0] == 1.0 / max(x, 2.0)
    assert real_function("rsqrt", ())(at**2 + 1.0)[0] == pytest.approx((x * x + 1.0) ** -0.5)
    coefficients = PARAMETERS["polynomial"]
    expected = sum(c * x**k for k, c in enumerate(coefficients))
    assert real_function("polynomial", coefficients)(at)[0] == pytest.approx(expected, rel=1e-14)


def test_every_function_has_an_oracle_here() -> None:
    assert set(function_names()) == {
        *ONNX,
        "silu",
        "clip",
        "polynomial",
        "rsqrt",
        "step",
        "reciprocal_above",
    }


@pytest.mark.parametrize(
    "name", sorted(set(function_names()) - {"exp", "sinh", "cosh", "polynomial", *BOUND_BY_ZERO})
)
def test_a_function_stays_finite_and_tame_far_out(name: str) -> None:
    x = np.array([-1e5, -800.0, -40.0, 40.0, 800.0, 1e5])
    values = real_function(name, parameters_of(name))(x)
    assert np.all(np.isfinite(values))
    assert np.all(np.abs(values) <= 2.0 * np.abs(x) + 2.0)


def test_the_exponential_overflows_to_infinity_without_a_warning() -> None:
    assert real_function("exp", ())(np.array([1000.0]))[0] == np.inf


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", function_names())
def test_an_interval_image_is_what_dense_sampling_finds(name: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    least = 0.2 if name in BOUND_BY_ZERO else -6.0
    ends = np.sort(generator.uniform(least, 6.0, (2, 40)), axis=0)
    low, high = interval_image(name, parameters_of(name), ends[0], ends[1])
    samples = ends[0] + (ends[1] - ends[0]) * np.linspace(0.0, 1.0, 20001)[:, None]
    values = real_function(name, parameters_of(name))(samples)
    assert np.all(values >= low - 1e-12)
    assert np.all(values <= high + 1e-12)
    steps = np.abs(np.diff(values, axis=0)).max(axis=0)
    assert np.all(values.min(axis=0) - low <= steps + 1e-12)
    assert np.all(high - values.max(axis=0) <= steps + 1e-12)


@pytest.mark.parametrize("name", sorted(BOUND_BY_ZERO - {"reciprocal_above"}))
def test_an_interval_around_a_pole_has_no_image(name: str) -> None:
    with pytest.raises(ModelError, match=f"{name} of values between -1 and 2 is not bounded"):
        interval_image(name, (), np.array([-1.0]), np.array([2.0]))


def test_left_of_its_pole_a_reciprocal_is_bounded() -> None:
    low, high = interval_image("reciprocal", (), np.array([-2.0]), np.array([-0.5]))
    assert (low[0], high[0]) == (-2.0, -0.5)


def test_the_image_of_a_point_is_the_value_there() -> None:
    point = np.array([0.4])
    low, high = interval_image("silu", (), point, point)
    assert low == high == real_function("silu", ())(point)


def test_a_threshold_inside_the_interval_counts_from_both_sides() -> None:
    low, high = interval_image("thresholded_relu", (-2.0,), np.array([-3.0]), np.array([-1.0]))
    assert low[0] == pytest.approx(-2.0)
    assert high[0] == 0.0


def test_an_unknown_function_is_refused_with_the_known_names() -> None:
    with pytest.raises(CircuitError, match=r"unknown function 'sine'.*sigmoid"):
        real_function("sine", ())


@pytest.mark.parametrize(
    ("name", "given"), [("relu", (1.0,)), ("clip", (0.0,)), ("polynomial", ())]
)
def test_a_wrong_number_of_parameters_is_refused(name: str, given: tuple[float, ...]) -> None:
    with pytest.raises(CircuitError, match=f"'{name}' takes"):
        real_function(name, given)


def test_an_empty_interval_is_refused() -> None:
    with pytest.raises(CircuitError, match="low <= high"):
        interval_image("relu", (), np.array([1.0]), np.array([0.0]))
