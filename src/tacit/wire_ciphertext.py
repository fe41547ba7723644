"""Ciphertext frames."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.errors import HeaderError, KeyMismatchError, LevelRangeError
from tacit.params import CryptoParams
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
from tacit.wire_header import (
    HEADER_BYTES,
    CiphertextHeader,
    FrameKind,
    read_ciphertext_header,
    read_common,
)
from tacit.wire_packing import Packing, payload_bytes

_SCALE_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Ciphertext:
    """A CKKS ciphertext as limbs.

    Attributes:
        limbs: shape (components, level + 1, N), uint64, NTT form, below each modulus.
        level: rescalings left.
        degree: 1, or 2 after a multiplication that has not been rescaled: the scale is squared.
        scale: what slot values are multiplied by.
        slots: number of slots, a power of two up to N/2.
        params_digest: 32 bytes that name the CKKS parameters.
        key_id: 32 bytes that name the key set, see `key_id`.
    """

    limbs: NDArray[np.uint64]
    level: int
    degree: int
    scale: float
    slots: int
    params_digest: bytes
    key_id: bytes


@dataclass(frozen=True, slots=True)
class CiphertextExpectation:
    """What a receiver accepts as a ciphertext.

    Attributes:
        params_digest: of the CKKS parameters.
        log_n: base-2 logarithm of the ring dimension.
        moduli: primes of Q, q_0 first.
        scales: the scale of degree 1 at each level; squared for degree 2.
        levels: levels accepted; None accepts all of the parameters'.
        degrees: degrees accepted.
        components: numbers of components accepted; 3 before relinearisation.
        slots: number of slots it must have; None accepts any power of two up to N/2.
        key_id: key set it must be encrypted under; None accepts any.
    """

    params_digest: bytes
    log_n: int
    moduli: tuple[int, ...]
    scales: tuple[float, ...]
    levels: frozenset[int] | None = None
    degrees: tuple[int, ...] = (1, 2)
    components: tuple[int, ...] = (2,)
    slots: int | None = None
    key_id: bytes | None = None

    @classmethod
    def exactly(
        cls, params: CryptoParams, level: int, degree: int, key_id: bytes
    ) -> "CiphertextExpectation":
        """Accept two components of one level and degree, all slots, under one key set."""
        return cls(
            params.digest,
            params.log_n,
            params.moduli,
            tuple(params.scale(at) for at in range(params.depth + 1)),
            levels=frozenset({level}),
            degrees=(degree,),
            slots=params.slots,
            key_id=key_id,
        )


def encode_ciphertext(
    ciphertext: Ciphertext, moduli: tuple[int, ...], packing: Packing = Packing.BITS
) -> bytes:
    """Write a ciphertext as one frame.

    Args:
        ciphertext: its residues are checked.
        moduli: primes of Q, q_0 first, all of them or at least level + 1.
        packing: raw words, or bits.

    Raises:
        HeaderError: a field or the shape is out of range.
        ResidueError: a residue is not below its modulus.
    """
    limbs = ciphertext.limbs
    log_n = ring_log_n(limbs, 3)
    header = CiphertextHeader(
        ciphertext.key_id,
        ciphertext.scale,
        ciphertext.slots,
        ciphertext.level,
        limbs.shape[1],
        log_n,
        limbs.shape[0],
        ciphertext.degree,
    )
    _check_ciphertext_fields(header)
    check_digests(ciphertext.params_digest, ciphertext.key_id)
    used = moduli[: limbs.shape[1]]
    return encode_frame(
        FrameKind.CIPHERTEXT, packing, ciphertext.params_digest, header, limbs, used
    )


def decode_ciphertext(frame: Buffer, expected: CiphertextExpectation) -> Ciphertext:
    """Read and check one ciphertext frame.

    With raw packing the limbs are a read-only view of `frame` where that is immutable.

    Raises:
        TruncatedError, OversizedError: the length is not the declared or the implied one.
        HeaderError: magic, version, kind, or a field out of range.
        ParameterMismatchError: made for other CKKS parameters.
        KeyMismatchError: encrypted under another key set.
        LevelRangeError: a level that is not accepted, or limbs that do not fit it.
        ChecksumError: damaged on its way.
        ResidueError: a residue is not below its modulus.
    """
    view = byte_view(frame)
    common = read_common(view, FrameKind.CIPHERTEXT)
    header = read_ciphertext_header(view)
    check_parameters(common, header.log_n, expected.params_digest, expected.log_n)
    if expected.key_id is not None and header.key_id != expected.key_id:
        raise KeyMismatchError("encrypted under another key set: use the keys of this session")
    _check_level(header, expected)
    _check_accepted(header, expected)
    moduli = expected.moduli[: header.limbs]
    payload = checked_payload(view, common, header.log_n, moduli, header.components)
    limbs = checked_limbs(payload, common.packing, header.log_n, moduli, header.components)
    return Ciphertext(
        limbs,
        header.level,
        header.degree,
        header.scale,
        header.slots,
        common.params_digest,
        header.key_id,
    )


def ciphertext_frame_bytes(
    packing: Packing, log_n: int, moduli: tuple[int, ...], components: int = 2
) -> int:
    """Return the exact length of a ciphertext frame over `moduli` (those of its level)."""
    head = HEADER_BYTES[FrameKind.CIPHERTEXT]
    return head + payload_bytes(packing, log_n, moduli, components)


def _check_ciphertext_fields(header: CiphertextHeader) -> None:
    if header.components not in (2, 3) or header.degree not in (1, 2):
        raise HeaderError(
            f"2 or 3 components of degree 1 or 2 expected, "
            f"got {header.components} of degree {header.degree}"
        )
    if not math.isfinite(header.scale) or not 1.0 <= header.scale <= 2.0**120:
        raise HeaderError("the scale is not a finite number from 1 to 2^120")
    if not 1 <= header.slots <= 1 << (header.log_n - 1) or header.slots & (header.slots - 1):
        raise HeaderError(f"{header.slots} slots: a power of two up to half the ring is expected")
    if not 0 <= header.level <= 127 or header.limbs != header.level + 1:
        raise LevelRangeError(f"{header.limbs} limbs at level {header.level}: one more expected")


def _check_level(header: CiphertextHeader, expected: CiphertextExpectation) -> None:
    if header.level >= len(expected.moduli):
        raise LevelRangeError(
            f"level {header.level}: the parameters have 0 to {len(expected.moduli) - 1}"
        )
    if expected.levels is not None and header.level not in expected.levels:
        raise LevelRangeError(f"level {header.level}: one of {sorted(expected.levels)} expected")
    if header.limbs != header.level + 1:
        raise LevelRangeError(f"{header.limbs} limbs at level {header.level}: one more expected")


def _check_accepted(header: CiphertextHeader, expected: CiphertextExpectation) -> None:
    _check_ciphertext_fields(header)
    if header.degree not in expected.degrees:
        raise HeaderError(f"degree {header.degree}: one of {expected.degrees} expected")
    if header.components not in expected.components:
        raise HeaderError(f"{header.components} components: {expected.components} expected")
    if expected.slots is not None and header.slots != expected.slots:
        raise HeaderError(f"{header.slots} slots: {expected.slots} expected")
    scale = expected.scales[header.level] ** header.degree
    if abs(header.scale - scale) > _SCALE_TOLERANCE * scale:
        raise HeaderError(
            f"scale {header.scale:.17g}: the parameters have {scale:.17g} at level {header.level}"
        )
