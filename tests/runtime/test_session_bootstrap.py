"""A model that bootstraps, from a saved artifact to the customer's answer, on both backends."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.artifact import Artifact, load, save
from tacit.bootstrap import Bootstrap
from tacit.bootstrap_levels import bootstrap_depth
from tacit.circuit import Circuit, LinearPlan, LinearTerm, Node, Op, ValueType, execute
from tacit.client.codec import Codec
from tacit.client.keys import KeyPair
from tacit.fourier import fit_series
from tacit.kernels.build import build_if_stale
from tacit.key_levels import circuit_key_levels
from tacit.params import CryptoParams, SecretDistribution, Security
from tacit.runtime.backends.clear import ClearEvaluator
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.key_rules import key_frame_lengths
from tacit.runtime.session import Session
from tacit.signature import Plan, Signature
from tests.runtime.models import spec

Floats = NDArray[np.float64]

LAYERS = 3
PLAN = Bootstrap("series", 3, 8)


def _params() -> CryptoParams:
    choice = (3, Security.UNCHECKED_INSECURE, SecretDistribution.SPARSE_ENCAPSULATED)
    shallow = CryptoParams.choose(9, 5, 40, 41, *choice)
    return CryptoParams.choose(9, PLAN.level + bootstrap_depth(shallow, PLAN, 15), 40, 41, *choice)


def _model() -> Artifact:
    """Three layers of a shift, scaled by 0.9, and tanh; more levels than the parameters have."""
    params, nodes = _params(), []
    matrix = LinearPlan(1, (LinearTerm(0, 0, 0, 1, 0),), "rows", "")
    types = [ValueType(3)]
    for layer in range(LAYERS):
        here = len(types) - 1
        nodes.append(Node(Op.LINEAR, (here,), (here + 1,), matrix, f"layer {layer}"))
        nodes.append(Node(Op.BOOTSTRAP, (here + 1,), (here + 2,), PLAN, f"layer {layer}"))
        types += [ValueType(2), ValueType(3)]
    constants = {"rows": np.full((1, 1), 0.9), "series": fit_series(np.tanh, 15)}
    circuit = Circuit(params.slots, (0,), (len(types) - 1,), tuple(nodes), tuple(types), constants)
    plan = Plan(
        "latency",
        params.slots,
        (spec(params, "x", 3),),
        (spec(params, "y", 3),),
        tuple(sorted(circuit.rotations)),
        True,
        1.0,
        12.0,
        circuit.bootstraps,
        circuit_key_levels(circuit, params),
    )
    signature = Signature("deep", "1", params, (plan,), {"x": (1,)}, ("y",))
    return Artifact(signature, {"latency": circuit}, {})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("model") / "deep"
    save(_model(), folder)
    return load(folder)


@pytest.fixture(scope="module")
def keys(model: Artifact, tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    signature = model.signature
    return KeyPair.for_model(signature, tmp_path_factory.mktemp("keys"), allow_insecure=True)


def _frames(keys: KeyPair) -> list[bytes]:
    return [keys.folder.file(entry).read_bytes() for entry in keys.facts.frames]


@pytest.mark.parametrize("backend", list(BackendName))
def test_a_deep_model_answers_as_the_clear_backend_does(
    model: Artifact, keys: KeyPair, backend: BackendName
) -> None:
    """One list of keys, trimmed to the levels of their use, serves both."""
    if backend is BackendName.NATIVE and not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    keys.check(model.signature)
    session = Session.open(model, _frames(keys), backend=backend)
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 1, model.signature.params.slots))
    codec, plan = Codec(model.signature, keys), model.signature.plan("latency")
    frames = [frame for row in codec.encrypt(plan, x) for frame in row]
    result = session.run("latency", frames)
    answer = codec.decrypt(plan, [[bytes(frame)] for frame in result.frames])
    clear = ClearEvaluator(model.signature.params)
    (expected,) = execute(model.circuits["latency"], [clear.encrypt(x[:, 0], 3)], clear)
    assert np.max(np.abs(answer[:, 0] - expected.values)) < 2.0**-14


def test_the_server_knows_the_length_of_every_frame(model: Artifact, keys: KeyPair) -> None:
    lengths = key_frame_lengths(model.signature)
    found = [entry.length for entry in keys.facts.frames]
    assert all(length in known for length, known in zip(found, lengths, strict=True))
    assert sum(found) < keys.facts.full_key_bytes
