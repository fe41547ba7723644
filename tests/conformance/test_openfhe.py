"""What only the OpenFHE backend has: contexts, keys, a cache of plaintexts, threads."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit import precision
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
    execute,
)
from tacit.errors import ParameterError, UnknownKeyError
from tacit.openfhe_context import template_from_context
from tacit.packed_rows import pack_rows
from tacit.params import CryptoParams, Security
from tests.conformance.backends import DEEP_TINY_INSECURE, Backend, openfhe_backend

openfhe = pytest.importorskip("openfhe", reason="openfhe does not import here")

from tacit.runtime.backends.openfhe import OpenFHEEvaluator  # noqa: E402
from tacit.runtime.backends.openfhe_parameters import (  # noqa: E402
    check_context,
    make_context,
)
from tacit.runtime.backends.openfhe_plaintexts import (  # noqa: E402
    PlaintextBudget,
    PlaintextCache,
    constants_to_encode,
    plaintext_bytes,
)
from tacit.runtime.backends.openfhe_rounding import half_of_every_coefficient  # noqa: E402

OTHER = CryptoParams.choose(10, 2, 40, 50, 3, Security.UNCHECKED_INSECURE)


def test_the_same_parameters_give_the_same_context() -> None:
    assert make_context(OTHER).get_ptr() == make_context(OTHER).get_ptr()


def test_a_context_of_other_parameters_is_refused() -> None:
    with pytest.raises(ParameterError, match="moduli"):
        check_context(DEEP_TINY_INSECURE, make_context(OTHER))
    moved = dataclasses.replace(OTHER, log_n=OTHER.log_n - 1)
    with pytest.raises(ParameterError, match="N = 1024"):
        check_context(moved, make_context(OTHER))


def test_a_missing_relinearisation_key_is_named() -> None:
    context = make_context(OTHER)
    keys = context.KeyGen()
    plaintext = context.MakeCKKSPackedPlaintext(np.ones(OTHER.slots))
    a = context.Encrypt(keys.publicKey, plaintext)
    evaluator = OpenFHEEvaluator(OTHER, context)
    with pytest.raises(UnknownKeyError, match="relinearisation key"):
        evaluator.multiply(a, a)
    with pytest.raises(UnknownKeyError, match="Galois key"):
        evaluator.rotate_many(a, [1, 2])


def test_results_carry_the_scale_of_their_level(deep_backend: Backend) -> None:
    if deep_backend.name != "openfhe":
        return
    ev, params = deep_backend.evaluator, deep_backend.params
    a: Any = deep_backend.encrypt(np.ones(params.slots), params.depth)
    value = a
    for level in range(params.depth - 1, -1, -1):
        value = ev.rescale(ev.multiply_plain(value, Plain("half", np.asarray(0.5))))
        assert value.GetScalingFactor() == params.scale(level)
        assert ev.drop(a, level).GetScalingFactor() == params.scale(level)


@pytest.mark.parametrize("hoisted", [False, True])
@pytest.mark.parametrize("dnum", [2, 3])
def test_rotations_are_rid_of_the_error_in_slot_zero(dnum: int, hoisted: bool) -> None:
    """Over several secrets, since the error OpenFHE leaves there depends on the secret alone."""
    params = CryptoParams.choose(10, 5, 40, 50, dnum, Security.UNCHECKED_INSECURE)
    context = make_context(params)
    raw = OpenFHEEvaluator(params, context, correct_rotations=False)
    corrected = OpenFHEEvaluator(params, context)
    errors: dict[str, list[Any]] = {"raw": [], "corrected": []}
    for _ in range(40):
        keys = context.KeyGen()
        context.EvalRotateKeyGen(keys.secretKey, [1, 2])
        plaintext = context.MakeCKKSPackedPlaintext(np.zeros(params.slots))
        a = context.Encrypt(keys.publicKey, plaintext)
        for name, evaluator in (("raw", raw), ("corrected", corrected)):
            rotated = evaluator.rotate_many(a, [1, 2] if hoisted else [1])[0]
            errors[name].append(context.Decrypt(keys.secretKey, rotated).GetRealPackedValueArray())
    usual = precision.DECRYPTION_FACTOR * precision.fresh_deviation(params)
    first = {name: np.sqrt(np.mean(np.square(e), axis=0))[0] for name, e in errors.items()}
    # About 3.2 or 4.9, and 1.0; forty secrets leave an eighth of uncertainty.
    assert first["raw"] > 1.2 * usual
    assert first["corrected"] < 2.2 * usual


@pytest.mark.parametrize("times", [1, 2, 3])
def test_the_correction_has_coefficients_of_half_its_factor(times: int) -> None:
    basis = template_from_context(openfhe.Serialize(make_context(OTHER), openfhe.BINARY)).basis
    limbs = half_of_every_coefficient(basis, times)
    for limb, modulus, root in zip(limbs, basis.moduli, basis.roots, strict=True):
        coefficients = _interpolated(limb, modulus, root, basis.log_n, count=16)
        assert set(coefficients) == {times // 2, (times + 1) // 2}


def _interpolated(
    limb: NDArray[np.uint64], modulus: int, root: int, log_n: int, count: int
) -> list[int]:
    """Return the first coefficients of a polynomial in OpenFHE's NTT form, by the definition."""
    exponents = [2 * int(f"{k:0{log_n}b}"[::-1], 2) + 1 for k in range(1 << log_n)]
    inverse = pow(1 << log_n, -1, modulus)
    return [
        inverse
        * sum(int(v) * pow(root, -e * i, modulus) for v, e in zip(limb, exponents, strict=True))
        % modulus
        for i in range(count)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("log_scale", "log_first"), [(30, 36), (36, 46)])
