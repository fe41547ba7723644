"""Between slot vectors and ciphertext frames: encrypt, decrypt, check every answer.

Nothing a server sends is given to OpenFHE as it came. A frame is read by `tacit.wire`, compared
with what the plan says the answer must be (parameters, key, level, degree, scale, slots, every
residue below its modulus), and then written anew as the bytes OpenFHE reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tacit.client.keys import KeyPair
from tacit.errors import HeaderError, InputShapeError
from tacit.openfhe_bytes import ForeignCiphertext, read_ciphertext, write_ciphertext
from tacit.signature import Plan, Signature, TensorSpec
from tacit.wire import (
    CiphertextExpectation,
    Packing,
    decode_ciphertext,
    encode_ciphertext,
)

Floats = NDArray[np.float64]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class Codec:
    """Encrypts for, and decrypts from, one model under one key pair.

    Attributes:
        signature: the model's public half.
        keys: made for this signature.
        packing: how residues are stored in frames sent.
        threads: ciphertexts worked on at the same time.
    """

    signature: Signature
    keys: KeyPair
    packing: Packing = Packing.BITS
    threads: int = 0

    def encrypt(self, plan: Plan, vectors: Floats) -> list[list[bytes]]:
        """Encrypt packed rows.

        Args:
            plan: of the signature.
            vectors: shape (evaluations, ciphertexts of all inputs, slots).

        Returns:
            For each evaluation, one frame per ciphertext.

        Raises:
            InputShapeError: another shape.
            UnusableEnvironmentError: in a process forked after OpenFHE was loaded.
        """
        specs = ciphertext_specs(plan.inputs)
        wanted = (len(specs), self.keys.params.slots)
        if vectors.ndim != 3 or vectors.shape[1:] != wanted:
            raise InputShapeError(
                f"plan {plan.name!r} takes shape (evaluations, {wanted[0]}, {wanted[1]}), "
                f"got {vectors.shape}"
            )
        work = [
            (vector, spec)
            for evaluation in vectors
            for vector, spec in zip(evaluation, specs, strict=True)
        ]
        return _cut(self._each(lambda item: self._encrypted(*item), work), len(specs))

    def decrypt(self, plan: Plan, frames: Sequence[Sequence[bytes]]) -> Floats:
        """Check and decrypt an answer.

        Args:
            plan: the plan that was asked for.
            frames: for each evaluation, one frame per output ciphertext.

        Returns:
            Shape (evaluations, ciphertexts of all outputs, slots).

        Raises:
            WireError: a frame is damaged, or is not an answer of this plan under these keys.
            DamagedInputError: the slots hold noise rather than values.
        """
        specs = ciphertext_specs(plan.outputs)
        if any(len(evaluation) != len(specs) for evaluation in frames):
            raise HeaderError(
                f"plan {plan.name!r} answers with {len(specs)} ciphertexts per evaluation, "
                f"got {[len(evaluation) for evaluation in frames]}"
            )
        work = [
            (frame, spec)
            for evaluation in frames
            for frame, spec in zip(evaluation, specs, strict=True)
        ]
        slots = self._each(lambda item: self._decrypted(*item), work)
        return np.reshape(slots, (len(frames), len(specs), self.keys.params.slots))

    def measured_error(self, plan: Plan, frames: Sequence[Sequence[bytes]]) -> float:
        """Measure the deviation of the error in an answer's slots, in stored units.

        OpenFHE estimates it from the imaginary parts, where there should be nothing.

        Args:
            plan, frames: as for `decrypt`.

        Raises:
            WireError: a frame is damaged, or is not an answer of this plan under these keys.
        """
        specs = ciphertext_specs(plan.outputs)
        found = [
            self.keys.secret.measured_error(self._archive(frame, spec))
            for evaluation in frames
            for frame, spec in zip(evaluation, specs, strict=True)
        ]
        return max(found)

    def _encrypted(self, values: Floats, spec: TensorSpec) -> bytes:
        params = self.keys.params
        archive = self.keys.secret.encrypt(values, spec.level, spec.degree)
        foreign, _ = read_ciphertext(archive)
        ciphertext = foreign.ours(params, bytes.fromhex(self.keys.key_id))
        return encode_ciphertext(ciphertext, params.moduli, self.packing)

    def _decrypted(self, frame: bytes, spec: TensorSpec) -> Floats:
        return self.keys.secret.decrypt(self._archive(frame, spec))

    def _archive(self, frame: bytes, spec: TensorSpec) -> bytes:
        """Check an answer's frame and write it anew, for OpenFHE."""
        params = self.keys.params
        ciphertext = decode_ciphertext(frame, self._expectation(spec))
        foreign = ForeignCiphertext.of(ciphertext, params, self.keys.secret.tag)
        return write_ciphertext(self.keys.context.template, foreign)

    def _expectation(self, spec: TensorSpec) -> CiphertextExpectation:
        key_id = bytes.fromhex(self.keys.key_id)
        return CiphertextExpectation.exactly(self.keys.params, spec.level, spec.degree, key_id)

    def _each(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Run in threads: OpenFHE and numpy release the interpreter lock while they work."""
        threads = min(self.threads or os.cpu_count() or 1, len(items))
        if threads <= 1:
            return [work(item) for item in items]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, items))


def ciphertext_specs(specs: Iterable[TensorSpec]) -> list[TensorSpec]:
    """Return, for each ciphertext of these tensors in order, the tensor it belongs to."""
    return [spec for spec in specs for _ in range(spec.layout.ciphertexts)]


def _cut(frames: list[bytes], size: int) -> list[list[bytes]]:
    return [frames[start : start + size] for start in range(0, len(frames), size)]
