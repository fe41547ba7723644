"""A party's own keys: Ed25519 for signatures, X25519 for messages only other parties can read.

A sealed message is for every other party and nobody else, not even the relay:

    4 bytes     length of the header, little endian
    header      JSON: an ephemeral X25519 key, and the content key wrapped for each reader
    payload     AES-256-GCM under the content key, the header authenticated too
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tacit.errors import HeaderError, KeyFileError, TruncatedError
from tacit.party_terms import canonical

_KEY_BYTES = 32
_LARGEST_HEADER = 1 << 16
SEAL_BYTES = _LARGEST_HEADER + 64
_NONCE = bytes(12)  # each key is used for one message only


@dataclass(frozen=True, slots=True)
class Identity:
    """Private keys; show nothing of themselves."""

    _signing: Ed25519PrivateKey = field(repr=False)
    _sealing: X25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Identity:
        """Make fresh keys."""
        return cls(Ed25519PrivateKey.generate(), X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, content: bytes) -> Identity:
        """Read `to_bytes`.

        Raises:
            KeyFileError: not 64 bytes.
        """
        if len(content) != 2 * _KEY_BYTES:
            raise KeyFileError("an identity has 64 bytes: the file is damaged")
        return cls(
            Ed25519PrivateKey.from_private_bytes(content[:_KEY_BYTES]),
            X25519PrivateKey.from_private_bytes(content[_KEY_BYTES:]),
        )

    def to_bytes(self) -> bytes:
        """Return the private keys, for a key file."""
        return self._signing.private_bytes_raw() + self._sealing.private_bytes_raw()

    @property
    def signing_key(self) -> bytes:
        """The Ed25519 public key, 32 bytes."""
        return self._signing.public_key().public_bytes_raw()

    @property
    def sealing_key(self) -> bytes:
        """The X25519 public key, 32 bytes."""
        return self._sealing.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self._signing.sign(message)

    def unseal(self, reader: int, sealed: bytes, context: bytes) -> bytes:
        """Open a message that was sealed for this party.

        Args:
            reader: this party's number.
            sealed: what `seal` returned.
            context: as given to `seal`.

        Raises:
            TruncatedError, HeaderError: damaged, or not for this party.
        """
        header, payload = _parts(sealed)
        try:
            fields = json.loads(header)
            ephemeral = X25519PublicKey.from_public_bytes(bytes.fromhex(fields["ephemeral"]))
            wrapped = bytes.fromhex(fields["keys"][str(reader)])
            shared = self._sealing.exchange(ephemeral)
            wrapping = _derived(shared, reader, context)
            content_key = AESGCM(wrapping).decrypt(_NONCE, wrapped, None)
            return AESGCM(content_key).decrypt(_NONCE, payload, header + context)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise HeaderError("a sealed message whose header cannot be read") from error
        except InvalidTag as error:
            raise HeaderError("a sealed message that was changed, or is not for us") from error


def seal(message: bytes, readers: Mapping[int, bytes], context: bytes) -> bytes:
    """Encrypt a message for some parties.

    Args:
        message: up to 2 GiB.
        readers: X25519 public keys by party number.
        context: what the message is for; opening it takes the same.

    Raises:
        HeaderError: a public key that gives no secret.
    """
    ephemeral, content_key = X25519PrivateKey.generate(), secrets.token_bytes(_KEY_BYTES)
    keys = {}
    for reader, public in readers.items():
        shared = _exchanged(ephemeral, public, reader)
        wrapping = _derived(shared, reader, context)
        keys[str(reader)] = AESGCM(wrapping).encrypt(_NONCE, content_key, None).hex()
    shown = ephemeral.public_key().public_bytes_raw().hex()
    header = canonical({"ephemeral": shown, "keys": keys})
    payload = AESGCM(content_key).encrypt(_NONCE, message, header + context)
    return len(header).to_bytes(4, "little") + header + payload


def signed_by(key: bytes, signature: bytes, message: bytes) -> bool:
    """Tell whether a signature is right; see `tacit.party_transcript.CheckSignature`."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _exchanged(ephemeral: X25519PrivateKey, public: bytes, reader: int) -> bytes:
    try:
        return ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise HeaderError(f"the sealing key of party {reader} is none to seal for") from error


def _parts(sealed: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(sealed[:4], "little")
    if len(sealed) < 4 or length > min(_LARGEST_HEADER, len(sealed) - 4):
        raise TruncatedError("a sealed message that ends too early")
    return sealed[4 : 4 + length], sealed[4 + length :]


def _derived(shared: bytes, reader: int, context: bytes) -> bytes:
    purpose = b"tacit party share" + reader.to_bytes(4, "little") + context
    return HKDF(SHA256(), _KEY_BYTES, None, purpose).derive(shared)
