"""Functions with two kinks, as two composite signs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.model_compiler import CompileOptions, compile_model
from tacit.model_compiler.composite import SIGN_DEGREES
from tacit.model_compiler.functions import real_function
from tacit.model_compiler.graph import Activation, Graph, evaluate
from tacit.model_compiler.onnx_import import import_onnx
from tacit.model_compiler.passes.kinks import compose_kinks, kinked_of
from tacit.model_compiler.passes.replacements import Choice, replacement
from tacit.runtime.simulate import simulate
from tests.model_compiler.encrypted import run_encrypted, tiny_insecure
from tests.model_compiler.onnx_models import build, reference, run_imported

Floats = NDArray[np.float64]

FUNCTIONS: dict[str, tuple[float, ...]] = {
    "clip": (-0.75, 1.5),
    "hard_sigmoid": (0.3, 0.4),
    "hard_swish": (),
    "shrink": (0.5, 0.5),
}
DOMAINS = ((0.0, 4.0), (1.0, 5.0), (3.0, 2.5), (0.0, 0.25))


def _even(edges: Floats) -> Floats:
    return np.asarray(np.diff(edges) / np.ptp(edges))


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_with_exact_signs_the_form_is_the_function(
    function: str, domain: tuple[float, float]
) -> None:
    node = Activation("y", "x", function, FUNCTIONS[function], "n")
    kinked = kinked_of(node)
    assert kinked is not None
    near = kinked.within(domain)
    x: Floats = np.linspace(domain[0] - domain[1], domain[0] + domain[1], 4001).astype(np.float64)
    exact = real_function(function, FUNCTIONS[function])(x)
    for form in (kinked, near):
        total = np.polynomial.polynomial.polyval(x, form.base)
        for term in form.terms:
            total += np.polynomial.polynomial.polyval(x, term.factor) * np.sign(x - term.at)
        np.testing.assert_allclose(total, exact, atol=1e-12)
    assert all(abs(term.at - domain[0]) < domain[1] for term in near.terms)


@pytest.mark.parametrize("levels", [8, 11, 13])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_nodes_keep_the_error_that_is_stated(function: str, levels: int) -> None:
    node = Activation("y", "x", function, FUNCTIONS[function], "n")
    domain = (0.0, 4.0)
    found = kinked_of(node)
    assert found is not None
    made = compose_kinks(node, found.within(domain), SIGN_DEGREES[levels], domain, 1, _even)
    shapes = dict.fromkeys(("x", *(n.output for n in made.nodes)), (1,))
    graph = Graph("g", ("x",), ("y",), shapes, made.nodes)
    x: Floats = np.linspace(-4.0, 4.0, 8001).astype(np.float64)
    exact = real_function(function, FUNCTIONS[function])(x)
    error = np.abs(evaluate(graph, {"x": x[:, None]})["y"][:, 0] - exact)
    assert error.max() <= 1.05 * made.max_error
    assert np.sqrt(np.mean(error**2)) <= 1.1 * made.rms_error
    assert made.max_error <= {8: 0.02, 11: 0.004, 13: 0.001}[levels] * made.magnitude


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_second_sign_costs_no_level(function: str) -> None:
    node = Activation("y", "x", function, FUNCTIONS[function], "n")
    made = replacement(node, Choice(SIGN_DEGREES[9], composite=True), (0.0, 4.0), 3, None)
    one = Activation("y", "x", "relu", (), "n")
    relu = replacement(one, Choice(SIGN_DEGREES[9], composite=True), (0.0, 4.0), 3, None)
    assert made.levels == relu.levels == 10
    assert made.products <= 2 * relu.products + 2  # a quadratic factor each


@pytest.mark.parametrize(
    ("function", "parameters"), [("shrink", (0.5, 0.0)), ("relu", ()), ("clip", (0.0, 1.0))]
)
def test_only_continuous_functions_with_two_kinks_have_the_form(
    function: str, parameters: tuple[float, ...]
) -> None:
    node = Activation("y", "x", function, parameters, "n")
    assert (kinked_of(node) is not None) == (function == "clip")


GENERATOR = np.random.default_rng(3)
CONSTANTS: dict[str, Any] = {
    "A": GENERATOR.normal(size=(12, 16)) * 0.5,
    "O": GENERATOR.normal(size=(16, 4)) * 0.4,
    "LOW": np.array(-1.0),
    "HIGH": np.array(1.0),
    "SIX": np.array(6.0),
    "ZERO": np.array(0.0),
}
NETWORKS = {
    "hard_tanh": "H = Gemm(X, A)\nM = Clip(H, LOW, HIGH)\nY = MatMul(M, O)",
    "relu6": "H = Gemm(X, A)\nM = Clip(H, ZERO, SIX)\nY = MatMul(M, O)",
    "hard_sigmoid": "H = Gemm(X, A)\nM = HardSigmoid(H)\nY = MatMul(M, O)",
    "hard_swish": "H = Gemm(X, A)\nM = HardSwish(H)\nY = MatMul(M, O)",
    "soft_shrink": "H = Gemm(X, A)\nM = Shrink<lambd=0.5, bias=0.5>(H)\nY = MatMul(M, O)",
}
ROWS = np.clip(GENERATOR.normal(size=(1000, 12)), -2.5, 2.5)


@pytest.mark.parametrize(
    "name",
    [n if n == "hard_swish" else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS],
)
def test_a_fine_accuracy_takes_composites_and_keeps_it(name: str, tmp_path: Path) -> None:
    model = build(NETWORKS[name], {"X": (12,)}, CONSTANTS)
    options = CompileOptions(name="m", calibration=ROWS, plans=("latency",), accuracy=1e-4)
    artifact = compile_model(model, tmp_path, options=options)
    activations: Any = artifact.report["activations"]
    assert [len(report["degrees"]) > 2 for report in activations] == [True]
    result = simulate(artifact, ROWS[:300], noise=True)
    (expected,) = reference(model, {"X": ROWS[:300]})
    worst = np.abs(result.outputs["Y"] - expected).max(axis=1) / np.ptp(expected)
    assert np.sqrt(np.mean(worst**2)) <= 3e-4
    assert result.overflows == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hard_tanh", "hard_swish"])
def test_encrypted_composites_equal_the_simulated_ones(name: str, tmp_path: Path) -> None:
    pytest.importorskip("openfhe", reason="openfhe does not import here")
    model = build(NETWORKS[name], {"X": (12,)}, CONSTANTS)
    options = CompileOptions(
        name="m", calibration=ROWS, plans=("latency",), accuracy=1e-4, params=tiny_insecure(20)
    )
    artifact = compile_model(model, tmp_path, options=options)
    simulated = simulate(artifact, ROWS[:3], "latency").outputs["Y"]
    got = run_encrypted(artifact, {"X": ROWS[:3]})["Y"]
    assert np.abs(got - simulated).max() <= 2.0**-8 * np.ptp(simulated)


@pytest.mark.parametrize(
    "text", ["Y = Clip(H, ZERO, SIX)", "Y = HardSigmoid<alpha=0.3>(H)", "Y = Clip(H, LOW, HIGH)"]
)
def test_limits_at_the_end_are_for_the_client(text: str) -> None:
    model = build(f"H = Gemm(X, A)\n{text}", {"X": (12,)}, CONSTANTS)
    graph = import_onnx(model, name="m")
    assert [type(node).__name__ for node in graph.nodes] == ["Affine"]
    (got,) = run_imported(graph, {"X": ROWS})
    np.testing.assert_allclose(got, reference(model, {"X": ROWS})[0], atol=1e-5)
    kept = import_onnx(model, name="m", keep_on_server=True)
    assert [type(node).__name__ for node in kept.nodes] == ["Affine", "Activation"]