def test_parameters_of_128_bits_keep_the_bits_expected(log_scale: int, log_first: int) -> None:
    params = CryptoParams.choose(13, 3, log_scale, log_first, 4)
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, params.slots)
    weight = Plain("w", rng.uniform(-1, 1, params.slots))
    coefficients = np.array([0.25, 0.125, 0.0, -0.0625])

    def program(ev: Any, c: list[Any]) -> list[Any]:
        product = ev.rescale(ev.multiply_plain(c[0], weight))
        total = ev.add(product, ev.rotate(product, 256))
        return [ev.chebyshev(total, Chebyshev("c"), {"c": coefficients})]

    product = x * weight.values
    total = product + np.roll(product, -256)
    expected = np.asarray(np.polynomial.chebyshev.chebval(total, coefficients), dtype=np.float64)
    openfhe_backend(params, (256,)).check(program, [x], [expected])


def test_a_constant_is_encoded_once_per_type() -> None:
    cache = PlaintextCache(OTHER, make_context(OTHER), PlaintextBudget(1 << 20))
    plain = Plain("w", np.ones(4))
    first = cache.encode(plain, ValueType(2, 1))
    assert cache.encode(plain, ValueType(2, 1)) is first
    assert cache.encode(Plain("w", plain.values[:]), ValueType(2, 1)) is first
    assert cache.encode(plain, ValueType(1, 1)) is not first
    assert cache.encode(plain, ValueType(2, 2)) is not first


def test_a_packed_row_is_encoded_once() -> None:
    cache = PlaintextCache(OTHER, make_context(OTHER), PlaintextBudget(1 << 20))
    index, place = np.nonzero(np.eye(4))
    packed = pack_rows((index, place), np.full(4, 0.5), (4, 4), 8)
    rows = cast("NDArray[np.float64]", packed)
    first = cache.encode_row("d", rows, 1, ValueType(2))
    assert cache.encode_row("d", rows, 1, ValueType(2)) is first
    assert cache.encode_row("d", rows, 2, ValueType(2)) is not first
    slots = np.asarray(first.GetRealPackedValueArray())
    np.testing.assert_allclose(slots, Plain("d/1", packed[1]).expand(OTHER.slots), atol=1e-6)


def test_constants_of_one_name_and_different_values_are_kept_apart() -> None:
    cache = PlaintextCache(OTHER, make_context(OTHER), PlaintextBudget(1 << 20))
    for value in (0.5, 0.25, 0.125):
        encoded = cache.encode(Plain("w", np.full(4, value)), ValueType(2, 1))
        np.testing.assert_allclose(encoded.GetRealPackedValueArray(), value, atol=1e-6)


