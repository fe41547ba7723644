"""Batches: every operation on a batch gives each entry what it gets alone, whoever owns it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest

from tacit.circuit import Chebyshev, LinearPlan, LinearTerm, Plain, WeightedSumPlan
from tacit.errors import (
    CircuitError,
    InternalError,
    KeyMismatchError,
    LevelError,
    ParameterMismatchError,
    UnknownKeyError,
)
from tacit.kernels.build import build_if_stale
from tacit.kernels.cpu_kernels import CpuKernels
from tacit.kernels.library import InstructionSet
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_ciphertext import NativeCiphertext, join, split
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import NativeKeys, load_keys
from tests.kernels.clients import ciphertext, client, random_keys

PARAMS = CryptoParams.choose(10, 4, 45, 55, 3, Security.UNCHECKED_INSECURE)
STEPS = (1, 2, 3, 4, 8, -5)
TOP = PARAMS.depth

Operation = Callable[[NativeEvaluator, NativeCiphertext, NativeCiphertext], list[NativeCiphertext]]

_RNG = np.random.default_rng(0)
CONSTANTS = {
    "rows": _RNG.uniform(-1, 1, (8, PARAMS.slots)),
    "bias": _RNG.uniform(-1, 1, (2, PARAMS.slots)),
    "dense": _RNG.uniform(-1, 1, (3, 2)),
    "sparse": np.array([[0.0, 0.5], [0.0, 0.0], [0.0, 0.0]]),
    "scalars": _RNG.uniform(-1, 1, 3),
    "cosine": _RNG.uniform(-0.5, 0.5, 6),
}
W = Plain("w", _RNG.uniform(-1, 1, PARAMS.slots))
HALF = Plain("half", np.asarray(-0.375))
# Baby and giant steps over two inputs and two outputs; without baby steps; with joint folds.
FULL = tuple(LinearTerm(i // 4, i // 2 % 2, 4 * (i // 4), i % 4, i) for i in range(8))
GIANTS = tuple(LinearTerm(0, i % 2, 4 * (i // 2), 0, i) for i in range(4))
WIDE = LinearPlan(2, FULL, "rows", "bias")
STEEP = LinearPlan(1, GIANTS, "rows", "")
FOLDED = LinearPlan(1, GIANTS[:1], "rows", "", folds=(1, 2, 8), joint_folds=(2, 1))

OPERATIONS: dict[str, Operation] = {
    "add": lambda ev, x, y: [ev.add(x, y)],
    "subtract": lambda ev, x, y: [ev.subtract(x, y)],
    "negate": lambda ev, x, y: [ev.negate(x)],
    "add_plain": lambda ev, x, y: [ev.add_plain(x, W), ev.add_plain(x, HALF)],
    "multiply_plain": lambda ev, x, y: [ev.multiply_plain(x, W), ev.multiply_plain(x, HALF)],
    "multiply": lambda ev, x, y: [ev.multiply(x, y), ev.multiply(x, x)],
    "rotate": lambda ev, x, y: [ev.rotate(x, -5), ev.rotate(ev.multiply_plain(x, HALF), 1)],
    "rotate_many": lambda ev, x, y: ev.rotate_many(x, (0, 1, 4, 1)),
    "rescale": lambda ev, x, y: [ev.rescale(ev.multiply(x, y))],
    "drop": lambda ev, x, y: [ev.drop(x, x.level - 1), ev.drop(x, 0)],
    "linear": lambda ev, x, y: ev.linear([x, y], WIDE, CONSTANTS),
    "linear without baby steps": lambda ev, x, y: ev.linear([x, y], STEEP, CONSTANTS),
    "linear with folds": lambda ev, x, y: ev.linear([x], FOLDED, CONSTANTS),
    "dense sum": lambda ev, x, y: ev.weighted_sum(
        [x, y], WeightedSumPlan(3, "dense", "scalars"), CONSTANTS
    ),
    "sparse sum": lambda ev, x, y: ev.weighted_sum(
        [x, y], WeightedSumPlan(3, "sparse", ""), CONSTANTS
    ),
    "chebyshev": lambda ev, x, y: [ev.chebyshev(x, Chebyshev("cosine"), CONSTANTS)],
}
# Which client owns each entry of a batch.
OWNERS = {
    "1": (0,),
    "2 of one": (0, 0),
    "2 of two": (0, 1),
    "3 of one": (1, 1, 1),
    "3 of two": (0, 1, 0),
    "5 of one": (2, 2, 2, 2, 2),
    "5 of three": (0, 0, 1, 2, 2),
}


@cache
def _clients(instructions: InstructionSet, threads: int) -> list[NativeKeys]:
    engine = NativeEngine(PARAMS, CpuKernels(PARAMS, instructions=instructions, threads=threads))
    return [client(engine, STEPS, seed) for seed in (1, 2, 3)]


@pytest.fixture
def clients() -> list[NativeKeys]:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    return _clients(InstructionSet.SCALAR, 1)


def _batch(owners: Sequence[NativeKeys], level: int, seed: int) -> list[NativeCiphertext]:
    return [ciphertext(keys, level, 100 * seed + i) for i, keys in enumerate(owners)]


def _check_equal(
    operation: Operation, level: int, owners: Sequence[NativeKeys], evaluator: NativeEvaluator
) -> None:
    x, y = _batch(owners, level, 1), _batch(owners, level, 2)
    together = [split(part) for part in operation(evaluator, join(x), join(y))]
    for entry, keys in enumerate(owners):
        alone = operation(NativeEvaluator(keys), x[entry], y[entry])
        assert len(alone) == len(together)
        for wanted, parts in zip(alone, together, strict=True):
            found = parts[entry]
            assert (found.level, found.degree) == (wanted.level, wanted.degree)
            np.testing.assert_array_equal(keys.download(found), keys.download(wanted))


@pytest.mark.parametrize("owners", list(OWNERS))
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_each_entry_gets_what_it_gets_alone(
    instructions: InstructionSet, name: str, owners: str
) -> None:
    clients = _clients(instructions, 1)
    chosen = [clients[i] for i in OWNERS[owners]]
    _check_equal(OPERATIONS[name], TOP, chosen, NativeEvaluator(chosen))


@pytest.mark.parametrize("level", range(TOP))
@pytest.mark.parametrize("name", ["multiply", "rotate_many", "rescale", "linear"])
def test_each_entry_gets_what_it_gets_alone_at_every_level(
    clients: list[NativeKeys], name: str, level: int
) -> None:
    if level == 0 and name != "rotate_many":
        return  # nothing can be multiplied there
    _check_equal(OPERATIONS[name], level, clients, NativeEvaluator(clients))


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_two_threads_give_the_same(instructions: InstructionSet, name: str) -> None:
    results = []
    for threads in (1, 2):
        owners = _clients(instructions, threads)
        x, y = join(_batch(owners, TOP, 1)), join(_batch(owners, TOP, 2))
        results.append(OPERATIONS[name](NativeEvaluator(owners), x, y))
    for one, two in zip(*results, strict=True):
        for keys, wanted, found in zip(owners, split(one), split(two), strict=True):
            np.testing.assert_array_equal(keys.download(found), keys.download(wanted))


def test_one_clients_evaluator_takes_batches_of_any_size(clients: list[NativeKeys]) -> None:
    evaluator = NativeEvaluator(clients[0])
    for size in (1, 4, 2):
        _check_equal(OPERATIONS["rotate"], 2, [clients[0]] * size, evaluator)


def test_a_batch_of_other_owners_or_another_order_is_refused(clients: list[NativeKeys]) -> None:
    ours, theirs, third = clients
    a = join(_batch([ours, theirs], TOP, 1))
    for keys in ([ours], [theirs, ours], [ours, theirs, third], [ours, third]):
        evaluator = NativeEvaluator(keys)
        for operation in OPERATIONS.values():
            with pytest.raises(KeyMismatchError, match="key sets"):
                operation(evaluator, a, a)
    both = NativeEvaluator([ours, theirs])
    for other in (join(_batch([theirs, ours], TOP, 2)), *split(a)):
        with pytest.raises(KeyMismatchError):
            both.add(a, other)
        with pytest.raises(KeyMismatchError):
            both.linear([a, other], WIDE, CONSTANTS)


def test_results_go_to_their_owners_only(clients: list[NativeKeys]) -> None:
    ours, theirs, _ = clients
    a = NativeEvaluator([ours, theirs]).negate(join(_batch([ours, theirs], 1, 1)))
    first, second = split(a)
    assert ours.frame(first).key_id == ours.key_id
    for wrong in (a, second):
        with pytest.raises(InternalError, match="owner"):
            ours.frame(wrong)
    with pytest.raises(InternalError, match="owner"):
        theirs.frame(first)


def test_a_missing_key_names_the_rotation_and_the_entry(clients: list[NativeKeys]) -> None:
    ours = clients[0]
    poor = client(ours.engine, (1,), 9)
    evaluator = NativeEvaluator([ours, poor])
    a = join(_batch([ours, poor], TOP, 1))
    evaluator.rotate(a, 1)
    with pytest.raises(UnknownKeyError, match=r"entry 1 of a batch of 2.*rotations by 4 slots"):
        evaluator.rotate(a, 4)
    with pytest.raises(UnknownKeyError, match=r"entry 1.*Galois key"):
        evaluator.linear([a, a], WIDE, CONSTANTS)
    bare = load_keys(ours.engine, bytes(32), random_keys(PARAMS, (1,), 9)[1:])
    pair = join([ciphertext(bare, TOP, 1), ciphertext(ours, TOP, 2)])
    with pytest.raises(UnknownKeyError, match=r"entry 0.*relinearisation key"):
        NativeEvaluator([bare, ours]).multiply(pair, pair)
    evaluator.rotate(a, 1)


def test_only_what_is_alike_can_be_joined(clients: list[NativeKeys]) -> None:
    ours = clients[0]
    with pytest.raises(CircuitError, match="at least one"):
        join([])
    with pytest.raises(LevelError):
        join([ciphertext(ours, 1, 1), ciphertext(ours, 2, 1)])
    with pytest.raises(CircuitError, match="degrees"):
        join([ciphertext(ours, 1, 1), ciphertext(ours, 1, 1, degree=2)])
    stranger = client(NativeEngine(PARAMS), (), 7)
    with pytest.raises(ParameterMismatchError, match="one engine"):
        join([ciphertext(ours, 1, 1), ciphertext(stranger, 1, 1)])
    with pytest.raises(KeyMismatchError, match="one engine"):
        NativeEvaluator([ours, stranger])
    with pytest.raises(KeyMismatchError, match="at least one"):
        NativeEvaluator([])


def test_batches_of_batches_keep_their_order(clients: list[NativeKeys]) -> None:
    ours, theirs, third = clients
    pair, single = join(_batch([ours, theirs], 1, 1)), ciphertext(third, 1, 5)
    whole = join([single, pair])
    assert whole.owners == (third.key_id, ours.key_id, theirs.key_id)
    for keys, found, wanted in zip(
        (third, ours, theirs), split(whole), (single, *split(pair)), strict=True
    ):
        np.testing.assert_array_equal(keys.download(found), keys.download(wanted))
