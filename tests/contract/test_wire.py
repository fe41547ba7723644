import dataclasses
import hashlib
import math
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

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
from tacit.moduli import choose_moduli, flexible_scales
from tacit.wire import (
    Ciphertext,
    CiphertextExpectation,
    EvaluationKey,
    KeyExpectation,
    KeyKind,
    Packing,
    ciphertext_frame_bytes,
    decode_ciphertext,
    decode_evaluation_key,
    encode_ciphertext,
    encode_evaluation_key,
    evaluation_key_frame_bytes,
    frame_digest,
    frame_length,
    key_id,
)
from tacit.wire_packing import pack, payload_bytes, unpack

LOG_N, DEPTH = 7, 3
CHOSEN = choose_moduli(LOG_N, DEPTH, 40, 50, 2)
Q, P = CHOSEN.moduli, CHOSEN.special_moduli
SCALES = flexible_scales(Q, 40)
DIGEST = hashlib.sha256(b"parameters").digest()
KEY = hashlib.sha256(b"keys").digest()
EXPECTED = CiphertextExpectation(DIGEST, LOG_N, Q, SCALES)
EXPECTED_KEY = KeyExpectation(DIGEST, LOG_N, Q, P, 2)
PACKINGS = pytest.mark.parametrize("packing", list(Packing))


def residues(
    moduli: tuple[int, ...], leading: tuple[int, ...], seed: int = 0, log_n: int = LOG_N
) -> NDArray[np.uint64]:
    """Random residues with 0, 1 and q - 1 among them."""
    rng = np.random.default_rng(seed)
    limbs = np.empty((*leading, len(moduli), 1 << log_n), dtype=np.uint64)
    for i, modulus in enumerate(moduli):
        limbs[..., i, :] = rng.integers(0, modulus, (*leading, 1 << log_n), dtype=np.uint64)
        limbs[..., i, :3] = (0, 1, modulus - 1)
    return limbs


def ciphertext(
    level: int = DEPTH, degree: int = 1, components: int = 2, seed: int = 0
) -> Ciphertext:
    limbs = residues(Q[: level + 1], (components,), seed)
    return Ciphertext(limbs, level, degree, SCALES[level] ** degree, 64, DIGEST, KEY)


def rotation_key(element: int = 5) -> EvaluationKey:
    return EvaluationKey(residues(Q + P, (2, 2)), KeyKind.ROTATION, element, DIGEST)


def resealed(frame: bytes, at: int, patch: bytes) -> bytes:
    """Overwrite some bytes and compute the checksum again, as docs/wire-format.md says."""
    changed = bytearray(frame)
    changed[at : at + len(patch)] = patch
    content = bytes(changed[:24] + changed[32:])
    changed[24:32] = hashlib.blake2b(content, digest_size=8).digest()
    return bytes(changed)


@PACKINGS
@pytest.mark.parametrize("level", range(DEPTH + 1))
@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("components", [2, 3])
def test_a_ciphertext_survives_the_wire(
    packing: Packing, level: int, degree: int, components: int
) -> None:
    sent = ciphertext(level, degree, components)
    frame = encode_ciphertext(sent, Q, packing)
    assert len(frame) == ciphertext_frame_bytes(packing, LOG_N, Q[: level + 1], components)
    assert frame_length(frame[:64]) == len(frame)
    expected = dataclasses.replace(EXPECTED, components=(2, 3))
    received = decode_ciphertext(frame, expected)
    assert np.array_equal(received.limbs, sent.limbs)
    assert not received.limbs.flags.writeable
    for field in ("level", "degree", "scale", "slots", "params_digest", "key_id"):
        assert getattr(received, field) == getattr(sent, field)


@PACKINGS
@pytest.mark.parametrize(("kind", "element"), [(KeyKind.RELINEARIZATION, 0), (KeyKind.ROTATION, 5)])
def test_an_evaluation_key_survives_the_wire(packing: Packing, kind: KeyKind, element: int) -> None:
    sent = EvaluationKey(residues(Q + P, (2, 2)), kind, element, DIGEST)
    frame = encode_evaluation_key(sent, Q, P, packing)
    assert len(frame) == evaluation_key_frame_bytes(packing, LOG_N, Q + P, 2)
    received = decode_evaluation_key(frame, EXPECTED_KEY)
    assert np.array_equal(received.limbs, sent.limbs)
    assert (received.kind, received.galois_element) == (kind, element)


