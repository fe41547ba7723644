import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.client.codec import Codec
from tacit.client.keys import KeyPair
from tacit.errors import (
    ChecksumError,
    HeaderError,
    InputShapeError,
    KeyMismatchError,
    LevelRangeError,
    ParameterMismatchError,
    TruncatedError,
    WireError,
)
from tacit.params import CryptoParams, Security
from tacit.signature import Plan, Signature
from tacit.wire import Packing, ciphertext_frame_bytes
from tests.client.tiny import SLOTS, TINY_INSECURE, batched, dense, spec


def _vectors(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def _echo_plan(level: int = 2, ciphertexts: int = 1) -> Plan:
    """A plan whose answer is its own input, so that encrypt and decrypt can be compared."""
    layout = batched(ciphertexts) if ciphertexts > 1 else dense(2)
    tensors = (spec("x", layout, level),)
    return Plan("echo", layout.batch, tensors, tensors, (), False, 0.1, 20.0)


@pytest.mark.parametrize("packing", list(Packing))
@pytest.mark.parametrize("level", [0, 1, 3])
def test_decryption_undoes_encryption(
    keys: KeyPair, signature: Signature, level: int, packing: Packing
) -> None:
    codec, plan = Codec(signature, keys, packing), _echo_plan(level, 3)
    vectors = _vectors((2, 3, SLOTS))
    frames = codec.encrypt(plan, vectors)
    # Secret-key encryption: sqrt(N) coefficients of deviation 3.19 over the scale, and decoding.
    assert np.abs(codec.decrypt(plan, frames) - vectors).max() < 2**-25


def test_frames_have_exactly_the_length_their_level_implies(
    keys: KeyPair, signature: Signature
) -> None:
    for level in range(4):
        (frames,) = Codec(signature, keys).encrypt(_echo_plan(level), _vectors((1, 1, SLOTS)))
        moduli = TINY_INSECURE.moduli[: level + 1]
        assert len(frames[0]) == ciphertext_frame_bytes(Packing.BITS, 10, moduli)


def test_inputs_are_encrypted_at_the_level_and_order_of_their_tensors(
    keys: KeyPair, signature: Signature
) -> None:
    inputs = (spec("a", dense(3), 3), spec("b", batched(2), 1))
    plan = Plan("two", 1, inputs, inputs, (), False, 0.1, 20.0)
    codec = Codec(signature, keys)
    vectors = _vectors((1, 3, SLOTS))
    frames = codec.encrypt(plan, vectors)
    assert [len(frame) for frame in frames[0]] == sorted(map(len, frames[0]), reverse=True)
    assert len(frames[0][0]) > len(frames[0][1]) == len(frames[0][2])
    assert np.abs(codec.decrypt(plan, frames) - vectors).max() < 2**-25


def test_many_threads_give_the_same_answers_in_order(keys: KeyPair, signature: Signature) -> None:
    codec, plan = Codec(signature, keys, threads=4), _echo_plan(2, 4)
    vectors = _vectors((4, 4, SLOTS))
    found = codec.decrypt(plan, codec.encrypt(plan, vectors))
    assert np.abs(found - vectors).max() < 2**-25


def test_the_same_values_never_give_the_same_ciphertext(
    keys: KeyPair, signature: Signature
) -> None:
    codec, plan = Codec(signature, keys, threads=2), _echo_plan()
    frames = codec.encrypt(plan, np.zeros((6, 1, SLOTS)))
    assert len({frame for evaluation in frames for frame in evaluation}) == 6


@pytest.mark.parametrize("shape", [(1, 2, SLOTS), (1, 1, SLOTS // 2), (1, SLOTS)])
def test_vectors_of_another_shape_are_refused(
    keys: KeyPair, signature: Signature, shape: tuple[int, ...]
) -> None:
    with pytest.raises(InputShapeError, match="takes shape"):
        Codec(signature, keys).encrypt(_echo_plan(), np.zeros(shape))


class TestAnswersThatAreRefused:
    def _frame(self, keys: KeyPair, signature: Signature, level: int = 2) -> bytes:
        codec = Codec(signature, keys)
        return codec.encrypt(_echo_plan(level), _vectors((1, 1, SLOTS)))[0][0]

    def _decrypt(self, keys: KeyPair, signature: Signature, frame: bytes) -> None:
        Codec(signature, keys).decrypt(_echo_plan(2), [[frame]])

    def test_another_level(self, keys: KeyPair, signature: Signature) -> None:
        with pytest.raises(LevelRangeError):
            self._decrypt(keys, signature, self._frame(keys, signature, 3))

    def test_another_key(self, keys: KeyPair, signature: Signature, tmp_path: Path) -> None:
        other = KeyPair.generate(TINY_INSECURE, (1,), False, tmp_path, allow_insecure=True)
        with pytest.raises(KeyMismatchError):
            self._decrypt(keys, signature, self._frame(other, signature))

    def test_other_parameters(self, keys: KeyPair, signature: Signature, tmp_path: Path) -> None:
        params = CryptoParams.choose(10, 2, 40, 50, 2, security=Security.UNCHECKED_INSECURE)
        other = KeyPair.generate(params, (1,), False, tmp_path, allow_insecure=True)
        with pytest.raises(ParameterMismatchError):
            self._decrypt(keys, replace(signature, params=params), self._frame(other, signature))

    def test_another_degree(self, keys: KeyPair, signature: Signature) -> None:
        plan = _echo_plan()
        squared = replace(plan, inputs=(replace(plan.inputs[0], degree=2),))
        codec = Codec(signature, keys)
        frames = codec.encrypt(squared, _vectors((1, 1, SLOTS)))
        with pytest.raises(HeaderError, match="degree 2"):
            codec.decrypt(plan, frames)

    def test_fewer_ciphertexts(self, keys: KeyPair, signature: Signature) -> None:
        with pytest.raises(HeaderError, match="answers with 1"):
            Codec(signature, keys).decrypt(_echo_plan(), [[]])

    def test_a_flipped_bit(self, keys: KeyPair, signature: Signature) -> None:
        frame = bytearray(self._frame(keys, signature))
        frame[-5] ^= 4
        with pytest.raises(ChecksumError):
            self._decrypt(keys, signature, bytes(frame))

    def test_a_truncated_frame(self, keys: KeyPair, signature: Signature) -> None:
        with pytest.raises(TruncatedError):
            self._decrypt(keys, signature, self._frame(keys, signature)[:-1])

    def test_random_bytes(self, keys: KeyPair, signature: Signature) -> None:
        with pytest.raises(WireError):
            self._decrypt(keys, signature, os.urandom(5000))