def test_a_cache_too_small_for_a_circuit_keeps_a_share_of_it() -> None:
    at = ValueType(2, 1)
    budget = PlaintextBudget(2 * plaintext_bytes(OTHER, at))
    cache = PlaintextCache(OTHER, make_context(OTHER), budget)
    plains = [Plain(name, np.ones(4)) for name in "abc"]
    first = [cache.encode(plain, at) for plain in plains]
    again = [cache.encode(plain, at) for plain in plains]
    assert [x is y for x, y in zip(first, again, strict=True)] == [True, True, False]
    assert cache.used_bytes == 8 * OTHER.n * 3 * 2 + 16 * OTHER.slots * 2


def test_caches_share_a_budget_and_give_it_back() -> None:
    at = ValueType(2, 1)
    budget = PlaintextBudget(plaintext_bytes(OTHER, at))
    context = make_context(OTHER)
    one, other = (PlaintextCache(OTHER, context, budget) for _ in range(2))
    plain = Plain("w", np.ones(4))
    one.encode(plain, at)
    other.encode(plain, at)
    assert (one.used_bytes, other.used_bytes) == (plaintext_bytes(OTHER, at), 0)
    del one
    assert budget.used_bytes == 0
    other.encode(plain, at)
    assert other.used_bytes == budget.used_bytes == plaintext_bytes(OTHER, at)


def test_without_a_cache_constants_are_still_encoded() -> None:
    cache = PlaintextCache(OTHER, make_context(OTHER), PlaintextBudget(0))
    encoded = cache.encode(Plain("w", np.full(4, 0.5)), ValueType(1, 1))
    np.testing.assert_allclose(encoded.GetRealPackedValueArray(), 0.5, atol=1e-6)
    assert cache.used_bytes == 0


def test_threads_share_an_evaluator(encrypted_backend: Backend) -> None:
    slots = encrypted_backend.params.slots
    rng = np.random.default_rng(0)
    weights = [Plain(f"w{i}", rng.uniform(-1, 1, slots)) for i in range(4)]
    rows = [rng.uniform(-1, 1, slots) for _ in range(8)]

    def program(ev: Any, c: list[Any]) -> list[Any]:
        value = ev.rescale(ev.multiply(c[0], c[0]))
        for weight in weights:
            value = ev.add_plain(ev.rotate(value, 1), weight)
        return [value]

    def expected(x: Any) -> Any:
        value = x * x
        for weight in weights:
            value = np.roll(value, -1) + weight.values
        return value

    with ThreadPoolExecutor(4) as pool:
        for done in [
            pool.submit(encrypted_backend.check, program, [x], [expected(x)], 2) for x in rows
        ]:
            done.result()


def _linear_circuit() -> Circuit:
    """Two diagonals, three joint folds and a bias; then a vector is added."""
    rng = np.random.default_rng(3)
    terms = (LinearTerm(0, 0, 0, 0, 0), LinearTerm(0, 0, 0, 1, 1), LinearTerm(0, 0, 2, 1, 2))
    plan = LinearPlan(1, terms, "rows", "bias", (16, 8, 4), (2, 1))
    constants = {
        "rows": rng.uniform(-0.1, 0.1, (3, OTHER.slots)),
        "bias": rng.uniform(-0.1, 0.1, (1, OTHER.slots)),
        "more": rng.uniform(-0.1, 0.1, OTHER.slots),
    }
    nodes = (
        Node(Op.LINEAR, (0,), (1,), plan),
        Node(Op.ADD_PLAIN, (1,), (2,), Constant("more")),
    )
    types = (ValueType(2), ValueType(1), ValueType(1))
    return Circuit(OTHER.slots, (0,), (2,), nodes, types, constants)


