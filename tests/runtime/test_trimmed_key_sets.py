"""What the key store accepts where a model wants trimmed keys; frames have random residues."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from tacit import wire
from tacit.artifact import Artifact, save
from tacit.errors import KeyMismatchError, OversizedError, ParameterMismatchError, TruncatedError
from tacit.evaluation_keys import NeededKey
from tacit.key_levels import KeyLevels
from tacit.runtime.key_declarations import KeyDeclaration
from tacit.runtime.key_rules import WireKeyRules
from tacit.runtime.keystore import KeyLimits, KeyStore
from tacit.runtime.repository import Repository
from tests.runtime.key_sets import KeySet, random_key_set, random_limbs
from tests.runtime.models import arithmetic_artifact

TENANT = "anyone"


def _trimmed_model() -> Artifact:
    """The rotation at level 0, the product at level 2 of 3."""
    model = arithmetic_artifact()
    latency, batch = model.signature.plans
    plans = (
        dataclasses.replace(latency, key_levels=KeyLevels({3: 0}, 2)),
        dataclasses.replace(batch, key_levels=KeyLevels()),
    )
    return dataclasses.replace(model, signature=dataclasses.replace(model.signature, plans=plans))


SIGNATURE = _trimmed_model().signature


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    save(_trimmed_model(), tmp_path / "models" / "arithmetic" / "1")
    rules = WireKeyRules(Repository(tmp_path / "models"))
    return KeyStore(tmp_path / "keys", rules, KeyLimits())


def _announce(store: KeyStore, keys: KeySet) -> list[str]:
    return store.announce(TENANT, keys.key_id, KeyDeclaration.from_json(keys.declaration))


def _put(store: KeyStore, keys: KeySet, sha256: str) -> bool:
    frame = keys.frames[sha256]
    with store.open_frame(TENANT, keys.key_id, sha256, len(frame)) as upload:
        upload.write(frame)
        return upload.finish()


def _with_first(keys: KeySet, want: NeededKey) -> KeySet:
    """Replace the first frame by another key of the same use."""
    params = SIGNATURE.params
    limbs = random_limbs(SIGNATURE, 99, want)
    key = wire.EvaluationKey(limbs, want.kind, want.element, params.digest)
    frame = wire.encode_evaluation_key(key, params.moduli, params.special_moduli, limbs=want.limbs)
    frames = [frame, *list(keys.frames.values())[1:]]
    return KeySet(SIGNATURE, {wire.frame_digest(f).hex(): f for f in frames})


@pytest.mark.parametrize("packing", list(wire.Packing))
def test_a_trimmed_key_set_is_stored_and_counted_by_its_bytes(
    store: KeyStore, packing: wire.Packing
) -> None:
    keys = random_key_set(SIGNATURE, 1, packing=packing)
    missing = _announce(store, keys)
    assert [_put(store, keys, sha256) for sha256 in missing] == [False, True]
    assert store.stored_bytes == sum(map(len, keys.frames.values()))
    store.require(TENANT, keys.key_id, SIGNATURE)
    with pytest.raises(ParameterMismatchError, match="another configuration"):
        store.require(TENANT, keys.key_id, arithmetic_artifact().signature)


@pytest.mark.parametrize("limbs", [1, 2, 4])
def test_lengths_of_other_trimmings_are_refused_when_declared(store: KeyStore, limbs: int) -> None:
    keys = random_key_set(SIGNATURE, 1)
    other = _with_first(keys, NeededKey(wire.KeyKind.RELINEARIZATION, 0, limbs))
    error = OversizedError if limbs > SIGNATURE.needed_keys[0].limbs else TruncatedError
    with pytest.raises(error, match="declared"):
        _announce(store, other)


def test_lengths_of_the_right_keys_in_the_wrong_number_are_refused(store: KeyStore) -> None:
    first, second = SIGNATURE.needed_keys
    keys = random_key_set(SIGNATURE, 1)
    large, small = keys.frames.values()
    assert (len(large), len(small)) == (
        first.frame_bytes(SIGNATURE.params),
        second.frame_bytes(SIGNATURE.params),
    )
    twice = random_key_set(SIGNATURE, 2)
    for index, frame in itertools.product(range(2), twice.frames.values()):
        frames = [*keys.frames.values()]
        if len(frame) == len(frames[index]):
            continue
        frames[index] = frame
        doubled = KeySet(SIGNATURE, {wire.frame_digest(f).hex(): f for f in frames})
        with pytest.raises((OversizedError, TruncatedError), match="declared"):
            _announce(store, doubled)


def test_a_frame_of_the_right_length_for_another_use_is_refused_when_it_arrives(
    store: KeyStore,
) -> None:
    """A rotation key trimmed like the relinearisation key that was promised."""
    keys = random_key_set(SIGNATURE, 1)
    rotation = SIGNATURE.needed_keys[1]
    wrong = _with_first(keys, dataclasses.replace(rotation, limbs=3))
    missing = _announce(store, wrong)
    with pytest.raises(ParameterMismatchError, match="expected"):
        _put(store, wrong, missing[0])
    other = _with_first(keys, NeededKey(wire.KeyKind.ROTATION, 9, 3))
    missing = _announce(store, other)
    with pytest.raises((ParameterMismatchError, KeyMismatchError)):
        _put(store, other, missing[0])
