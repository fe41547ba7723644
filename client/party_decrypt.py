"""Joint decryption: every party's share, hidden by smudging noise, for the other parties only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.client.party_keys import KeyGeneration
from tacit.client.party_session import Said
from tacit.client.party_shares import ShareReader
from tacit.client.party_smudging import Smudging, choose_smudging, smudged
from tacit.errors import (
    ChecksumError,
    ParameterError,
    PartyError,
    WireError,
    WrongShareError,
)
from tacit.party_entry import Entry
from tacit.party_frame import Share, ShareKind, encode_share, sum_limbs
from tacit.wire import (
    Ciphertext,
    CiphertextExpectation,
    Packing,
    ciphertext_frame_bytes,
    decode_ciphertext,
)

Floats = NDArray[np.float64]
Limbs = NDArray[np.uint64]

MOST_CIPHERTEXTS = 256
MOST_DECRYPTIONS = 128
_SHARE = "share"


@dataclass(frozen=True, slots=True)
class Request:
    """What the first party asks to have decrypted.

    Attributes:
        level, degree: of every ciphertext.
        noise_bits: log2 of a bound on the ciphertexts' noise, in coefficients.
        repeats: how many slots hold each value, to be averaged.
        purpose: in words, for the people who agree.
    """

    level: int
    degree: int
    noise_bits: float
    repeats: int
    purpose: str

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable dict."""
        return {
            "level": self.level,
            "degree": self.degree,
            "noise_bits": self.noise_bits,
            "repeats": self.repeats,
            "purpose": self.purpose,
        }

    @classmethod
    def from_entry(cls, entry: Entry) -> Request:
        """Read it from the first party's entry.

        Raises:
            PartyError: a field is missing or out of range.
        """
        body = entry.body
        level, degree, repeats = (body.get(name) for name in ("level", "degree", "repeats"))
        noise, purpose = body.get("noise_bits"), body.get("purpose")
        if type(level) is not int or type(degree) is not int or type(repeats) is not int:
            raise PartyError("a request without level, degree or repeats")
        if not isinstance(noise, int | float) or not 0 <= noise <= 120:
            raise PartyError("a request without its noise bound")
        if not 0 <= level <= 127 or degree not in (1, 2) or not 1 <= repeats <= 1 << 16:
            raise PartyError("a request whose level, degree or repeats are out of range")
        if not isinstance(purpose, str) or len(purpose) > 200:
            raise PartyError("a request without a short purpose")
        return cls(level, degree, float(noise), repeats, purpose)


