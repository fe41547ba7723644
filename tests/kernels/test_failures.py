"""What goes wrong is named by class and node, and the next request is answered."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from tacit import wire
from tacit.circuit import (
    Attribute,
    Circuit,
    Constant,
    LinearPlan,
    LinearTerm,
    Node,
    Op,
    Steps,
    ToLevel,
    ValueType,
    WeightedSumPlan,
    execute,
)
from tacit.errors import (
    CircuitError,
    InternalError,
    KeyMismatchError,
    LevelError,
    OutOfMemoryError,
    ParameterError,
    ParameterMismatchError,
    ResidueError,
    TacitError,
    UnknownKeyError,
)
from tacit.kernels.build import build_if_stale
from tacit.kernels.cpu_kernels import CpuKernels
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_ciphertext import NativeCiphertext
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import NativeKeys, load_keys
from tests.kernels.clients import ciphertext, client, random_keys

PARAMS = CryptoParams.choose(10, 2, 45, 55, 3, Security.UNCHECKED_INSECURE)
OTHERS = CryptoParams.choose(10, 2, 44, 55, 3, Security.UNCHECKED_INSECURE)
Spoil = Callable[[NativeKeys], object]


@pytest.fixture(scope="module")
def keys() -> NativeKeys:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    return client(NativeEngine(PARAMS), (1,), 1)


def _one_node(
    op: Op, attribute: Attribute, to: ValueType, at: int = 2, inputs: int = 1, **values: object
) -> Circuit:
    types = (*[ValueType(at)] * inputs, to)
    node = Node(op, tuple(range(inputs)), (inputs,), attribute, "layer 7")
    constants = {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}
    return Circuit(PARAMS.slots, tuple(range(inputs)), (inputs,), (node,), types, constants)


def _served(keys: NativeKeys) -> None:
    a = ciphertext(keys, 2, 1)
    execute(_one_node(Op.ROTATE, Steps(1), ValueType(2)), [a], NativeEvaluator(keys))


CIRCUITS: dict[str, tuple[Circuit, type[TacitError], str]] = {
    "no rotation key": (
        _one_node(Op.ROTATE, Steps(2), ValueType(2)),
        UnknownKeyError,
        "rotations by 2 slots",
    ),
    "no level for a product": (
        _one_node(Op.MULTIPLY, None, ValueType(0, 2), at=0, inputs=2),
        LevelError,
        "level 0",
    ),
    "no level for a drop": (
        _one_node(Op.DROP, ToLevel(2), ValueType(2)),
        LevelError,
        "cannot drop",
    ),
    "a constant of a wrong length": (
        _one_node(Op.ADD_PLAIN, Constant("w"), ValueType(2), w=np.ones(3)),
        CircuitError,
        "length that divides",
    ),
    "a diagonal of a wrong length": (
        _one_node(
            Op.LINEAR,
            LinearPlan(1, (LinearTerm(0, 0, 0, 0, 0),), "w", ""),
            ValueType(1),
            w=np.ones((1, 3)),
        ),
        CircuitError,
        "length that divides",
    ),
    "a constant that is not finite": (
        _one_node(Op.MULTIPLY_PLAIN, Constant("w"), ValueType(2, 2), w=[1.0, np.nan]),
        CircuitError,
        "not finite",
    ),
    "a weight that is not finite": (
        _one_node(Op.WEIGHTED_SUM, WeightedSumPlan(1, "w", ""), ValueType(1), w=[[np.inf]]),
        CircuitError,
        "not finite",
    ),
    "weights for other inputs": (
        _one_node(Op.WEIGHTED_SUM, WeightedSumPlan(1, "w", ""), ValueType(1), w=np.ones((1, 2))),
        CircuitError,
        "shape",
    ),
}


@pytest.mark.parametrize("name", list(CIRCUITS))
def test_a_circuit_that_cannot_run_names_its_node(keys: NativeKeys, name: str) -> None:
    circuit, error, words = CIRCUITS[name]
    inputs = [ciphertext(keys, circuit.types[0].level, i) for i in range(len(circuit.inputs))]
    with pytest.raises(error, match=rf"node 0 \({circuit.nodes[0].op.value}, layer 7\).*{words}"):
        execute(circuit, inputs, NativeEvaluator(keys))
    _served(keys)


def test_a_batch_of_other_clients_names_the_node(keys: NativeKeys) -> None:
    stranger = client(keys.engine, (1,), 2)
    circuit = _one_node(Op.ROTATE, Steps(1), ValueType(2))
    with pytest.raises(KeyMismatchError, match=r"node 0 \(rotate, layer 7\).*key sets"):
        execute(circuit, [ciphertext(stranger, 2, 1)], NativeEvaluator(keys))
    _served(keys)


def test_memory_that_cannot_be_had_names_the_node(
    keys: NativeKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tacit.kernels import memory

    class Numpy:
        """numpy on a machine whose memory is full."""

        asarray, uint64 = staticmethod(np.asarray), np.uint64

        @staticmethod
        def empty(*_: object, **__: object) -> None:
            raise MemoryError

    a = ciphertext(keys, 2, 1)
    circuit = _one_node(Op.NEGATE, None, ValueType(2))
    unpooled = NativeEngine(PARAMS, CpuKernels(PARAMS, pool_bytes=0))
    with monkeypatch.context() as patch:
        patch.setattr(memory, "np", Numpy)
        poor = client(unpooled, (1,), 1)
        with pytest.raises(OutOfMemoryError, match=r"node 0 \(negate, layer 7\).*bytes of limbs"):
            execute(circuit, [a], NativeEvaluator(poor))
    execute(circuit, [a], NativeEvaluator(poor))
    _served(keys)


def test_memory_kept_for_later_is_given_up_before_an_operation_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tacit.kernels import memory

    pool = memory.ArrayPool(1000)
    pool.array((100,))
    assert pool.kept_bytes == 800
    failures = iter([MemoryError()])

    class Numpy:
        """numpy on a machine whose memory is full once."""

        asarray, uint64 = staticmethod(np.asarray), np.uint64

        @staticmethod
        def empty(words: int, **_: object) -> object:
            for failure in failures:
                raise failure
            return np.empty(words, dtype=np.uint64)

    monkeypatch.setattr(memory, "np", Numpy)
    lent = pool.array((50,))
    assert lent.shape == (50,)
    assert pool.kept_bytes == 0


def test_memory_to_encode_a_constant_that_cannot_be_had_names_it(
    keys: NativeKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit = _one_node(Op.ADD_PLAIN, Constant("w"), ValueType(2), w=np.ones(4))

    def full(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(np, "repeat", full)
        with pytest.raises(OutOfMemoryError, match=r"node 0 \(add_plain, layer 7\).*'w'"):
            execute(circuit, [ciphertext(keys, 2, 1)], NativeEvaluator(keys))
    execute(circuit, [ciphertext(keys, 2, 1)], NativeEvaluator(keys))


_LIMITED = """
import resource, sys
import numpy as np
from tacit.errors import OutOfMemoryError
from tacit.kernels.cpu_kernels import CpuKernels
from tacit.params import CryptoParams, Security

