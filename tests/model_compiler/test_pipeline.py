"""Whole compilations: ONNX in, artifact out, against ONNX's reference evaluator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tacit import packing
from tacit.artifact import Artifact, load, load_public
from tacit.circuit import execute
from tacit.errors import InputRangeError, InputShapeError, ParameterError, UnsupportedModelError
from tacit.model_compiler import CompileOptions, compile_model
from tacit.model_compiler.leveled_passes import LEVELED_PASSES
from tacit.model_compiler.pipeline import FIRST_PASSES
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.clear import ClearEvaluator

Floats = NDArray[np.float64]

PASSES = (*FIRST_PASSES, *LEVELED_PASSES)


def _perceptron(sizes: Sequence[int], activations: Sequence[str], seed: int = 0) -> onnx.ModelProto:
    """Draw a perceptron of Gemm nodes; `activations[i]` follows layer i unless it is ""."""
    generator = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    tensor = "x"
    for index, (width, height) in enumerate(pairwise(sizes)):
        weights = generator.normal(size=(height, width)) / np.sqrt(width)
        bias = generator.normal(size=height) * 0.1
        for name, values in ((f"w{index}", weights), (f"b{index}", bias)):
            constants.append(numpy_helper.from_array(values.astype(np.float32), name))
        reads, written = [tensor, f"w{index}", f"b{index}"], f"h{index}"
        nodes.append(helper.make_node("Gemm", reads, [written], f"gemm{index}", transB=1))
        tensor = written
        if activations[index]:
            tensor = f"a{index}"
            nodes.append(helper.make_node(activations[index], [written], [tensor], f"act{index}"))
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", sizes[0]])],
        [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["N", sizes[-1]])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def _rows(count: int, size: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, (count, size)).astype(np.float32)


def _reference(model: onnx.ModelProto, rows: NDArray[np.float32]) -> Floats:
    results = ReferenceEvaluator(model).run(None, {"x": rows})
    assert isinstance(results, list)
    return np.asarray(results[0], dtype=np.float64)


def _run(artifact: Artifact, plan_name: str, rows: NDArray[np.float32], noise: bool) -> Floats:
    """Run the deployed circuit on the clear backend, as `tacit simulate` does."""
    signature = artifact.signature
    plan = signature.plan(plan_name)
    vectors = packing.pack(plan, packing.core_inputs(signature, {"x": rows}))
    evaluator = ClearEvaluator(signature.params, noise=noise)
    levels = [spec.level for spec in plan.inputs for _ in range(spec.layout.ciphertexts)]
    inputs = [evaluator.encrypt(vectors[:, i], level) for i, level in enumerate(levels)]
    results = execute(artifact.circuits[plan_name], inputs, evaluator)
    assert evaluator.overflows == 0
    outputs = packing.unpack(plan, np.stack([r.values for r in results], axis=1), len(rows))
    (result,) = packing.model_outputs(signature, outputs).values()
    return np.asarray(result, dtype=np.float64)


def _greatest_error(artifact: Artifact) -> float:
    """Return what the report admits of the polynomials' error, in value units."""
    (spec,) = artifact.signature.plans[0].outputs
    approximation = artifact.report["approximation"]
    assert isinstance(approximation, dict)
    return float(max(approximation["error_of_half_range"].values()) * spec.scale)


MODELS = {
    "regression": ((13, 1), ("",)),
    "logistic": ((30, 1), ("Sigmoid",)),
    "two layers": ((20, 12, 3), ("Tanh", "")),
    "rectified": ((10, 8, 2), ("Relu", "")),
    "odd sizes": ((7, 5, 9, 1), ("Sigmoid", "Tanh", "")),
}


@pytest.mark.parametrize("name", MODELS)
def test_compiled_models_agree_with_onnx_within_the_reported_error(
    name: str, tmp_path: Path
) -> None:
    sizes, activations = MODELS[name]
    model = _perceptron(sizes, activations)
    rows = _rows(200, sizes[0])
    options = CompileOptions(name="small", calibration=rows, accuracy=0.01, precision_bits=12)
    artifact = compile_model(model, tmp_path, options=options)
    expected = _reference(model, rows)
    for plan in artifact.signature.plans:
        clear = _run(artifact, plan.name, rows, noise=False)
        assert np.abs(clear - expected).max() <= _greatest_error(artifact) + 1e-6
        (spec,) = plan.outputs
        noisy = _run(artifact, plan.name, rows[:32], noise=True)
        assert np.abs(noisy - clear[:32]).max() <= 2.0**-12 * float(spec.scale) + 1e-6


