"""Bootstrapping on the CUDA engine (on fibres): residue for residue what the CPU engine gives."""

from __future__ import annotations

import ctypes
from typing import cast

import numpy as np
import pytest

pytest.importorskip("openfhe", reason="openfhe does not import here")

from tacit.bootstrap import Bootstrap
from tacit.bootstrap_levels import bootstrap_depth
from tacit.circuit import Circuit, Node, Op, ValueType, execute
from tacit.fourier import evaluate_series, fit_series
from tacit.kernels.build import build_if_stale
from tacit.kernels.limb_kernels import LimbKernels
from tacit.params import CryptoParams, SecretDistribution, Security
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_ciphertext import NativeCiphertext, join, split
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_graphs import CircuitGraphs
from tacit.runtime.backends.native_keys import NativeKeys
from tests.conformance.bootstrap_exchange import make_bootstrap_exchange
from tests.conformance.cuda_backend import fibre_kernels
from tests.conformance.exchange import Exchange

LOG_N, LEVEL, ROOM = 10, 2, 6
SERIES = {"silu": fit_series(lambda x: x / (1.0 + np.exp(-8.0 * x)), 7)}
PLAN = Bootstrap("silu", LEVEL, LOG_N - 1)


def _params(secret: SecretDistribution) -> CryptoParams:
    unchecked = Security.UNCHECKED_INSECURE
    shallow = CryptoParams.choose(LOG_N, 1, 45, 46, 1, unchecked, secret)
    depth = LEVEL + ROOM + bootstrap_depth(shallow, PLAN, 7)
    return CryptoParams.choose(LOG_N, depth, 45, 46, 3, unchecked, secret)


def _on_cpu(exchange: Exchange, engine: NativeEngine) -> NativeKeys:
    """The same keys in an engine on the processor."""
    device, cpu = exchange.native_keys.engine.kernels, engine.kernels
    keys = exchange.native_keys

    def words(key: object) -> np.ndarray:  # type: ignore[type-arg]
        pinned, shape = key.pinned, key.shape  # type: ignore[attr-defined]
        address = (ctypes.c_uint64 * (pinned.nbytes // 8)).from_address(pinned.address)
        return np.frombuffer(address, dtype=np.uint64).reshape(shape).copy()

    assert device is not cpu
    rotations = {element: cpu.upload_key(words(key)) for element, key in keys.rotations.items()}
    sparse = keys.to_sparse and cpu.upload_sparse_key(words(keys.to_sparse))
    back = keys.from_sparse and cpu.upload_key(words(keys.from_sparse))
    relinearization = cpu.upload_key(words(keys.relinearization))
    return NativeKeys(engine, keys.key_id, relinearization, rotations, sparse, back)


@pytest.mark.parametrize(
    "secret",
    [
        SecretDistribution.SPARSE_ENCAPSULATED,
        pytest.param(SecretDistribution.UNIFORM_TERNARY, marks=pytest.mark.slow),
        pytest.param(SecretDistribution.SPARSE_TERNARY, marks=pytest.mark.slow),
    ],
    ids=lambda secret: secret.name.lower(),
)
def test_bootstraps_equal_those_of_the_cpu_and_can_be_recorded(
    secret: SecretDistribution,
) -> None:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    params = _params(secret)
    kernels = fibre_kernels(params)
    engine, cpu = NativeEngine(params, cast(LimbKernels, kernels)), NativeEngine(params)
    exchange = make_bootstrap_exchange(params, PLAN, engine=engine)
    x = np.random.default_rng(3).uniform(-0.5, 0.5, params.slots)
    a = exchange.to_native(exchange.encrypt(x, LEVEL))
    made = exchange.native.bootstrap(a, PLAN, SERIES)
    on_cpu = _on_cpu(exchange, cpu)
    limbs = exchange.native_keys.download(a)
    wanted = NativeEvaluator(on_cpu).bootstrap(on_cpu.upload(limbs, LEVEL), PLAN, SERIES)
    found = exchange.native_keys.download(made)
    np.testing.assert_array_equal(found, on_cpu.download(wanted))
    # Sanity, far from any noise: the function was applied, not something else.
    error = exchange.decrypt(exchange.to_openfhe(made)) - evaluate_series(SERIES["silu"], x)
    assert np.max(np.abs(error)) < 0.05
    if secret is SecretDistribution.SPARSE_ENCAPSULATED:
        _check_recorded(exchange, a, made)


def _check_recorded(exchange: Exchange, a: NativeCiphertext, made: NativeCiphertext) -> None:
    """A batch of two from one recording, its entries equal to what they are alone."""
    kernels = exchange.native_keys.engine.kernels
    node = Node(Op.BOOTSTRAP, (0,), (1,), PLAN)
    types = (ValueType(LEVEL), ValueType(made.level))
    circuit = Circuit(exchange.params.slots, (0,), (1,), (node,), types, SERIES)
    graphs = CircuitGraphs(kernels, kernels._device, circuit)  # type: ignore[arg-type, attr-defined]
    keys = [exchange.native_keys] * 2
    other = execute(circuit, [a], exchange.native)[0]
    alone = exchange.native_keys.download(other)
    for round_ in range(3):
        outputs = graphs.run(keys, [join([a, a])])
        assert (outputs is None) == (round_ == 0)
        for entry in split(outputs[0]) if outputs else ():
            np.testing.assert_array_equal(exchange.native_keys.download(entry), alone)
    assert graphs.sizes == (2,)
    graphs.close()
