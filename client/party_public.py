"""The joint public key: what every party encrypts under, and what nobody can decrypt alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tacit.client.context import ClientContext
from tacit.client.environment import import_openfhe
from tacit.client.key_tables import empty_tables
from tacit.errors import WrongShareError
from tacit.key_trimming import covered_limbs, padded
from tacit.openfhe_bytes import ForeignCiphertext, read_ciphertext, write_ciphertext
from tacit.openfhe_keys import write_automorphism_keys, write_relinearization_key
from tacit.openfhe_shares import ForeignPartial, write_partial, write_public_key
from tacit.wire import Ciphertext, EvaluationKey, KeyKind

if TYPE_CHECKING:
    import openfhe

Floats = NDArray[np.float64]
Limbs = NDArray[np.uint64]

JOINT_TAG = "joint"


@dataclass(frozen=True, slots=True, eq=False)
class JointPublicKey:
    """The sum of all parties' public key shares.

    Attributes:
        context: made for several parties.
        key: OpenFHE's public key.
        key_id: of the joint key set, 32 bytes; zeros before it is assembled.
    """

    context: ClientContext
    key: openfhe.PublicKey
    key_id: bytes = bytes(32)

    @classmethod
    def of(cls, context: ClientContext, limbs: Limbs, key_id: bytes = bytes(32)) -> JointPublicKey:
        """Make it from limbs (b, a), shape (2, limbs of Q, N), residues checked."""
        library = import_openfhe()
        archive = write_public_key(context.template, JOINT_TAG, limbs)
        return cls(context, library.DeserializePublicKeyString(archive, library.BINARY), key_id)

    def encrypt(self, values: Floats, level: int, degree: int = 1) -> Ciphertext:
        """Encrypt one slot vector.

        Args:
            values: shape (slots,).
            level: rescalings left.
            degree: 1, or 2 for the squared scale.

        Raises:
            UnusableEnvironmentError: in a process forked after OpenFHE was loaded.
        """
        foreign, _ = read_ciphertext(self.context.encrypted(self.key, values, level, degree))
        return foreign.ours(self.context.params, self.key_id)

    def foreign(self, ciphertext: Ciphertext) -> ForeignCiphertext:
        """Return a checked ciphertext in the form that OpenFHE's archives are written from."""
        return ForeignCiphertext.of(ciphertext, self.context.params, JOINT_TAG)

    def decoded(self, total: Limbs, ciphertext: Ciphertext) -> Floats:
        """Return the slots that all shares of a decryption together give, shape (slots,).

        Args:
            total: the sum of all shares, shape (limbs, N).
            ciphertext: what was decrypted.

        Raises:
            WrongShareError: the slots hold noise: some share is not what it should be.
        """
        library, params = import_openfhe(), self.context.params
        foreign = self.foreign(ciphertext)
        partial = ForeignPartial(
            total,
            foreign.level,
            foreign.noise_scale_degree,
            foreign.scaling_factor,
            params.slots,
        )
        archive = write_partial(self.context.template, partial, JOINT_TAG)
        loaded = library.DeserializeCiphertextString(archive, library.BINARY)
        try:
            plain = self.context.openfhe.MultipartyDecryptFusion([loaded])
        except RuntimeError as error:
            raise WrongShareError(
                "the shares of this decryption do not fit together: one of them is wrong"
            ) from error
        plain.SetLength(params.slots)
        return np.asarray(plain.GetRealPackedValueArray(), dtype=np.float64)

    def test_result(self, values: Floats, keys: Iterable[EvaluationKey], limbs: int) -> Ciphertext:
        """Encrypt values and use every key once: the sum of all rotations, and of the square.

        Args:
            values: shape (slots,).
            keys: the joint evaluation keys, each used at its highest level; one is held at a time.
            limbs: of the result.
        """
        library, params = import_openfhe(), self.context.params
        crypto = self.context.openfhe
        total = crypto.Compress(self._encrypted(values, limbs - 1), limbs)
        for key in keys:
            start = self._encrypted(values, covered_limbs(key, params) - 1)
            with empty_tables(crypto):
                used = self._applied(start, key)
            # Degree 1: what is shown is small, and its noise is not at the squared scale.
            total = crypto.EvalAdd(total, crypto.Compress(used, limbs))
        foreign, _ = read_ciphertext(library.Serialize(total, library.BINARY))
        found = foreign.ours(params, self.key_id)
        # Scales of levels differ in the tenth digit; what was dropped still carries its own.
        return replace(found, scale=params.scale(found.level) ** found.degree)

    def _encrypted(self, values: Floats, level: int) -> Any:
        library = import_openfhe()
        made = self.foreign(self.encrypt(values, level))
        archive = write_ciphertext(self.context.template, made)
        return library.DeserializeCiphertextString(archive, library.BINARY)

    def _applied(self, ciphertext: Any, key: EvaluationKey) -> Any:
        library, crypto = import_openfhe(), self.context.openfhe
        template, special = self.context.template, self.context.params.special_moduli
        limbs = padded(key, self.context.params)
        if key.kind is KeyKind.RELINEARIZATION:
            archive = write_relinearization_key(template, JOINT_TAG, special, limbs)
            library.DeserializeEvalMultKeyString(archive, library.BINARY)
            return crypto.EvalMult(ciphertext, ciphertext)
        element = key.galois_element
        archive = write_automorphism_keys(template, JOINT_TAG, special, {element: limbs})
        library.DeserializeEvalAutomorphismKeyString(archive, library.BINARY)
        keys = crypto.GetEvalAutomorphismKeyMap(JOINT_TAG)
        return crypto.EvalAutomorphism(ciphertext, element, keys)
