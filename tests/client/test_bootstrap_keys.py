"""Keys of bootstrapping: made at the client, sent as frames, used by the native engine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openfhe", reason="openfhe does not import here")

from tacit import wire
from tacit.bootstrap import Bootstrap
from tacit.bootstrap_levels import bootstrap_depth
from tacit.client.environment import import_openfhe
from tacit.client.keys import KeyPair
from tacit.errors import HeaderError, KeyMismatchError, ParameterMismatchError
from tacit.evaluation_keys import needed_keys
from tacit.fourier import evaluate_series, fit_series
from tacit.kernels.build import build_if_stale
from tacit.openfhe_bytes import ForeignCiphertext, read_ciphertext, write_ciphertext
from tacit.params import CryptoParams, SecretDistribution, Security
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import load_keys
from tests.client.canary import pieces_found

PLAN = Bootstrap("f", 1, 8)
SERIES = {"f": fit_series(np.tanh, 15)}
SECRET = SecretDistribution.SPARSE_ENCAPSULATED


def _params() -> CryptoParams:
    choice = (36, 37, 3, Security.UNCHECKED_INSECURE, SECRET)
    depth = PLAN.level + bootstrap_depth(CryptoParams.choose(9, 2, *choice), PLAN, 15)
    return CryptoParams.choose(9, depth, *choice)


PARAMS = _params()
ROTATIONS = tuple(sorted(PLAN.rotations(PARAMS.slots)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    folder = tmp_path_factory.mktemp("keys")
    return KeyPair.generate(PARAMS, ROTATIONS, True, folder, bootstraps=True, allow_insecure=True)


def _expectation() -> wire.KeyExpectation:
    purposes = needed_keys(PARAMS, ROTATIONS, True, True)
    return wire.KeyExpectation(
        PARAMS.digest,
        PARAMS.log_n,
        PARAMS.moduli,
        PARAMS.special_moduli,
        PARAMS.dnum,
        frozenset(key.element for key in purposes),
    )


def _decoded(pair: KeyPair) -> list[wire.EvaluationKey]:
    frames = [pair.folder.file(entry).read_bytes() for entry in pair.facts.frames]
    return [wire.decode_evaluation_key(frame, _expectation()) for frame in frames]


def test_every_needed_key_becomes_one_valid_frame(made: KeyPair) -> None:
    found = [(key.kind, key.galois_element) for key in _decoded(made)]
    needed = needed_keys(PARAMS, ROTATIONS, True, True)
    assert found == [(key.kind, key.element) for key in needed]


def test_a_server_bootstraps_with_the_frames_only(made: KeyPair) -> None:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    keys = load_keys(NativeEngine(PARAMS), bytes.fromhex(made.key_id), _decoded(made))
    x = np.random.default_rng(0).uniform(-0.5, 0.5, PARAMS.slots)
    foreign, _ = read_ciphertext(made.secret.encrypt(x, 2, 1))
    result = NativeEvaluator(keys).bootstrap(keys.upload(foreign.limbs, 2), PLAN, SERIES)
    level = PARAMS.depth - result.level
    answer = ForeignCiphertext(
        keys.download(result), level, 1, PARAMS.scale(result.level), PARAMS.slots, made.secret.tag
    )
    found = made.secret.decrypt(write_ciphertext(made.context.template, answer))
    assert np.max(np.abs(found - evaluate_series(SERIES["f"], x))) < 2.0**-14


def test_making_these_keys_leaves_other_keys_of_the_process_alone(
    made: KeyPair, tmp_path: Path
) -> None:
    context = made.context.openfhe
    other = context.KeyGen().secretKey
    context.EvalRotateKeyGen(other, [3])
    again = KeyPair.generate(PARAMS, (), False, tmp_path, bootstraps=True, allow_insecure=True)
    assert other.GetKeyTag() in context.GetAllEvalAutomorphismKeys()
    assert again.secret.tag not in context.GetAllEvalAutomorphismKeys()
    library = import_openfhe()
    plain = context.MakeCKKSPackedPlaintext(np.arange(PARAMS.slots) / PARAMS.slots)
    moved = context.EvalRotate(context.Encrypt(other, plain), 3)
    values = context.Decrypt(moved, other).GetRealPackedValueArray()
    assert np.max(np.abs(values - np.roll(np.arange(PARAMS.slots) / PARAMS.slots, -3))) < 2.0**-16
    library.ClearEvalMultKeys()


def test_no_frame_holds_the_secret(made: KeyPair) -> None:
    for entry in made.facts.frames:
        assert pieces_found(made, made.folder.file(entry).read_bytes()) == 0


def test_the_small_key_is_small(made: KeyPair) -> None:
    there = next(key for key in _decoded(made) if key.kind is wire.KeyKind.TO_SPARSE)
    assert there.limbs.shape == (2, 1, 3, PARAMS.n)


def _reencoded(key: wire.EvaluationKey) -> bytes:
    return wire.encode_evaluation_key(key, PARAMS.moduli, PARAMS.special_moduli)


def test_kinds_and_elements_that_do_not_fit_are_refused(made: KeyPair) -> None:
    keys = {key.kind: key for key in _decoded(made)}
    there, back = keys[wire.KeyKind.TO_SPARSE], keys[wire.KeyKind.FROM_SPARSE]
    with pytest.raises(HeaderError, match="no Galois element"):
        _reencoded(dataclasses.replace(there, galois_element=back.galois_element))
    with pytest.raises(HeaderError, match="shape"):
        _reencoded(dataclasses.replace(back, kind=wire.KeyKind.TO_SPARSE))
    unwanted = dataclasses.replace(_expectation(), galois_elements=frozenset({5}))
    for key in (there, back):
        with pytest.raises(KeyMismatchError, match="is needed"):
            wire.decode_evaluation_key(_reencoded(key), unwanted)
    wide = dataclasses.replace(there, limbs=np.repeat(there.limbs, 2, axis=1))
    with pytest.raises(ParameterMismatchError, match="expected"):
        wire.decode_evaluation_key(_reencoded(wide), _expectation())


def test_a_saved_key_pair_remembers_that_it_bootstraps(made: KeyPair, tmp_path: Path) -> None:
    made.save(tmp_path / "secret.key")
    again = KeyPair.load(tmp_path / "secret.key", made.folder.path, allow_insecure=True)
    assert again.facts == made.facts
    assert again.facts.bootstraps
