"""The fixed headers of Tacit frames; docs/wire-format.md lists them byte by byte."""

import struct
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b

from tacit.errors import ChecksumError, HeaderError, OversizedError, TruncatedError
from tacit.wire_packing import Packing

MAGIC = b"\x93TACIT\r\n"
VERSION = 1
DIGEST_BYTES = 32
SMALLEST_LOG_N = 6
LARGEST_LOG_N = 17
_CHECKSUM_BYTES = 8

_COMMON = struct.Struct("<8sHBBIQ8s32s")
_CIPHERTEXT = struct.Struct("<32sdIHHBBBB4s")
_KEY = struct.Struct("<IHHBBBB4s")
_CHECKSUM_AT = 24


class FrameKind(IntEnum):
    """What a frame holds."""

    CIPHERTEXT = 1
    EVALUATION_KEY = 2


HEADER_BYTES = {
    FrameKind.CIPHERTEXT: _COMMON.size + _CIPHERTEXT.size,
    FrameKind.EVALUATION_KEY: _COMMON.size + _KEY.size,
}


@dataclass(frozen=True, slots=True)
class CommonHeader:
    """The first 64 bytes of every frame."""

    kind: FrameKind
    packing: Packing
    total_bytes: int
    params_digest: bytes


@dataclass(frozen=True, slots=True)
class CiphertextHeader:
    """What follows the common header in a ciphertext frame."""

    key_id: bytes
    scale: float
    slots: int
    level: int
    limbs: int
    log_n: int
    components: int
    degree: int


@dataclass(frozen=True, slots=True)
class KeyHeader:
    """What follows the common header in an evaluation-key frame."""

    galois_element: int
    limbs: int
    special_limbs: int
    log_n: int
    digits: int
    kind: int


def write_header(common: CommonHeader, specific: CiphertextHeader | KeyHeader) -> bytes:
    """Write a header with a checksum of zeros; `seal` fills it in."""
    head = _COMMON.pack(
        MAGIC,
        VERSION,
        common.kind,
        common.packing,
        HEADER_BYTES[common.kind],
        common.total_bytes,
        bytes(_CHECKSUM_BYTES),
        common.params_digest,
    )
    match specific:
        case CiphertextHeader():
            tail = _CIPHERTEXT.pack(
                specific.key_id,
                specific.scale,
                specific.slots,
                specific.level,
                specific.limbs,
                specific.log_n,
                specific.components,
                specific.degree,
                0,
                bytes(4),
            )
        case KeyHeader():
            tail = _KEY.pack(
                specific.galois_element,
                specific.limbs,
                specific.special_limbs,
                specific.log_n,
                specific.digits,
                specific.kind,
                0,
                bytes(4),
            )
    return head + tail


def seal(frame: memoryview) -> None:
    """Write the checksum into a complete, writable frame."""
    frame[_CHECKSUM_AT : _CHECKSUM_AT + _CHECKSUM_BYTES] = _checksum(frame)


def check_seal(frame: memoryview) -> None:
    """Refuse a frame whose checksum does not match its bytes."""
    if frame[_CHECKSUM_AT : _CHECKSUM_AT + _CHECKSUM_BYTES] != _checksum(frame):
        raise ChecksumError("the frame was damaged on its way: send it again")


def read_common(frame: memoryview, kind: FrameKind) -> CommonHeader:
    """Read and check the common header; `frame` must be the whole frame, nothing more."""
    common = read_prefix(frame)
    if common.kind is not kind:
        raise HeaderError(f"a frame of kind {kind.name} expected, got {common.kind.name}")
    if len(frame) < common.total_bytes:
        raise TruncatedError(f"{common.total_bytes} bytes declared, {len(frame)} received")
    if len(frame) > common.total_bytes:
        raise OversizedError(f"{common.total_bytes} bytes declared, {len(frame)} received")
    return common


def read_prefix(prefix: memoryview) -> CommonHeader:
    """Read the common header from the first bytes of a frame, before the rest has arrived."""
    if len(prefix) < _COMMON.size:
        raise TruncatedError(f"a frame has at least {_COMMON.size} bytes, got {len(prefix)}")
    magic, version, kind, packing, header_bytes, total_bytes, _, digest = _COMMON.unpack(
        prefix[: _COMMON.size]
    )
    if magic != MAGIC:
        raise HeaderError("not a Tacit frame: the first 8 bytes are wrong")
    if version != VERSION:
        raise HeaderError(f"format version {VERSION} expected, got {version}: upgrade the older")
    if kind not in HEADER_BYTES:
        raise HeaderError(f"unknown frame kind {kind}")
    if packing not in tuple(Packing):
        raise HeaderError(f"unknown packing {packing}")
    if header_bytes != HEADER_BYTES[FrameKind(kind)]:
        raise HeaderError(f"a header of {HEADER_BYTES[FrameKind(kind)]} bytes expected")
    if total_bytes < header_bytes:
        raise HeaderError(f"a total of {total_bytes} bytes is shorter than the header")
    return CommonHeader(FrameKind(kind), Packing(packing), total_bytes, digest)


def read_ciphertext_header(frame: memoryview) -> CiphertextHeader:
    """Read the second part of a ciphertext frame's header."""
    key_id, scale, slots, level, limbs, log_n, components, degree, form, reserved = (
        _CIPHERTEXT.unpack(frame[_COMMON.size : HEADER_BYTES[FrameKind.CIPHERTEXT]])
    )
    _check_fixed(form, reserved, log_n)
    return CiphertextHeader(key_id, scale, slots, level, limbs, log_n, components, degree)


def read_key_header(frame: memoryview) -> KeyHeader:
    """Read the second part of an evaluation-key frame's header."""
    element, limbs, special_limbs, log_n, digits, kind, form, reserved = _KEY.unpack(
        frame[_COMMON.size : HEADER_BYTES[FrameKind.EVALUATION_KEY]]
    )
    _check_fixed(form, reserved, log_n)
    return KeyHeader(element, limbs, special_limbs, log_n, digits, kind)


def _check_fixed(form: int, reserved: bytes, log_n: int) -> None:
    if form != 0:
        raise HeaderError(f"unknown polynomial form {form}; 0 is NTT form, bit-reversed order")
    if any(reserved):
        raise HeaderError("reserved bytes must be zero")
    if not SMALLEST_LOG_N <= log_n <= LARGEST_LOG_N:
        raise HeaderError(f"log_n must be {SMALLEST_LOG_N} to {LARGEST_LOG_N}, got {log_n}")


def _checksum(frame: memoryview) -> bytes:
    digest = blake2b(frame[:_CHECKSUM_AT], digest_size=_CHECKSUM_BYTES)
    digest.update(frame[_CHECKSUM_AT + _CHECKSUM_BYTES :])
    return digest.digest()
