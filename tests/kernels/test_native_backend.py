"""What only the native backend has: keys and ciphertexts from frames, shared tables, memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("openfhe", reason="openfhe does not import here")

from tacit import wire
from tacit.circuit import (
    Chebyshev,
    Circuit,
    Constant,
    LinearPlan,
    LinearTerm,
    Node,
    Op,
    Plain,
    ValueType,
    WeightedSumPlan,
    execute,
)
from tacit.errors import KeyMismatchError, ParameterMismatchError, UnknownKeyError
from tacit.kernels import ntt
from tacit.kernels.build import build_if_stale
from tacit.kernels.memory import ArrayPool
from tacit.kernels.ring import Ring
from tacit.packed_rows import pack_rows
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import NativeCiphertext, NativeKeys, load_keys
from tacit.runtime.backends.native_plaintexts import PlaintextCache
from tests.conformance.exchange import KEY_ID, Exchange, evaluation_keys, make_exchange

PARAMS = CryptoParams.choose(10, 4, 45, 55, 3, Security.UNCHECKED_INSECURE)
STEPS = (1, 2, 3, 4, 8)
RAMP = np.arange(PARAMS.slots, dtype=np.float64) / PARAMS.slots


@cache
def _exchange() -> Exchange:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    return make_exchange(PARAMS, STEPS)


@pytest.fixture
def exchange() -> Exchange:
    return _exchange()


def _words(a: NativeCiphertext) -> Any:
    """Return the limbs of one ciphertext, shape (2, level + 1, N)."""
    assert isinstance(a.limbs, np.ndarray)
    return a.limbs[:, :, 0]


def _plan(rows: int) -> LinearPlan:
    terms = tuple(LinearTerm(0, 0, 4 * (i // 4), i % 4, i) for i in range(rows))
    return LinearPlan(1, terms, "rows", "")


def test_a_server_needs_frames_only(exchange: Exchange) -> None:
    """Keys and a ciphertext go through the wire format; the answer decrypts in OpenFHE."""
    moduli, special = PARAMS.moduli, PARAMS.special_moduli
    expected_key = wire.KeyExpectation(PARAMS.digest, PARAMS.log_n, moduli, special, PARAMS.dnum)
    frames = [
        wire.encode_evaluation_key(key, moduli, special)
        for key in evaluation_keys(PARAMS, exchange.keys)
    ]
    key_id = wire.key_id(PARAMS.digest, [wire.frame_digest(frame) for frame in frames])
    received = [wire.decode_evaluation_key(frame, expected_key) for frame in frames]
    keys = load_keys(NativeEngine(PARAMS), key_id, received)
    x = np.random.default_rng(0).uniform(-1, 1, PARAMS.slots)
    limbs = exchange.native_keys.download(exchange.to_native(exchange.encrypt(x, PARAMS.depth)))
    sent = wire.Ciphertext(
        limbs, PARAMS.depth, 1, PARAMS.scale(PARAMS.depth), PARAMS.slots, PARAMS.digest, key_id
    )
    scales = tuple(PARAMS.scale(level) for level in range(PARAMS.depth + 1))
    expected = wire.CiphertextExpectation(PARAMS.digest, PARAMS.log_n, moduli, scales)
    arrived = wire.decode_ciphertext(wire.encode_ciphertext(sent, moduli), expected)
    evaluator = NativeEvaluator(keys)
    a = keys.ciphertext(arrived)
    result = evaluator.rotate(evaluator.rescale(evaluator.multiply(a, a)), 3)
    answer = wire.decode_ciphertext(wire.encode_ciphertext(keys.frame(result), moduli), expected)
    back = exchange.native_keys.upload(answer.limbs, PARAMS.depth - 1)
    found = exchange.decrypt(exchange.to_openfhe(back))
    np.testing.assert_allclose(found, np.roll(x * x, -3), atol=1e-6)


def test_ciphertexts_of_other_keys_or_shapes_are_refused(exchange: Exchange) -> None:
    keys = NativeKeys(NativeEngine(PARAMS), KEY_ID)
    limbs = exchange.native_keys.download(
        exchange.to_native(exchange.encrypt(np.zeros(PARAMS.slots), 1))
    )
    good = (limbs, 1, 1, PARAMS.scale(1), PARAMS.slots, PARAMS.digest)
    with pytest.raises(KeyMismatchError, match="another key set"):
        keys.ciphertext(wire.Ciphertext(*good, bytes([1]) * 32))
    with pytest.raises(ParameterMismatchError, match="limbs of shape"):
        keys.ciphertext(wire.Ciphertext(limbs, 2, *good[2:], KEY_ID))
    wrong = wire.EvaluationKey(limbs[None], wire.KeyKind.ROTATION, 5, PARAMS.digest)
    with pytest.raises(ParameterMismatchError, match="key of shape"):
        load_keys(keys.engine, KEY_ID, [wrong])


def test_missing_keys_are_named(exchange: Exchange) -> None:
    evaluator = NativeEvaluator(NativeKeys(NativeEngine(PARAMS), KEY_ID))
    a = exchange.to_native(exchange.encrypt(np.zeros(PARAMS.slots), 2))
    with pytest.raises(UnknownKeyError, match="relinearisation key"):
        evaluator.multiply(a, a)
    with pytest.raises(UnknownKeyError, match="rotations by 1 slots"):
        evaluator.rotate(a, 1)
    rows = {"rows": np.ones((8, 1))}
    with pytest.raises(UnknownKeyError, match="Galois key"):
        evaluator.linear([a], _plan(8), rows)
    exchange.native.linear([a], _plan(8), rows)


def test_results_do_not_depend_on_threads_nor_on_who_else_computes(exchange: Exchange) -> None:
    a = exchange.to_native(exchange.encrypt(RAMP, PARAMS.depth))
    rows = {"rows": np.random.default_rng(0).uniform(-1, 1, (8, PARAMS.slots))}

    def program(ev: NativeEvaluator) -> Any:
        value = ev.rescale(ev.multiply(a, a))
        value = ev.linear([value], _plan(8), rows)[0]
        return _words(ev.add(ev.rotate(value, 2), value))

    wanted = program(exchange.native)
    received = evaluation_keys(PARAMS, exchange.keys)
    shared = load_keys(NativeEngine(PARAMS, threads=3), KEY_ID, received)
    evaluators = [NativeEvaluator(shared), NativeEvaluator(shared), exchange.native] * 4
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(program, evaluators):
            np.testing.assert_array_equal(found, wanted)


def test_a_result_is_not_overwritten_by_later_ones(exchange: Exchange) -> None:
    a = exchange.to_native(exchange.encrypt(RAMP, PARAMS.depth))
    kept = exchange.native.rotate(a, 1)
    words = exchange.native_keys.download(kept)
    copy, view = words.copy(), words[0, 1:, ::2]
    before = view.copy()
    del words
    del kept
    for _ in range(20):
        exchange.native.rotate(exchange.native.multiply(a, a), 2)
    np.testing.assert_array_equal(view, before)
    np.testing.assert_array_equal(_words(exchange.native.rotate(a, 1)), copy)


def test_memory_of_results_is_used_again_within_a_limit() -> None:
    pool = ArrayPool(3 * 800)
    first = pool.array((10, 10))
    place = first.ctypes.data
    row = first[3]
    del first
    assert pool.kept_bytes == 0
    del row
    assert pool.kept_bytes == 800
    assert pool.array((5, 20)).ctypes.data == place
    many = [pool.array((100,)) for _ in range(5)]
    del many
    assert pool.kept_bytes == 3 * 800


def test_constants_are_encoded_once_within_a_limit() -> None:
    cache_of = PlaintextCache(100)
    values, made = np.ones(4), []

    def make() -> Any:
        made.append(1)
        return np.ones(8, dtype=np.uint64)

    first = cache_of.find("w", values, (1,), make)
    assert cache_of.find("w", values, (1,), make) is first
    assert len(made) == 1
    assert cache_of.find("w", values, (2,), make) is not first
    assert cache_of.find("w", np.ones(4), (1,), make) is not first
    assert cache_of.used_bytes == 64


def test_constants_worth_more_take_the_place_of_others() -> None:
    cache_of, values = PlaintextCache(3 * 64), np.ones(4)

    def find(name: str, worth: float, words: int = 8) -> bool:
        """Return whether it had to be made."""
        before = cache_of.made
        cache_of.find(name, values, (), lambda: np.ones(words, dtype=np.uint64), worth)
        return cache_of.made > before

    assert [find(name, worth) for name, worth in (("a", 1.0), ("b", 2.0), ("c", 1.0))]
    assert find("d", 1.0)
    assert find("d", 1.0), "no place: nobody is worth less"
    assert find("e", 1.5)
    assert not find("e", 1.5)
    assert not find("a", 1.0), "of equals the first stays"
    assert find("c", 1.0), "dropped for e"
    assert find("large", 1.7, words=24)
    assert find("large", 1.7, words=24), "not all of them are worth less"
    assert [find(name, 9.0) for name in "abe"] == [False, False, False]
    assert find("large", 3.0, words=24)
    assert not find("large", 3.0, words=24)
    assert cache_of.used_bytes == cache_of.limit_bytes == 192


def test_what_a_request_uses_often_is_kept_where_memory_is_short() -> None:
    plans = [LinearPlan(1, _plan(4).terms, name, "") for name in ("once", "often")]
    rng = np.random.default_rng(0)
    constants = {plan.diagonals: rng.uniform(-1, 1, (4, PARAMS.slots)) for plan in plans}
    chosen = (plans[0], plans[1], plans[1], plans[1])
    nodes = tuple(Node(Op.LINEAR, (0,), (1 + i,), plan) for i, plan in enumerate(chosen))
    types = (ValueType(2), *(ValueType(1) for _ in chosen))
    circuit = Circuit(PARAMS.slots, (0,), (1, 2, 3, 4), nodes, types, constants)
    engine = NativeEngine(PARAMS, threads=2)
    each = engine.encoded_bytes(constants["once"], 2, extended=True)
    engine = NativeEngine(PARAMS, threads=2, cache_bytes=5 * each)
    engine.prepare(circuit)
    assert engine.plaintexts.used_bytes == 5 * each
    made = engine.plaintexts.made
    engine.diagonals(plans[1], constants, [0, 1, 2, 3], 2, extended=True)
    assert engine.plaintexts.made == made == 5
    again = engine.diagonals(plans[0], constants, [0, 1, 2, 3], 2, extended=True)
    assert engine.plaintexts.made == made + 3
    alone = NativeEngine(PARAMS).diagonals(plans[0], constants, [0, 1, 2, 3], 2, extended=True)
    for a, b in zip(again, alone, strict=True):
        assert np.array_equal(engine.kernels.download(a), engine.kernels.download(b))


def test_a_large_map_stays_over_q_and_gives_the_same(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    terms = tuple(
        LinearTerm(0, 0, giant, baby, row)
        for row, (giant, baby) in enumerate((giant, baby) for giant in (0, 4, 8) for baby in (0, 1))
    )
    x = rng.uniform(-1, 1, PARAMS.slots)
    constants = {"rows": rng.uniform(-1, 1, (6, PARAMS.slots))}
    wanted = sum(np.roll(constants["rows"][t.row] * np.roll(x, -t.baby), -t.giant) for t in terms)
    a = exchange.to_native(exchange.encrypt(x, 1))
    for in_sequence in (False, True):
        plan = LinearPlan(1, terms, "rows", "", in_sequence=in_sequence)
        for large in (False, True):
            monkeypatch.setattr("tacit.linear_plan._EXTENSION_BYTES", 0 if large else 1 << 40)
            assert exchange.native_keys.engine.over_qp(plan, 1) is not large
            (made,) = NativeEvaluator(exchange.native_keys).linear([a], plan, constants)
            found = exchange.decrypt(exchange.to_openfhe(made))
            np.testing.assert_allclose(found, wanted, atol=2.0**-20)


def test_encoded_constants_are_those_of_openfhe_up_to_rounding(exchange: Exchange) -> None:
    values = np.random.default_rng(0).uniform(-1, 1, PARAMS.slots)
    plain = Plain("w", values)
    for level in (PARAMS.depth, 1):
        a = exchange.encrypt(np.zeros(PARAMS.slots), level)
        x = exchange.to_native(a)
        theirs = exchange.to_native(exchange.openfhe.add_plain(a, plain))
        ours = exchange.native.add_plain(x, plain)
        gap = exchange.native.subtract(ours, theirs)
        assert gap.degree == 1
        first, second = exchange.native_keys.download(gap)
        assert not second.any()
        coefficients = first.copy()
        ntt.inverse(Ring(PARAMS.log_n, PARAMS.moduli), coefficients)
        q = np.array(PARAMS.moduli[: level + 1], dtype=np.uint64)[:, None]
        distance = np.minimum(coefficients, q - coefficients)
        assert distance.max() <= 1
        assert (distance > 0).mean() < 0.05


def test_scalars_have_the_type_asked_for(exchange: Exchange) -> None:
    engine = NativeEngine(PARAMS)
    assert engine.scalar(0.5, ValueType(2, 2)).shape == (3,)
    doubled = engine.scalar(1.0, ValueType(0, 2))
    assert int(doubled[0]) == int(PARAMS.scale(0) ** 2) % PARAMS.moduli[0]


def test_a_prepared_circuit_encodes_nothing_later(exchange: Exchange) -> None:
    """Every operation that has constants, dense and sparse weights among them."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, PARAMS.slots)
    constants = {
        "rows": rng.uniform(-1, 1, (8, PARAMS.slots)),
        "bias": x[None],
        "w": x,
        "half": np.asarray(0.5),
        "dense": rng.uniform(-1, 1, (2, 2)),
        "sparse": np.array([[0.0, 0.5], [0.0, 0.0]]),
        "scalars": rng.uniform(-1, 1, 2),
        "line": np.array([0.25, 0.5]),
    }
    plan = LinearPlan(1, _plan(8).terms, "rows", "bias")
    nodes = (
        Node(Op.LINEAR, (0,), (1,), plan),
        Node(Op.MULTIPLY_PLAIN, (1,), (2,), Constant("w")),
        Node(Op.RESCALE, (2,), (3,)),
        Node(Op.ADD_PLAIN, (3,), (4,), Constant("half")),
        Node(Op.ADD_PLAIN, (4,), (5,), Constant("w")),
        Node(Op.WEIGHTED_SUM, (4, 5), (6, 7), WeightedSumPlan(2, "dense", "scalars")),
        Node(Op.WEIGHTED_SUM, (4, 5), (8, 9), WeightedSumPlan(2, "sparse", "")),
        Node(Op.CHEBYSHEV, (8,), (10,), Chebyshev("line")),
    )
    levels = ((4, 1), (3, 1), (3, 2), (2, 1), (2, 1), (2, 1), *[(1, 1)] * 4, (0, 1))
    types = tuple(ValueType(*at) for at in levels)
    circuit = Circuit(PARAMS.slots, (0,), (6, 7, 9, 10), nodes, types, constants)
    engine = NativeEngine(PARAMS)
    engine.prepare(circuit)
    held, made = engine.plaintexts.used_bytes, engine.plaintexts.made
    # 8 diagonals, the bias, w at two types, one dense matrix, two rows of the sparse one.
    assert made == 8 + 1 + 2 + 1 + 2
    keys = load_keys(engine, KEY_ID, evaluation_keys(PARAMS, exchange.keys))
    a = exchange.to_native(exchange.encrypt(x, PARAMS.depth))
    mine = keys.upload(exchange.native_keys.download(a), PARAMS.depth)
    outputs = execute(circuit, [mine], NativeEvaluator(keys))
    assert [output.type for output in outputs] == [circuit.types[i] for i in circuit.outputs]
    assert engine.plaintexts.used_bytes == held
    assert engine.plaintexts.made == made


