"""The secret key: the one object that can read answers, and everything that touches it.

Key generation, encryption and decryption are OpenFHE's. Ciphertexts are encrypted under the secret
key itself rather than a public key: who encrypts holds it anyway, and the noise is smaller (at N =
2^11 and 40-bit scale, five bits). No public key exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tacit.client.context import ClientContext
from tacit.client.environment import refuse_in_forked_child
from tacit.client.held_secret import HeldSecret
from tacit.client.key_tables import empty_tables, tabled
from tacit.errors import DamagedInputError

if TYPE_CHECKING:
    import openfhe

Floats = NDArray[np.float64]


class SecretKey(HeldSecret):
    """A CKKS secret key."""

    __slots__ = ()

    _UNREADABLE = "the secret key cannot be read: make new keys"

    @classmethod
    def generate(cls, context: ClientContext) -> SecretKey:
        """Make a fresh key.

        Raises:
            UnusableEnvironmentError: in a process forked after OpenFHE was loaded.
        """
        refuse_in_forked_child("make keys")
        return cls(context, context.openfhe.KeyGen().secretKey)

    @property
    def tag(self) -> str:
        """OpenFHE's name of the key, not secret."""
        return str(self._key.GetKeyTag())

    def encrypt(self, values: Floats, level: int, degree: int) -> bytes:
        """Encrypt one slot vector; returns OpenFHE's serialised ciphertext.

        Args:
            values: shape (slots,).
            level: rescalings left.
            degree: 1, or 2 for the squared scale.

        Raises:
            UnusableEnvironmentError: in a process forked after OpenFHE was loaded.
        """
        return self._context.encrypted(self._key, values, level, degree)

    def decrypt(self, archive: bytes) -> Floats:
        """Decrypt a ciphertext that our own code serialised; returns shape (slots,).

        Raises:
            DamagedInputError: the slots hold noise rather than values.
        """
        plain = self._opened(archive)
        plain.SetLength(self._context.params.slots)
        return np.asarray(plain.GetRealPackedValueArray(), dtype=np.float64)

    def measured_error(self, archive: bytes) -> float:
        """Return the deviation of the error in a ciphertext's slots, as OpenFHE estimates it.

        Raises:
            DamagedInputError: the slots hold noise rather than values.
        """
        return float(2.0 ** -self._opened(archive).GetLogPrecision())

    def _opened(self, archive: bytes) -> openfhe.Plaintext:
        encrypted = self._library.DeserializeCiphertextString(archive, self._library.BINARY)
        try:
            return self._context.openfhe.Decrypt(encrypted, self._key)
        except RuntimeError as error:
            raise DamagedInputError(
                "the answer cannot be decrypted: it was computed wrongly, or under other keys"
            ) from error

    def relinearization_archive(self) -> bytes:
        """Make the relinearisation key; returns its archive, as `openfhe_keys` reads it.

        OpenFHE keeps made keys in tables of the process; this one does not stay in them.
        """
        refuse_in_forked_child("make keys")
        crypto = self._context.openfhe
        with empty_tables(crypto):
            crypto.EvalMultKeyGen(self._key)
            return self._tabled(crypto.GetEvalMultKeyVector(self.tag))

    def automorphism_archive(self, element: int) -> bytes:
        """Make the key of one Galois element; returns its archive, as `openfhe_keys` reads it."""
        refuse_in_forked_child("make keys")
        crypto = self._context.openfhe
        with empty_tables(crypto):
            return self._tabled(crypto.EvalAutomorphismKeyGen(self._key, [element]))

    def sparse_archive(self) -> bytes:
        """Make a sparse secret and the keys to it and back; returns their archive.

        `openfhe_keys.read_sparse_keys` reads it. OpenFHE makes these keys along with the rotations
        of a bootstrap, of two slots here, which are thrown away; the sparse secret is never kept.
        """
        refuse_in_forked_child("make keys")
        crypto = self._context.openfhe
        with empty_tables(crypto):
            crypto.EvalBootstrapSetup(levelBudget=[1, 1], slots=2, precompute=False)
            crypto.EvalBootstrapKeyGen(self._key, 2)
            archive = self._tabled(crypto.GetEvalAutomorphismKeyMap(self.tag))
            crypto.ClearBootstrapPrecom()
        return archive

    def _tabled(self, keys: object) -> bytes:
        return tabled(self._serialised(keys), self.tag)
