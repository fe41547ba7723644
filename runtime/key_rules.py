"""What evaluation keys must be, by the wire format and the models served."""

from __future__ import annotations

import mmap
from pathlib import Path

from tacit import wire
from tacit.errors import (
    KeyMismatchError,
    OversizedError,
    ParameterMismatchError,
    TruncatedError,
)
from tacit.params import CryptoParams
from tacit.runtime.key_declarations import FrameDeclaration, KeyDeclaration
from tacit.runtime.repository import Repository
from tacit.runtime.requests import Frame
from tacit.signature import Signature
from tacit.wire_frame import byte_view
from tacit.wire_header import FrameKind, read_ciphertext_header, read_common, read_key_header

RELINEARIZATION = 0
_ROTATION_GENERATOR = 5


class WireKeyRules:
    """`KeyRules` on Tacit frames and a model repository.

    A key's purpose is its Galois element, 0 for relinearisation.
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
        lengths = key_frame_lengths(params)
        for frame in declared.frames:
            _check_length(frame, lengths)

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
        elements = galois_elements(signature)
        return elements | {RELINEARIZATION} if signature.relinearization else elements


def galois_elements(signature: Signature) -> frozenset[int]:
    """Return the Galois elements of the rotations a model needs: 5^step modulo 2N."""
    params = signature.params
    steps = {step % params.slots for step in signature.rotations} - {0}
    return frozenset(pow(_ROTATION_GENERATOR, step, 2 * params.n) for step in steps)


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
    )


def key_frame_lengths(params: CryptoParams) -> tuple[int, int]:
    """Return the shortest and longest an evaluation-key frame can be; it is one of the two."""
    moduli = params.moduli + params.special_moduli
    lengths = [
        wire.evaluation_key_frame_bytes(packing, params.log_n, moduli, params.dnum)
        for packing in wire.Packing
    ]
    return min(lengths), max(lengths)


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


def _check_length(frame: FrameDeclaration, lengths: tuple[int, int]) -> None:
    if frame.length in lengths:
        return
    message = (
        f"a key frame of {frame.length} bytes declared; this configuration's have "
        f"{lengths[1]} bytes, or {lengths[0]} with packed bits"
    )
    raise TruncatedError(message) if frame.length < lengths[1] else OversizedError(message)