@dataclass(frozen=True, slots=True, eq=False)
class JointDecryption:
    """One decryption by all parties.

    Attributes:
        keys: of a session whose joint key is made.
        step: the step in which shares are shown.
    """

    keys: KeyGeneration
    step: str

    def run(
        self, ciphertexts: Sequence[Ciphertext], smudging: Smudging, seconds: float
    ) -> list[Floats]:
        """Take part; returns the slots of each ciphertext, shape (slots,).

        Args:
            ciphertexts: all of one level and degree.
            smudging: of the shares.
            seconds: how long to wait for the others.

        Raises:
            PartyError: one was decrypted before, or too many were.
            MissingPartyError: names who did not come.
            WrongShareError: a share is malformed (names whose), or they do not fit together.
        """
        self.keys.facts()
        session = self.keys.session
        session.say(self.step, lambda: self._said(ciphertexts, smudging))
        entries = session.wait(self.step, seconds)
        return session.working(self.step, lambda: self._fused(entries, ciphertexts))

    def smudging(self, request: Request) -> Smudging:
        """Return the noise that the session's terms ask for in a request.

        Raises:
            ParameterError: it leaves less precision than the terms want.
        """
        params, terms = self.keys.context.params, self.keys.session.terms
        if request.level > params.depth:
            raise ParameterError(f"level {request.level}: the parameters have {params.depth}")
        return choose_smudging(
            params,
            len(terms.parties),
            params.scale(request.level) ** request.degree,
            request.noise_bits,
            bits=terms.smudging_bits,
            least_bits=terms.least_smudging_bits,
            precision_bits=terms.precision_bits,
            repeats=request.repeats,
        )

    def ciphertext(self, entry: Entry, label: str, level: int, degree: int) -> Ciphertext:
        """Fetch and read an entry's ciphertext under the joint key.

        Raises:
            WrongShareError: it is malformed; names who sent it.
        """
        params = self.keys.context.params
        key_id = self.keys.test.key_id()
        expectation = CiphertextExpectation.exactly(params, level, degree, key_id)
        session, most = self.keys.session, self._frame_bytes(level)
        try:
            return decode_ciphertext(session.payload(entry, label, most), expectation)
        except ChecksumError:
            raise
        except WireError as error:
            name = session.terms.parties[entry.party]
            raise WrongShareError(f"a ciphertext of {name!r} is malformed: {error}") from error

    def _said(self, ciphertexts: Sequence[Ciphertext], smudging: Smudging) -> Said:
        self._note(ciphertexts)
        public, secret = self.keys.public_key(), self.keys.secret()
        session, params = self.keys.session, self.keys.context.params
        moduli = params.moduli[: ciphertexts[0].level + 1]
        made: list[Limbs] = []
        for ciphertext in ciphertexts:
            foreign = public.foreign(ciphertext)
            share = secret.partial_decryption(foreign, leads=session.leads)
            made.append(smudged(share, moduli, smudging.log_bound))
        shares = Share(ShareKind.PARTIAL_DECRYPTION, 0, np.stack(made), params.digest)
        frame = encode_share(shares, moduli)
        # Our own share, for ourselves, and sealed for the others.
        session.folder.write_secret(f"planned/{self.step}.key", frame)
        blob = session.folder.add_blob(_SHARE, session.sealed(frame, self.step))
        return {"smudging_bits": smudging.bits, "log_bound": smudging.log_bound}, (blob,)

    def _shares(self, entry: Entry, count: int, limbs: int) -> Limbs:
        session = self.keys.session
        reader = ShareReader(session, self.keys.context.params)

        def fetched(most_bytes: int) -> bytes:
            if entry.party == session.party:
                return session.folder.read_secret(f"planned/{self.step}.key")
            return session.unsealed(entry, _SHARE, most_bytes)

        return reader.partials(fetched, entry.party, count, limbs)

    def _frame_bytes(self, level: int) -> int:
        params = self.keys.context.params
        return ciphertext_frame_bytes(Packing.RAW, params.log_n, params.moduli[: level + 1])

    def _fused(self, entries: Sequence[Entry], ciphertexts: Sequence[Ciphertext]) -> list[Floats]:
        """Add everybody's shares and decode the sums."""
        moduli = self.keys.context.params.moduli[: ciphertexts[0].level + 1]
        shares = [self._shares(entry, len(ciphertexts), len(moduli)) for entry in entries]
        public = self.keys.public_key()
        return [
            public.decoded(sum_limbs([share[i] for share in shares], moduli), ciphertext)
            for i, ciphertext in enumerate(ciphertexts)
        ]

    def _note(self, ciphertexts: Sequence[Ciphertext]) -> None:
        """Write down what is decrypted: a second share of one ciphertext would undo the noise."""
        folder, name = self.keys.session.folder, "decrypted.json"
        known = folder.read_json(name) if folder.has(name) else {}
        if len(set(known.values()) - {self.step}) >= MOST_DECRYPTIONS:
            raise PartyError(
                f"{MOST_DECRYPTIONS} decryptions were made under this key: begin a new session"
            )
        for ciphertext in ciphertexts:
            digest = hashlib.sha256(ciphertext.limbs[1].tobytes()).hexdigest()
            if known.setdefault(digest, self.step) != self.step:
                raise PartyError(
                    f"this ciphertext was decrypted in {known[digest]!r} already: a second share "
                    "of it would average the noise away"
                )
        folder.write_json(name, known)