def test_the_saved_artifact_loads_as_it_was_returned(tmp_path: Path) -> None:
    model, rows = _perceptron((13, 1), ("",)), _rows(50, 13)
    options = CompileOptions(name="linear", version="3", calibration=rows)
    artifact = compile_model(model, tmp_path, options=options)
    loaded = load(tmp_path)
    assert loaded.signature.digest == artifact.signature.digest == load_public(tmp_path).digest
    assert (loaded.signature.model, loaded.signature.version) == ("linear", "3")
    assert json.loads(json.dumps(artifact.report)) == loaded.report
    expected = _run(artifact, "latency", rows, noise=False)
    assert np.array_equal(_run(loaded, "latency", rows, noise=False), expected)


def test_a_model_read_from_a_file_is_named_after_it(tmp_path: Path) -> None:
    path = tmp_path / "risk.onnx"
    onnx.save(_perceptron((4, 1), ("",)), str(path))
    artifact = compile_model(path, tmp_path / "out")
    assert artifact.signature.model == "risk"


def test_without_calibration_the_declared_range_holds(tmp_path: Path) -> None:
    model = _perceptron((6, 4, 1), ("Sigmoid", ""))
    options = CompileOptions(name="m", input_range=(-2.0, 3.0), accuracy=0.01, precision_bits=12)
    artifact = compile_model(model, tmp_path, options=options)
    (spec,) = artifact.signature.plans[0].inputs
    assert (float(spec.low), float(spec.high)) == (-2.0, 3.0)
    rows = np.random.default_rng(1).uniform(-2, 3, (64, 6)).astype(np.float32)
    error = np.abs(_run(artifact, "latency", rows, noise=False) - _reference(model, rows)).max()
    assert error <= 2.0 * _greatest_error(artifact) + 1e-6
    with pytest.raises(InputRangeError):
        _run(artifact, "latency", rows + 10, noise=False)


def test_parameters_are_secure_unless_others_are_given(tmp_path: Path) -> None:
    model = _perceptron((6, 4, 1), ("Tanh", ""))
    secure = compile_model(model, tmp_path / "a", options=CompileOptions(name="m"))
    assert secure.signature.params.security is Security.CLASSICAL_128
    depth = secure.report["depth"]
    assert isinstance(depth, int)
    tiny = CryptoParams.choose(10, depth + 1, 40, 50, 1, Security.UNCHECKED_INSECURE)
    options = CompileOptions(name="m", params=tiny)
    artifact = compile_model(model, tmp_path / "b", options=options)
    assert artifact.signature.params == tiny
    assert artifact.signature.notes["security"] == Security.UNCHECKED_INSECURE.value
    assert all(spec.level <= depth for plan in artifact.signature.plans for spec in plan.inputs)


def test_parameters_with_too_few_levels_are_refused(tmp_path: Path) -> None:
    tiny = CryptoParams.choose(10, 1, 40, 50, 1, Security.UNCHECKED_INSECURE)
    with pytest.raises(ParameterError, match="levels"):
        compile_model(
            _perceptron((6, 4, 1), ("Tanh", "")), tmp_path, options=CompileOptions(params=tiny)
        )


def test_only_the_plans_asked_for_are_made(tmp_path: Path) -> None:
    model = _perceptron((13, 1), ("",))
    for plans in (("latency",), ("batch",), ("latency", "batch")):
        options = CompileOptions(name="m", plans=plans)
        artifact = compile_model(model, tmp_path, options=options)
        assert tuple(artifact.circuits) == plans
        assert artifact.signature.relinearization is False


def test_few_rows_take_the_latency_plan_and_many_the_batch_plan(tmp_path: Path) -> None:
    options = CompileOptions(name="m", accuracy=0.01, precision_bits=12)
    artifact = compile_model(_perceptron((64, 32, 1), ("Tanh", "")), tmp_path, options=options)
    assert artifact.signature.plan_for(1).name == "latency"
    assert artifact.signature.plan_for(100_000).name == "batch"


def test_rows_of_another_width_are_refused(tmp_path: Path) -> None:
    model = _perceptron((13, 1), ("",))
    with pytest.raises(InputShapeError, match=r"\(rows, 13\)"):
        compile_model(model, tmp_path, options=CompileOptions(calibration=_rows(5, 12)))
    with pytest.raises(InputShapeError, match="'x'"):
        compile_model(model, tmp_path, options=CompileOptions(calibration={"z": _rows(5, 13)}))


