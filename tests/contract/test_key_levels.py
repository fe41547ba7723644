"""Which limbs of evaluation keys circuits need, and what signatures say of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from tacit.bootstrap import Bootstrap
from tacit.circuit import (
    Chebyshev,
    Circuit,
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
from tacit.decompose import linear_by_rotations
from tacit.errors import ArtifactError, ParameterMismatchError
from tacit.evaluation_keys import NeededKey, full_key, keys_at, keys_bytes, needed_keys
from tacit.key_levels import KeyLevels, circuit_key_levels, highest
from tacit.key_trimming import covered_limbs, padded, trimmed
from tacit.model_compiler.levels import LevelChecker
from tacit.params import CryptoParams, SecretDistribution, Security
from tacit.signature import Plan, Signature
from tacit.wire import EvaluationKey, KeyKind, Packing, encode_evaluation_key
from tests.client.tiny import tiny_signature

PARAMS = CryptoParams.choose(8, 6, 40, 50, 3, Security.UNCHECKED_INSECURE)
ENCAPSULATED = SecretDistribution.SPARSE_ENCAPSULATED


class _Recorder(LevelChecker):
    """Runs operations on types and notes the level of each key's use."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.rotations: dict[int, int] = {}
        self.products = -1

    def rotate(self, a: ValueType, steps: int) -> ValueType:
        step = steps % self._slots
        if step:
            self.rotations[step] = max(a.level, self.rotations.get(step, a.level))
        return super().rotate(a, steps)

    def rotate_many(self, a: ValueType, steps: Sequence[int]) -> list[ValueType]:
        return [self.rotate(a, step) for step in steps]

    def linear(
        self, inputs: Sequence[ValueType], plan: LinearPlan, constants: Mapping[str, Any]
    ) -> list[ValueType]:
        return linear_by_rotations(self, inputs, plan, constants)

    def multiply(self, a: ValueType, b: ValueType) -> ValueType:
        self.products = max(self.products, a.level)
        return super().multiply(a, b)


def _circuit(*, in_sequence: bool) -> Circuit:
    """Rotations and products at several levels, the same steps at different ones."""
    terms = [LinearTerm(0, 0, g, b, 2 * i + b) for i, g in enumerate((-4, 0, 4)) for b in (0, 1)]
    plan = LinearPlan(1, tuple(terms), "rows", "", (8, 1, 2), (2, 1), in_sequence)
    nodes = (
        Node(Op.ROTATE, (0,), (1,), Steps(-3)),
        Node(Op.LINEAR, (1,), (2,), plan, "dense"),
        Node(Op.CHEBYSHEV, (2,), (3,), Chebyshev("line")),
        Node(Op.ROTATE, (3,), (4,), Steps(1)),
        Node(Op.DROP, (4,), (5,), ToLevel(1)),
        Node(Op.MULTIPLY, (5, 5), (6,)),
        Node(Op.ROTATE, (6,), (7,), Steps(17)),
        Node(Op.RESCALE, (7,), (8,)),
        Node(Op.ROTATE, (8,), (9,), Steps(PARAMS.slots)),
    )
    levels = ((6, 1), (6, 1), (5, 1), (3, 1), (3, 1), (1, 1), (1, 2), (1, 2), (0, 1), (0, 1))
    types = tuple(ValueType(*at) for at in levels)
    constants = {"rows": np.ones((6, 1)), "line": np.array([0.0, 0.5, 0.25, 0.125])}
    return Circuit(PARAMS.slots, (0,), (9,), nodes, types, constants)


@pytest.mark.parametrize("in_sequence", [False, True])
def test_levels_are_those_at_which_operations_run(in_sequence: bool) -> None:
    circuit, recorder = _circuit(in_sequence=in_sequence), _Recorder(PARAMS.slots)
    execute(circuit, [circuit.types[0]], recorder)
    found = circuit_key_levels(circuit, PARAMS)
    # Sums of folds rotate by sums of their steps; the recorder takes them one by one.
    together = {9: 5, 10: 5, 11: 5, 3: 5}
    assert {k: v for k, v in found.rotations.items() if k in recorder.rotations} == (
        recorder.rotations
    )
    others = {k: v for k, v in found.rotations.items() if k not in recorder.rotations}
    assert others.items() <= together.items()
    assert (found.relinearization, found.conjugation, found.from_sparse) == (
        recorder.products,
        None,
        None,
    )


