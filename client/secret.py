"""The secret key: the one object that can read answers, and everything that touches it.

Key generation, encryption and decryption are OpenFHE's. Ciphertexts are encrypted under the secret
key itself rather than a public key: who encrypts holds it anyway, and the noise is smaller (at N =
2^11 and 40-bit scale, five bits). No public key exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from tacit.client.context import ClientContext
from tacit.client.environment import import_openfhe, refuse_in_forked_child
from tacit.errors import DamagedInputError, InternalError, KeyFileError

if TYPE_CHECKING:
    import openfhe

Floats = NDArray[np.float64]


class SecretKey:
    """A CKKS secret key; shows nothing of itself and is not pickled or copied."""

    __slots__ = ("_context", "_key", "_library")

    def __init__(self, context: ClientContext, key: openfhe.PrivateKey) -> None:
        """Wrap OpenFHE's key; use `generate` or `from_bytes`."""
        self._context = context
        self._key = key
        self._library = import_openfhe()

    @classmethod
    def generate(cls, context: ClientContext) -> SecretKey:
        """Make a fresh key.

        Raises:
            UnusableEnvironmentError: in a process forked after OpenFHE was loaded.
        """
        refuse_in_forked_child("make keys")
        return cls(context, context.openfhe.KeyGen().secretKey)

    @classmethod
    def from_bytes(cls, context: ClientContext, serialised: bytes) -> SecretKey:
        """Read a key that `to_bytes` wrote on this machine; the bytes must be trusted.

        Raises:
            KeyFileError: OpenFHE cannot read it.
        """
        library = import_openfhe()
        try:
            return cls(context, library.DeserializePrivateKeyString(serialised, library.BINARY))
        except (RuntimeError, MemoryError) as error:
            raise KeyFileError("the secret key cannot be read: make new keys") from error

    def to_bytes(self) -> bytes:
        """Serialise the key, for a key file. Never send these bytes."""
        serialised: bytes = self._library.Serialize(self._key, self._library.BINARY)
        return serialised

    @property
    def tag(self) -> str:
        """OpenFHE's name of the key, not secret."""
        return str(self._key.GetKeyTag())

    def __repr__(self) -> str:
        return "SecretKey(hidden)"

    def __reduce__(self) -> NoReturn:
        raise KeyFileError("secret keys are not pickled or copied: save the key pair to a file")

    def encrypt(self, values: Floats, level: int, degree: int) -> bytes:
        """Encrypt one slot vector; returns OpenFHE's serialised ciphertext.

        Args:
            values: shape (slots,).
            level: rescalings left.
            degree: 1, or 2 for the squared scale.

        Raises:
            UnusableEnvironmentError: in a process forked after OpenFHE was loaded.
        """
        refuse_in_forked_child("encrypt")
        context = self._context
        try:
            plain = context.openfhe.MakeCKKSPackedPlaintext(
                values, degree, context.params.depth - level
            )
            encrypted = context.openfhe.Encrypt(self._key, plain)
        except RuntimeError as error:
            raise InternalError(f"OpenFHE cannot encrypt at level {level}: {error}") from error
        archive: bytes = self._library.Serialize(encrypted, self._library.BINARY)
        return archive

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

        OpenFHE keeps made keys in tables of the process, by tag; this key's are removed again.
        """
        refuse_in_forked_child("make keys")
        crypto = self._context.openfhe
        crypto.EvalMultKeyGen(self._key)
        archive = self._with_tag(crypto.GetEvalMultKeyVector(self.tag))
        others = {t: keys for t, keys in crypto.GetAllEvalMultKeys().items() if t != self.tag}
        self._library.ClearEvalMultKeys()
        for tag, keys in others.items():
            crypto.InsertEvalMultKey(keys, tag)
        return archive

    def automorphism_archive(self, element: int) -> bytes:
        """Make the key of one Galois element; returns its archive, as `openfhe_keys` reads it."""
        refuse_in_forked_child("make keys")
        crypto = self._context.openfhe
        archive = self._with_tag(crypto.EvalAutomorphismKeyGen(self._key, [element]))
        others = {t: m for t, m in crypto.GetAllEvalAutomorphismKeys().items() if t != self.tag}
        crypto.ClearEvalAutomorphismKeys()
        for tag, keys in others.items():
            crypto.InsertEvalAutomorphismKey(keys, tag)
        return archive

    def sparse_archive(self) -> bytes:
        """Make a sparse secret and the keys to it and back; returns their archive.

        `openfhe_keys.read_sparse_keys` reads it. OpenFHE makes these keys along with the rotations
        of a bootstrap, of two slots here, which are thrown away; the sparse secret is never kept.
        """
        refuse_in_forked_child("make keys")
        crypto = self._context.openfhe
        crypto.EvalBootstrapSetup(levelBudget=[1, 1], slots=2, precompute=False)
        before = dict(crypto.GetAllEvalAutomorphismKeys().items())
        crypto.EvalBootstrapKeyGen(self._key, 2)
        archive = self._with_tag(crypto.GetEvalAutomorphismKeyMap(self.tag))
        crypto.ClearBootstrapPrecom()
        crypto.ClearEvalAutomorphismKeys()
        for tag, keys in before.items():
            crypto.InsertEvalAutomorphismKey(keys, tag)
        return archive

    def _with_tag(self, keys: object) -> bytes:
        """Serialise one tag's keys as OpenFHE serialises its table: byte order mark first."""
        body: bytes = self._library.Serialize(keys, self._library.BINARY)
        tag = self.tag.encode()
        return b"".join(
            [body[:1], *(n.to_bytes(8, "little") for n in (1, len(tag))), tag, body[1:]]
        )
