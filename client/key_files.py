"""Key files: the secret key on disk, readable by its owner only.

    8 bytes   b"TACITSK1"
    4 bytes   length of the header, little endian
    header    JSON: what the keys are for, their age, how the payload is protected
    payload   OpenFHE's serialised secret key, or its AES-256-GCM encryption under a passphrase

With a passphrase the encryption key comes from scrypt, and the header is authenticated too. Without
one, the header holds the payload's SHA-256, which finds damage, not forgery: the file's mode (0600)
is all that protects it. Files are written under a temporary name with O_EXCL and then renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from tacit.errors import KeyFileError

MAGIC = b"TACITSK1"
_LARGEST_HEADER = 1 << 20
_LARGEST_PAYLOAD = 1 << 30
# scrypt: 128 MiB and about half a second; RFC 7914 recommends r = 8, p = 1.
_SCRYPT_N = 1 << 17
_LARGEST_SCRYPT_N = 1 << 20
_SCRYPT_R = 8


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What a key file holds.

    Attributes:
        facts: JSON-serialisable, not secret.
        secret: the serialised secret key.
    """

    facts: Mapping[str, object]
    secret: bytes = field(repr=False)


def write_key_file(path: Path, content: KeyFile, passphrase: str | None) -> None:
    """Write a key file with mode 0600, replacing the one that is there in one step.

    Raises:
        KeyFileError: the file cannot be written, or the passphrase is empty.
    """
    body = _sealed(content, passphrase)
    try:
        write_private(path, body)
    except OSError as error:
        raise KeyFileError(f"cannot write the key file {path}: {error.strerror}") from error


def read_key_file(path: Path, passphrase: str | None) -> KeyFile:
    """Read and check a key file.

    Raises:
        KeyFileError: missing, readable by others, damaged, or the passphrase is wrong or missing.
    """
    header, payload = _read_parts(path)
    facts = header.get("facts")
    if not isinstance(facts, dict):
        raise KeyFileError(f"{path} says nothing about its keys: it is damaged")
    return KeyFile(facts, _opened(path, header, payload, passphrase))


def read_key_facts(path: Path) -> Mapping[str, object]:
    """Read what a key file says about its keys, without the secret or a passphrase.

    Raises:
        KeyFileError: missing, readable by others, or damaged.
    """
    header, _ = _read_parts(path)
    facts = header.get("facts")
    return facts if isinstance(facts, dict) else {}


def is_encrypted(path: Path) -> bool:
    """Tell whether a key file needs a passphrase.

    Raises:
        KeyFileError: missing, readable by others, or damaged.
    """
    return _read_parts(path)[0].get("protection") is not None


def write_private(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file of mode 0600 under a new name, then rename it to `path`.

    Args:
        path: where it is in the end.
        content: its bytes.
        durable: wait until they are on the disk.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _sealed(content: KeyFile, passphrase: str | None) -> bytes:
    if passphrase is None:
        digest = hashlib.sha256(content.secret).hexdigest()
        header = {"facts": dict(content.facts), "protection": None, "sha256": digest}
        return _joined(header, content.secret)
    if not passphrase:
        raise KeyFileError("the passphrase is empty: give one, or none at all")
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    protection = {
        "kdf": "scrypt",
        "n": _SCRYPT_N,
        "salt": salt.hex(),
        "cipher": "AES-256-GCM",
        "nonce": nonce.hex(),
    }
    header = {"facts": dict(content.facts), "protection": protection}
    key = _derived(passphrase, salt, _SCRYPT_N)
    return _joined(header, AESGCM(key).encrypt(nonce, content.secret, _header_bytes(header)))


def _opened(
    path: Path, header: Mapping[str, object], payload: bytes, passphrase: str | None
) -> bytes:
    protection = header.get("protection")
    if protection is None:
        if hashlib.sha256(payload).hexdigest() != header.get("sha256"):
            raise KeyFileError(f"{path} is damaged: its checksum does not match; make new keys")
        return payload
    if passphrase is None:
        raise KeyFileError(f"{path} is protected by a passphrase: give it")
    try:
        if not isinstance(protection, dict) or protection["kdf"] != "scrypt":
            raise KeyFileError(f"{path} is protected in a way this version does not know")
        cost = int(protection["n"])
        if not 2 <= cost <= _LARGEST_SCRYPT_N:
            raise KeyFileError(f"{path} asks for an unreasonable scrypt cost: it is damaged")
        key = _derived(passphrase, bytes.fromhex(protection["salt"]), cost)
        nonce = bytes.fromhex(protection["nonce"])
        return AESGCM(key).decrypt(nonce, payload, _header_bytes(header))
    except (KeyError, ValueError, TypeError) as error:
        raise KeyFileError(f"{path} is damaged: its protection cannot be read") from error
    except InvalidTag as error:
        raise KeyFileError(f"wrong passphrase for {path}, or the file is damaged") from error


def _derived(passphrase: str, salt: bytes, cost: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=cost, r=_SCRYPT_R, p=1).derive(passphrase.encode())


def _header_bytes(header: Mapping[str, object]) -> bytes:
    return json.dumps(header, sort_keys=True).encode()


def _joined(header: Mapping[str, object], payload: bytes) -> bytes:
    text = _header_bytes(header)
    return MAGIC + len(text).to_bytes(4, "little") + text + payload


def _read_parts(path: Path) -> tuple[dict[str, object], bytes]:
    content = _read_private(path)
    start = len(MAGIC) + 4
    if not content.startswith(MAGIC) or len(content) < start:
        raise KeyFileError(f"{path} is not a Tacit key file")
    length = int.from_bytes(content[len(MAGIC) : start], "little")
    if length > min(_LARGEST_HEADER, len(content) - start):
        raise KeyFileError(f"{path} is damaged: it ends too early")
    try:
        header = json.loads(content[start : start + length])
    except ValueError as error:
        raise KeyFileError(f"{path} is damaged: its header is not JSON") from error
    if not isinstance(header, dict):
        raise KeyFileError(f"{path} is damaged: its header is not a JSON object")
    return header, content[start + length :]


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & 0o077:
                raise KeyFileError(f"{path} can be read by others: chmod 600 it, or make new keys")
            return file.read(_LARGEST_PAYLOAD)
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {path}: {error.strerror}") from error
