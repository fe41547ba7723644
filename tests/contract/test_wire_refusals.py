"""Every damaged or unexpected frame is refused, by name."""

import dataclasses
import math
import struct
from typing import Any

import numpy as np
import pytest

from tacit.errors import (
    ChecksumError,
    HeaderError,
    KeyMismatchError,
    LevelRangeError,
    OversizedError,
    ParameterMismatchError,
    ResidueError,
    TruncatedError,
    WireError,
)
from tacit.wire import (
    EvaluationKey,
    KeyKind,
    Packing,
    decode_ciphertext,
    decode_evaluation_key,
    encode_ciphertext,
    encode_evaluation_key,
    evaluation_key_frame_bytes,
)
from tests.contract.wire_samples import (
    DIGEST,
    EXPECTED,
    EXPECTED_KEY,
    EXPECTED_TRIMMED,
    KEY,
    LOG_N,
    PACKINGS,
    SCALES,
    TRIMMED_LIMBS,
    P,
    Q,
    ciphertext,
    resealed,
    residues,
    rotation_key,
    trimmed_key,
)

CIPHERTEXT_FAULTS = {
    "magic": (0, b"\x94", HeaderError),
    "version": (8, b"\x02\x00", HeaderError),
    "kind of another frame": (10, b"\x02", HeaderError),
    "unknown kind": (10, b"\x07", HeaderError),
    "packing": (11, b"\x02", HeaderError),
    "header length": (12, struct.pack("<I", 119), HeaderError),
    "total too large": (16, struct.pack("<Q", 1 << 60), TruncatedError),
    "total too small": (16, struct.pack("<Q", 121), OversizedError),
    "total below the header": (16, struct.pack("<Q", 119), HeaderError),
    "parameters": (32, bytes(32), ParameterMismatchError),
    "key": (64, bytes(32), KeyMismatchError),
    "scale NaN": (96, struct.pack("<d", math.nan), HeaderError),
    "scale infinite": (96, struct.pack("<d", math.inf), HeaderError),
    "scale negative": (96, struct.pack("<d", -SCALES[2]), HeaderError),
    "scale denormal": (96, struct.pack("<d", 5e-324), HeaderError),
    "scale off by 1e-8": (96, struct.pack("<d", SCALES[2] * (1 + 1e-8)), HeaderError),
    "scale of another degree": (96, struct.pack("<d", SCALES[2] ** 2), HeaderError),
    "no slots": (104, struct.pack("<I", 0), HeaderError),
    "too many slots": (104, struct.pack("<I", 128), HeaderError),
    "slots not a power of two": (104, struct.pack("<I", 63), HeaderError),
    "level above the parameters": (108, struct.pack("<HH", 4, 5), LevelRangeError),
    "level not accepted": (108, struct.pack("<HH", 0, 1), LevelRangeError),
    "fewer limbs than the level": (110, struct.pack("<H", 2), LevelRangeError),
    "more limbs than the level": (110, struct.pack("<H", 65535), LevelRangeError),
    "more limbs than there are bytes": (108, struct.pack("<HH", 3, 4), TruncatedError),
    "ring": (112, bytes([LOG_N + 1]), ParameterMismatchError),
    "ring out of range": (112, b"\xff", HeaderError),
    "components": (113, b"\x03", HeaderError),
    "absurd components": (113, b"\xff", HeaderError),
    "degree": (114, b"\x03", HeaderError),
    "form": (115, b"\x01", HeaderError),
    "reserved": (119, b"\x01", HeaderError),
    "residue": (120 + 8 * 5, struct.pack("<Q", Q[0]), ResidueError),
    "largest residue": (120 + 8 * 200, b"\xff" * 8, ResidueError),
}


@pytest.mark.parametrize("fault", CIPHERTEXT_FAULTS)
def test_each_fault_of_a_ciphertext_has_its_named_error(fault: str) -> None:
    at, patch, error = CIPHERTEXT_FAULTS[fault]
    frame = encode_ciphertext(ciphertext(level=2), Q, Packing.RAW)
    expected = dataclasses.replace(EXPECTED, key_id=KEY, levels=frozenset({2, 3}))
    decode_ciphertext(frame, expected)
    with pytest.raises(error) as caught:
        decode_ciphertext(resealed(frame, at, patch), expected)
    assert type(caught.value) is error


