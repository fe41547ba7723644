"""Predicted memory against what the native engine, its keys and the wire format really take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tacit import wire
from tacit.artifact import Artifact
from tacit.circuit import Circuit, LinearPlan, execute
from tacit.evaluation_keys import full_key
from tacit.key_levels import circuit_key_levels
from tacit.model_compiler import CompileOptions, compile_model
from tacit.model_compiler.memory import key_memory, memory_facts, plan_memory, table_bytes
from tacit.model_compiler.native_arrays import Pool, pool_bytes
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import NativeKeys, load_keys
from tacit.signature import Plan
from tests.model_compiler.onnx_models import build

KEY_ID = bytes(32)
MODELS = {
    "square": ("h = Gemm(x, w, b)\ns = Mul(h, h)\nY = Gemm(s, v, c)", 3),
    "tanh": ("h = Gemm(x, w, b)\ns = Tanh(h)\nY = Gemm(s, v, c)", 7),
    "linear": ("Y = Gemm(x, w, b)", 1),
}


@pytest.fixture(scope="module", params=[(name, dnum) for name in MODELS for dnum in (1, 2)])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Return a compiled network of 40 inputs on a small, insecure ring."""
    name, dnum = request.param
    text, depth = MODELS[name]
    generator = np.random.default_rng(0)
    constants = {
        "w": generator.normal(0, 0.1, (40, 24)),
        "b": np.full(24, 0.1),
        "v": generator.normal(0, 0.1, (24, 3)),
        "c": np.zeros(3),
    }
    used = {k: v for k, v in constants.items() if k in "wb" or name != "linear"}
    params = CryptoParams.choose(11, depth, 40, 50, dnum, Security.UNCHECKED_INSECURE)
    options = CompileOptions(params=params, plans=("latency", "batch"), input_range=(-1.0, 1.0))
    model = build(text, {"x": (40,)}, used)
    return compile_model(model, tmp_path_factory.mktemp("model"), options=options)


def _random(params: CryptoParams, moduli: tuple[int, ...], *shape: int) -> Any:
    generator = np.random.default_rng(0)
    rows = [generator.integers(0, q, (*shape, params.n), dtype=np.uint64) for q in moduli]
    return np.ascontiguousarray(np.stack(rows, axis=-2))


def _evaluation_keys(model: Artifact) -> list[wire.EvaluationKey]:
    signature, params = model.signature, model.signature.params
    return [
        wire.EvaluationKey(
            _random(params, key.moduli(params), 2, key.digits(params)),
            key.kind,
            key.element,
            params.digest,
        )
        for key in signature.needed_keys
    ]


def _keys(model: Artifact) -> NativeKeys:
    return load_keys(NativeEngine(model.signature.params), KEY_ID, _evaluation_keys(model))


def _ciphertexts(params: CryptoParams, plan: Plan) -> list[wire.Ciphertext]:
    levels = [spec.level for spec in plan.inputs for _ in range(spec.layout.ciphertexts)]
    return [
        wire.Ciphertext(
            _random(params, params.moduli[: level + 1], 2),
            level,
            1,
            params.scale(level),
            params.slots,
            params.digest,
            KEY_ID,
        )
        for level in levels
    ]


def _evaluate(keys: NativeKeys, circuit: Circuit, plan: Plan) -> list[Any]:
    evaluator = keys.evaluator(circuit)
    inputs = [keys.ciphertext(each) for each in _ciphertexts(keys.engine.params, plan)]
    return execute(circuit, inputs, evaluator)


def test_keys_take_what_is_predicted_in_memory_and_on_the_wire(model: Artifact) -> None:
    params, memory = model.signature.params, key_memory(model.signature)
    assert _keys(model).size_bytes == memory.total_bytes
    frames = [
        wire.encode_evaluation_key(key, params.moduli, params.special_moduli, limbs=want.limbs)
        for key, want in zip(_evaluation_keys(model), model.signature.needed_keys, strict=True)
    ]
    assert len(frames) == memory.keys
    assert sum(map(len, frames)) == memory.upload_bytes
    full = [full_key(key, params) for key in model.signature.needed_keys]
    assert memory.full_bytes == len(full) * params.evaluation_key_bytes
    assert memory.full_upload_bytes == sum(key.frame_bytes(params) for key in full)
    trimmed = any(level < params.depth for level in model.signature.key_levels.levels())
    assert (memory.total_bytes < memory.full_bytes) == trimmed


