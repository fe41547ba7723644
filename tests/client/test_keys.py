import copy
import os
import pickle
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tacit.client.codec import Codec
from tacit.client.environment import import_openfhe
from tacit.client.frames import FrameEntry
from tacit.client.key_files import is_encrypted, read_key_facts
from tacit.client.keys import KeyFacts, KeyPair
from tacit.errors import (
    ExpiredKeyError,
    KeyFileError,
    ParameterError,
    ParameterMismatchError,
    SecurityError,
    UnusableEnvironmentError,
)
from tacit.evaluation_keys import keys_at, needed_keys
from tacit.key_levels import KeyLevels
from tacit.key_trimming import covered_limbs
from tacit.openfhe_keys import write_automorphism_keys, write_relinearization_key
from tacit.signature import Signature
from tacit.wire import (
    Ciphertext,
    KeyExpectation,
    KeyKind,
    Packing,
    decode_evaluation_key,
    encode_ciphertext,
    frame_digest,
    key_id,
)
from tests.client.canary import pieces_found, secret_limbs
from tests.client.tiny import TINY_INSECURE, tiny_signature


def _expectation() -> KeyExpectation:
    p = TINY_INSECURE
    elements = frozenset(key.element for key in needed_keys(p, (1, -2), True, False))
    return KeyExpectation(p.digest, p.log_n, p.moduli, p.special_moduli, p.dnum, elements)


def _frames(keys: KeyPair) -> list[bytes]:
    return [keys.folder.file(entry).read_bytes() for entry in keys.facts.frames]


def test_every_needed_key_becomes_one_valid_frame(keys: KeyPair) -> None:
    decoded = [decode_evaluation_key(frame, _expectation()) for frame in _frames(keys)]
    assert [key.kind for key in decoded] == [
        KeyKind.RELINEARIZATION,
        KeyKind.ROTATION,
        KeyKind.ROTATION,
    ]
    assert {key.galois_element for key in decoded[1:]} == {5, pow(5, -2, 2 * TINY_INSECURE.n)}


def test_the_key_id_is_the_one_the_contract_computes_from_the_frames(keys: KeyPair) -> None:
    digests = [frame_digest(frame) for frame in _frames(keys)]
    assert keys.key_id == key_id(TINY_INSECURE.digest, digests).hex()


def test_openfhe_multiplies_and_rotates_with_the_frames(keys: KeyPair) -> None:
    library, context = import_openfhe(), keys.context
    decoded = [decode_evaluation_key(frame, _expectation()) for frame in _frames(keys)]
    special, tag = TINY_INSECURE.special_moduli, keys.secret.tag
    relinearization = write_relinearization_key(context.template, tag, special, decoded[0].limbs)
    rotations = {key.galois_element: key.limbs for key in decoded[1:]}
    library.DeserializeEvalMultKeyString(relinearization, library.BINARY)
    library.DeserializeEvalAutomorphismKeyString(
        write_automorphism_keys(context.template, tag, special, rotations), library.BINARY
    )
    values = np.random.default_rng(1).uniform(-1, 1, TINY_INSECURE.slots)
    archive = keys.secret.encrypt(values, TINY_INSECURE.depth, 1)
    ciphertext = library.DeserializeCiphertextString(archive, library.BINARY)
    for step in (1, -2):
        rotated = context.openfhe.EvalRotate(ciphertext, step)
        found = keys.secret.decrypt(library.Serialize(rotated, library.BINARY))
        assert np.abs(found - np.roll(values, -step)).max() < 2**-20
    square = context.openfhe.EvalMult(ciphertext, ciphertext)
    found = keys.secret.decrypt(library.Serialize(square, library.BINARY))
    assert np.abs(found - values**2).max() < 2**-20


def test_making_keys_leaves_other_keys_of_the_process_alone(
    keys: KeyPair, signature: Signature, tmp_path: Path
) -> None:
    context = keys.context.openfhe
    other = context.KeyGen().secretKey
    context.EvalMultKeyGen(other)
    context.EvalRotateKeyGen(other, [3])
    made = KeyPair.generate(signature.params, (1,), True, tmp_path, allow_insecure=True)
    assert other.GetKeyTag() in context.GetAllEvalMultKeys()
    assert other.GetKeyTag() in context.GetAllEvalAutomorphismKeys()
    assert made.secret.tag not in context.GetAllEvalMultKeys()
    assert made.secret.tag not in context.GetAllEvalAutomorphismKeys()


