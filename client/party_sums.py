"""Sums over all parties' tables: each encrypts its own, all add them, only the total is decrypted.

Every party commits to its ciphertext before it shows it, adds up the ciphertexts itself - nobody
need trust the relay's addition - and sends its share of the total's decryption to the other parties
only. Values are encrypted at the squared scale, where smudging noise leaves them dozens of bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.client.party_decrypt import JointDecryption
from tacit.client.party_keys import KeyGeneration
from tacit.client.party_session import Said
from tacit.client.party_smudging import Smudging, choose_smudging, fresh_noise_bits
from tacit.errors import InputRangeError, InputShapeError, ParameterError, WrongShareError
from tacit.params import CryptoParams
from tacit.party_frame import sum_limbs
from tacit.wire import Ciphertext, encode_ciphertext

Floats = NDArray[np.float64]

_TOTAL = "sums"
_DEGREE = 2
_ROOM_BITS = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class JointSums:
    """One sum over all parties.

    Attributes:
        keys: of a session whose joint key is made.
        name: of the activity: lower-case letters, digits and dashes.
    """

    keys: KeyGeneration
    name: str

    def run(self, values: Floats, seconds: float) -> Floats:
        """Take part; returns the sums over all parties.

        Args:
            values: this party's, one number in [-1, 1] for each sum: the total must stay there too.
            seconds: how long to wait for the others in each step.

        Raises:
            InputShapeError, InputRangeError: values of another shape, or out of range.
            ParameterError: the parameters leave too little precision.
            MissingPartyError, WrongShareError: see `KeyGeneration.run`.
        """
        session, name = self.keys.session, self.name
        params = self.keys.context.params
        smudging = self.smudging()
        _check_values(values, params.slots)

        def committed() -> Said:
            return {"digest": session.plan(f"{name}.sums", lambda: self._encrypted(values))}, ()

        session.say(f"{name}.commit", committed)
        session.wait(f"{name}.commit", seconds)
        session.say(f"{name}.sums", lambda: session.planned(f"{name}.sums"))
        session.wait(f"{name}.sums", seconds)
        total = session.working(f"{name}.sums", lambda: self.total(len(values)))
        decryption = JointDecryption(self.keys, f"{name}.total")
        slots = decryption.run([total], smudging, seconds)[0]
        return slots[: len(values)]

    def smudging(self) -> Smudging:
        """Return the noise of the shares, and the precision it leaves.

        Raises:
            ParameterError: it leaves too little.
        """
        params, terms = self.keys.context.params, self.keys.session.terms
        parties = len(terms.parties)
        return choose_smudging(
            params,
            parties,
            params.scale(self._level(params)) ** _DEGREE,
            fresh_noise_bits(params, parties, parties),
            bits=terms.smudging_bits,
            least_bits=terms.least_smudging_bits,
            precision_bits=terms.precision_bits,
        )

    def total(self, count: int) -> Ciphertext:
        """Add up all parties' ciphertexts.

        Raises:
            WrongShareError: one is malformed, or sums up other things.
        """
        session, params = self.keys.session, self.keys.context.params
        entries = session.transcript.step(f"{self.name}.sums")
        for entry in entries:
            if entry.body.get("count") != count:
                name = session.terms.parties[entry.party]
                raise WrongShareError(
                    f"{name!r} sums up {entry.body.get('count')} numbers, {count} are agreed on"
                )
        level = self._level(params)
        decryption = JointDecryption(self.keys, f"{self.name}.total")
        parts = [decryption.ciphertext(entry, _TOTAL, level, _DEGREE) for entry in entries]
        first = parts[0]
        limbs = sum_limbs([part.limbs for part in parts], params.moduli[: level + 1])
        return Ciphertext(
            limbs,
            first.level,
            first.degree,
            first.scale,
            first.slots,
            first.params_digest,
            first.key_id,
        )

    def _encrypted(self, values: Floats) -> Said:
        public, params = self.keys.public_key(), self.keys.context.params
        slots = np.zeros(params.slots)
        slots[: len(values)] = values
        made = public.encrypt(slots, self._level(params), _DEGREE)
        blob = self.keys.session.folder.add_blob(_TOTAL, encode_ciphertext(made, params.moduli))
        return {"count": len(values)}, (blob,)

    def _level(self, params: CryptoParams) -> int:
        """Return the lowest level whose modulus holds the squared scale."""
        for level in range(params.depth + 1):
            room = sum(math.log2(q) for q in params.moduli[: level + 1])
            if room > _DEGREE * math.log2(params.scale(level)) + _ROOM_BITS:
                return level
        raise ParameterError(
            f"parameters of depth {params.depth} cannot hold the squared scale: use more levels"
        )


def _check_values(values: Floats, slots: int) -> None:
    if values.ndim != 1 or not 1 <= len(values) <= slots:
        raise InputShapeError(f"1 to {slots} numbers can be summed up, got shape {values.shape}")
    if not np.all(np.abs(values) <= 1.0):
        raise InputRangeError("numbers to be summed up must be finite and in [-1, 1]")
