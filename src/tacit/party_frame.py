"""Frames of polynomials that parties send each other: shares of keys, partial decryptions.

    8 bytes   magic b"\\x93TACPTY\\n"
    2         version 1
    1         kind, `ShareKind`
    1         log2 of the ring dimension
    4         Galois element, 0 where there is none
    2, 2      polynomials; limbs of each
    4         zeros
    8         bytes of the whole frame
    32        digest of the CKKS parameters
    residues  packed to the bits of their moduli (`tacit.wire_packing`)

Frames are named by their SHA-256 in signed entries, which is their checksum. The receiver states
what it expects; nothing is allocated before the header and the length agree with that.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from tacit.errors import HeaderError, OversizedError, ParameterMismatchError, TruncatedError
from tacit.wire_frame import Buffer, byte_view, check_digests, checked_limbs, ring_log_n
from tacit.wire_packing import Packing, check_residues, pack, payload_bytes

MAGIC = b"\x93TACPTY\n"
VERSION = 1
_HEADER = struct.Struct("<8sHBBIHH4sQ32s")


class ShareKind(IntEnum):
    """What the polynomials are."""

    PUBLIC_KEY = 1
    RELINEARIZATION = 2
    RELINEARIZATION_PRODUCT = 3
    ROTATION = 4
    PARTIAL_DECRYPTION = 5
    SECRET = 6


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """Polynomials of one party.

    Attributes:
        kind: what they are.
        element: the Galois element of a rotation share, else 0.
        limbs: shape (polynomials, limbs, N), uint64, NTT form.
        params_digest: 32 bytes that name the CKKS parameters.
    """

    kind: ShareKind
    element: int
    limbs: NDArray[np.uint64]
    params_digest: bytes


@dataclass(frozen=True, slots=True)
class ShareExpectation:
    """What a receiver accepts: all of it must agree exactly."""

    kind: ShareKind
    element: int
    polynomials: int
    moduli: tuple[int, ...]
    log_n: int
    params_digest: bytes

    @property
    def frame_bytes(self) -> int:
        """The exact length of the frame."""
        return _HEADER.size + payload_bytes(Packing.BITS, self.log_n, self.moduli, self.polynomials)


def encode_share(share: Share, moduli: tuple[int, ...]) -> bytes:
    """Write polynomials as one frame.

    Raises:
        HeaderError: a shape, dtype or field that does not fit.
        ResidueError: a residue is not below its modulus.
    """
    limbs = share.limbs
    log_n = ring_log_n(limbs, 3)
    check_digests(share.params_digest)
    if limbs.shape[1] != len(moduli):
        raise HeaderError(f"{limbs.shape[1]} limbs but {len(moduli)} moduli")
    check_residues(limbs, moduli)
    total = _HEADER.size + payload_bytes(Packing.BITS, log_n, moduli, len(limbs))
    frame = np.empty(total, dtype=np.uint8)
    head = _HEADER.pack(
        MAGIC,
        VERSION,
        share.kind,
        log_n,
        share.element,
        *limbs.shape[:2],
        bytes(4),
        total,
        share.params_digest,
    )
    frame[: _HEADER.size] = np.frombuffer(head, dtype=np.uint8)
    pack(limbs, moduli, frame[_HEADER.size :])
    return frame.tobytes()


def decode_share(frame: Buffer, expected: ShareExpectation) -> Share:
    """Read and check one frame.

    Raises:
        TruncatedError, OversizedError: the length is not the expected one.
        HeaderError: magic, version, kind or a dimension.
        ParameterMismatchError: made for other CKKS parameters.
        ResidueError: a residue is not below its modulus.
    """
    view = byte_view(frame)
    wanted = expected.frame_bytes
    if len(view) < wanted:
        raise TruncatedError(f"a share of {wanted} bytes expected, got {len(view)}")
    if len(view) > wanted:
        raise OversizedError(f"a share of {wanted} bytes expected, got {len(view)}")
    magic, version, kind, log_n, element, count, limbs, zeros, total, digest = _HEADER.unpack(
        view[: _HEADER.size]
    )
    if magic != MAGIC or version != VERSION or any(zeros) or total != wanted:
        raise HeaderError("not a share frame of this version")
    if digest != expected.params_digest:
        raise ParameterMismatchError("a share made for other CKKS parameters")
    found = (kind, element, count, limbs, log_n)
    described = (
        expected.kind,
        expected.element,
        expected.polynomials,
        len(expected.moduli),
        expected.log_n,
    )
    if found != described:
        raise HeaderError(
            f"(kind, element, polynomials, limbs, log_n) are {found}, {tuple(described)} expected"
        )
    payload = np.frombuffer(view[_HEADER.size :], dtype=np.uint8)
    return Share(
        expected.kind,
        element,
        checked_limbs(payload, Packing.BITS, log_n, expected.moduli, count),
        digest,
    )


def sum_limbs(parts: list[NDArray[np.uint64]], moduli: tuple[int, ...]) -> NDArray[np.uint64]:
    """Add limbs of the same shape (..., len(moduli), N) modulo each modulus."""
    q = np.array(moduli, dtype=np.uint64)[:, None]
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
        np.subtract(total, q, out=total, where=total >= q)
    return total
