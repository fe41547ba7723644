"""Circuits as graphs: recorded once, run for other clients, equal to the CPU engine's results."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

pytest.importorskip("openfhe", reason="openfhe does not import here")

from tacit.circuit import (
    Circuit,
    Constant,
    LinearPlan,
    LinearTerm,
    Node,
    Op,
    ValueType,
    execute,
)
from tacit.errors import InternalError
from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.shim import Shim
from tacit.kernels.limb_kernels import LimbKernels
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_ciphertext import NativeCiphertext, join, split
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import NativeKeys
from tacit.runtime.backends.native_recorded import RecordedCircuit
from tests.conformance.exchange import Exchange, make_exchange

PARAMS = CryptoParams.choose(10, 4, 45, 55, 3, Security.UNCHECKED_INSECURE)
STEPS = (1, 2, 3, 4)


def _circuit() -> Circuit:
    """Diagonals with baby and giant steps, a product with a constant, a square."""
    rng = np.random.default_rng(1)
    constants = {
        "rows": rng.uniform(-1, 1, (8, PARAMS.slots)),
        "w": rng.uniform(-1, 1, PARAMS.slots),
    }
    terms = tuple(LinearTerm(0, 0, 4 * (i // 4), i % 4, i) for i in range(8))
    nodes = (
        Node(Op.LINEAR, (0,), (1,), LinearPlan(1, terms, "rows", "")),
        Node(Op.MULTIPLY_PLAIN, (1,), (2,), Constant("w")),
        Node(Op.RESCALE, (2,), (3,)),
        Node(Op.MULTIPLY, (3, 3), (4,)),
        Node(Op.RESCALE, (4,), (5,)),
    )
    types = tuple(ValueType(*at) for at in ((4, 1), (3, 1), (3, 2), (2, 1), (2, 2), (1, 1)))
    return Circuit(PARAMS.slots, (0,), (5,), nodes, types, constants)


def _batch(clients: list[Exchange], seed: int) -> NativeCiphertext:
    rng = np.random.default_rng(seed)
    values = [rng.uniform(-1, 1, PARAMS.slots) for _ in clients]
    encrypted = [c.encrypt(v, PARAMS.depth) for c, v in zip(clients, values, strict=True)]
    return join([c.to_native(e) for c, e in zip(clients, encrypted, strict=True)])


def _keys(clients: list[Exchange]) -> list[NativeKeys]:
    return [client.native_keys for client in clients]


def test_a_recorded_circuit_serves_batches_of_any_clients(shim: Shim, shim_driver: Driver) -> None:
    device = DriverDevice(shim_driver)
    kernels = CudaKernels(PARAMS, device, shim.image(PARAMS.log_n))
    engine = NativeEngine(PARAMS, cast(LimbKernels, kernels))
    clients = [
        make_exchange(PARAMS, STEPS, engine=engine, key_id=bytes([i]) * 32) for i in range(3)
    ]
    circuit = _circuit()
    first = clients[:2]
    recorded = RecordedCircuit(kernels, device, circuit, _keys(first), [_batch(first, 0)])
    for seed, chosen in enumerate((first, [clients[2], clients[0]], [clients[1]] * 2, first)):
        batch = _batch(chosen, seed + 1)
        before = device.launches
        (found,) = recorded.run(_keys(chosen), [batch])
        assert device.launches == before
        assert found.type == circuit.types[-1]
        (wanted,) = execute(circuit, [batch], NativeEvaluator(_keys(chosen)))
        for mine, theirs, client in zip(split(found), split(wanted), chosen, strict=True):
            np.testing.assert_array_equal(
                client.native_keys.download(mine), client.native_keys.download(theirs)
            )
    with pytest.raises(InternalError, match="batch of 2"):
        recorded.run(_keys(first[:1]), [_batch(first[:1], 0)])
    with pytest.raises(InternalError, match="owners"):
        recorded.run(_keys(first), [_batch([clients[2], clients[0]], 0)])
    recorded.close()