@given(
    widths=st.lists(st.integers(2, 61), min_size=1, max_size=4),
    log_n=st.integers(6, 8),
    polynomials=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_packed_bits_are_one_little_endian_number_per_limb(
    widths: list[int], log_n: int, polynomials: int, seed: int
) -> None:
    """The oracle is Python's big integers: residue i is shifted by i times the width."""
    moduli = tuple((1 << width) - 1 for width in widths)
    limbs = residues(moduli, (polynomials,), seed, log_n)
    packed = np.empty(payload_bytes(Packing.BITS, log_n, moduli, polynomials), dtype=np.uint8)
    pack(limbs, moduli, packed)
    oracle = b""
    for polynomial in limbs:
        for limb, width in zip(polynomial, widths, strict=True):
            number = sum(int(residue) << (i * width) for i, residue in enumerate(limb))
            oracle += number.to_bytes(width * (1 << log_n) // 8, "little")
    assert packed.tobytes() == oracle
    assert np.array_equal(unpack(packed, moduli, polynomials, log_n), limbs)


def test_the_header_is_laid_out_as_documented() -> None:
    sent = ciphertext(level=2, degree=2)
    frame = encode_ciphertext(sent, Q, Packing.RAW)
    assert frame[:8] == b"\x93TACIT\r\n"
    assert struct.unpack_from("<HBBIQ", frame, 8) == (1, 1, 0, 120, len(frame))
    assert frame[24:32] == hashlib.blake2b(frame[:24] + frame[32:], digest_size=8).digest()
    assert (frame[32:64], frame[64:96]) == (DIGEST, KEY)
    fields = struct.unpack_from("<dIHHBBBB4s", frame, 96)
    assert fields == (sent.scale, 64, 2, 3, LOG_N, 2, 2, 0, bytes(4))
    assert frame[120:] == sent.limbs.astype("<u8").tobytes()
    key = rotation_key(element=25)
    frame = encode_evaluation_key(key, Q, P, Packing.RAW)
    assert struct.unpack_from("<HBBIQ", frame, 8) == (1, 2, 0, 80, len(frame))
    assert struct.unpack_from("<IHHBBBB4s", frame, 64) == (
        *(25, len(Q), len(P), LOG_N, 2),
        *(2, 0, bytes(4)),
    )
    assert frame[80:] == key.limbs.astype("<u8").tobytes()


def golden_frames() -> dict[str, bytes]:
    """The example frames of docs/wire-format.md, from moduli written out there."""
    q = (1073740801, 1048583041)
    p = (1152921504606845953,)
    digest, name = bytes(range(32)), bytes(range(32, 64))

    def limbs(moduli: tuple[int, ...], *leading: int) -> NDArray[np.uint64]:
        count = math.prod(leading) * len(moduli) * 64
        numbers = [(i + 1) * 0x9E3779B97F4A7C15 % 2**64 for i in range(count)]
        shaped = np.array(numbers, dtype=np.uint64).reshape(*leading, len(moduli), 64)
        return shaped % np.array(moduli, dtype=np.uint64)[:, None]

    sent = Ciphertext(limbs(q, 2), 1, 2, 2.0**60, 32, digest, name)
    key = EvaluationKey(limbs(q + p, 2, 2), KeyKind.ROTATION, 5, digest)
    small = EvaluationKey(limbs(q[:1] + p, 2, 1), KeyKind.ROTATION, 25, digest)
    frames: dict[str, bytes] = {}
    for packing in Packing:
        trimmed = encode_evaluation_key(small, q, p, packing, limbs=1)
        frames[f"trimmed key {packing.name}"] = trimmed
        frames[f"ciphertext {packing.name}"] = encode_ciphertext(sent, q, packing)
        frames[f"rotation key {packing.name}"] = encode_evaluation_key(key, q, p, packing)
    return frames


GOLDEN = {
    "ciphertext RAW": "c607103143c03c15c08eadcc977f7dbf542f5f389b49f9f5672410098f464bec",
    "rotation key RAW": "a1dd5160e532c2e260aa1d94e4d3a9e1028e706de450f2154330f966a14c17bc",
    "ciphertext BITS": "67458d4e8ae39f3b784158cae3f09e1de0cb66bfb276d3d52a6f66b8b247bffd",
    "rotation key BITS": "7e797f0e5d55ce0ccacfe318aa7bcc6efe093a30e491280039831dfa35debbe1",
    "trimmed key RAW": "c7cc3a549bcd8879062a734ccd7389501a5d02ab48d62603037762deccaec491",
    "trimmed key BITS": "a4d36c210352fd638b24ccdaaa5d50264382c54732b3487f1a039ea693c31dbb",
}


def test_the_documented_example_frames_never_change() -> None:
    found = {name: frame_digest(frame).hex() for name, frame in golden_frames().items()}
    assert found == GOLDEN
    document = (Path(__file__).parents[2] / "docs" / "wire-format.md").read_text()
    for name, digest in GOLDEN.items():
        assert digest in document, name


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


TRIMMED_LIMBS = 2  # of 4, one digit of 2
EXPECTED_TRIMMED = dataclasses.replace(EXPECTED_KEY, limbs={25: TRIMMED_LIMBS})


def trimmed_key(element: int = 25) -> EvaluationKey:
    limbs = residues(Q[:TRIMMED_LIMBS] + P, (2, 1))
    return EvaluationKey(limbs, KeyKind.ROTATION, element, DIGEST)


@PACKINGS
def test_a_trimmed_key_survives_the_wire(packing: Packing) -> None:
    sent = trimmed_key()
    frame = encode_evaluation_key(sent, Q, P, packing, limbs=TRIMMED_LIMBS)
    assert len(frame) == evaluation_key_frame_bytes(packing, LOG_N, Q[:TRIMMED_LIMBS] + P, 1)
    fields = struct.unpack_from("<IHHBBBB4s", frame, 64)
    assert fields == (25, TRIMMED_LIMBS, len(P), LOG_N, 1, 2, 0, bytes(4))
    received = decode_evaluation_key(frame, EXPECTED_TRIMMED)
    assert np.array_equal(received.limbs, sent.limbs)


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


def test_a_buffer_that_can_change_later_is_copied() -> None:
    frame = bytearray(encode_ciphertext(ciphertext(), Q, Packing.RAW))
    received = decode_ciphertext(frame, EXPECTED)
    frame[120:] = b"\xff" * (len(frame) - 120)
    assert np.array_equal(received.limbs, ciphertext().limbs)


def test_unaligned_bytes_become_aligned_limbs() -> None:
    frame = encode_ciphertext(ciphertext(), Q, Packing.RAW)
    for shift in range(1, 8):
        body = memoryview(bytes(shift) + frame)[shift:]
        received = decode_ciphertext(body, EXPECTED)
        assert received.limbs.flags.aligned
        assert np.array_equal(received.limbs, ciphertext().limbs)


def test_what_is_not_a_contiguous_buffer_is_refused() -> None:
    frame = encode_ciphertext(ciphertext(), Q)
    with pytest.raises(HeaderError):
        decode_ciphertext(memoryview(frame)[::2], EXPECTED)


def test_a_key_id_depends_on_the_frames_and_parameters_but_not_on_their_order() -> None:
    digests = [frame_digest(bytes([i])) for i in range(3)]
    name = key_id(DIGEST, digests)
    assert name == hashlib.sha256(b"".join(sorted(digests)) + DIGEST).digest()
    assert key_id(DIGEST, reversed(digests)) == name
    assert key_id(DIGEST, digests[:2]) != name
    assert key_id(KEY, digests) != name
    with pytest.raises(HeaderError, match="twice"):
        key_id(DIGEST, [digests[0], digests[0]])
    with pytest.raises(HeaderError):
        key_id(DIGEST, [b"short"])


@PACKINGS
def test_decoding_allocates_at_most_twice_the_declared_residues(packing: Packing) -> None:
    chosen = choose_moduli(13, 5, 40, 50, 3)
    scales = flexible_scales(chosen.moduli, 40)
    limbs = residues(chosen.moduli, (2,), log_n=13)
    sent = Ciphertext(limbs, 5, 1, scales[5], 4096, DIGEST, KEY)
    frame = encode_ciphertext(sent, chosen.moduli, packing)
    expected = CiphertextExpectation(DIGEST, 13, chosen.moduli, scales)
    tracemalloc.start()
    decode_ciphertext(frame, expected)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * limbs.nbytes


def test_packing_a_megabyte_of_residues_is_vectorised() -> None:
    """A loose bound on processor time that a loop over residues in Python would miss."""
    chosen = choose_moduli(14, 3, 40, 50, 2)
    scales = flexible_scales(chosen.moduli, 40)
    limbs = residues(chosen.moduli, (2,), log_n=14)
    assert limbs.nbytes == 1 << 20
    sent = Ciphertext(limbs, 3, 1, scales[3], 8192, DIGEST, KEY)
    expected = CiphertextExpectation(DIGEST, 14, chosen.moduli, scales)
    best = math.inf
    for _ in range(5):
        start = time.process_time()
        decode_ciphertext(encode_ciphertext(sent, chosen.moduli), expected)
        best = min(best, time.process_time() - start)
    assert best < 0.2
