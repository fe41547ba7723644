"""What evaluation keys must be, by the wire format and the models served."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

from tacit import wire
from tacit.errors import (
    KeyMismatchError,
    OversizedError,
    ParameterMismatchError,
    TruncatedError,
)
from tacit.runtime.key_declarations import FrameDeclaration, KeyDeclaration
from tacit.runtime.repository import Repository
from tacit.runtime.requests import Frame
from tacit.signature import Signature
from tacit.wire_frame import byte_view
from tacit.wire_header import FrameKind, read_ciphertext_header, read_common, read_key_header

RELINEARIZATION = 0


class WireKeyRules:
    """`KeyRules` on Tacit frames and a model repository.

    A key's purpose is its element: 0 for relinearisation, see `EvaluationKey`.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def signature_for(self, key_config: str) -> Signature | None:
        """Return the signature of some served model with this key configuration."""
        model = self._repository.with_key_config(key_config)
        return None if model is None else model.signature

    def check_declaration(self, key_id: str, declared: KeyDeclaration, to: Signature) -> None:
        """Refuse a declaration whose id, parameters, number of frames or sizes are wrong.

        Raises:
            ParameterMismatchError, KeyMismatchError, OversizedError, TruncatedError.
        """
        params = to.params
        if declared.params_digest != params.digest.hex():
            raise ParameterMismatchError("the keys' parameters are not the configuration's")
        digests = [bytes.fromhex(frame.sha256) for frame in declared.frames]
        if wire.key_id(params.digest, digests).hex() != key_id:
            raise KeyMismatchError("the key id is not the hash of the parameters and frames")
        needed = len(self.purposes(to))
        if len(digests) > needed:
            raise OversizedError(f"{len(digests)} key frames declared, {needed} are needed")
        if len(digests) < needed:
            raise TruncatedError(f"{len(digests)} key frames declared, {needed} are needed")
        _check_lengths(declared.frames, key_frame_lengths(to))

    def check_frame(self, path: Path, to: Signature) -> int:
        """Read a whole frame and check every residue; returns its purpose.

        Raises:
            WireError: the frame is not a key this configuration needs.
        """
        key = wire.decode_evaluation_key(mapped(path), key_expectation(to))
        return key.galois_element

    def purpose(self, path: Path) -> int:
        """Read what a frame that was checked before is for."""
        view = mapped(path)
        read_common(view, FrameKind.EVALUATION_KEY)
        return read_key_header(view).galois_element

    def purposes(self, signature: Signature) -> frozenset[int]:
        """Return the purposes of a complete key set."""
        return frozenset(key.element for key in signature.needed_keys)


def galois_elements(signature: Signature) -> frozenset[int]:
    """Return the elements of the keys a model needs, but for relinearisation."""
    return frozenset(key.element for key in signature.needed_keys) - {RELINEARIZATION}


def key_expectation(signature: Signature) -> wire.KeyExpectation:
    """Return what an evaluation-key frame for a model must be."""
    params = signature.params
    return wire.KeyExpectation(
        params.digest,
        params.log_n,
        params.moduli,
        params.special_moduli,
        params.dnum,
        galois_elements(signature),
        {
            key.element: key.limbs
            for key in signature.needed_keys
            if key.kind is not wire.KeyKind.TO_SPARSE
        },
    )


def key_frame_lengths(signature: Signature) -> list[tuple[int, ...]]:
    """Return, for each evaluation key of a model, the length of its frame in each packing."""
    return [
        tuple(key.frame_bytes(signature.params, packing) for packing in wire.Packing)
        for key in signature.needed_keys
    ]


def frame_key(frame: Frame) -> str:
    """Read the key id, in hexadecimal, out of a ciphertext frame's header.

    Raises:
        WireError: not a ciphertext frame.
    """
    view = byte_view(frame)
    read_common(view, FrameKind.CIPHERTEXT)
    return read_ciphertext_header(view).key_id.hex()


def mapped(path: Path) -> memoryview:
    """Map a file read-only; the mapping lives as long as some view of it."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _check_lengths(frames: Sequence[FrameDeclaration], lengths: list[tuple[int, ...]]) -> None:
    """Refuse lengths that are not those of all keys in one packing.

    Which frame is which key shows when it arrives; its length is compared with that key's then.
    """
    declared = sorted(frame.length for frame in frames)
    wanted = [sorted(packed) for packed in zip(*lengths, strict=True)]
    if declared in wanted:
        return
    close = max(
        wanted, key=lambda packed: sum(a == b for a, b in zip(declared, packed, strict=True))
    )
    found, expected = next((a, b) for a, b in zip(declared, close, strict=True) if a != b)
    message = (
        f"a key frame of {found} bytes declared where one of {expected} bytes is needed: the "
        f"model's signature asks for {len(close)} frames of {sum(close)} bytes in all"
    )
    raise TruncatedError(message) if found < expected else OversizedError(message)
