"""The row with a known answer: honest answers pass, faults of the evaluation are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit import packing
from tacit.artifact import Artifact, load
from tacit.circuit import execute
from tacit.errors import AnswerError, ArtifactError, OverflowedAnswerError, WrongAnswerError
from tacit.known_answer import check_known_answer, check_probe
from tacit.model_compiler.options import CompileOptions
from tacit.model_compiler.pipeline import compile_model
from tacit.model_compiler.report import summary_lines
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.clear import ClearEvaluator
from tacit.runtime.backends.native_ciphertext import NativeCiphertext
from tacit.runtime.simulate import simulate
from tacit.signature import Plan, Signature
from tests.conformance.exchange import Exchange, make_exchange
from tests.model_compiler.onnx_models import build, reference

Floats = NDArray[np.float64]
ROWS = np.random.default_rng(2).uniform(-1.0, 1.0, size=(300, 6))
W = np.random.default_rng(3).normal(size=(6, 5))
V = np.random.default_rng(4).normal(size=(5, 3))
TEXT = "H = Gemm(X, W)\nT = Tanh(H)\nY = MatMul(T, V)"
PARAMS = CryptoParams.choose(10, 7, 40, 50, 3, Security.UNCHECKED_INSECURE)


def _compiled(directory: Path, weights: Floats = W, *, known: bool = True) -> Artifact:
    options = CompileOptions(
        name="m", calibration=ROWS, params=PARAMS, known_answer=known, accuracy=0.02
    )
    return compile_model(
        build(TEXT, {"X": (6,)}, {"W": weights, "V": V}), directory, options=options
    )


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return _compiled(tmp_path_factory.mktemp("known"))


@pytest.fixture(scope="module")
def exchange(artifact: Artifact) -> Exchange:
    return make_exchange(PARAMS, artifact.signature.rotations)


Harm = Callable[[list[NativeCiphertext], Exchange], list[NativeCiphertext]]


def _answers(
    artifact: Artifact, plan: Plan, vectors: Floats, exchange: Exchange, harm: Harm | None = None
) -> Floats:
    """Evaluate encrypted, natively; `harm` may touch the results."""
    levels = [spec.level for spec in plan.inputs for _ in range(spec.layout.ciphertexts)]
    answers = []
    for evaluation in vectors:
        inputs = [
            exchange.to_native(exchange.encrypt(values, level))
            for values, level in zip(evaluation, levels, strict=True)
        ]
        results = list(execute(artifact.circuits[plan.name], inputs, exchange.native))
        results = results if harm is None else harm(results, exchange)
        answers.append([exchange.decrypt(exchange.to_openfhe(result)) for result in results])
    return np.asarray(answers)


def _packed(artifact: Artifact, plan: Plan, rows: Floats) -> Floats:
    return packing.pack(plan, packing.core_inputs(artifact.signature, {"X": rows}))


@pytest.mark.parametrize("name", ["latency", "batch"])
def test_honest_encrypted_answers_pass_and_are_right(
    name: str, artifact: Artifact, exchange: Exchange
) -> None:
    plan = artifact.signature.plan(name)
    assert plan.known_answer is not None
    assert plan.batch == plan.inputs[0].layout.batch - 1
    rows = ROWS[: 2 * plan.batch] if name == "latency" else ROWS[:5]
    slots = _answers(artifact, plan, _packed(artifact, plan, rows), exchange)
    check_known_answer(PARAMS, plan, slots)
    outputs = packing.unpack(plan, slots, len(rows))
    got = packing.model_outputs(artifact.signature, outputs)["Y"]
    model = build(TEXT, {"X": (6,)}, {"W": W, "V": V})
    (expected,) = reference(model, {"X": rows})
    assert np.abs(got - expected).max() < 0.1 * np.ptp(expected)


def test_simulated_answers_pass_with_and_without_noise(artifact: Artifact) -> None:
    for name in ("latency", "batch"):
        plan = artifact.signature.plan(name)
        assert plan.known_answer is not None
        full = simulate(artifact, ROWS, name, noise=True).outputs["Y"]
        plain = simulate(artifact, ROWS, name).outputs["Y"]
        assert np.abs(full - plain).max() < 2.0**-8
        assert len(full) == len(ROWS)


def test_it_costs_no_level_and_no_key(artifact: Artifact, tmp_path: Path) -> None:
    plain = _compiled(tmp_path, known=False)
    for plan in plain.signature.plans:
        other = artifact.signature.plan(plan.name)
        assert plan.known_answer is None
        assert [spec.level for spec in other.inputs] == [spec.level for spec in plan.inputs]
        assert len(other.rotations) <= len(plan.rotations)
        assert plan.batch - other.batch in (0, 1) or plan.name == "latency"
    assert "known_answer" not in json.dumps(plain.signature.to_json())


def test_other_weights_are_told(artifact: Artifact, exchange: Exchange, tmp_path: Path) -> None:
    weights = W.copy()
    weights[2, 1] += 0.2
    other = _compiled(tmp_path, weights)
    for name in ("latency", "batch"):
        plan = artifact.signature.plan(name)
        assert other.signature.plan(name).inputs[0].layout.batch == plan.inputs[0].layout.batch
        slots = _answers(other, plan, _packed(artifact, plan, ROWS[:1]), exchange)
        with pytest.raises(WrongAnswerError, match="other weights"):
            check_known_answer(PARAMS, plan, slots)


def test_a_row_far_outside_its_range_is_told(artifact: Artifact, exchange: Exchange) -> None:
    plan = artifact.signature.plan("latency")
    vectors = _packed(artifact, plan, ROWS[:1])
    layout = plan.inputs[0].layout
    cells = vectors.reshape(-1, layout.batch)
    cells[layout.cells[0], 0] = 5.0  # a customer without a range check; the polynomial explodes
    with pytest.raises(OverflowedAnswerError, match="outgrew"):
        check_known_answer(PARAMS, plan, _answers(artifact, plan, vectors, exchange))


def test_a_damaged_limb_is_told(artifact: Artifact, exchange: Exchange) -> None:
    plan = artifact.signature.plan("latency")

    def harm(results: list[NativeCiphertext], exchange: Exchange) -> list[NativeCiphertext]:
        limbs = exchange.native_keys.download(results[0]).copy()
        limbs[0, 0, 17] ^= np.uint64(1 << 44)
        made = exchange.native_keys.upload(limbs, results[0].level, results[0].degree)
        return [made, *results[1:]]

    vectors = _packed(artifact, plan, ROWS[:1])
    with pytest.raises((AnswerError, RuntimeError)):
        check_known_answer(PARAMS, plan, _answers(artifact, plan, vectors, exchange, harm))


def test_evaluation_keys_of_another_owner_are_told(artifact: Artifact, exchange: Exchange) -> None:
    other = make_exchange(PARAMS, artifact.signature.rotations)
    plan = artifact.signature.plan("latency")
    assert plan.rotations
    (spec,) = plan.inputs
    (vector,) = _packed(artifact, plan, ROWS[:1])
    inputs = [other.to_native(exchange.encrypt(values, spec.level)) for values in vector]
    (result,) = execute(artifact.circuits[plan.name], inputs, other.native)
    limbs = other.native_keys.download(result)
    back = exchange.native_keys.upload(limbs, result.level, result.degree)

    def read() -> None:
        slots = exchange.decrypt(exchange.to_openfhe(back))
        check_known_answer(PARAMS, plan, np.asarray([[slots]]))

    with pytest.raises((AnswerError, RuntimeError)):
        read()


def _slots(plan: Plan) -> Floats:
    """Return an honest answer's slots, but for the customer's rows, which are 0."""
    assert plan.known_answer is not None
    parts = []
    for spec in plan.outputs:
        rows = np.zeros((spec.layout.batch, spec.layout.size))
        rows[-1] = plan.known_answer.outputs[spec.name]
        parts.append(spec.layout.pack(rows))
    return np.concatenate(parts)[None]


def test_faults_are_told_apart(artifact: Artifact) -> None:
    plan = artifact.signature.plan("latency")
    assert plan.known_answer is not None
    honest = _slots(plan)
    check_known_answer(PARAMS, plan, honest)
    check_known_answer(PARAMS, plan, honest + 0.9 * plan.known_answer.tolerance)
    with pytest.raises(WrongAnswerError):
        check_known_answer(PARAMS, plan, honest + 1.1 * plan.known_answer.tolerance)
    with pytest.raises(OverflowedAnswerError, match="evaluation keys"):
        check_known_answer(PARAMS, plan, honest + 3.0)
    for value in (1e9, np.nan, np.inf):
        spoiled = honest.copy()
        spoiled[0, 0, 0] = value  # in a customer's row, where any slot is near the limit
        with pytest.raises(OverflowedAnswerError):
            check_known_answer(PARAMS, plan, spoiled)


def test_the_signature_keeps_it(artifact: Artifact, tmp_path: Path) -> None:
    again = Signature.from_json(json.loads(json.dumps(artifact.signature.to_json())))
    assert again.digest == artifact.signature.digest
    for plan in again.plans:
        check_known_answer(PARAMS, plan, _slots(plan))
    _compiled(tmp_path / "m")
    assert load(tmp_path / "m").signature.plans[0].known_answer is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [("tolerance", 0.0), ("tolerance", 2.0), ("inputs", {}), ("outputs", {"Y": [0.0]}),
     ("outputs", {"Y": [float("nan")] * 3}), ("inputs", {"X": "text"}), ("inputs", [1.0])],
)  # fmt: skip
def test_a_damaged_known_answer_is_refused(artifact: Artifact, field: str, value: object) -> None:
    fields = json.loads(json.dumps(artifact.signature.to_json()))
    fields["plans"][0]["known_answer"][field] = value
    with pytest.raises(ArtifactError):
        Signature.from_json(fields)


def test_a_plan_must_reserve_the_row(artifact: Artifact) -> None:
    plan = artifact.signature.plans[0]
    with pytest.raises(ArtifactError, match="reserves no row"):
        replace(plan, batch=plan.batch + 1)


def test_where_no_row_fits_there_is_a_probe_and_the_report_says_so(tmp_path: Path) -> None:
    size = PARAMS.slots
    model = build("Y = Mul(X, C)", {"X": (size,)}, {"C": np.linspace(0.5, 1.0, size)})
    options = CompileOptions(name="m", params=PARAMS, known_answer=True, plans=("latency",))
    artifact = compile_model(model, tmp_path, options=options)
    (plan,) = artifact.signature.plans
    assert plan.known_answer is None
    assert plan.probe is not None
    assert plan.batch == 1
    vectors = packing.known_vectors(plan)
    assert vectors is not None
    clear = ClearEvaluator(PARAMS, noise=True)
    inputs = [clear.encrypt(vector, plan.inputs[0].level) for vector in vectors[0]]
    answers = execute(artifact.circuits["latency"], inputs, clear)
    slots = np.stack([answer.values for answer in answers])[None]
    assert check_probe(PARAMS, plan, slots) < plan.probe.tolerance
    with pytest.raises(WrongAnswerError):
        check_probe(PARAMS, plan, slots + 2.0 * plan.probe.tolerance)
    check_known_answer(PARAMS, plan, slots + 2.0 * plan.probe.tolerance)  # no row to look at
    text = "\n".join(summary_lines(artifact))
    assert "in an evaluation of its own, as one row fills the ciphertexts" in text


def test_the_report_says_how_far_calibration_stays_inside_each_range(artifact: Artifact) -> None:
    layers = artifact.report["layers"]
    assert isinstance(layers, list)
    reaches = [layer["reach"] for layer in layers]
    assert all(0.0 < reach <= 1.0 for reach in reaches)
    text = "\n".join(summary_lines(artifact))
    assert f"{100 * max(reaches):.0f} %" in text
    assert "known       latency: checked to" in text