def test_frames_and_ciphertexts_take_what_is_predicted(model: Artifact) -> None:
    params, keys = model.signature.params, _keys(model)
    for plan in model.signature.plans:
        circuit = model.circuits[plan.name]
        memory = plan_memory(circuit, params, plan)
        sent = _ciphertexts(params, plan)
        results = [keys.frame(result) for result in _evaluate(keys, circuit, plan)]
        frames = [wire.encode_ciphertext(each, params.moduli, wire.Packing.BITS) for each in sent]
        answers = [
            wire.encode_ciphertext(each, params.moduli, wire.Packing.RAW) for each in results
        ]
        assert sum(each.limbs.nbytes for each in sent) == memory.input_bytes
        assert sum(map(len, frames)) == memory.input_frame_bytes
        assert sum(each.limbs.nbytes for each in results) == memory.output_bytes
        assert sum(map(len, answers)) == memory.output_frame_bytes


def test_constants_take_what_is_predicted(model: Artifact) -> None:
    for plan in model.signature.plans:
        keys, circuit = _keys(model), model.circuits[plan.name]
        _evaluate(keys, circuit, plan)
        memory = plan_memory(circuit, model.signature.params, plan)
        assert keys.engine.plaintexts.used_bytes == memory.encoded_bytes


def test_working_arrays_take_what_is_predicted(model: Artifact) -> None:
    for plan in model.signature.plans:
        keys, circuit = _keys(model), model.circuits[plan.name]
        for _ in range(2):
            _evaluate(keys, circuit, plan)
        expected = pool_bytes(circuit, model.signature.params)
        assert expected == pytest.approx(keys.engine.kernels.peak_bytes, rel=0.02)


def test_giant_steps_in_sequence_take_what_is_predicted(model: Artifact) -> None:
    params, circuit = model.signature.params, model.circuits["latency"]
    nodes = tuple(
        replace(node, attribute=replace(node.attribute, in_sequence=True))
        if isinstance(node.attribute, LinearPlan)
        else node
        for node in circuit.nodes
    )
    changed = replace(circuit, nodes=nodes)
    plans = tuple(
        replace(
            plan,
            rotations=tuple(sorted(changed.rotations)),
            key_levels=circuit_key_levels(changed, params),
        )
        for plan in model.signature.plans
        if plan.name == "latency"
    )
    signature = replace(model.signature, plans=plans)
    keys = _keys(replace(model, signature=signature))
    for _ in range(2):
        _evaluate(keys, changed, model.signature.plan("latency"))
    expected = pool_bytes(changed, params)
    assert expected == pytest.approx(keys.engine.kernels.peak_bytes, rel=0.02)


def test_the_report_holds_the_account(model: Artifact) -> None:
    facts = model.report["memory"]
    signature = model.signature
    assert facts == memory_facts(signature, dict(model.circuits))
    assert isinstance(facts, dict)
    assert facts["keys"]["total_bytes"] == signature.key_bytes
    assert facts["table_bytes"] == table_bytes(signature.params)
    assert set(facts["plans"]) == {plan.name for plan in signature.plans}


def test_a_pool_lends_again_what_came_back_and_keeps_no_more_than_its_limit() -> None:
    pool = Pool(limit_rows=4)
    first, second = pool.lend(2, 2), pool.lend(4)
    assert pool.peak_rows == 8
    del first, second  # the first is kept, the second is beyond the limit
    again, other = pool.lend(4), pool.lend(4)
    assert pool.peak_rows == 8
    del again, other
    large = pool.lend(16)
    assert pool.peak_rows == 20
    del large


def test_inspect_shows_primes_candidates_and_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tacit.client.cli import main

    text, _ = MODELS["linear"]
    constants = {"w": np.full((40, 24), 0.1), "b": np.zeros(24)}
    options = CompileOptions(input_range=(-1.0, 1.0), plans=("latency",))
    model = compile_model(build(text, {"x": (40,)}, constants), tmp_path, options=options)
    assert main(["inspect", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    narrow = sum(q < 1 << 50 for q in model.signature.params.moduli)
    every = len(model.signature.params.moduli + model.signature.params.special_moduli)
    assert f"{narrow} of {every} on the fast path" in shown
    assert "target      native: native backend" in shown
    assert "keys of one customer" in shown
    assert "parameters considered (* chosen, ± other bits of scale)" in shown
    (chosen,) = [line for line in shown.splitlines() if line.startswith("*")]
    assert f"2^{model.signature.params.log_n}" in chosen
    assert any(line.startswith("±") for line in shown.splitlines())
    page = tmp_path / "page.html"
    assert main(["inspect", str(tmp_path), "--html", str(page)]) == 0
    html = page.read_text(encoding="utf-8")
    assert "Parameters considered" in html
    assert "keys of one customer" in html