def limit(more):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))

params = CryptoParams.choose(13, 8, 45, 55, 3, Security.UNCHECKED_INSECURE)
limit(4 << 20)
try:
    CpuKernels(params)
    sys.exit("tables without memory")
except OutOfMemoryError as error:
    assert "tables" in str(error), error
limit(1 << 30)
kernels = CpuKernels(params, pool_bytes=0)
a = kernels.upload(np.ones((2, 9, 1, params.n), dtype=np.uint64))
limit(16 << 20)
try:
    batch = kernels.join([a] * 40)
    sys.exit("a batch without memory")
except OutOfMemoryError as error:
    assert "bytes of limbs" in str(error), error
sum_of_ones = kernels.download(kernels.add(a, a))
assert (sum_of_ones == 2).all()
print("ok")
"""


def test_a_full_machine_refuses_what_is_too_large_and_goes_on(keys: NativeKeys) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _LIMITED], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.stdout.strip() == "ok", run.stderr[-2000:]


def test_keys_and_ciphertexts_of_other_parameters_are_refused(keys: NativeKeys) -> None:
    foreign = random_keys(OTHERS, (1,), 1)
    with pytest.raises(ParameterMismatchError, match="other parameters"):
        load_keys(keys.engine, bytes(32), foreign)
    limbs = keys.download(ciphertext(keys, 1, 1))
    sent = wire.Ciphertext(limbs, 1, 1, PARAMS.scale(1), PARAMS.slots, OTHERS.digest, keys.key_id)
    with pytest.raises(ParameterMismatchError, match="other parameters"):
        keys.ciphertext(sent)
    _served(keys)


def test_limbs_of_a_wrong_shape_are_refused(keys: NativeKeys) -> None:
    good = keys.download(ciphertext(keys, 1, 1))
    for level, limbs in ((2, good), (1, good[:1]), (1, good[:, :, :8]), (3, good), (-1, good)):
        with pytest.raises(ParameterMismatchError, match="limbs of shape"):
            keys.upload(limbs, level)
    _served(keys)


def test_a_residue_above_its_modulus_does_not_reach_the_engine(keys: NativeKeys) -> None:
    moduli = PARAMS.moduli
    limbs = keys.download(ciphertext(keys, 1, 1)).copy()
    limbs[1, 1, 5] = moduli[1]
    scales = tuple(PARAMS.scale(level) for level in range(PARAMS.depth + 1))
    expected = wire.CiphertextExpectation(PARAMS.digest, PARAMS.log_n, moduli, scales)
    sent = wire.Ciphertext(limbs, 1, 1, scales[1], PARAMS.slots, PARAMS.digest, keys.key_id)
    careless = tuple(q + 1 for q in moduli)
    frame = wire.encode_ciphertext(sent, careless, wire.Packing.RAW)
    with pytest.raises(ResidueError):
        keys.ciphertext(wire.decode_ciphertext(frame, expected))
    _served(keys)


def test_arrays_that_do_not_fit_are_refused(keys: NativeKeys) -> None:
    kernels = keys.engine.kernels
    low, high = (ciphertext(keys, level, 1).limbs for level in (1, 2))
    table = kernels.key_table([keys.relinearization_key()])
    pair = kernels.join([high, high])
    wrong: list[Spoil] = [
        lambda _: kernels.add(low, high),
        lambda _: kernels.multiply(low, high, table),
        lambda _: kernels.join([low, high]),
        lambda _: kernels.add_plain(high, low),
        lambda _: kernels.scale(low, np.ones(3, dtype=np.uint64)),
        lambda _: kernels.key_table([high]),
        lambda _: kernels.key_table([]),
        lambda _: kernels.turned(kernels.part(pair, 1), [table], [kernels.galois(1)]),
        lambda _: kernels.mod_down(2, high),
        lambda _: kernels.rescale(ciphertext(keys, 0, 1).limbs),
        lambda _: kernels.combine([high], kernels.upload(np.ones((2, 1, 1), dtype=np.uint64))),
        lambda _: kernels.dot_pairs([[(high, low)]], 2),
        lambda _: kernels.dot_pairs([[]], 2),
    ]
    for call in wrong:
        with pytest.raises(InternalError):
            call(keys)
    with pytest.raises(ParameterError, match="odd"):
        kernels.galois(4)
    _served(keys)


def test_what_another_device_made_is_refused(keys: NativeKeys) -> None:
    class Elsewhere:
        """An array, a table of keys or an automorphism of another device."""

        shape = (2, 3, 1, PARAMS.n)
        nbytes = 0
        element = 5
        batch = 1

    kernels, other = keys.engine.kernels, Elsewhere()
    table = kernels.key_table([keys.relinearization_key()])
    a = ciphertext(keys, 2, 1).limbs
    with pytest.raises(InternalError, match="of this device"):
        kernels.add(a, other)
    with pytest.raises(InternalError, match="of this device"):
        kernels.turned(kernels.part(a, 1), [other], [kernels.galois(1)])
    with pytest.raises(InternalError, match="of this device"):
        kernels.turned(kernels.part(a, 1), [table], [other])
    _served(keys)


def test_a_ciphertext_that_lies_about_its_level_is_refused(keys: NativeKeys) -> None:
    a = ciphertext(keys, 1, 1)
    liar = NativeCiphertext(a.kernels, a.limbs, 2, 1, a.owners)
    with pytest.raises(InternalError):
        NativeEvaluator(keys).rotate(liar, 1)
    _served(keys)
