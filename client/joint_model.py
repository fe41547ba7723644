"""What a joint key is for: encrypting rows together, having a server compute, reading the result.

Every party encrypts its rows in its own row range, zeros elsewhere; a server adds the ciphertexts
and computes on the union. Results are decrypted by all parties together, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.client.codec import ciphertext_specs
from tacit.client.frames import FrameFolder, Progress, no_progress
from tacit.client.keys import KeyFacts
from tacit.client.party_decrypt import MOST_CIPHERTEXTS, JointDecryption, Request
from tacit.client.party_keys import KeyGeneration
from tacit.client.party_session import Said
from tacit.client.service import Service
from tacit.client.upload import upload_keys
from tacit.errors import InputShapeError, ParameterMismatchError, PartyError, UserError
from tacit.party_frame import sum_limbs
from tacit.signature import Plan, Signature
from tacit.wire import Ciphertext, CiphertextExpectation, decode_ciphertext, encode_ciphertext

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class JointModel:
    """A joint key that is made and tested, at one party.

    Attributes:
        keys: how it was made.
    """

    keys: KeyGeneration

    @property
    def facts(self) -> KeyFacts:
        """What is known of the joint key set; see `EvaluationKeys`."""
        return self.keys.facts()

    @property
    def folder(self) -> FrameFolder:
        """Where the evaluation-key frames are: at the first party only."""
        return self.keys.frames

    @property
    def key_id(self) -> str:
        """Name of the joint key set, 64 hexadecimal digits."""
        return self.facts.key_id

    def check(self, signature: Signature) -> None:
        """Return if the joint keys are those a model or training needs.

        Raises:
            ParameterMismatchError: they are not.
        """
        facts = self.facts
        made = set(self.keys.session.terms.needed)
        if facts.params != signature.params or not set(signature.needed_keys) <= made:
            raise ParameterMismatchError(
                f"the joint keys were not made for {signature.model!r}: begin a session with "
                "the terms of its signature"
            )

    def upload_keys(
        self, service: Service, key_config: str = "", progress: Progress = no_progress
    ) -> int:
        """Bring the joint evaluation keys to a server; returns the bytes sent.

        Args:
            service: the server; all parties that use the keys there must be the same tenant.
            key_config: of the model; default the one in the session's terms.
            progress: hears bytes done and in all.

        Raises:
            UserError: this party does not have the frames; the first one does.
            ServiceError: the server cannot be reached or refuses.
        """
        if not self.keys.session.leads:
            first = self.keys.session.terms.parties[0]
            raise UserError(f"the evaluation keys are at {first!r}, which uploads them")
        config = key_config or self.keys.session.terms.key_config
        return upload_keys(service, self, config, progress)

    def encrypt(self, plan: Plan, vectors: Floats) -> list[list[bytes]]:
        """Encrypt packed rows under the joint key.

        Args:
            plan: of the model's signature.
            vectors: shape (evaluations, ciphertexts of all inputs, slots): zeros where other
                parties' rows are.

        Returns:
            For each evaluation, one frame per ciphertext.

        Raises:
            InputShapeError: another shape.
        """
        specs = ciphertext_specs(plan.inputs)
        params = self.facts.params
        if vectors.ndim != 3 or vectors.shape[1:] != (len(specs), params.slots):
            raise InputShapeError(
                f"shape (evaluations, {len(specs)}, {params.slots}) expected, got {vectors.shape}"
            )
        public = self.keys.public_key()
        return [
            [
                encode_ciphertext(public.encrypt(vector, spec.level, spec.degree), params.moduli)
                for vector, spec in zip(evaluation, specs, strict=True)
            ]
            for evaluation in vectors
        ]

    def added(self, frames: Sequence[bytes], level: int, degree: int = 1) -> bytes:
        """Add ciphertexts of all parties: what a server does with their rows.

        Args:
            frames: one of each party.
            level, degree: that all must have.

        Raises:
            WireError: a frame that is damaged or of another key, level or degree.
        """
        params = self.facts.params
        parts = [self.read(frame, level, degree) for frame in frames]
        limbs = sum_limbs([part.limbs for part in parts], params.moduli[: level + 1])
        first = parts[0]
        total = Ciphertext(
            limbs, level, degree, first.scale, first.slots, first.params_digest, first.key_id
        )
        return encode_ciphertext(total, params.moduli)

    def read(self, frame: bytes, level: int, degree: int = 1) -> Ciphertext:
        """Read and check a ciphertext under the joint key.

        Raises:
            WireError: damaged, or of another key, level or degree.
        """
        params = self.facts.params
        key_id = bytes.fromhex(self.key_id)
        return decode_ciphertext(
            frame, CiphertextExpectation.exactly(params, level, degree, key_id)
        )

    def request(self, name: str, frames: Sequence[bytes], request: Request) -> None:
        """Ask all parties to decrypt ciphertexts, as the first party; then call `decrypt`.

        Args:
            name: of this decryption: lower-case letters, digits and dashes, new in the session.
            frames: ciphertexts under the joint key.
            request: their level, degree and noise, and what they are for.

        Raises:
            PartyError: this is not the first party, or there are too many ciphertexts.
            ParameterError: smudging leaves less precision than the terms want.
            WireError: a frame that cannot be decrypted.
        """
        session = self.keys.session
        if not session.leads or not 1 <= len(frames) <= MOST_CIPHERTEXTS:
            raise PartyError(
                f"the first party asks for decryptions, of at most {MOST_CIPHERTEXTS} ciphertexts"
            )
        JointDecryption(self.keys, f"{name}.share").smudging(request)
        for frame in frames:
            self.read(frame, request.level, request.degree)

        def asked() -> Said:
            blobs = [session.folder.add_blob(str(i), frame) for i, frame in enumerate(frames)]
            return request.to_json(), tuple(blobs)

        session.say(f"{name}.request", asked)

    def decrypt(self, name: str, *, purpose: str | None = None, seconds: float = 3600.0) -> Floats:
        """Take part in a decryption; returns slots, shape (ciphertexts, slots).

        Args:
            name: of the decryption.
            purpose: refuse a request for another purpose than this; None takes any.
            seconds: how long to wait for the others.

        Raises:
            PartyError: a request for another purpose, or for a ciphertext decrypted before.
            MissingPartyError: names who did not come.
            WrongShareError: a share is malformed (names whose), or they do not fit together.
        """
        session = self.keys.session
        (entry,) = session.wait(f"{name}.request", seconds)
        request = Request.from_entry(entry)
        if purpose is not None and request.purpose != purpose:
            raise PartyError(f"asked to decrypt for {request.purpose!r}, not for {purpose!r}")
        if not 1 <= len(entry.blobs) <= MOST_CIPHERTEXTS:
            raise PartyError("a request without ciphertexts, or with too many")
        decryption = JointDecryption(self.keys, f"{name}.share")
        smudging = decryption.smudging(request)
        ciphertexts = [
            decryption.ciphertext(entry, blob.label, request.level, request.degree)
            for blob in entry.blobs
        ]
        return np.stack(decryption.run(ciphertexts, smudging, seconds))


def averaged(slots: Floats, period: int) -> Floats:
    """Average slot vectors whose values repeat with a period; shape (..., period).

    Smudging noise is independent from slot to slot, so that this wins half a bit with each doubling
    of the repeats.
    """
    return np.asarray(slots.reshape(*slots.shape[:-1], -1, period).mean(axis=-2))
