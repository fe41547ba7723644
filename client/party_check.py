"""The test of a new joint key: every key is used once, on known values, and the result decrypted.

The first party encrypts values that follow from the seed, adds up all rotations of them and their
square, and shows the ciphertext. All commit to their shares of its decryption before anybody shows
one, so that nobody can choose a share that makes a wrong sum look right. If the slots are not what
they must be, the session ends, and all give their secrets up to find out who was wrong.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.client.frames import FrameEntry
from tacit.client.party_blame import Blame
from tacit.client.party_public import JointPublicKey
from tacit.client.party_shares import TEST, ShareReader
from tacit.client.party_smudging import OPENFHE_DEVIATION, largest_log_bound
from tacit.errors import WireError, WrongShareError
from tacit.evaluation_keys import NeededKey
from tacit.params import CryptoParams
from tacit.party_entry import Entry
from tacit.party_frame import sum_limbs
from tacit.party_transcript import Transcript
from tacit.wire import (
    Ciphertext,
    CiphertextExpectation,
    KeyKind,
    Packing,
    ciphertext_frame_bytes,
    decode_ciphertext,
    key_id,
)

Floats = NDArray[np.float64]
Limbs = NDArray[np.uint64]

TEST_BITS = 8.0
# 96 deviations of the error that `TEST_BITS` allows for.
_TOLERANCE = 2.0**-4


@dataclass(frozen=True, slots=True, eq=False)
class KeyTest:
    """What the test is, and what came of it.

    Attributes:
        reader: of the parties' shares.
    """

    reader: ShareReader

    @property
    def limbs(self) -> int:
        """How many limbs the result has: two, or one if a key is for level 0 only."""
        return min([2, self._params.depth + 1, *(key.limbs for key in self._keys)])

    def values(self) -> Floats:
        """Return the known slot values, at most 1, so small that their sums fit into one limb."""
        stream = hashlib.shake_256(b"tacit party test" + self._transcript.seed)
        drawn = np.frombuffer(stream.digest(4 * self._params.slots), dtype="<u4")
        room = 2.0 ** (self._params.log_first - self._params.log_scale - 2)
        return np.asarray((drawn / 2.0**31 - 1.0) * min(1.0, room / (len(self._keys) + 1)))

    def expected(self) -> Floats:
        """Return what the result must decrypt to, shape (slots,)."""
        values = self.values()
        total = values.copy()
        for key in self._keys:
            square = key.kind is KeyKind.RELINEARIZATION
            total += values**2 if square else self._turned(key.element)
        return total

    def key_id(self) -> bytes:
        """Return the joint key set's name: it must follow from its frames.

        Raises:
            WrongShareError: the first party named it wrongly.
        """
        digests = [bytes.fromhex(entry.sha256) for entry in self.frames()]
        named = key_id(self._params.digest, digests)
        if named.hex() != self._transcript.entry("key", 0).body.get("key_id"):
            raise WrongShareError(f"{self._first!r} named the joint keys wrongly")
        return named

    def frames(self) -> tuple[FrameEntry, ...]:
        """Return the joint key set's frames.

        Raises:
            WrongShareError: the first party did not list as many as there must be.
        """
        listed = self._transcript.entry("key", 0).body.get("frames")
        pairs = listed if isinstance(listed, list) else []
        good = [p for p in pairs if isinstance(p, list) and len(p) == 2 and _is_frame(*p)]
        if len(good) != len(pairs) or len(good) != len(self._keys):
            raise WrongShareError(f"{self._first!r} did not list the joint keys")
        return tuple(FrameEntry(sha256, length) for sha256, length in good)

    def ciphertext(self) -> Ciphertext:
        """Return the result that is decrypted.

        Raises:
            WrongShareError: it is malformed.
        """
        params = self._params
        expectation = CiphertextExpectation.exactly(params, self.limbs - 1, 1, self.key_id())
        most = ciphertext_frame_bytes(Packing.RAW, params.log_n, params.moduli)
        try:
            frame = self.reader.session.payload(self._transcript.entry("key", 0), TEST, most)
            return decode_ciphertext(frame, expectation)
        except WireError as error:
            raise WrongShareError(f"the test of {self._first!r} is malformed: {error}") from error

    def log_bound(self, ciphertext: Ciphertext) -> int:
        """Return log2 of the largest noise that a share carries: as much as the test bears."""
        parties = len(self.reader.session.terms.parties)
        return largest_log_bound(self._params, parties, ciphertext.scale, TEST_BITS)

    def passes(self, public: JointPublicKey) -> bool:
        """Tell whether the decrypted slots are what they must be."""
        ciphertext = self.ciphertext()
        moduli = self._params.moduli[: ciphertext.level + 1]
        shares = [self._share(entry, ciphertext) for entry in self._transcript.step("check")]
        try:
            slots = public.decoded(sum_limbs(shares, moduli), ciphertext)
        except WrongShareError:
            return False
        return bool(np.abs(slots - self.expected()).max() < _TOLERANCE)

    def findings(self) -> list[str]:
        """Say whose shares do not fit their secret, after all have given theirs up."""
        found = [f for entry in self._transcript.step("open") for f in self._faults(entry)]
        return found or [f"all shares fit: {self._first!r} put them together wrongly"]

    def _faults(self, opened: Entry) -> list[str]:
        reader, blame = self.reader, Blame(self._params, self._transcript.seed)
        name = reader.session.terms.parties[opened.party]
        secret = reader.secret(opened)
        share = self._transcript.entry("share", opened.party)
        if not blame.secret_is_ternary(secret):
            return [f"{name!r} gave up something that is no secret"]
        faults = []
        if not blame.public_share_fits(reader.public_share(share), secret):
            faults.append("its public key share")
        for key in self._keys:
            if key.kind is KeyKind.RELINEARIZATION:
                faults += self._relinearization_faults(opened.party, key, secret, blame)
                continue
            limbs = reader.rotation_share(share, key)
            if not blame.rotation_share_fits(limbs, secret, key):
                faults.append(f"its share of rotation key {key.element}")
        if not self._test_share_fits(opened.party, secret, blame):
            faults.append("its share of the test's decryption")
        return [f"{name!r} sent {fault} wrongly" for fault in faults]

    def _relinearization_faults(
        self, party: int, key: NeededKey, secret: Limbs, blame: Blame
    ) -> list[str]:
        reader, faults = self.reader, []
        first = reader.first_share(self._transcript.entry("share", party), key)
        if not blame.first_share_fits(first, secret, key):
            faults.append("its first share of the relinearisation key")
        product = reader.product_share(self._transcript.entry("relin", party), key)
        if not blame.product_share_fits(product, reader.first_sum(key), secret, key):
            faults.append("its second share of the relinearisation key")
        return faults

    def _test_share_fits(self, party: int, secret: Limbs, blame: Blame) -> bool:
        ciphertext = self.ciphertext()
        share = self._share(self._transcript.entry("check", party), ciphertext)
        bound = (1 << self.log_bound(ciphertext)) + 40 * int(OPENFHE_DEVIATION)
        limbs = ciphertext.limbs
        return blame.partial_fits(share, limbs, secret, leads=party == 0, bound=bound)

    def _share(self, entry: Entry, ciphertext: Ciphertext) -> Limbs:
        return self.reader.test_share(entry, ciphertext.level + 1)

    def _turned(self, element: int) -> Floats:
        """Return the values under an automorphism: rotated, or as they were by conjugation."""
        values, order, power = self.values(), 2 * self._params.n, 1
        for step in range(self._params.slots):
            if power == element:
                return np.roll(values, -step)
            power = power * 5 % order
        return values

    @property
    def _keys(self) -> tuple[NeededKey, ...]:
        return self.reader.session.terms.needed

    @property
    def _params(self) -> CryptoParams:
        return self.reader.params

    @property
    def _transcript(self) -> Transcript:
        return self.reader.session.transcript

    @property
    def _first(self) -> str:
        return self.reader.session.terms.parties[0]


def _is_frame(sha256: object, length: object) -> bool:
    if not isinstance(sha256, str) or type(length) is not int:
        return False
    return len(sha256) == 64 and set(sha256) <= set("0123456789abcdef") and length > 0
