"""Networks whose activations are bootstraps: from ONNX to ciphertexts, against ONNX's reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tacit.artifact import Artifact, load
from tacit.bootstrap import Bootstrap
from tacit.circuit import Circuit, Op, execute
from tacit.errors import ParameterError
from tacit.kernels.build import build_if_stale
from tacit.model_compiler import CompileOptions, compile_model
from tacit.params import CryptoParams, SecretDistribution, Security
from tacit.runtime.backends.clear import ClearEvaluator
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.simulate import simulate
from tests.model_compiler.encrypted import run_bootstrapped
from tests.model_compiler.onnx_models import build, reference

Floats = NDArray[np.float64]

RESIDUAL = """
a = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(X, W1)
r = Relu(a)
b = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(r, W2)
s = LeakyRelu<alpha=0.1>(b)
c = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(s, W3)
d = Add(c, r)
e = Relu(d)
f = MaxPool<kernel_shape=[2,2],strides=[2,2]>(e)
h = Flatten(f)
Y = Gemm(h, W4, B4)
"""
SHAPE = (2, 6, 6)


def tiny_insecure(log_n: int = 9, depth: int = 24) -> CryptoParams:
    kinds = (Security.UNCHECKED_INSECURE, SecretDistribution.SPARSE_ENCAPSULATED)
    return CryptoParams.choose(log_n, depth, 40, 41, 3, *kinds)


def residual_network() -> onnx.ModelProto:
    generator = np.random.default_rng(0)

    def weights(*shape: int) -> Floats:
        return np.asarray(generator.normal(size=shape) / np.sqrt(np.prod(shape[1:])))

    constants = {
        "W1": weights(4, 2, 3, 3),
        "W2": weights(4, 4, 3, 3),
        "W3": weights(4, 4, 3, 3),
        "W4": weights(36, 5),
        "B4": weights(5, 1)[:, 0],
    }
    return build(RESIDUAL, {"X": SHAPE}, constants)


def rows(count: int, seed: int) -> Floats:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (count, *SHAPE))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("residual") / "model"
    options = CompileOptions(
        calibration=rows(200, 1), params=tiny_insecure(), bootstrap="always", plans=("latency",)
    )
    compile_model(residual_network(), folder, options=options)
    return load(folder)


def test_a_residual_network_is_simulated_as_onnx_says(artifact: Artifact) -> None:
    test = rows(40, 2)
    (exact,) = reference(residual_network(), {"X": test})
    for noise in (False, True):
        found = simulate(artifact, test, noise=noise)
        assert found.overflows == 0
        error = np.abs(found.outputs["Y"] - exact)
        # The budget: 0.006 of the outputs' range as a root mean square, 12 times that at most.
        assert np.sqrt(np.mean(error.max(axis=1) ** 2)) < 0.012 * np.ptp(exact)
        assert error.max() < 12 * 0.006 * np.ptp(exact)


@pytest.mark.parametrize("backend", list(BackendName))
def test_a_residual_network_is_evaluated_on_ciphertexts(
    artifact: Artifact, tmp_path: Path, backend: BackendName
) -> None:
    if backend is BackendName.NATIVE and not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    test = rows(2, 3)
    expected = simulate(artifact, test).outputs["Y"]
    got = run_bootstrapped(artifact, {"X": test}, tmp_path / "keys", backend)["Y"]
    # Simulated noise has a deviation of 1e-7 of the range; 40 deviations and room for its model.
    assert np.abs(got - expected).max() < 2.0**-12 * np.ptp(expected)


def test_every_activation_is_one_bootstrap_and_all_share_their_stages(artifact: Artifact) -> None:
    circuit = artifact.circuits["latency"]
    plans = [node.attribute for node in circuit.nodes if node.op is Op.BOOTSTRAP]
    # Two rectified layers and a pooling of four: relu is pooled with its window, in three rounds.
    assert len(plans) == 5
    stages = {(plan.to_coefficients, plan.to_slots) for plan in plans}  # type: ignore[union-attr]
    assert len(stages) == 1
    assert not any(node.op is Op.CHEBYSHEV for node in circuit.nodes)


def test_the_report_counts_bootstraps_and_gives_margin_degree_and_error(artifact: Artifact) -> None:
    report = artifact.report
    facts = report["bootstraps"]
    assert isinstance(facts, dict)
    assert facts["count"] == {"latency": 5}
    assert facts["reason"] == "as asked for"
    activations = report["activations"]
    assert isinstance(activations, list)
    assert all(a["bootstrapped"] and a["degree"] in (15, 31, 63, 127) for a in activations)
    assert all(0.0 < a["reach"] <= 1.0 / 1.25 + 1e-9 and a["clipped"] == 0.0 for a in activations)
    assert all(0.0 < a["mean_error"] < a["max_error"] for a in activations)


def test_values_far_outside_their_range_wrap_around_in_simulation(artifact: Artifact) -> None:
    circuit = artifact.circuits["latency"]
    place = next(i for i, node in enumerate(circuit.nodes) if node.op is Op.BOOTSTRAP)
    node = circuit.nodes[place]
    alone = Circuit(
        circuit.slots,
        (0,),
        (1,),
        (replace(node, inputs=(0,), outputs=(1,)),),
        (circuit.types[node.inputs[0]], circuit.types[node.outputs[0]]),
        circuit.constants,
    )
    clear = ClearEvaluator(artifact.signature.params)
    inside = np.random.default_rng(0).uniform(-0.5, 0.5, circuit.slots)
    level, plan = circuit.types[node.inputs[0]].level, node.attribute
    assert isinstance(plan, Bootstrap)
    assert plan.period == 1.25  # relu has a kink
    answers = [
        execute(alone, [clear.encrypt(inside + shift, level)], clear)[0].values
        for shift in (0.0, plan.period / 2.0, plan.period)
    ]
    assert np.abs(answers[0] - answers[1]).max() > 0.1
    np.testing.assert_allclose(answers[0], answers[2], atol=1e-9)


def test_given_parameters_that_are_too_shallow_are_refused(tmp_path: Path) -> None:
    options = CompileOptions(
        calibration=rows(20, 1), params=tiny_insecure(depth=9), bootstrap="always"
    )
    with pytest.raises(ParameterError, match="level"):
        compile_model(residual_network(), tmp_path, options=options)


def test_a_bootstrapped_model_has_no_batch_plan(tmp_path: Path) -> None:
    options = CompileOptions(
        calibration=rows(20, 1), params=tiny_insecure(), bootstrap="always", plans=("batch",)
    )
    with pytest.raises(ParameterError, match="latency plan"):
        compile_model(residual_network(), tmp_path, options=options)


def test_squares_too_deep_for_the_parameters_are_refreshed(tmp_path: Path) -> None:
    rounds = 18
    lines = [f"s{i} = Mul(t{i}, t{i})\nt{i + 1} = Add(s{i}, B)" for i in range(rounds)]
    text = "\n".join(lines).replace("t0,", "X,").replace("t0)", "X)")
    text = text.replace(f"t{rounds} =", "Y =")
    model = build(text, {"X": (4,)}, {"B": np.asarray([-0.6])})
    test = np.random.default_rng(0).uniform(-0.9, 0.9, (50, 4))
    options = CompileOptions(
        calibration=test, params=tiny_insecure(), bootstrap="always", plans=("latency",)
    )
    made = compile_model(model, tmp_path, options=options)
    refreshed = [n for n in made.circuits["latency"].nodes if n.op is Op.BOOTSTRAP]
    assert refreshed
    (exact,) = reference(model, {"X": test})
    found = simulate(made, test, clip=True).outputs["Y"]
    np.testing.assert_allclose(found, exact, atol=0.05)
