"""Shares of the joint keys as the parties sent them, read strictly, and their sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.client.party_secret import joint_key_a
from tacit.client.party_session import PartySession
from tacit.errors import ChecksumError, DamagedInputError, WrongShareError
from tacit.evaluation_keys import NeededKey
from tacit.params import CryptoParams
from tacit.party_entry import Entry
from tacit.party_frame import ShareExpectation, ShareKind, decode_share, sum_limbs
from tacit.wire import EvaluationKey, KeyKind

Limbs = NDArray[np.uint64]

PUBLIC, RELINEARIZATION, PRODUCT, TEST = "public", "relinearization", "product", "test"


def kept(limbs: Limbs, key: NeededKey, params: CryptoParams) -> Limbs:
    """Leave out what a trimmed key has no use for.

    Args:
        limbs: shape (..., dnum, limbs of Q + limbs of P, N).
        key: says how many limbs of Q are kept, and the digits they fill.
        params: of the key.
    """
    digits = limbs[..., : key.digits(params), :, :]
    special = digits[..., len(params.moduli) :, :]
    return np.concatenate([digits[..., : key.limbs, :], special], axis=-2)


def rotation_label(element: int) -> str:
    """Name the payload that holds a rotation's share."""
    return f"rotation-{element}"


@dataclass(frozen=True, slots=True, eq=False)
class ShareReader:
    """Reads the payloads of key generation.

    Attributes:
        session: whose transcript names them.
        params: the CKKS parameters.
    """

    session: PartySession
    params: CryptoParams

    def public_share(self, entry: Entry) -> Limbs:
        """Return a party's share of the public key, shape (limbs of Q, N)."""
        limbs: Limbs = self._read(entry, PUBLIC, ShareKind.PUBLIC_KEY, 0, 1, self.params.moduli)[0]
        return limbs

    def first_share(self, entry: Entry, key: NeededKey) -> Limbs:
        """Return a party's first share of the relinearisation key, (digits, limbs, N)."""
        kind, moduli, digits = ShareKind.RELINEARIZATION, *self._shape(key)
        return self._read(entry, RELINEARIZATION, kind, 0, digits, moduli)

    def product_share(self, entry: Entry, key: NeededKey) -> Limbs:
        """Return a party's second share of the relinearisation key, (2, digits, limbs, N)."""
        kind, moduli, digits = ShareKind.RELINEARIZATION_PRODUCT, *self._shape(key)
        limbs = self._read(entry, PRODUCT, kind, 0, 2 * digits, moduli)
        return limbs.reshape(2, digits, *limbs.shape[1:])

    def rotation_share(self, entry: Entry, key: NeededKey) -> Limbs:
        """Return a party's share of a rotation key, shape (digits, limbs, N)."""
        kind, moduli, digits = ShareKind.ROTATION, *self._shape(key)
        return self._read(entry, rotation_label(key.element), kind, key.element, digits, moduli)

    def _shape(self, key: NeededKey) -> tuple[tuple[int, ...], int]:
        return key.moduli(self.params), key.digits(self.params)

    def test_share(self, entry: Entry, limbs: int) -> Limbs:
        """Return a party's share of the test's decryption, shape (limbs, N)."""
        kind, moduli = ShareKind.PARTIAL_DECRYPTION, self.params.moduli[:limbs]
        share: Limbs = self._read(entry, TEST, kind, 0, 1, moduli)[0]
        return share

    def partials(self, fetch: Callable[[int], bytes], party: int, count: int, limbs: int) -> Limbs:
        """Return a party's shares of decryptions, shape (count, limbs, N).

        Args:
            fetch: gives the frame, of at most so many bytes.
            party: whose they are.
            count: ciphertexts that are decrypted.
            limbs: of each.
        """
        kind, moduli = ShareKind.PARTIAL_DECRYPTION, self.params.moduli[:limbs]
        expected = self._expected(kind, 0, count, moduli)
        with self._blaming(party):
            return decode_share(fetch(expected.frame_bytes), expected).limbs

    def secret(self, entry: Entry) -> Limbs:
        """Return a secret that was given up, shape (limbs of Q, N)."""
        limbs: Limbs = self._read(entry, "secret", ShareKind.SECRET, 0, 1, self.params.moduli)[0]
        return limbs

    def public_sum(self) -> Limbs:
        """Return the joint public key's b, shape (limbs of Q, N)."""
        shares = [self.public_share(entry) for entry in self.session.transcript.step("share")]
        return sum_limbs(shares, self.params.moduli)

    def first_sum(self, key: NeededKey) -> Limbs:
        """Return what the second round multiplies: (b, a), shape (2, digits, limbs, N)."""
        entries = self.session.transcript.step("share")
        shares = [self.first_share(entry, key) for entry in entries]
        return np.stack([sum_limbs(shares, key.moduli(self.params)), self._common(key)])

    def _common(self, key: NeededKey) -> Limbs:
        whole = joint_key_a(self.params, self.session.transcript.seed, key.element)
        return kept(whole, key, self.params)

    def joint_keys(self) -> Iterator[EvaluationKey]:
        """Assemble the joint evaluation keys, one at a time."""
        transcript = self.session.transcript
        for key in self.session.terms.needed:
            moduli = key.moduli(self.params)
            if key.kind is KeyKind.RELINEARIZATION:
                products = [self.product_share(entry, key) for entry in transcript.step("relin")]
                limbs = sum_limbs(products, moduli)
            else:
                shares = [self.rotation_share(entry, key) for entry in transcript.step("share")]
                limbs = np.stack([sum_limbs(shares, moduli), self._common(key)])
            yield EvaluationKey(limbs, key.kind, key.element, self.params.digest)

    def _read(
        self,
        entry: Entry,
        label: str,
        kind: ShareKind,
        element: int,
        polynomials: int,
        moduli: tuple[int, ...],
    ) -> Limbs:
        expected = self._expected(kind, element, polynomials, moduli)
        with self._blaming(entry.party):
            keep = kind is ShareKind.PUBLIC_KEY
            frame = self.session.payload(entry, label, expected.frame_bytes, keep=keep)
            return decode_share(frame, expected).limbs

    def _expected(
        self, kind: ShareKind, element: int, polynomials: int, moduli: tuple[int, ...]
    ) -> ShareExpectation:
        params = self.params
        return ShareExpectation(kind, element, polynomials, moduli, params.log_n, params.digest)

    @contextmanager
    def _blaming(self, party: int) -> Iterator[None]:
        """Name who sent what cannot be read; what the relay did is not the party's fault."""
        try:
            yield
        except ChecksumError:
            raise
        except DamagedInputError as error:
            name = self.session.terms.parties[party]
            raise WrongShareError(f"a share of {name!r} is malformed: {error}") from error
