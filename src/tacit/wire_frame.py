"""What both kinds of frames share: from limbs to a sealed frame, and back with every check."""

import numpy as np
from numpy.typing import NDArray

from tacit.errors import HeaderError, OversizedError, ParameterMismatchError, TruncatedError
from tacit.wire_header import (
    DIGEST_BYTES,
    HEADER_BYTES,
    LARGEST_LOG_N,
    SMALLEST_LOG_N,
    CiphertextHeader,
    CommonHeader,
    FrameKind,
    KeyHeader,
    check_seal,
    seal,
    write_header,
)
from tacit.wire_packing import Packing, check_residues, pack, payload_bytes, unpack

Buffer = bytes | bytearray | memoryview


def encode_frame(
    kind: FrameKind,
    packing: Packing,
    params_digest: bytes,
    header: CiphertextHeader | KeyHeader,
    polynomials: NDArray[np.uint64],
    moduli: tuple[int, ...],
) -> bytes:
    """Check the residues and write a sealed frame.

    Args:
        kind: of the frame.
        packing: of the payload.
        params_digest: 32 bytes.
        header: the second part of the header.
        polynomials: shape (polynomials, len(moduli), N), uint64.
        moduli: one per limb.
    """
    count, limbs, _ = polynomials.shape
    if limbs != len(moduli):
        raise HeaderError(f"{limbs} limbs but {len(moduli)} moduli")
    check_residues(polynomials, moduli)
    head_bytes = HEADER_BYTES[kind]
    total = head_bytes + payload_bytes(packing, header.log_n, moduli, count)
    frame = np.empty(total, dtype=np.uint8)
    head = write_header(CommonHeader(kind, packing, total, params_digest), header)
    frame[:head_bytes] = np.frombuffer(head, dtype=np.uint8)
    if packing is Packing.RAW:
        frame[head_bytes:].view("<u8").reshape(polynomials.shape)[...] = polynomials
    else:
        pack(polynomials, moduli, frame[head_bytes:])
    seal(frame.data)
    return frame.tobytes()


def checked_payload(
    view: memoryview,
    common: CommonHeader,
    log_n: int,
    moduli: tuple[int, ...],
    polynomials: int,
) -> NDArray[np.uint8]:
    """Check the length that the header implies, then the checksum; return the payload's bytes."""
    head_bytes = HEADER_BYTES[common.kind]
    implied = head_bytes + payload_bytes(common.packing, log_n, moduli, polynomials)
    if common.total_bytes < implied:
        raise TruncatedError(f"the header implies {implied} bytes, got {common.total_bytes}")
    if common.total_bytes > implied:
        raise OversizedError(f"the header implies {implied} bytes, got {common.total_bytes}")
    check_seal(view)
    payload = np.frombuffer(view[head_bytes:], dtype=np.uint8)
    return payload if view.readonly else payload.copy()


def checked_limbs(
    payload: NDArray[np.uint8],
    packing: Packing,
    log_n: int,
    moduli: tuple[int, ...],
    polynomials: int,
) -> NDArray[np.uint64]:
    """Return the residues, checked: shape (polynomials, len(moduli), N), read-only, aligned."""
    if packing is Packing.RAW:
        limbs: NDArray[np.uint64] = payload.view("<u8").reshape(
            polynomials, len(moduli), 1 << log_n
        )
    else:
        limbs = unpack(payload, moduli, polynomials, log_n)
    if not limbs.flags.aligned:
        limbs = limbs.copy()
    check_residues(limbs, moduli)
    limbs.flags.writeable = False
    return limbs


def byte_view(frame: Buffer) -> memoryview:
    """View a buffer as bytes."""
    try:
        return memoryview(frame).cast("B")
    except TypeError as error:
        raise HeaderError("a frame must be contiguous bytes") from error


def ring_log_n(limbs: NDArray[np.uint64], dimensions: int) -> int:
    """Check the shape and dtype of limbs to be sent; returns base-2 log of the ring dimension."""
    n = limbs.shape[-1] if limbs.ndim == dimensions else 0
    log_n = n.bit_length() - 1
    if n != 1 << max(log_n, 0) or not SMALLEST_LOG_N <= log_n <= LARGEST_LOG_N:
        raise HeaderError(
            f"limbs of {dimensions} dimensions, the last a power of two from 2^{SMALLEST_LOG_N} "
            f"to 2^{LARGEST_LOG_N}, expected; got shape {limbs.shape}"
        )
    if limbs.dtype != np.uint64 or 0 in limbs.shape:
        raise HeaderError(f"limbs of dtype uint64 expected, got {limbs.dtype}, {limbs.shape}")
    return log_n


def check_digests(*digests: bytes) -> None:
    """Refuse digests and key ids of any other length than 32 bytes."""
    if any(len(digest) != DIGEST_BYTES for digest in digests):
        raise HeaderError(f"digests and key ids have {DIGEST_BYTES} bytes")


def check_parameters(
    common: CommonHeader, log_n: int, params_digest: bytes, expected_log_n: int
) -> None:
    """Refuse a frame that was made for other parameters."""
    if common.params_digest != params_digest or log_n != expected_log_n:
        raise ParameterMismatchError(
            "made for other CKKS parameters: use those of the model's current version"
        )
