"""What goes over the wire comes back the same, laid out as documented."""

import dataclasses
import hashlib
import math
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tacit.errors import (
    HeaderError,
)
from tacit.moduli import choose_moduli, flexible_scales
from tacit.wire import (
    Ciphertext,
    CiphertextExpectation,
    EvaluationKey,
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
from tests.contract.wire_samples import (
    DEPTH,
    DIGEST,
    EXPECTED,
    EXPECTED_KEY,
    EXPECTED_TRIMMED,
    KEY,
    LOG_N,
    PACKINGS,
    TRIMMED_LIMBS,
    P,
    Q,
    ciphertext,
    residues,
    rotation_key,
    trimmed_key,
)


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


@PACKINGS
def test_a_trimmed_key_survives_the_wire(packing: Packing) -> None:
    sent = trimmed_key()
    frame = encode_evaluation_key(sent, Q, P, packing, limbs=TRIMMED_LIMBS)
    assert len(frame) == evaluation_key_frame_bytes(packing, LOG_N, Q[:TRIMMED_LIMBS] + P, 1)
    fields = struct.unpack_from("<IHHBBBB4s", frame, 64)
    assert fields == (25, TRIMMED_LIMBS, len(P), LOG_N, 1, 2, 0, bytes(4))
    received = decode_evaluation_key(frame, EXPECTED_TRIMMED)
    assert np.array_equal(received.limbs, sent.limbs)


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
