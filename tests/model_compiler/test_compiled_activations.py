"""Networks with kinks, comparisons, softmax and normalisations: compiled, simulated, encrypted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.artifact import Artifact
from tacit.errors import ModelError
from tacit.model_compiler import CompileOptions, compile_model
from tacit.runtime.simulate import simulate
from tests.model_compiler.encrypted import run_encrypted, tiny_insecure
from tests.model_compiler.onnx_models import build, reference

Floats = NDArray[np.float64]

INPUT = {"X": (12,)}


def _weights(*shape: int, seed: int) -> Floats:
    drawn = np.random.default_rng(seed).normal(size=shape)
    return np.asarray(drawn * np.sqrt(1.5 / shape[0]))


CONSTANTS: dict[str, Floats] = {
    "A": _weights(12, 16, seed=1),
    "B": 0.3 * _weights(16, seed=2),
    "C": _weights(16, 16, seed=3),
    "S": 1.0 + 0.2 * _weights(16, seed=4),
    "O": _weights(16, 4, seed=5),
    "ONE": np.array(1.0),
}
NETWORKS = {
    "relu": "H = Gemm(X, A, B)\nM = Relu(H)\nY = MatMul(M, O)",
    "abs": "H = Gemm(X, A, B)\nM = Abs(H)\nY = MatMul(M, O)",
    "max": "H = Gemm(X, A, B)\nG = MatMul(H, C)\nM = Max(H, G)\nY = MatMul(M, O)",
    "where": "H = Gemm(X, A, B)\nG = MatMul(H, C)\nI = Greater(H, G)\nM = Where(I, H, G)\n"
    "Y = MatMul(M, O)",
    "softmax": "H = Gemm(X, A, B)\nM = Softmax<axis=-1>(H)\nY = MatMul(M, O)",
    "layer": "H = Gemm(X, A, B)\nM = LayerNormalization(H, S, B)\nT = Tanh(M)\nY = MatMul(T, O)",
    "root_mean_square": "H = Gemm(X, A, B)\nQ = Mul(H, H)\nR = ReduceMean<axes=[1]>(Q)\n"
    "E = Add(R, ONE)\nD = Sqrt(E)\nM = Div(H, D)\nY = MatMul(M, O)",
    "logarithm": "H = Gemm(X, A, B)\nQ = Mul(H, H)\nE = Add(Q, ONE)\nM = Log(E)\nY = MatMul(M, O)",
}


def rows(count: int, seed: int) -> Floats:
    return np.clip(np.random.default_rng(seed).normal(size=(count, 12)), -2.5, 2.5)


def compiled(name: str, out: Path, **options: Any) -> tuple[Artifact, Any]:
    model = build(NETWORKS[name], INPUT, CONSTANTS)
    # Which way is faster is asked of one network only: the search takes most of a compilation.
    way = "auto" if name == "relu" else "never"
    given = {"calibration": rows(1000, 0), "plans": ("latency",), "bootstrap": way, **options}
    return compile_model(model, out, options=CompileOptions(name="m", **given)), model


def only_activation(artifact: Artifact) -> dict[str, Any]:
    activations: Any = artifact.report["activations"]
    (report,) = activations
    return dict(report)


def relative_rms(got: Floats, expected: Floats) -> float:
    worst = np.abs(got - expected).max(axis=1) / np.ptp(expected)
    return float(np.sqrt(np.mean(worst**2)))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_keeps_the_default_accuracy_on_rows_never_seen(name: str, tmp_path: Path) -> None:
    artifact, model = compiled(name, tmp_path, input_range=(-2.5, 2.5))
    approximation: Any = artifact.report["approximation"]
    assert approximation["within_budget"]
    unseen = rows(500, 1)
    result = simulate(artifact, unseen, noise=True)
    assert result.overflows == 0
    assert relative_rms(result.outputs["Y"], reference(model, {"X": unseen})[0]) <= 1.5 * 0.006


@pytest.mark.parametrize("name", ["relu", "abs"])
def test_a_fine_accuracy_takes_a_composite_sign(name: str, tmp_path: Path) -> None:
    artifact, model = compiled(name, tmp_path, input_range=(-2.5, 2.5), accuracy=2e-5)
    report = only_activation(artifact)
    assert len(report["degrees"]) > 1
    assert 0.0 < report["margin"] < 2.0**-5
    unseen = rows(500, 1)
    result = simulate(artifact, unseen, noise=True)
    assert result.overflows == 0
    assert relative_rms(result.outputs["Y"], reference(model, {"X": unseen})[0]) <= 1e-4


@pytest.mark.parametrize("name", ["relu", "max", "softmax", "root_mean_square"])
def test_encrypted_answers_equal_the_simulated_ones(name: str, tmp_path: Path) -> None:
    pytest.importorskip("openfhe", reason="openfhe does not import here")
    artifact, _ = compiled(
        name, tmp_path, input_range=(-2.5, 2.5), accuracy=0.02, params=tiny_insecure(17)
    )
    some = rows(2, 2)
    got, want = run_encrypted(artifact, {"X": some}), simulate(artifact, some).outputs
    np.testing.assert_allclose(got["Y"], want["Y"], atol=2.0**-10 * np.abs(want["Y"]).max())


def test_an_encrypted_composite_equals_the_simulated_one(tmp_path: Path) -> None:
    pytest.importorskip("openfhe", reason="openfhe does not import here")
    artifact, _ = compiled(
        "relu", tmp_path, input_range=(-2.5, 2.5), accuracy=1e-4, params=tiny_insecure(20)
    )
    report = only_activation(artifact)
    assert len(report["degrees"]) > 1
    some = rows(2, 2)
    got, want = run_encrypted(artifact, {"X": some}), simulate(artifact, some).outputs
    np.testing.assert_allclose(got["Y"], want["Y"], atol=2.0**-14 * np.abs(want["Y"]).max())


def test_rows_beyond_the_calibrated_ones_show_as_overflows(tmp_path: Path) -> None:
    """Calibrated on small rows but declared for large ones, the polynomial leaves its domain."""
    model = build(NETWORKS["relu"], INPUT, CONSTANTS)
    options = CompileOptions(
        name="m", calibration=0.05 * rows(500, 0), input_range=(-2.5, 2.5), margin=1.0,
        plans=("latency",), accuracy=1e-3,
    )  # fmt: skip
    artifact = compile_model(model, tmp_path, options=options)
    report = only_activation(artifact)
    assert report["reach"] <= 1.0 + 1e-9
    assert simulate(artifact, 0.05 * rows(100, 1)).overflows == 0
    assert simulate(artifact, rows(100, 1)).overflows > 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("H = Gemm(X, A, B)\nM = Log(H)\nY = MatMul(M, O)", "one side of 0"),
        ("H = Gemm(X, A, B)\nM = Reciprocal(H)\nY = MatMul(M, O)", "one side of 0"),
    ],
)
def test_a_pole_inside_the_range_is_refused_with_the_node(
    text: str, reason: str, tmp_path: Path
) -> None:
    model = build(text, INPUT, CONSTANTS)
    with pytest.raises(ModelError, match=reason):
        compile_model(model, tmp_path, options=CompileOptions(calibration=rows(100, 0)))


def test_without_data_a_pole_inside_the_bounds_is_refused(tmp_path: Path) -> None:
    model = build("H = Gemm(X, A, B)\nM = Reciprocal(H)\nY = MatMul(M, O)", INPUT, CONSTANTS)
    with pytest.raises(ModelError, match="declare narrower input ranges"):
        compile_model(model, tmp_path, options=CompileOptions(input_range=(-1.0, 1.0)))
