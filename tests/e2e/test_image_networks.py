"""Convolutional networks from ONNX to decrypted answers, on both backends."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

pytest.importorskip("openfhe", reason="openfhe does not import here")

from tacit.artifact import Artifact, load
from tacit.circuit import LinearPlan
from tacit.clear_operations import Array
from tacit.client.codec import Codec
from tacit.client.keys import KeyPair
from tacit.kernels.build import build_if_stale
from tacit.model_compiler import CompileOptions, compile_model
from tacit.packed_rows import PackedRows
from tacit.packing import core_inputs, model_outputs, pack, unpack
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.session import Session
from tacit.runtime.simulate import simulate
from tests.model_compiler.onnx_models import build, reference

TINY_INSECURE = CryptoParams.choose(11, 8, 45, 55, 3, Security.UNCHECKED_INSECURE)
Floats = NDArray[np.float64]

RESIDUAL = """
    A = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(X, K0, B0)
    B = Mul(A, A)
    C = Conv<pads=[1, 1, 1, 1], group=2>(B, K1)
    D = Add(C, B)
    E = Mul(D, D)
    P = AveragePool<kernel_shape=[2, 2], strides=[2, 2]>(E)
    F = Flatten(P)
    Y = Gemm<transB=1>(F, W, V)
"""

LENET = """
    C1 = Conv<pads=[2, 2, 2, 2]>(X, K1, B1)
    S1 = Mul(C1, C1)
    P1 = AveragePool<kernel_shape=[2, 2], strides=[2, 2]>(S1)
    C2 = Conv(P1, K2, B2)
    S2 = Mul(C2, C2)
    P2 = AveragePool<kernel_shape=[2, 2], strides=[2, 2]>(S2)
    F = Flatten(P2)
    H = Gemm<transB=1>(F, W1, B3)
    S3 = Mul(H, H)
    Y = Gemm<transB=1>(S3, W2, B4)
"""


def _drawn(generator: np.random.Generator, *shape: int) -> Array:
    values: Floats = generator.normal(0.0, 1.0 / math.sqrt(math.prod(shape[1:])), shape)
    return values


def _residual() -> onnx.ModelProto:
    g = np.random.default_rng(0)
    constants = {
        "K0": _drawn(g, 4, 1, 3, 3),
        "B0": 0.1 * g.normal(size=4),
        "K1": _drawn(g, 4, 2, 3, 3),
        "W": _drawn(g, 5, 36),
        "V": 0.1 * g.normal(size=5),
    }
    return build(RESIDUAL, {"X": (1, 12, 12)}, constants)


def _lenet() -> onnx.ModelProto:
    g = np.random.default_rng(1)
    constants = {
        "K1": 2.0 * _drawn(g, 6, 1, 5, 5),
        "K2": 2.0 * _drawn(g, 16, 6, 5, 5),
        "W1": 2.0 * _drawn(g, 84, 400),
        "W2": 2.0 * _drawn(g, 10, 84),
        **{name: 0.1 * g.normal(size=n) for name, n in (("B1", 6), ("B2", 16), ("B3", 84))},
        "B4": 0.1 * g.normal(size=10),
    }
    return build(LENET, {"X": (1, 28, 28)}, constants)


def _decrypted(
    artifact: Artifact, folder: Path, rows: Floats, backend: BackendName, *, insecure: bool
) -> Floats:
    """Make keys, encrypt each row, evaluate, decrypt; shape (rows, outputs)."""
    if backend is BackendName.NATIVE and not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    signature = artifact.signature
    plan = signature.plan("latency")
    keys = KeyPair.for_model(signature, folder, allow_insecure=insecure)
    frames = [keys.folder.file(entry).read_bytes() for entry in keys.facts.frames]
    session, codec = Session.open(artifact, frames, backend=backend), Codec(signature, keys)
    answers = []
    for row in rows:
        packed = pack(plan, core_inputs(signature, {"X": row[None]}))
        (sent,) = codec.encrypt(plan, packed)
        result = session.run("latency", list(sent))
        vectors = codec.decrypt(plan, [[bytes(frame) for frame in result.frames]])
        answers.append(model_outputs(signature, unpack(plan, vectors, 1))["Y"][0])
    return np.stack(answers)


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    rows = np.random.default_rng(2).uniform(-1, 1, (50, 1, 12, 12))
    options = CompileOptions(calibration=rows, plans=("latency",), params=TINY_INSECURE)
    folder = tmp_path_factory.mktemp("residual")
    compile_model(_residual(), folder, options=options)
    return load(folder)


@pytest.mark.parametrize("backend", list(BackendName), ids=lambda name: name.value)
def test_an_encrypted_network_answers_as_its_onnx_model(
    residual: Artifact, backend: BackendName, tmp_path: Path
) -> None:
    rows = np.random.default_rng(3).uniform(-1, 1, (2, 1, 12, 12))
    (expected,) = reference(_residual(), {"X": rows})
    simulated = simulate(residual, rows).outputs["Y"]
    assert np.abs(simulated - expected).max() < 1e-6 * np.ptp(expected)
    got = _decrypted(residual, tmp_path / "keys", rows, backend, insecure=True)
    assert np.abs(got - expected).max() < 2.0**-12 * np.ptp(expected)


def test_an_artifact_holds_its_diagonals_packed(residual: Artifact) -> None:
    circuit = residual.circuits["latency"]
    plans = [n.attribute for n in circuit.nodes if isinstance(n.attribute, LinearPlan)]
    kept = [circuit.constants[plan.diagonals] for plan in plans]
    assert all(isinstance(rows, PackedRows) for rows in kept)
    assert sum(rows.nbytes for rows in kept) < 0.3 * sum(8 * np.prod(r.shape) for r in kept)


@pytest.mark.slow
def test_lenet_at_128_bits_keeps_the_label_of_every_image(tmp_path: Path) -> None:
    model = _lenet()
    generator = np.random.default_rng(4)
    calibration, rows = generator.random((200, 1, 28, 28)), generator.random((3, 1, 28, 28))
    options = CompileOptions(calibration=calibration, plans=("latency",))
    artifact = compile_model(model, tmp_path / "model", options=options)
    assert artifact.signature.params.security is Security.CLASSICAL_128
    (expected,) = reference(model, {"X": rows})
    simulated = simulate(artifact, rows, clip=True).outputs["Y"]
    got = _decrypted(artifact, tmp_path / "keys", rows, BackendName.NATIVE, insecure=False)
    assert (got.argmax(axis=1) == simulated.argmax(axis=1)).all()
    assert np.abs(got - expected).max() < 2.0**-8 * np.ptp(expected)
