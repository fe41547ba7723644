"""OpenFHE with trimmed keys: its own results below their levels, refusals above."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("openfhe", reason="openfhe does not import here")

import openfhe

from tacit import wire
from tacit.circuit import Circuit, Node, Op, Steps, ValueType
from tacit.errors import UnknownKeyError
from tacit.key_trimming import trimmed
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.openfhe import OpenFHEEvaluator
from tacit.runtime.backends.openfhe_key_limits import KeyLimits
from tacit.runtime.backends.openfhe_objects import OpenFHEKeys, load_keys
from tacit.wire_key import sparse_elements
from tests.conformance.exchange import evaluation_keys, make_exchange

PARAMS = CryptoParams.choose(10, 5, 40, 50, 3, Security.UNCHECKED_INSECURE)
STEPS = (1, -7)
TOP = 2


@pytest.fixture(scope="module")
def loaded() -> dict[str, OpenFHEKeys]:
    """Keys of one secret, with all limbs and for levels up to 2."""
    exchange = make_exchange(PARAMS, STEPS)
    full = evaluation_keys(PARAMS, exchange.keys)
    few = [trimmed(key, TOP + 1, PARAMS) for key in full]
    return {
        "full": load_keys(PARAMS, bytes([1]) * 32, full),
        "trimmed": load_keys(PARAMS, bytes([2]) * 32, few),
    }


def _circuit(level: int, steps: int = 1) -> Circuit:
    """Square, rescale, rotate at one level less."""
    nodes = (
        Node(Op.MULTIPLY, (0, 0), (1,), None, "square"),
        Node(Op.RESCALE, (1,), (2,)),
        Node(Op.ROTATE, (2,), (3,), Steps(steps), "turn"),
    )
    types = (ValueType(level), ValueType(level, 2), *(ValueType(level - 1),) * 2)
    return Circuit(PARAMS.slots, (0,), (3,), nodes, types)


def _ciphertext(keys: OpenFHEKeys, level: int) -> Any:
    """The same random residues under any key set."""
    rng = np.random.default_rng(level)
    rows = [rng.integers(0, q, (2, PARAMS.n), dtype=np.uint64) for q in PARAMS.moduli[: level + 1]]
    limbs = np.ascontiguousarray(np.stack(rows, axis=1))
    scale = PARAMS.scale(level)
    sent = wire.Ciphertext(limbs, level, 1, scale, PARAMS.slots, PARAMS.digest, keys.key_id)
    return keys.ciphertext(sent)


def _results(keys: OpenFHEKeys, level: int) -> list[Any]:
    ev = OpenFHEEvaluator(PARAMS, keys.context, limits=keys.limits)
    a = _ciphertext(keys, level)
    made = [ev.rotate(a, 1), *ev.rotate_many(a, STEPS), ev.multiply(a, a)]
    return [keys.frame(each).limbs for each in made]


@pytest.mark.parametrize("level", [1, TOP])
def test_trimmed_keys_give_the_residues_of_full_ones(
    loaded: dict[str, OpenFHEKeys], level: int
) -> None:
    for found, wanted in zip(
        _results(loaded["trimmed"], level), _results(loaded["full"], level), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


def test_trimmed_keys_take_no_more_memory_than_their_residues(
    loaded: dict[str, OpenFHEKeys],
) -> None:
    limbs = len(PARAMS.moduli) + len(PARAMS.special_moduli)
    share = 2 / PARAMS.dnum * (TOP + 1 + len(PARAMS.special_moduli)) / limbs
    assert loaded["trimmed"].size_bytes == pytest.approx(share * loaded["full"].size_bytes)
    # As OpenFHE writes them out again: what it holds, and a little around it.
    held = {
        name: len(openfhe.SerializeEvalAutomorphismKeyString(openfhe.BINARY, keys.tag))
        for name, keys in loaded.items()
    }
    assert held["trimmed"] < 1.02 * share * held["full"]
    assert loaded["full"].limits.levels == {}
    assert set(loaded["trimmed"].limits.levels.values()) == {TOP}


def test_use_above_the_level_is_refused_by_name(loaded: dict[str, OpenFHEKeys]) -> None:
    keys = loaded["trimmed"]
    ev, a = OpenFHEEvaluator(PARAMS, keys.context, limits=keys.limits), _ciphertext(keys, TOP + 1)
    with pytest.raises(UnknownKeyError, match=r"rotations by 1 slots at level 3.*up to 2"):
        ev.rotate(a, 1)
    with pytest.raises(UnknownKeyError, match=r"rotations by .* at level 3.*up to 2"):
        ev.rotate_many(a, STEPS)
    with pytest.raises(UnknownKeyError, match=r"relinearisation key at level 3.*up to 2"):
        ev.multiply(a, a)
    with pytest.raises(UnknownKeyError, match="relinearisation key at level 3"):
        keys.evaluator(_circuit(TOP + 1))
    keys.evaluator(_circuit(TOP))
    loaded["full"].evaluator(_circuit(PARAMS.depth))


def test_keys_of_bootstraps_are_refused_above_their_levels_too() -> None:
    conjugation, (_, back) = 2 * PARAMS.n - 1, sparse_elements(PARAMS.log_n)
    limits = KeyLimits(PARAMS, {conjugation: TOP, back: TOP})
    limits.check_conjugation(TOP)
    limits.check_from_sparse(TOP)
    with pytest.raises(UnknownKeyError, match=r"conjugation at level 3.*up to 2"):
        limits.check_conjugation(TOP + 1)
    with pytest.raises(UnknownKeyError, match=r"from the sparse secret at level 3.*up to 2"):
        limits.check_from_sparse(TOP + 1)
