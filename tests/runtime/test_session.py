"""A session in process, with keys and ciphertexts made by the client's own code."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit import wire
from tacit.client.codec import Codec
from tacit.client.keys import KeyPair
from tacit.errors import (
    InputShapeError,
    KeyMismatchError,
    LevelRangeError,
    ParameterMismatchError,
    ResidueError,
    TruncatedError,
)
from tacit.kernels.build import build_if_stale
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.refusals import AbandonedError
from tacit.runtime.session import Session
from tests.runtime.models import TINY_INSECURE, arithmetic_artifact

MODEL = arithmetic_artifact()
SLOTS = TINY_INSECURE.slots
MANY = np.random.default_rng(7).uniform(-1, 1, (20, 1, SLOTS))
Floats = NDArray[np.float64]


def make_keys(folder: Path) -> KeyPair:
    signature = MODEL.signature
    return KeyPair.generate(
        signature.params, signature.rotations, True, folder, allow_insecure=True
    )


def key_frames(keys: KeyPair) -> list[bytes]:
    return [keys.folder.file(entry).read_bytes() for entry in keys.facts.frames]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module", params=list(BackendName), ids=lambda name: name.value)
def session(keys: KeyPair, request: pytest.FixtureRequest) -> Session:
    backend: BackendName = request.param
    if backend is BackendName.NATIVE and not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    return Session.open(MODEL, key_frames(keys), backend=backend)


@pytest.fixture(scope="module")
def codec(keys: KeyPair) -> Codec:
    return Codec(MODEL.signature, keys)


@pytest.fixture(scope="module")
def values() -> Floats:
    return np.random.default_rng(5).uniform(-1, 1, (2, 1, SLOTS))


def test_answers_decrypt_to_what_the_circuit_computes(
    session: Session, codec: Codec, values: Floats
) -> None:
    plan = MODEL.signature.plan("latency")
    frames = codec.encrypt(plan, values)
    result = session.run("latency", [frame for row in frames for frame in row])
    answer = codec.decrypt(plan, [[bytes(frame)] for frame in result.frames])
    expected = np.roll(values**2, -3, axis=-1) + 0.25
    assert np.max(np.abs(answer - expected)) < 2.0**-18
    assert min(dataclasses.astuple(result.timing)) > 0


def test_plans_with_constants_of_the_same_name_do_not_mix(
    session: Session, codec: Codec, values: Floats
) -> None:
    plan = MODEL.signature.plan("batch")
    frames = codec.encrypt(plan, values[:1])
    result = session.run("batch", frames[0])
    answer = codec.decrypt(plan, [[bytes(frame) for frame in result.frames]])
    assert np.max(np.abs(answer - values[:1] - 0.5)) < 2.0**-18


def test_progress_counts_operations_of_all_evaluations(
    session: Session, codec: Codec, values: Floats
) -> None:
    seen: list[tuple[int, int]] = []
    frames = codec.encrypt(MODEL.signature.plan("latency"), values)
    session.run(
        "latency", [row[0] for row in frames], lambda done, total: seen.append((done, total))
    )
    assert seen == [(done, 8) for done in range(1, 9)]


def test_several_threads_give_the_same_answers_in_order_and_count_every_operation(
    session: Session, codec: Codec
) -> None:
    many = np.random.default_rng(6).uniform(-1, 1, (12, 1, SLOTS))
    plan = MODEL.signature.plan("latency")
    frames = [row[0] for row in codec.encrypt(plan, many)]
    seen: list[int] = []
    with ThreadPoolExecutor(3) as threads:
        parallel = session.with_threads(threads)
        result = parallel.run("latency", frames, lambda done, total: seen.append(done))
    alone = session.run("latency", frames)
    assert [bytes(frame) for frame in result.frames] == [bytes(frame) for frame in alone.frames]
    answer = codec.decrypt(plan, [[bytes(frame)] for frame in result.frames])
    assert np.max(np.abs(answer - np.roll(many**2, -3, axis=-1) - 0.25)) < 2.0**-18
    assert seen == list(range(1, 49))


@pytest.mark.parametrize("threads", [None, 2])
@pytest.mark.parametrize("joined", [2, 3, 8])
def test_batches_give_what_evaluations_one_by_one_give_byte_for_byte(
    keys: KeyPair, codec: Codec, joined: int, threads: int | None
) -> None:
    many = np.random.default_rng(joined).uniform(-1, 1, (7, 1, SLOTS))
    frames = [row[0] for row in codec.encrypt(MODEL.signature.plan("latency"), many)]
    backend = BackendName.NATIVE if build_if_stale() else BackendName.OPENFHE
    pool = ThreadPoolExecutor(threads) if threads else None
    batches = Session.open(MODEL, key_frames(keys), pool, backend, joined)
    together = batches.run("latency", frames).frames
    alone = Session.open(MODEL, key_frames(keys), None, backend, joined=1)
    one_by_one = [alone.run("latency", [frame]).frames[0] for frame in frames]
    assert [bytes(frame) for frame in together] == [bytes(frame) for frame in one_by_one]


@pytest.mark.parametrize("stop_after", [1, 3, 7])
def test_what_an_observer_raises_stops_every_thread_and_is_what_the_caller_hears(
    session: Session, codec: Codec, stop_after: int
) -> None:
    frames = [row[0] for row in codec.encrypt(MODEL.signature.plan("latency"), MANY)]
    seen: list[int] = []

    def observe(done: int, total: int) -> None:
        seen.append(done)
        if done == stop_after:
            raise AbandonedError("the client went away")

    with ThreadPoolExecutor(2) as threads:
        parallel = session.with_threads(threads)
        with pytest.raises(AbandonedError):
            parallel.run("latency", frames, observe)
    assert seen == list(range(1, stop_after + 1))


def test_frames_of_another_key_are_refused(
    session: Session, tmp_path: Path, values: Floats
) -> None:
    stranger = Codec(MODEL.signature, make_keys(tmp_path))
    frames = stranger.encrypt(MODEL.signature.plan("latency"), values[:1])
    with pytest.raises(KeyMismatchError):
        session.run("latency", frames[0])


def test_frames_of_other_parameters_levels_and_residues_are_refused(
    session: Session, codec: Codec, values: Floats
) -> None:
    params = TINY_INSECURE
    frame = codec.encrypt(MODEL.signature.plan("batch"), values[:1])[0][0]
    expected = codec._expectation(MODEL.signature.plan("batch").inputs[0])
    honest = wire.decode_ciphertext(frame, expected)
    low = dataclasses.replace(
        honest, limbs=honest.limbs[:, :2].copy(), level=1, scale=params.scale(1)
    )
    with pytest.raises(LevelRangeError):
        session.run("batch", [wire.encode_ciphertext(low, params.moduli)])
    alien = dataclasses.replace(honest, params_digest=bytes(32))
    with pytest.raises(ParameterMismatchError):
        session.run("batch", [wire.encode_ciphertext(alien, params.moduli)])
    limbs = honest.limbs.copy()
    limbs[1, 2, 17] = params.moduli[2]
    wider = (*params.moduli[:2], params.moduli[2] + 1, *params.moduli[3:])
    wrong = wire.encode_ciphertext(
        dataclasses.replace(honest, limbs=limbs), wider, wire.Packing.RAW
    )
    with pytest.raises(ResidueError):
        session.run("batch", [wrong])


def test_truncated_frames_and_half_evaluations_are_refused(
    session: Session, codec: Codec, values: Floats
) -> None:
    frame = codec.encrypt(MODEL.signature.plan("batch"), values[:1])[0][0]
    with pytest.raises(TruncatedError):
        session.run("batch", [frame[:-1]])
    with pytest.raises(InputShapeError):
        session.run("batch", [])


def test_key_frames_of_another_rotation_are_refused(tmp_path: Path) -> None:
    other = KeyPair.generate(TINY_INSECURE, (5,), True, tmp_path, allow_insecure=True)
    with pytest.raises(KeyMismatchError):
        Session.open(MODEL, key_frames(other))