def test_what_needs_no_key_has_no_level() -> None:
    plan = WeightedSumPlan(1, "w", "")
    nodes = (Node(Op.WEIGHTED_SUM, (0,), (1,), plan), Node(Op.ROTATE, (1,), (2,), Steps(0)))
    types = (ValueType(2), ValueType(1), ValueType(1))
    circuit = Circuit(PARAMS.slots, (0,), (2,), nodes, types, {"w": np.ones((1, 1))})
    assert circuit_key_levels(circuit, PARAMS) == KeyLevels()
    assert keys_at(KeyLevels(), PARAMS) == ()


def test_a_bootstrap_uses_low_levels_first_and_high_ones_after() -> None:
    """Half of the slots, two stages each way, 3 harmonics; the exponential takes 9 levels."""
    params = CryptoParams.choose(8, 15, 40, 41, 3, Security.UNCHECKED_INSECURE, ENCAPSULATED)
    plan = Bootstrap("f", 1, 6, 2, 2)
    types = (ValueType(4), ValueType(1))
    node = Node(Op.BOOTSTRAP, (0,), (1,), plan)
    circuit = Circuit(params.slots, (0,), (1,), (node,), types, {"f": np.ones((2, 4))})
    found = circuit_key_levels(circuit, params)
    inside = found.relinearization
    assert inside is not None
    top = inside + plan.to_slots
    assert found.from_sparse == top <= params.depth
    assert found.conjugation == inside
    # Both directions rotate by the same steps; the way back is the higher one.
    assert found.rotations[params.slots // 2] == top
    assert {level for step, level in found.rotations.items() if step != 64} == {top - 1, top}
    uniform = dataclasses.replace(params, secret=SecretDistribution.UNIFORM_TERNARY)
    assert circuit_key_levels(circuit, uniform).from_sparse is None


def test_the_highest_use_decides() -> None:
    uses = (KeyLevels({1: 2, 3: 5}, 4), KeyLevels({1: 4}, None, 1), KeyLevels({1: 3}, 2, 0, 6))
    assert highest(uses) == KeyLevels({1: 4, 3: 5}, 4, 1, 6)
    assert highest(()) == KeyLevels()


def test_levels_survive_json_and_nonsense_is_refused() -> None:
    levels = KeyLevels({7: 3, 1: 0}, 5, None, 2)
    assert KeyLevels.from_json(levels.to_json()) == levels
    fields = levels.to_json()
    for wrong in (
        {"rotations": None},
        {"rotations": [[1]]},
        {"rotations": [[1, "2"]]},
        {"rotations": [[1, True]]},
        {"rotations": [[1, 2], [1, 3]]},
        {"relinearization": 1.5},
        {"from_sparse": False},
    ):
        with pytest.raises(ArtifactError):
            KeyLevels.from_json({**fields, **wrong})


def test_needed_keys_say_how_large_they_are() -> None:
    """The oracle is the frame that is made, and the array in it."""
    uses = KeyLevels({1: 6, 2: 3, 5: 2, 7: 0}, 4, 1, 5)
    params = CryptoParams.choose(8, 6, 40, 41, 3, Security.UNCHECKED_INSECURE, ENCAPSULATED)
    needed = keys_at(uses, params)
    assert [key.limbs for key in needed] == [5, 1, 6, 7, 4, 3, 1, 2]
    for want in needed:
        shape = (2, want.digits(params), len(want.moduli(params)), params.n)
        key = EvaluationKey(np.zeros(shape, np.uint64), want.kind, want.element, params.digest)
        assert covered_limbs(key, params) == want.limbs
        assert key.limbs.nbytes == want.size_bytes(params)
        for packing in Packing:
            frame = encode_evaluation_key(
                key, params.moduli, params.special_moduli, packing, limbs=want.limbs
            )
            assert len(frame) == want.frame_bytes(params, packing)
    assert [key.digits(params) for key in needed] == [2, 1, 2, 3, 2, 1, 1, 1]
    full = [full_key(key, params) for key in needed]
    assert keys_bytes(full[:1], params) == params.evaluation_key_bytes
    assert full == list(needed_keys(params, (1, 2, 5, 7), True, True))


def _key(kind: KeyKind = KeyKind.ROTATION) -> EvaluationKey:
    rows = len(PARAMS.moduli) + len(PARAMS.special_moduli)
    limbs = np.random.default_rng(0).integers(0, 1 << 30, (2, PARAMS.dnum, rows, PARAMS.n))
    return EvaluationKey(limbs.astype(np.uint64), kind, 5, PARAMS.digest)


@pytest.mark.parametrize("limbs", range(1, 8))
def test_trimming_keeps_residues_and_padding_puts_zeros_where_they_were(limbs: int) -> None:
    full, special = _key(), len(PARAMS.special_moduli)
    small = trimmed(full, limbs, PARAMS)
    digits = NeededKey(KeyKind.ROTATION, 5, limbs).digits(PARAMS)
    assert small.limbs.shape == (2, digits, limbs + special, PARAMS.n)
    assert small.limbs.flags.c_contiguous
    back = padded(small, PARAMS)
    kept = np.zeros(full.limbs.shape, dtype=bool)
    kept[:, :digits, [*range(limbs), *range(7, 7 + special)]] = True
    np.testing.assert_array_equal(back, np.where(kept, full.limbs, 0))
    again = trimmed(EvaluationKey(back, full.kind, 5, PARAMS.digest), limbs, PARAMS)
    np.testing.assert_array_equal(again.limbs, small.limbs)


def test_limbs_that_are_not_there_cannot_be_kept() -> None:
    for limbs in (0, 8):
        with pytest.raises(ParameterMismatchError):
            trimmed(_key(), limbs, PARAMS)


def _with_levels(levels: KeyLevels | None) -> Signature:
    signature = tiny_signature()
    latency, batch = signature.plans
    return dataclasses.replace(
        signature, plans=(dataclasses.replace(latency, key_levels=levels), batch)
    )


def _steps(signature: Signature, *levels: int) -> dict[int, int]:
    slots = signature.params.slots
    return dict(zip((1, slots - 2), levels, strict=True))


def test_a_signature_that_does_not_say_asks_for_full_keys() -> None:
    signature = tiny_signature()
    params = signature.params
    assert signature.key_bytes == signature.full_key_bytes == 3 * params.evaluation_key_bytes
    assert "key_levels" not in str(signature.to_json())
    top = _with_levels(KeyLevels(_steps(signature, 3, 3), 3))
    assert top.needed_keys == signature.needed_keys
    assert top.key_config == signature.key_config


def test_a_signature_asks_for_the_highest_level_of_its_plans() -> None:
    plain = tiny_signature()
    signature = _with_levels(KeyLevels(_steps(plain, 1, 2), 0))
    assert {key.limbs for key in signature.needed_keys if key.element} == {2, 3}
    # The batch plan does not say at what level it multiplies.
    assert signature.needed_keys[0].limbs == 4
    assert signature.key_bytes < signature.full_key_bytes == plain.key_bytes
    assert signature.key_config != plain.key_config
    again = Signature.from_json(signature.to_json())
    assert again.needed_keys == signature.needed_keys
    assert (again.key_config, again.digest) == (signature.key_config, signature.digest)
    other = _with_levels(KeyLevels(_steps(plain, 2, 2), 0))
    assert other.key_config != signature.key_config


def test_levels_of_other_keys_or_beyond_the_parameters_are_refused() -> None:
    steps = _steps(tiny_signature(), 1, 1)
    for levels in (
        KeyLevels(steps),
        KeyLevels({1: 1}, 1),
        KeyLevels({**steps, 5: 1}, 1),
        KeyLevels(steps, 1, 1),
        KeyLevels(steps, 4),
        KeyLevels({**steps, 1: -1}, 1),
    ):
        with pytest.raises(ArtifactError, match="plan 'latency'"):
            _with_levels(levels)
    fields = tiny_signature().to_json()
    plans = fields["plans"]
    assert isinstance(plans, list)
    plans[0]["key_levels"] = [1, 2]
    with pytest.raises(ArtifactError):
        Signature.from_json(fields)


def test_plans_state_levels_for_the_parameters_they_are_given() -> None:
    plan: Plan = tiny_signature().plans[0]
    found = plan.key_levels_for(PARAMS)
    assert found == KeyLevels({1: 6, PARAMS.slots - 2: 6}, 6)
