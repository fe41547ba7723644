"""One party's secret and the shares it makes: OpenFHE's multiparty functions, one call each.

All parties do the same: none of them leads in the making of keys. The random polynomials that
OpenFHE would have one party draw come from a seed that all fix together
(`tacit.joint_randomness`), and are handed to OpenFHE inside archives that our own writer makes;
what OpenFHE returns is read by our own reader, so nothing another party sent is ever loaded by it
unread. A share is b = e - a s (+ what the key carries): the joint key is the sum of all b with the
common a.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tacit.client.context import ClientContext
from tacit.client.environment import import_openfhe, refuse_in_forked_child
from tacit.client.held_secret import HeldSecret
from tacit.client.key_tables import empty_tables, tabled
from tacit.errors import InternalError, PartyError
from tacit.joint_randomness import joint_polynomial
from tacit.openfhe_bytes import ForeignCiphertext, read_public_key, write_ciphertext
from tacit.openfhe_keys import (
    ForeignKey,
    read_automorphism_keys,
    read_relinearization_key,
    write_automorphism_keys,
    write_relinearization_key,
)
from tacit.openfhe_shares import read_partial, read_secret_limbs, write_public_key
from tacit.params import CryptoParams

if TYPE_CHECKING:
    import openfhe

Limbs = NDArray[np.uint64]

_TAG = "joint"


def joint_public_a(params: CryptoParams, seed: bytes) -> Limbs:
    """Return the public key's common polynomial, shape (limbs of Q, N)."""
    return joint_polynomial(seed, "public key", params.moduli, params.n)


def joint_key_a(params: CryptoParams, seed: bytes, element: int) -> Limbs:
    """Return an evaluation key's common polynomials.

    Args:
        params: the CKKS parameters.
        seed: of the session.
        element: the Galois element; 0 for relinearisation.

    Returns:
        Shape (dnum, limbs of Q + limbs of P, N).
    """
    moduli = params.moduli + params.special_moduli
    labels = [f"key {element} digit {digit}" for digit in range(params.dnum)]
    return np.stack([joint_polynomial(seed, label, moduli, params.n) for label in labels])


class PartySecret(HeldSecret):
    """A party's share of the joint secret."""

    __slots__ = ()

    _UNREADABLE = "this party's secret cannot be read: the file is damaged"

    @classmethod
    def generate(cls, context: ClientContext, a: Limbs) -> tuple[PartySecret, Limbs]:
        """Make a fresh secret.

        Args:
            context: made for several parties.
            a: `joint_public_a`.

        Returns:
            The secret, and its share of the public key: b, shape (limbs of Q, N).

        Raises:
            UnusableEnvironmentError: in a process forked after OpenFHE was loaded.
        """
        refuse_in_forked_child("make keys")
        library = import_openfhe()
        archive = write_public_key(context.template, _TAG, np.stack([np.zeros_like(a), a]))
        base = library.DeserializePublicKeyString(archive, library.BINARY)
        pair = context.openfhe.MultipartyKeyGen(base, False, True)
        made, _ = read_public_key(library.Serialize(pair.publicKey, library.BINARY))
        _check_common(made.limbs[1], a)
        return cls(context, pair.secretKey), made.limbs[0]

    def limbs(self) -> Limbs:
        """Return the secret itself, shape (limbs of Q, N): to give it up, or to test it."""
        return read_secret_limbs(self.to_bytes())

    def relinearization_share(self, a: Limbs) -> Limbs:
        """Make the share of the first round: b = e - a s + P s, like `a` in shape."""
        refuse_in_forked_child("make keys")
        base = np.stack([np.zeros_like(a), a])
        made = self._relinearized(
            base, lambda key: self._context.openfhe.MultiKeySwitchGen(self._key, self._key, key)
        )
        share: Limbs = made[0]
        _check_common(made[1], a)
        return share

    def relinearization_product(self, first: Limbs) -> Limbs:
        """Make the share of the second round: both halves of the joint key times s, plus noise.

        Args:
            first: shape (2, dnum, limbs of Q + P, N): the sum of all first shares, and a.

        Returns:
            The same shape.
        """
        refuse_in_forked_child("make keys")
        return self._relinearized(
            first, lambda key: self._context.openfhe.MultiMultEvalKey(self._key, key, _TAG)
        )

    def rotation_share(self, element: int, a: Limbs) -> Limbs:
        """Make the share of one rotation key, like `a` in shape."""
        refuse_in_forked_child("make keys")
        crypto, library = self._context.openfhe, self._library
        base = np.stack([np.zeros_like(a), a])
        special = self._context.params.special_moduli
        archive = write_automorphism_keys(self._context.template, _TAG, special, {element: base})
        with empty_tables(crypto):
            library.DeserializeEvalAutomorphismKeyString(archive, library.BINARY)
            keys = crypto.GetEvalAutomorphismKeyMap(_TAG)
            made = crypto.MultiEvalAutomorphismKeyGen(self._key, keys, [element], _TAG)
            read, _ = read_automorphism_keys(tabled(self._serialised(made), _TAG))
        limbs = _own(read[element], special)
        share: Limbs = limbs[0]
        _check_common(limbs[1], a)
        return share

    def partial_decryption(self, ciphertext: ForeignCiphertext, *, leads: bool) -> Limbs:
        """Make this party's share of a decryption, without smudging of our own.

        OpenFHE adds normal noise of deviation 2^20 to it (measured), whatever the parameters.

        Args:
            ciphertext: two components.
            leads: whether c_0 is added, as exactly one party does.

        Returns:
            Shape (limbs, N).
        """
        refuse_in_forked_child("decrypt")
        library, crypto = self._library, self._context.openfhe
        archive = write_ciphertext(self._context.template, ciphertext)
        loaded = library.DeserializeCiphertextString(archive, library.BINARY)
        decrypt = crypto.MultipartyDecryptLead if leads else crypto.MultipartyDecryptMain
        try:
            (partial,) = decrypt([loaded], self._key)
        except RuntimeError as error:
            raise InternalError(f"OpenFHE cannot make a partial decryption: {error}") from error
        return read_partial(self._serialised(partial)).limbs

    def _relinearized(self, base: Limbs, make: Callable[[openfhe.EvalKey], object]) -> Limbs:
        crypto, library = self._context.openfhe, self._library
        special = self._context.params.special_moduli
        archive = write_relinearization_key(self._context.template, _TAG, special, base)
        with empty_tables(crypto):
            library.DeserializeEvalMultKeyString(archive, library.BINARY)
            (key,) = crypto.GetEvalMultKeyVector(_TAG)
            made = make(key)
        body = self._serialised([made])
        tag = _tag_of(made)
        return _own(read_relinearization_key(tabled(body, tag))[0], special)


def _tag_of(key: object) -> str:
    tag = getattr(key, "GetKeyTag", None)
    if tag is None:
        raise InternalError("OpenFHE returned no evaluation key")
    return str(tag())


def _own(key: ForeignKey, special: tuple[int, ...]) -> Limbs:
    if key.special_moduli != special:
        raise PartyError("OpenFHE uses other special moduli than the parameters: use 1.6.1")
    return key.limbs


def _check_common(found: Limbs, wanted: Limbs) -> None:
    if not np.array_equal(found, wanted):
        raise InternalError("OpenFHE did not keep the common polynomial of a joint key")