def test_progress_counts_every_key(signature: Signature, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    KeyPair.generate(
        signature.params,
        (1, 4),
        True,
        tmp_path,
        progress=lambda *event: heard.append(event),
        allow_insecure=True,
    )
    assert heard == [("keys", done, 3) for done in range(4)]


def test_insecure_parameters_are_refused_unless_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SecurityError, match="not 128 bits"):
        KeyPair.generate(TINY_INSECURE, (1,), False, tmp_path)


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_a_saved_key_pair_reads_what_the_original_encrypted(
    keys: KeyPair, tmp_path: Path, passphrase: str | None
) -> None:
    path = tmp_path / "secret.key"
    keys.save(path, passphrase)
    again = KeyPair.load(path, keys.folder.path, passphrase, allow_insecure=True)
    values = np.random.default_rng(2).uniform(-1, 1, TINY_INSECURE.slots)
    found = again.secret.decrypt(keys.secret.encrypt(values, 2, 1))
    assert np.abs(found - values).max() < 2**-20
    assert again.key_id == keys.key_id
    assert is_encrypted(path) == (passphrase is not None)


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_key_files_can_be_read_by_their_owner_only(
    keys: KeyPair, tmp_path: Path, mask: int
) -> None:
    before = os.umask(mask)
    try:
        keys.save(tmp_path / "secret.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]


def test_a_key_file_others_can_read_is_refused(keys: KeyPair, tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    keys.save(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        KeyPair.load(path, keys.folder.path, allow_insecure=True)


def test_a_wrong_or_missing_passphrase_is_a_key_file_error(keys: KeyPair, tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    keys.save(path, "right")
    with pytest.raises(KeyFileError, match="wrong passphrase"):
        KeyPair.load(path, keys.folder.path, "wrong", allow_insecure=True)
    with pytest.raises(KeyFileError, match="protected by a passphrase"):
        KeyPair.load(path, keys.folder.path, allow_insecure=True)
    with pytest.raises(KeyFileError, match="empty"):
        keys.save(path, "")


def test_the_passphrase_protects_the_secret_and_the_header(keys: KeyPair, tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    keys.save(path, "right")
    content = path.read_bytes()
    assert keys.secret.to_bytes()[200:264] not in content
    path.write_bytes(content.replace(b'"ttl": null', b'"ttl": 1e30'))
    with pytest.raises(KeyFileError, match="wrong passphrase"):
        KeyPair.load(path, keys.folder.path, "right", allow_insecure=True)


@pytest.mark.parametrize("position", [0, 9, 40, -1])
def test_a_damaged_key_file_is_a_key_file_error(
    keys: KeyPair, tmp_path: Path, position: int
) -> None:
    path = tmp_path / "secret.key"
    keys.save(path)
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(KeyFileError):
        KeyPair.load(path, keys.folder.path, allow_insecure=True)


def test_every_truncation_of_a_key_file_is_a_key_file_error(keys: KeyPair, tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    keys.save(path)
    content = path.read_bytes()
    for length in (0, 7, 11, 12, 100, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(KeyFileError):
            KeyPair.load(path, keys.folder.path, allow_insecure=True)


def test_facts_are_read_without_a_passphrase(keys: KeyPair, tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    keys.save(path, "right")
    assert KeyFacts.from_json(read_key_facts(path)) == keys.facts


def test_missing_frames_are_named_when_a_key_pair_is_loaded(keys: KeyPair, tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    keys.save(path)
    with pytest.raises(KeyFileError, match="frames are missing"):
        KeyPair.load(path, tmp_path / "nothing", allow_insecure=True)


def test_keys_of_another_configuration_are_refused(keys: KeyPair, signature: Signature) -> None:
    keys.check(signature)
    with pytest.raises(ParameterMismatchError, match="not made for 'tiny'"):
        keys.check(tiny_signature(rotations=(1,)))


def test_keys_expire(keys: KeyPair, signature: Signature) -> None:
    facts = replace(keys.facts, ttl=60.0)
    old = KeyPair(facts, keys.context, keys.secret, keys.folder)
    old.check(signature, lambda: facts.created + 59)
    with pytest.raises(ExpiredKeyError, match="make new"):
        old.check(signature, lambda: facts.created + 61)


def test_nothing_of_the_secret_is_shown_pickled_or_copied(keys: KeyPair) -> None:
    assert "hidden" in repr(keys.secret)
    assert "hidden" in repr(keys)
    for action in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(KeyFileError, match="not pickled"):
            action(keys.secret)


def test_no_frame_holds_bytes_of_the_secret_key(keys: KeyPair, signature: Signature) -> None:
    plan = signature.plan("latency")
    vectors = np.random.default_rng(2).uniform(-1, 1, (1, 1, TINY_INSECURE.slots))
    for packing in Packing:
        sent = [*_frames(keys), *Codec(signature, keys, packing).encrypt(plan, vectors)[0]]
        assert not [frame for frame in sent if pieces_found(keys, frame)]


@pytest.mark.parametrize("packing", list(Packing))
def test_the_search_for_the_secret_would_find_it(keys: KeyPair, packing: Packing) -> None:
    limbs = np.stack([secret_limbs(keys)] * 2)
    depth = TINY_INSECURE.depth
    leaked = Ciphertext(
        limbs, depth, 1, 2.0**40, TINY_INSECURE.slots, TINY_INSECURE.digest, bytes(32)
    )
    assert pieces_found(keys, encode_ciphertext(leaked, TINY_INSECURE.moduli, packing))
    assert pieces_found(keys, b"header" + keys.secret.to_bytes())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_refuses_to_make_keys_and_to_encrypt(keys: KeyPair, tmp_path: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, "".join(_refusals(keys, tmp_path)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"refused refused "
    keys.secret.encrypt(np.zeros(TINY_INSECURE.slots), 1, 1)


def _refusals(keys: KeyPair, tmp_path: Path) -> list[str]:
    def attempt(action: object) -> str:
        try:
            action()  # type: ignore[operator]
        except UnusableEnvironmentError:
            return "refused "
        return "allowed "

    return [
        attempt(lambda: keys.secret.encrypt(np.zeros(TINY_INSECURE.slots), 1, 1)),
        attempt(lambda: KeyPair.generate(TINY_INSECURE, (), True, tmp_path, allow_insecure=True)),
    ]


def test_an_entry_of_another_length_counts_as_missing(keys: KeyPair) -> None:
    entry = keys.facts.frames[0]
    assert keys.folder.missing([entry]) == []
    assert keys.folder.missing([FrameEntry(entry.sha256, entry.length + 1)])


LEVELS = KeyLevels({1: 1, TINY_INSECURE.slots - 2: 0}, 2)


def test_keys_are_trimmed_to_the_levels_a_model_uses_them_at(tmp_path: Path) -> None:
    p = TINY_INSECURE
    keys = KeyPair.generate(
        p, (1, -2), True, tmp_path / "frames", key_levels=LEVELS, allow_insecure=True
    )
    needed = keys_at(LEVELS, p)
    expected = replace(_expectation(), limbs={k.element: k.limbs for k in needed})
    decoded = [decode_evaluation_key(frame, expected) for frame in _frames(keys)]
    assert [key.galois_element for key in decoded] == [key.element for key in needed]
    assert [covered_limbs(key, p) for key in decoded] == [3, 2, 1]
    facts = keys.facts
    assert facts.key_bytes == sum(key.frame_bytes(p) for key in needed) < facts.full_key_bytes
    keys.save(tmp_path / "secret.key")
    again = KeyPair.load(tmp_path / "secret.key", tmp_path / "frames", allow_insecure=True)
    assert again.facts == facts
    assert again.facts.made == needed


def test_key_files_that_say_nothing_of_levels_hold_full_keys(keys: KeyPair) -> None:
    fields = keys.facts.to_json()
    del fields["key_levels"]
    facts = KeyFacts.from_json(fields)
    assert facts.made == needed_keys(TINY_INSECURE, (1, -2), True, False)
    assert facts.key_bytes == facts.full_key_bytes
    nonsense: tuple[object, ...] = ([], {"rotations": 1}, "low")
    for wrong in nonsense:
        with pytest.raises(KeyFileError, match="damaged"):
            KeyFacts.from_json({**fields, "key_levels": wrong})


@pytest.mark.parametrize(
    "levels",
    [KeyLevels({1: 1}, 2), KeyLevels(LEVELS.rotations), KeyLevels(LEVELS.rotations, 4)],
    ids=["a rotation less", "no products", "above the parameters"],
)
def test_levels_of_other_keys_are_refused_before_any_is_made(
    levels: KeyLevels, tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match="one signature"):
        KeyPair.generate(
            TINY_INSECURE, (1, -2), True, tmp_path, key_levels=levels, allow_insecure=True
        )
    assert not list(tmp_path.iterdir())


def test_keys_of_another_trimming_are_not_a_models(keys: KeyPair, tmp_path: Path) -> None:
    signature = tiny_signature()
    plans = tuple(replace(plan, key_levels=None) for plan in signature.plans[:1])
    signature = replace(signature, plans=plans)
    keys.check(signature)
    low = replace(plans[0], key_levels=LEVELS)
    with pytest.raises(ParameterMismatchError, match="were not made for"):
        keys.check(replace(signature, plans=(low,)))