def test_unsupported_nodes_stop_the_first_pass(tmp_path: Path) -> None:
    model = _perceptron((13, 4), ("NonZero",))
    with pytest.raises(UnsupportedModelError):
        compile_model(model, tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_progress_names_every_pass_in_order(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    compile_model(
        _perceptron((13, 1), ("",)), tmp_path, progress=lambda n, part: told.append((n, part))
    )
    assert [name for name, _ in told] == [*(name for name, _ in PASSES), "save"]
    assert [part for _, part in told] == sorted(part for _, part in told)
    assert told[-1][1] == 1.0


def test_the_report_explains_the_compilation(tmp_path: Path) -> None:
    model, rows = _perceptron((20, 12, 3), ("Tanh", "")), _rows(100, 20)
    artifact = compile_model(model, tmp_path, options=CompileOptions(calibration=rows))
    report = json.loads(json.dumps(artifact.report))
    assert report["depth"] >= 3
    assert [a["function"] for a in report["activations"]] == ["tanh"]
    assert report["parameters"]["log_qp"] == pytest.approx(artifact.signature.params.log_qp)
    assert set(report["pass_seconds"]) == {name for name, _ in PASSES}
    assert report["key_bytes"] == artifact.signature.key_bytes
    latency = report["plans"]["latency"]
    assert latency["rotation_keys"] == len(artifact.signature.plan("latency").rotations)
    assert sum(latency["seconds_by_layer"].values()) == pytest.approx(latency["seconds"])
    assert latency["levels"][-1]["level"] == 0
    assert set(report["plan_reasons"]) == {"latency", "batch"}


def _approximation(artifact: Artifact) -> dict[str, object]:
    facts = artifact.report["approximation"]
    assert isinstance(facts, dict)
    return facts


def test_the_default_accuracy_is_kept_on_rows_never_seen(tmp_path: Path) -> None:
    model = _perceptron((10, 16, 3), ("Relu", ""))
    options = CompileOptions(calibration=_rows(1000, 10))
    artifact = compile_model(model, tmp_path, options=options)
    facts = _approximation(artifact)
    assert facts["within_budget"]
    assert facts["warnings"] == []
    unseen = _rows(2000, 10, seed=1)
    expected, got = _reference(model, unseen), _run(artifact, "latency", unseen, noise=False)
    errors = np.abs(got - expected).max(axis=1) / np.ptp(expected)
    assert np.sqrt(np.mean(errors**2)) <= 1.25 * options.accuracy
    two = np.sort(expected, axis=1)[:, -2:]
    clear = two[:, 1] - two[:, 0] > 2 * options.accuracy * np.ptp(expected)
    same = got.argmax(axis=1) == expected.argmax(axis=1)
    assert np.mean(same) >= 0.97
    assert np.mean(same[clear]) >= 0.995
    sure = two[:, 1] - two[:, 0] > 2 * errors.max() * np.ptp(expected)
    assert np.array_equal(got[sure].argmax(axis=1), expected[sure].argmax(axis=1))


def test_an_accuracy_out_of_reach_takes_the_best_bargain_and_warns(tmp_path: Path) -> None:
    """Degree 127 everywhere would need 33 levels: no ring has them."""
    model = _perceptron((6, 8, 8, 8, 8, 2), ("Relu", "Relu", "Relu", "Relu", ""))
    options = CompileOptions(
        calibration=_rows(300, 6),
        accuracy=1e-6,
        precision_bits=12,
        plans=("latency",),
        bootstrap="never",
    )
    artifact = compile_model(model, tmp_path, options=options)
    facts = _approximation(artifact)
    assert facts["within_budget"] is False
    warnings = facts["warnings"]
    assert isinstance(warnings, list)
    (warning,) = warnings
    assert "1e-06" in warning
    assert f"{facts['rms_error_of_output_range']:.3g}" in warning
    activations = artifact.report["activations"]
    assert isinstance(activations, list)
    assert all(3 < a["degree"] < 126 for a in activations)
    assert sum(a["levels"] for a in activations) + 5 <= artifact.signature.params.depth


def test_the_public_half_holds_no_weight(tmp_path: Path) -> None:
    """Two models that differ in their weights alone have the same public half."""
    rows = _rows(100, 13)
    options = CompileOptions(name="m", calibration=rows, input_range=(-1.0, 1.0))
    parts = []
    for seed in (0, 1):
        model = _perceptron((13, 1), ("",), seed)
        fields = compile_model(model, tmp_path, options=options).signature.to_json()
        plans = fields["plans"]
        assert isinstance(plans, list)
        for plan in plans:
            plan.pop("precision_bits")
            plan["outputs"] = [(o["name"], o["shape"], o["level"]) for o in plan["outputs"]]
        fields.pop("private_digest")
        parts.append(fields)
    assert parts[0] == parts[1]


@pytest.mark.parametrize(
    "wrong",
    [{"plans": ()}, {"plans": ("fast",)}, {"accuracy": 0.0}, {"precision_bits": 60.0}],
    ids=str,
)
def test_impossible_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError):
        CompileOptions(**wrong)  # type: ignore[arg-type]