TRIMMED_FAULTS = {
    "all limbs": (68, struct.pack("<H", len(Q)), ParameterMismatchError),
    "one limb less": (68, struct.pack("<H", TRIMMED_LIMBS - 1), ParameterMismatchError),
    "no limbs": (68, struct.pack("<H", 0), ParameterMismatchError),
    "all digits": (73, b"\x02", ParameterMismatchError),
    "element of a full key": (64, struct.pack("<I", 5), ParameterMismatchError),
    "relinearisation": (64, struct.pack("<I", 0), HeaderError),
    "total of a full key": (
        16,
        struct.pack("<Q", evaluation_key_frame_bytes(Packing.RAW, LOG_N, Q + P, 2)),
        TruncatedError,
    ),
    "residue of q_0 among those of P": (80, struct.pack("<Q", Q[0]), ResidueError),
}


@pytest.mark.parametrize("fault", TRIMMED_FAULTS)
def test_each_fault_of_a_trimmed_key_has_its_named_error(fault: str) -> None:
    at, patch, error = TRIMMED_FAULTS[fault]
    frame = encode_evaluation_key(trimmed_key(), Q, P, Packing.RAW, limbs=TRIMMED_LIMBS)
    with pytest.raises(error) as caught:
        decode_evaluation_key(resealed(frame, at, patch), EXPECTED_TRIMMED)
    assert type(caught.value) is error


@pytest.mark.parametrize("limbs", [1, 3, 4])
def test_a_key_trimmed_otherwise_than_expected_is_refused(limbs: int) -> None:
    """Frames that are sound in themselves: a key for lower levels, and keys for higher ones."""
    digits = -(-limbs // 2)
    key = EvaluationKey(residues(Q[:limbs] + P, (2, digits)), KeyKind.ROTATION, 25, DIGEST)
    frame = encode_evaluation_key(key, Q, P, limbs=limbs)
    decode_evaluation_key(frame, dataclasses.replace(EXPECTED_KEY, limbs={25: limbs}))
    for expected in (EXPECTED_TRIMMED, dataclasses.replace(EXPECTED_KEY, limbs={25: 5 - limbs})):
        with pytest.raises(ParameterMismatchError, match="expected"):
            decode_evaluation_key(frame, expected)


def test_a_trimmed_key_is_not_sent_with_other_limbs_than_it_has() -> None:
    for limbs in (0, 1, 3, 4, None):
        with pytest.raises(HeaderError, match="shape"):
            encode_evaluation_key(trimmed_key(), Q, P, limbs=limbs)


KEY_FAULTS = {
    "kind of another frame": (10, b"\x01", HeaderError),
    "parameters": (32, bytes(32), ParameterMismatchError),
    "even element": (64, struct.pack("<I", 6), HeaderError),
    "identity": (64, struct.pack("<I", 1), HeaderError),
    "element beyond the ring": (64, struct.pack("<I", 257), HeaderError),
    "element nobody needs": (64, struct.pack("<I", 7), KeyMismatchError),
    "limbs": (68, struct.pack("<H", 3), ParameterMismatchError),
    "special limbs": (70, struct.pack("<H", 9), ParameterMismatchError),
    "ring": (72, bytes([LOG_N - 1]), ParameterMismatchError),
    "digits": (73, b"\x03", ParameterMismatchError),
    "no digits": (73, b"\x00", HeaderError),
    "absurd digits": (73, b"\xff", HeaderError),
    "unknown key": (74, b"\x03", HeaderError),
    "relinearisation with an element": (74, b"\x01", HeaderError),
    "form": (75, b"\x01", HeaderError),
    "reserved": (76, b"\x01", HeaderError),
    "residue": (80, struct.pack("<Q", Q[0]), ResidueError),
}


@pytest.mark.parametrize("fault", KEY_FAULTS)
def test_each_fault_of_an_evaluation_key_has_its_named_error(fault: str) -> None:
    at, patch, error = KEY_FAULTS[fault]
    frame = encode_evaluation_key(rotation_key(), Q, P, Packing.RAW)
    expected = dataclasses.replace(EXPECTED_KEY, galois_elements=frozenset({5, 25}))
    decode_evaluation_key(frame, expected)
    with pytest.raises(error) as caught:
        decode_evaluation_key(resealed(frame, at, patch), expected)
    assert type(caught.value) is error


@PACKINGS
def test_every_truncation_and_extension_is_refused(packing: Packing) -> None:
    frame = encode_ciphertext(ciphertext(level=0), Q, packing)
    for length in range(len(frame)):
        with pytest.raises(TruncatedError):
            decode_ciphertext(frame[:length], EXPECTED)
    for extra in (1, 8, len(frame)):
        with pytest.raises(OversizedError):
            decode_ciphertext(frame + bytes(extra), EXPECTED)


@PACKINGS
def test_every_flipped_bit_is_noticed(packing: Packing) -> None:
    frame = encode_ciphertext(ciphertext(level=0), Q, packing)
    expected = dataclasses.replace(EXPECTED, key_id=KEY)
    for bit in range(8 * len(frame)):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            decode_ciphertext(bytes(damaged), expected)


def test_a_damaged_payload_or_checksum_is_a_checksum_error() -> None:
    frame = bytearray(encode_ciphertext(ciphertext(), Q))
    for at in (24, 31, 120, len(frame) - 1):
        damaged = bytearray(frame)
        damaged[at] ^= 1
        with pytest.raises(ChecksumError):
            decode_ciphertext(damaged, EXPECTED)


def test_packed_residues_at_or_above_the_modulus_are_refused() -> None:
    frame = encode_ciphertext(ciphertext(level=0), Q, Packing.BITS)
    width = Q[0].bit_length()
    assert width == 50
    content = int.from_bytes(frame[120:], "little")
    for residue in (Q[0], (1 << width) - 1):
        raised = (content & ~((1 << width) - 1)) | residue
        patch = raised.to_bytes(len(frame) - 120, "little")
        with pytest.raises(ResidueError):
            decode_ciphertext(resealed(frame, 120, patch), EXPECTED)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"degrees": (2,)}, HeaderError),
        ({"components": (3,)}, HeaderError),
        ({"slots": 32}, HeaderError),
        ({"levels": frozenset({0})}, LevelRangeError),
        ({"key_id": bytes(32)}, KeyMismatchError),
        ({"params_digest": bytes(32)}, ParameterMismatchError),
        ({"log_n": LOG_N + 1}, ParameterMismatchError),
        ({"moduli": Q[:2]}, LevelRangeError),
    ],
)
def test_a_valid_frame_that_is_not_the_expected_one_is_refused(
    change: dict[str, Any], error: type[WireError]
) -> None:
    frame = encode_ciphertext(ciphertext(), Q)
    with pytest.raises(error):
        decode_ciphertext(frame, dataclasses.replace(EXPECTED, **change))


