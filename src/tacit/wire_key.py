"""Evaluation-key frames: one key each.

The keys to a sparse secret and back (see `SecretDistribution.SPARSE_ENCAPSULATED`) stand under the
even numbers 2N - 4 and 2N - 2, as in OpenFHE, where rotations have their odd Galois element.

A key for levels up to l only is **trimmed**: it holds the limbs q_0 .. q_l and those of P, in the
digits that q_0 .. q_l fill. These are residues of the full key, so nothing else changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from tacit.errors import HeaderError, KeyMismatchError, ParameterMismatchError
from tacit.moduli import digit_limbs, encapsulation_moduli
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
    TO_SPARSE = 3
    FROM_SPARSE = 4


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationKey:
    """One evaluation key as limbs.

    Attributes:
        limbs: shape (2, digits, limbs of Q + limbs of P, N), uint64, NTT form, (b, a) order; to a
            sparse secret (2, 1, 3, N), modulo q_0 and the two primes of `encapsulation_moduli`.
            Trimmed keys have fewer limbs of Q, and the digits that these fill.
        kind: what the key does.
        galois_element: odd, 3 to 2N - 1, for rotations and conjugation; 0 for relinearisation;
            2N - 4 to a sparse secret, 2N - 2 back.
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
        galois_elements: elements accepted, but for relinearisation; None accepts every one.
        limbs: limbs of Q of a trimmed key, by element, 0 for relinearisation; others have all.
    """

    params_digest: bytes
    log_n: int
    moduli: tuple[int, ...]
    special_moduli: tuple[int, ...]
    dnum: int
    galois_elements: frozenset[int] | None = None
    limbs: Mapping[int, int] = field(default_factory=dict)


def sparse_elements(log_n: int) -> tuple[int, int]:
    """Return the elements of the keys to a sparse secret and back, for N = 2^log_n."""
    return (2 << log_n) - 4, (2 << log_n) - 2


def key_moduli(
    kind: KeyKind, log_n: int, moduli: tuple[int, ...], special_moduli: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the moduli of a kind of key, not trimmed: of Q, and the special ones."""
    if kind is KeyKind.TO_SPARSE:
        return moduli[:1], encapsulation_moduli(log_n, moduli)
    return moduli, special_moduli


def encode_evaluation_key(
    key: EvaluationKey,
    moduli: tuple[int, ...],
    special_moduli: tuple[int, ...],
    packing: Packing = Packing.BITS,
    *,
    limbs: int | None = None,
) -> bytes:
    """Write one evaluation key as one frame.

    Args:
        key: its residues are checked.
        moduli: primes of Q, q_0 first, all of them.
        special_moduli: primes of P.
        packing: raw words, or bits.
        limbs: of Q, of a trimmed key; by default all.

    Raises:
        HeaderError: a field or the shape is out of range.
        ResidueError: a residue is not below its modulus.
    """
    words = key.limbs
    log_n = ring_log_n(words, 4)
    moduli, special_moduli = key_moduli(key.kind, log_n, moduli, special_moduli)
    moduli = moduli[:limbs]
    if words.shape[0] != 2 or words.shape[2] != len(moduli) + len(special_moduli) or not moduli:
        raise HeaderError("a key has shape (2, digits, limbs of Q + limbs of P, N)")
    header = KeyHeader(
        key.galois_element, len(moduli), len(special_moduli), log_n, words.shape[1], key.kind
    )
    _check_key_fields(header)
    check_digests(key.params_digest)
    polynomials = words.reshape(-1, *words.shape[2:])
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
    kind = KeyKind(header.kind)
    own, special = key_moduli(kind, header.log_n, expected.moduli, expected.special_moduli)
    moduli = (*own[: header.limbs], *special)
    payload = checked_payload(view, common, header.log_n, moduli, 2 * header.digits)
    limbs = checked_limbs(payload, common.packing, header.log_n, moduli, 2 * header.digits)
    return EvaluationKey(
        limbs.reshape(2, header.digits, *limbs.shape[1:]),
        kind,
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
        case KeyKind.TO_SPARSE | KeyKind.FROM_SPARSE:
            there, back = sparse_elements(header.log_n)
            valid = element == (there if header.kind == KeyKind.TO_SPARSE else back)
        case _:
            raise HeaderError(f"unknown kind of evaluation key: {header.kind}")
    if not valid:
        raise HeaderError(f"{element} is no Galois element for a key of kind {header.kind}")
    if not 1 <= header.digits <= 64:
        raise HeaderError(f"{header.digits} digits: 1 to 64 expected")


def _check_key_dimensions(header: KeyHeader, expected: KeyExpectation) -> None:
    found = (header.limbs, header.special_limbs, header.digits)
    small = header.kind == KeyKind.TO_SPARSE
    limbs = expected.limbs.get(header.galois_element, len(expected.moduli))
    digits = -(-limbs // digit_limbs(len(expected.moduli), expected.dnum))
    wanted = (1, 2, 1) if small else (limbs, len(expected.special_moduli), digits)
    if found != wanted:
        raise ParameterMismatchError(
            f"(limbs of Q, limbs of P, digits) are {found}, {wanted} expected"
        )
    accepted = expected.galois_elements
    if header.kind == KeyKind.RELINEARIZATION or accepted is None:
        return
    if header.galois_element not in accepted:
        raise KeyMismatchError(f"no key for element {header.galois_element} is needed")
