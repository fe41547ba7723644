"""A bootstrapped network at 128 bits, served by either backend to one customer: minutes, 8 GB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

pytest.importorskip("openfhe", reason="openfhe does not import here")

from tacit.artifact import Artifact
from tacit.circuit import Op
from tacit.client.client import Client
from tacit.kernels.build import build_if_stale
from tacit.model_compiler import CompileOptions, compile_model
from tacit.params import SecretDistribution, Security
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.endpoint import RequestLimits
from tacit.runtime.options import ServerOptions, WorkerLimits
from tacit.runtime.server import ServerHandle
from tacit.runtime.simulate import simulate
from tests.model_compiler.onnx_models import build, reference

Floats = NDArray[np.float64]

FEATURES, HIDDEN, CLASSES = 8, 16, 3
TEXT = """
    A = Gemm(X, W1, B1)
    R = Relu(A)
    C = Gemm(R, W2)
    S = Relu(C)
    Y = Gemm(S, W3)
"""
# Of one answer, on a machine that does much else.
PATIENCE = 3600.0


def network() -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    constants = {
        "W1": generator.normal(size=(FEATURES, HIDDEN)) / np.sqrt(FEATURES),
        "B1": 0.1 * generator.normal(size=HIDDEN),
        "W2": generator.normal(size=(HIDDEN, HIDDEN)) / np.sqrt(HIDDEN),
        "W3": generator.normal(size=(HIDDEN, CLASSES)) / np.sqrt(HIDDEN),
    }
    return build(TEXT, {"X": (FEATURES,)}, constants)


def drawn(count: int, seed: int) -> Floats:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (count, FEATURES))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def model(repository: Path) -> Artifact:
    options = CompileOptions(
        name="relus", calibration=drawn(300, 1), bootstrap="always", plans=("latency",)
    )
    return compile_model(network(), repository / "relus" / "1", options=options)


@pytest.fixture(params=list(BackendName), ids=lambda name: name.value)
def server(
    request: pytest.FixtureRequest, repository: Path, model: Artifact, tmp_path: Path
) -> Iterator[ServerHandle]:
    backend: BackendName = request.param
    if backend is BackendName.NATIVE and not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    workers = WorkerLimits(
        backend=backend, threads=1, constant_bytes=1 << 30, start_seconds=PATIENCE
    )
    limits = RequestLimits(seconds=PATIENCE)
    options = ServerOptions(workers=workers, requests=limits, key_directory=tmp_path / "keys")
    with ServerHandle(repository, options) as handle:
        yield handle


@pytest.mark.slow
def test_one_set_of_keys_serves_a_secure_bootstrapped_network_on_either_backend(
    model: Artifact, server: ServerHandle, tmp_path_factory: pytest.TempPathFactory
) -> None:
    params = model.signature.params
    assert params.security is Security.CLASSICAL_128
    assert params.secret is SecretDistribution.SPARSE_ENCAPSULATED
    assert sum(node.op is Op.BOOTSTRAP for node in model.circuits["latency"].nodes) == 2
    rows = drawn(2, 2)
    (exact,) = reference(network(), {"X": rows})
    expected = simulate(model, rows).outputs["Y"]
    assert np.abs(expected - exact).max() < 0.05 * np.ptp(exact)
    keys = tmp_path_factory.getbasetemp() / "customer"
    url = f"http://127.0.0.1:{server.ports.http}"
    with Client(url, key_dir=keys, timeout=PATIENCE) as client:
        found = client.predict("relus", rows)
    # A bootstrap leaves 10 bits or more at these parameters; one that goes wrong, none.
    assert np.abs(found - expected).max() < 2.0**-6 * np.ptp(expected)
