"""Tacit's own wire format for ciphertexts and evaluation keys: flat, strict, documented.

A frame is a fixed header and residues, nothing else: no compression, no pointers, no lengths
that are not implied by the parameters both sides already share. The receiver states what it
expects; everything in the header is checked against that, and the declared length against the
bytes that arrived, before any memory is allocated. docs/wire-format.md lists every byte.

Levels are ours: rescalings left, so a ciphertext at level l has limbs for q_0 .. q_l.
"""

from collections.abc import Iterable
from hashlib import sha256

from tacit.errors import HeaderError
from tacit.wire_ciphertext import (
    Ciphertext,
    CiphertextExpectation,
    ciphertext_frame_bytes,
    decode_ciphertext,
    encode_ciphertext,
)
from tacit.wire_frame import Buffer, byte_view, check_digests
from tacit.wire_header import FrameKind, read_prefix
from tacit.wire_key import (
    EvaluationKey,
    KeyExpectation,
    KeyKind,
    decode_evaluation_key,
    encode_evaluation_key,
    evaluation_key_frame_bytes,
)
from tacit.wire_packing import Packing

__all__ = [
    "Ciphertext",
    "CiphertextExpectation",
    "EvaluationKey",
    "FrameKind",
    "KeyExpectation",
    "KeyKind",
    "Packing",
    "ciphertext_frame_bytes",
    "decode_ciphertext",
    "decode_evaluation_key",
    "encode_ciphertext",
    "encode_evaluation_key",
    "evaluation_key_frame_bytes",
    "frame_digest",
    "frame_length",
    "key_id",
]


def frame_length(prefix: Buffer) -> int:
    """Return the length in bytes that a frame declares in its first 64 bytes.

    Raises:
        TruncatedError: fewer than 64 bytes.
        HeaderError: not a frame of this format version.
    """
    return read_prefix(byte_view(prefix)).total_bytes


def frame_digest(frame: Buffer) -> bytes:
    """Return the SHA-256 of a whole frame, 32 bytes: the frame's address."""
    return sha256(byte_view(frame)).digest()


def key_id(params_digest: bytes, frame_digests: Iterable[bytes]) -> bytes:
    """Name a key set by its content: SHA-256 over the parameters and the key frames.

    Args:
        params_digest: 32 bytes.
        frame_digests: `frame_digest` of each evaluation-key frame, in any order, each once.

    Returns:
        32 bytes, SHA-256 of the sorted digests followed by `params_digest`.

    Raises:
        HeaderError: a digest that is not 32 bytes, or given twice.
    """
    digests = sorted(frame_digests)
    check_digests(params_digest, *digests)
    if len(set(digests)) != len(digests):
        raise HeaderError("the same evaluation-key frame was given twice")
    return sha256(b"".join([*digests, params_digest])).digest()