def test_preparing_encodes_exactly_what_an_evaluation_uses() -> None:
    circuit, context = _linear_circuit(), make_context(OTHER)
    budget = PlaintextBudget(1 << 20)
    evaluator = OpenFHEEvaluator(OTHER, context, circuit=circuit, budget=budget)
    needed = sum(plaintext_bytes(OTHER, at) for _, at in constants_to_encode(circuit, OTHER))
    assert budget.used_bytes == needed
    keys = context.KeyGen()
    context.EvalRotateKeyGen(keys.secretKey, sorted(circuit.rotations))
    a = context.Encrypt(keys.publicKey, context.MakeCKKSPackedPlaintext(np.ones(OTHER.slots)))
    execute(circuit, [a], evaluator)
    assert budget.used_bytes == needed


def test_a_loaded_ciphertext_gives_the_same_as_one_made_here() -> None:
    """Loaded ones are of another C++ class than those the library makes."""
    circuit, context = _linear_circuit(), make_context(OTHER)
    evaluator = OpenFHEEvaluator(OTHER, context)
    keys = context.KeyGen()
    context.EvalRotateKeyGen(keys.secretKey, sorted(circuit.rotations))
    made = context.Encrypt(keys.publicKey, context.MakeCKKSPackedPlaintext(np.ones(OTHER.slots)))
    loaded = openfhe.DeserializeCiphertextString(
        openfhe.Serialize(made, openfhe.BINARY), openfhe.BINARY
    )
    before = openfhe.Serialize(loaded, openfhe.BINARY)
    answers = [
        openfhe.Serialize(execute(circuit, [a], evaluator)[0], openfhe.BINARY)
        for a in (made, loaded)
    ]
    assert answers[0] == answers[1]
    assert openfhe.Serialize(loaded, openfhe.BINARY) == before


@pytest.mark.parametrize("joint", [(), (1, 2), (3,)])
def test_joint_folds_give_what_folds_one_by_one_give(joint: tuple[int, ...]) -> None:
    terms = (LinearTerm(0, 0, 0, 0, 0), LinearTerm(0, 0, 4, 1, 1), LinearTerm(0, 0, 8, 0, 2))
    plan = LinearPlan(1, terms, "rows", "bias", (4, 2, 2), joint)
    rng = np.random.default_rng(1)
    slots = DEEP_TINY_INSECURE.slots
    constants = {"rows": rng.uniform(-1, 1, (3, slots)), "bias": rng.uniform(-1, 1, (1, slots))}
    x = rng.uniform(-1, 1, slots)
    expected = constants["rows"][0] * x
    expected = expected + np.roll(constants["rows"][1] * np.roll(x, -1), -4)
    expected = expected + np.roll(constants["rows"][2] * x, -8)
    for step in plan.folds:
        expected = expected + np.roll(expected, -step)

    def program(ev: Any, c: list[Any]) -> list[Any]:
        return list(ev.linear(c, plan, constants))

    backend = openfhe_backend(DEEP_TINY_INSECURE, sorted(plan.rotations()))
    backend.check(program, [x], [expected + constants["bias"][0]])


@pytest.mark.parametrize("dnum", [2, 3])
def test_joint_folds_are_rid_of_the_error_in_slot_zero(dnum: int) -> None:
    params = CryptoParams.choose(10, 5, 40, 50, dnum, Security.UNCHECKED_INSECURE)
    context = make_context(params)
    diagonal = {"rows": np.ones((1, params.slots))}
    plan = LinearPlan(1, (LinearTerm(0, 0, 0, 0, 0),), "rows", "", (2, 1), (2,))
    first: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(30):
        keys = context.KeyGen()
        context.EvalRotateKeyGen(keys.secretKey, [1, 2, 3])
        a = context.Encrypt(keys.publicKey, context.MakeCKKSPackedPlaintext(np.zeros(params.slots)))
        for corrected, errors in first.items():
            evaluator = OpenFHEEvaluator(params, context, correct_rotations=corrected)
            (total,) = evaluator.linear([a], plan, diagonal)
            errors.append(context.Decrypt(keys.secretKey, total).GetRealPackedValueArray()[0])
    raw, rid = (np.asarray(first[corrected]) for corrected in (False, True))
    removed = raw - rid
    assert np.sqrt(np.mean(removed**2)) > 0.5 * np.sqrt(np.mean(rid**2))
    # What is left has nothing to do with what was removed; the slope deviates by about 0.12.
    assert abs(rid @ removed) < 0.9 * (removed @ removed)
