"""Trimmed keys give the limbs that full ones give, at every level they are for, and no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.bootstrap_levels import bootstrap_depth
from tacit.circuit import Circuit, LinearPlan, LinearTerm, Node, Op, ValueType
from tacit.errors import KeyMismatchError, ParameterMismatchError, UnknownKeyError
from tacit.evaluation_keys import NeededKey, keys_at
from tacit.fourier import fit_series
from tacit.key_levels import KeyLevels, circuit_key_levels
from tacit.key_trimming import trimmed
from tacit.params import CryptoParams, SecretDistribution, Security
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_ciphertext import NativeCiphertext, join, split
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import NativeKeys, load_keys
from tacit.wire import EvaluationKey, KeyKind
from tests.kernels.clients import ciphertext, random_keys
from tests.kernels.residues import residues

STEPS = (1, 2, 5)
# Depths with digits of one, two and more limbs, and last ones that are shorter.
DEPTHS = {1: 5, 2: 6, 3: 7, 4: 6, 5: 8, 6: 10, 7: 6, 8: 7}
KEY_ID = bytes(32)
Words = NDArray[np.uint64]
Operation = Callable[[NativeEvaluator, NativeCiphertext], NativeCiphertext]


def _plan(*, in_sequence: bool) -> LinearPlan:
    """Baby and giant steps of 1 and 2, and folds by 5 and 1."""
    terms = tuple(LinearTerm(0, 0, 2 * (i // 2), i % 2, i) for i in range(4))
    return LinearPlan(1, terms, "rows", "", folds=(5, 1), in_sequence=in_sequence)


def _linear(in_sequence: bool) -> Operation:
    rows = {"rows": np.random.default_rng(2).uniform(-1, 1, (4, 8))}
    plan = _plan(in_sequence=in_sequence)
    return lambda ev, a: ev.linear([a], plan, rows)[0]


# What each operation does, and whether it needs a rescaling.
OPERATIONS: dict[str, tuple[Operation, bool]] = {
    "rotate": (lambda ev, a: ev.rotate(a, 5), False),
    "rotate several": (lambda ev, a: ev.add(*ev.rotate_many(a, (1, 2))), False),
    "multiply": (lambda ev, a: ev.multiply(a, a), True),
    "linear": (_linear(in_sequence=False), True),
    "linear in sequence": (_linear(in_sequence=True), True),
}


@cache
def _params(dnum: int, log_n: int) -> CryptoParams:
    return CryptoParams.choose(log_n, DEPTHS[dnum], 40, 50, dnum, Security.UNCHECKED_INSECURE)


def _trimmed_all(
    keys: Iterable[EvaluationKey], level: int, params: CryptoParams
) -> list[EvaluationKey]:
    return [trimmed(key, level + 1, params) for key in keys]


def _words(keys: NativeKeys, a: NativeCiphertext) -> Words:
    return keys.download(a)


def _check_levels(
    engine: NativeEngine, tops: Iterable[int], levels: Callable[[int], Iterable[int]]
) -> None:
    """Compare both kinds of keys for each trimming, at levels up to it."""
    params = engine.params
    made = random_keys(params, STEPS, 1)
    full = load_keys(engine, KEY_ID, made)
    for top in tops:
        some = load_keys(engine, KEY_ID, _trimmed_all(made, top, params))
        for level in levels(top):
            for name, (operation, rescales) in OPERATIONS.items():
                if rescales and not level:
                    continue
                wanted = operation(NativeEvaluator(full), ciphertext(full, level, level))
                found = operation(NativeEvaluator(some), ciphertext(some, level, level))
                np.testing.assert_array_equal(_words(some, found), _words(full, wanted), name)


@pytest.mark.parametrize("dnum", list(DEPTHS))
def test_every_level_with_every_number_of_digits(dnum: int) -> None:
    engine = NativeEngine(_params(dnum, 7))
    _check_levels(engine, range(engine.params.depth + 1), lambda top: range(top + 1))


@pytest.mark.parametrize("dnum", [1, 3, 8])
def test_larger_rings_at_some_levels(dnum: int) -> None:
    engine = NativeEngine(_params(dnum, 12))
    _check_levels(engine, (0, 3, engine.params.depth - 1), lambda top: {0, top // 2, top})


@pytest.mark.slow
@pytest.mark.parametrize(("log_n", "dnum"), [(14, 3), (15, 8), (16, 4)])
def test_real_rings_at_some_levels(log_n: int, dnum: int) -> None:
    engine = NativeEngine(_params(dnum, log_n))
    _check_levels(engine, (0, 3), lambda top: {0, top})


def test_a_key_is_refused_above_its_level_by_name() -> None:
    params = _params(3, 7)
    keys = load_keys(
        NativeEngine(params), KEY_ID, _trimmed_all(random_keys(params, STEPS, 1), 2, params)
    )
    evaluator, a = NativeEvaluator(keys), ciphertext(keys, 3, 0)
    below = ciphertext(keys, 2, 0)
    evaluator.rotate(below, 5)
    evaluator.multiply(below, below)
    with pytest.raises(UnknownKeyError, match=r"rotations by 5 slots at level 3.*levels up to 2"):
        evaluator.rotate(a, 5)
    with pytest.raises(UnknownKeyError, match=r"relinearisation key at level 3.*levels up to 2"):
        evaluator.multiply(a, a)
    for in_sequence in (False, True):
        with pytest.raises(UnknownKeyError, match=r"rotations by . slots at level 3"):
            _linear(in_sequence)(evaluator, a)
    evaluator.rotate(below, 5)


def test_what_is_stored_is_what_counts() -> None:
    params = _params(4, 7)
    made = random_keys(params, STEPS, 1)
    uses = KeyLevels({1: 0, 2: 3, 5: params.depth}, 4)
    needed = keys_at(uses, params)
    assert [key.element for key in needed] == [key.galois_element for key in made]
    few = [trimmed(key, want.limbs, params) for key, want in zip(made, needed, strict=True)]
    keys = load_keys(NativeEngine(params), KEY_ID, few)
    assert keys.size_bytes == sum(key.size_bytes(params) for key in needed)
    assert keys.size_bytes < len(made) * params.evaluation_key_bytes


def test_shapes_between_the_trimmed_ones_are_refused() -> None:
    params = _params(4, 7)
    key, engine = random_keys(params, (), 1)[0], NativeEngine(params)
    for limbs in (key.limbs[:, :1], key.limbs[:, :, :2], key.limbs[:, :, 1:], key.limbs[..., :64]):
        wrong = EvaluationKey(np.ascontiguousarray(limbs), key.kind, 0, params.digest)
        with pytest.raises(ParameterMismatchError, match="key of shape"):
            load_keys(engine, KEY_ID, [wrong])
    small = trimmed(key, 2, params)
    with pytest.raises(ParameterMismatchError, match="cannot be trimmed"):
        trimmed(small, 3, params)


def test_owners_of_one_batch_have_keys_trimmed_alike() -> None:
    params = _params(3, 7)
    engine = NativeEngine(params)
    owners = [
        load_keys(engine, bytes([i]) * 32, _trimmed_all(random_keys(params, STEPS, i), 3, params))
        for i in range(2)
    ]
    parts = [ciphertext(keys, 3, i) for i, keys in enumerate(owners)]
    together = split(NativeEvaluator(owners).rotate(join(parts), 5))
    for keys, part, found in zip(owners, parts, together, strict=True):
        alone = NativeEvaluator(keys).rotate(part, 5)
        np.testing.assert_array_equal(_words(keys, found), _words(keys, alone))
    other = load_keys(engine, bytes([1]) * 32, random_keys(params, STEPS, 1))
    with pytest.raises(KeyMismatchError, match="trimmed alike"):
        NativeEvaluator([owners[0], other]).rotate(join(parts), 5)


# Bootstraps of half of the slots: every kind of key, at levels from the bottom to the top.
PLAN = Bootstrap("series", 2, 5, 2, 2)
SERIES = {"series": fit_series(np.tanh, 7)}


def _bootstrap_params() -> CryptoParams:
    choice = (3, Security.UNCHECKED_INSECURE, SecretDistribution.SPARSE_ENCAPSULATED)
    shallow = CryptoParams.choose(7, 5, 40, 41, *choice)
    return CryptoParams.choose(7, PLAN.level + bootstrap_depth(shallow, PLAN, 7), 40, 41, *choice)


def _bootstrap_circuit(params: CryptoParams) -> Circuit:
    node = Node(Op.BOOTSTRAP, (0,), (1,), PLAN, "refresh")
    types = (ValueType(PLAN.to_coefficients + 1), ValueType(PLAN.level))
    return Circuit(params.slots, (0,), (1,), (node,), types, SERIES)


def _random_key(want: NeededKey, params: CryptoParams, seed: int) -> EvaluationKey:
    rng = np.random.default_rng(seed)
    moduli, digits = want.moduli(params), want.digits(params)
    rows = [residues(rng, moduli, params.n) for _ in range(2 * digits)]
    limbs = np.stack(rows).reshape(2, digits, len(moduli), params.n)
    return EvaluationKey(limbs, want.kind, want.element, params.digest)


def test_a_bootstrap_needs_exactly_the_levels_that_are_predicted() -> None:
    params = _bootstrap_params()
    circuit, engine = _bootstrap_circuit(params), NativeEngine(params)
    needed = keys_at(circuit_key_levels(circuit, params), params)
    top = [
        NeededKey(key.kind, key.element, 1 if key.kind is KeyKind.TO_SPARSE else params.depth + 1)
        for key in needed
    ]
    made = [_random_key(key, params, seed) for seed, key in enumerate(top)]
    few = [trimmed(key, want.limbs, params) for key, want in zip(made, needed, strict=True)]
    full, some = load_keys(engine, KEY_ID, made), load_keys(engine, KEY_ID, few)
    assert some.size_bytes == sum(key.size_bytes(params) for key in needed) < full.size_bytes
    some.check(circuit)
    a = ciphertext(full, PLAN.to_coefficients + 1, 0)
    wanted = NativeEvaluator(full).bootstrap(a, PLAN, SERIES)
    found = NativeEvaluator(some).bootstrap(a, PLAN, SERIES)
    np.testing.assert_array_equal(_words(some, found), _words(full, wanted))
    for index, want in enumerate(needed):
        if want.limbs == 1:
            continue
        less = [*few]
        less[index] = trimmed(few[index], want.limbs - 1, params)
        keys = load_keys(engine, KEY_ID, less)
        with pytest.raises(UnknownKeyError, match=f"at level {want.limbs - 1} .* up to"):
            keys.check(circuit)
        with pytest.raises(UnknownKeyError, match=f"at level {want.limbs - 1} .* up to"):
            NativeEvaluator(keys).bootstrap(a, PLAN, SERIES)