def test_a_packed_row_is_encoded_once_and_like_a_plain_one() -> None:
    engine = NativeEngine(PARAMS)
    dense = np.where(np.random.default_rng(0).random((3, 8)) < 0.5, 0.25, 0.0)
    index, place = np.nonzero(dense)
    packed = pack_rows((index, place), dense[index, place], (3, 8), 32)
    plan, level = _plan(3), ValueType(2).level
    constants = {"rows": cast("NDArray[np.float64]", packed)}
    first = engine.diagonal(plan, constants, 1, level, extended=True)
    assert engine.diagonal(plan, constants, 1, level, extended=True) is first
    plain = {"rows": np.tile(dense, 4)}
    again = engine.diagonal(plan, plain, 1, level, extended=True)
    download = engine.kernels.download
    assert np.array_equal(download(first), download(again))


@pytest.mark.slow
def test_no_memory_is_lost_over_many_requests(exchange: Exchange) -> None:
    import resource

    a = exchange.to_native(exchange.encrypt(np.zeros(PARAMS.slots), PARAMS.depth))

    def request() -> None:
        exchange.native.rotate(exchange.native.rescale(exchange.native.multiply(a, a)), 1)

    for _ in range(200):
        request()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(10_000):
        request()
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 2048, f"{grown_kib} KiB more after 10,000 requests"


def test_sparse_and_dense_weighted_sums_agree(exchange: Exchange) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (20, PARAMS.slots))
    a = [exchange.to_native(exchange.encrypt(row, 2)) for row in x]
    weights = rng.uniform(-1, 1, (3, 20))
    weights[:, 2:] *= rng.uniform(size=(3, 18)) < 0.2
    weights[2] = 0.0
    plan = WeightedSumPlan(3, "w", "")
    for _ in range(2):
        found = exchange.native.weighted_sum(a, plan, {"w": weights})
        for output, wanted in zip(found, weights @ x, strict=True):
            assert exchange.native.type_of(output) == ValueType(1)
            values = exchange.decrypt(exchange.to_openfhe(output))
            np.testing.assert_allclose(values, wanted, atol=1e-6)
