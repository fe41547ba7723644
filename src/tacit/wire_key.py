"""Evaluation-key frames: one relinearisation or rotation key each."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from tacit.errors import HeaderError, KeyMismatchError, ParameterMismatchError
from tacit.wire_frame import (
    Buffer,
    byte_view,
    check_digests,
    check_parameters,
    checked_limbs,
    checked_payload,
    encode_frame,
    ring_log_n,
)
from tacit.wire_header import HEADER_BYTES, FrameKind, KeyHeader, read_common, read_key_header
from tacit.wire_packing import Packing, payload_bytes


class KeyKind(IntEnum):
    """What an evaluation key does."""

    RELINEARIZATION = 1
    ROTATION = 2


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationKey:
    """One relinearisation or rotation key as limbs.

    Attributes:
        limbs: shape (2, digits, limbs of Q + limbs of P, N), uint64, NTT form, (b, a) order.
        kind: what the key does.
        galois_element: odd, 3 to 2N - 1, for rotations; 0 for relinearisation.
        params_digest: 32 bytes that name the CKKS parameters.
    """

    limbs: NDArray[np.uint64]
    kind: KeyKind
    galois_element: int
    params_digest: bytes


@dataclass(frozen=True, slots=True)
class KeyExpectation:
    """What a receiver accepts as an evaluation key.

    Attributes:
        params_digest: of the CKKS parameters.
        log_n: base-2 logarithm of the ring dimension.
        moduli: primes of Q, q_0 first.
        special_moduli: primes of P.
        dnum: digits for key switching.
        galois_elements: rotation keys accepted; None accepts every Galois element of the ring.
    """

    params_digest: bytes
    log_n: int
    moduli: tuple[int, ...]
    special_moduli: tuple[int, ...]
    dnum: int
    galois_elements: frozenset[int] | None = None


def encode_evaluation_key(
    key: EvaluationKey,
    moduli: tuple[int, ...],
    special_moduli: tuple[int, ...],
    packing: Packing = Packing.BITS,
) -> bytes:
    """Write one evaluation key as one frame.

    Args:
        key: its residues are checked.
        moduli: primes of Q, q_0 first.
        special_moduli: primes of P.
        packing: raw words, or bits.

    Raises:
        HeaderError: a field or the shape is out of range.
        ResidueError: a residue is not below its modulus.
    """
    limbs = key.limbs
    log_n = ring_log_n(limbs, 4)
    if limbs.shape[0] != 2 or limbs.shape[2] != len(moduli) + len(special_moduli):
        raise HeaderError("a key has shape (2, digits, limbs of Q + limbs of P, N)")
    header = KeyHeader(
        key.galois_element, len(moduli), len(special_moduli), log_n, limbs.shape[1], key.kind
    )
    _check_key_fields(header)
    check_digests(key.params_digest)
    polynomials = limbs.reshape(-1, *limbs.shape[2:])
    return encode_frame(
        FrameKind.EVALUATION_KEY,
        packing,
        key.params_digest,
        header,
        polynomials,
        (*moduli, *special_moduli),
    )


def decode_evaluation_key(frame: Buffer, expected: KeyExpectation) -> EvaluationKey:
    """Read and check one evaluation-key frame.

    Raises:
        TruncatedError, OversizedError: the length is not the declared or the implied one.
        HeaderError: magic, version, kind, or a field out of range.
        ParameterMismatchError: made for other CKKS parameters.
        KeyMismatchError: a rotation that is not accepted.
        ChecksumError: damaged on its way.
        ResidueError: a residue is not below its modulus.
    """
    view = byte_view(frame)
    common = read_common(view, FrameKind.EVALUATION_KEY)
    header = read_key_header(view)
    check_parameters(common, header.log_n, expected.params_digest, expected.log_n)
    _check_key_fields(header)
    _check_key_dimensions(header, expected)
    moduli = (*expected.moduli, *expected.special_moduli)
    payload = checked_payload(view, common, header.log_n, moduli, 2 * header.digits)
    limbs = checked_limbs(payload, common.packing, header.log_n, moduli, 2 * header.digits)
    return EvaluationKey(
        limbs.reshape(2, header.digits, *limbs.shape[1:]),
        KeyKind(header.kind),
        header.galois_element,
        common.params_digest,
    )


def evaluation_key_frame_bytes(
    packing: Packing, log_n: int, moduli: tuple[int, ...], dnum: int
) -> int:
    """Return the exact length of an evaluation-key frame over `moduli` (Q, then P)."""
    head = HEADER_BYTES[FrameKind.EVALUATION_KEY]
    return head + payload_bytes(packing, log_n, moduli, 2 * dnum)


def _check_key_fields(header: KeyHeader) -> None:
    element = header.galois_element
    match header.kind:
        case KeyKind.RELINEARIZATION:
            valid = element == 0
        case KeyKind.ROTATION:
            valid = element % 2 == 1 and 3 <= element < 2 << header.log_n
        case _:
            raise HeaderError(f"unknown kind of evaluation key: {header.kind}")
    if not valid:
        raise HeaderError(f"{element} is no Galois element for a key of kind {header.kind}")
    if not 1 <= header.digits <= 64:
        raise HeaderError(f"{header.digits} digits: 1 to 64 expected")


def _check_key_dimensions(header: KeyHeader, expected: KeyExpectation) -> None:
    found = (header.limbs, header.special_limbs, header.digits)
    wanted = (len(expected.moduli), len(expected.special_moduli), expected.dnum)
    if found != wanted:
        raise ParameterMismatchError(
            f"(limbs of Q, limbs of P, digits) are {found}, {wanted} expected"
        )
    accepted = expected.galois_elements
    if header.kind != KeyKind.ROTATION or accepted is None:
        return
    if header.galois_element not in accepted:
        raise KeyMismatchError(f"no rotation key for element {header.galois_element} is needed")