def test_what_must_not_be_sent_is_refused_when_encoding() -> None:
    good = ciphertext()
    too_large = good.limbs.copy()
    too_large[1, 3, 127] = Q[3]
    with pytest.raises(ResidueError, match="limb 3"):
        encode_ciphertext(dataclasses.replace(good, limbs=too_large), Q)
    wrong: list[dict[str, Any]] = [
        {"limbs": good.limbs.astype(np.int64)},
        {"limbs": good.limbs[..., :100]},
        {"limbs": good.limbs[0]},
        {"limbs": good.limbs[:, :0]},
        {"scale": math.nan},
        {"slots": 0},
        {"degree": 0},
        {"key_id": b"short"},
        {"params_digest": b"short"},
    ]
    for change in wrong:
        with pytest.raises(HeaderError):
            encode_ciphertext(dataclasses.replace(good, **change), Q)
    with pytest.raises(LevelRangeError):
        encode_ciphertext(dataclasses.replace(good, level=2), Q)
    with pytest.raises(HeaderError):
        encode_ciphertext(good, Q[:2])
    with pytest.raises(HeaderError):
        encode_evaluation_key(rotation_key(), Q, P + P)


def test_error_messages_hold_no_residues() -> None:
    sent = ciphertext(level=0)
    secretive = sent.limbs.copy()
    secretive[0, 0, 9] = 2**63 + 123456789
    with pytest.raises(ResidueError) as caught:
        encode_ciphertext(dataclasses.replace(sent, limbs=secretive), Q)
    assert str(2**63 + 123456789) not in str(caught.value)


def test_what_is_not_a_contiguous_buffer_is_refused() -> None:
    frame = encode_ciphertext(ciphertext(), Q)
    with pytest.raises(HeaderError):
        decode_ciphertext(memoryview(frame)[::2], EXPECTED)
