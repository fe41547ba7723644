"""A party's folder: what it must not forget, written before anything leaves this machine.

    terms.json          the session's terms
    party.json          the relay's URL, this party's number
    token               the relay's token for this party
    identity.key        private keys for signatures and sealed messages
    secret.key          this party's share of the joint secret
    planned/STEP.json   what was committed to, before it is shown
    entries/STEP.PARTY  signed entries, our own before they are sent
    blobs/SHA256        payloads: our own until everybody has them, others' as far as needed
    joint.json          the joint key set, once it is tested
    given-up            this party's secret was published after a failed test

An entry of our own is created exclusively (`link`), so that a second, different one cannot be
written even by two processes at once; a restart finds it and sends the same bytes again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tacit.client.key_files import KeyFile, read_key_file, write_key_file, write_private
from tacit.directory_lock import DirectoryLock
from tacit.errors import KeyFileError, PartyError, WriteOnceError
from tacit.party_entry import Blob, SignedEntry
from tacit.party_terms import SessionTerms, canonical


@dataclass(slots=True)
class PartyFolder:
    """The folder of one party in one session; one process uses it at a time.

    Attributes:
        path: the folder.
        passphrase: protects the two key files; None for none.
    """

    path: Path
    passphrase: str | None = None
    _lock: DirectoryLock | None = None

    def __repr__(self) -> str:
        return f"PartyFolder({str(self.path)!r})"

    def create(self, terms: SessionTerms, facts: Mapping[str, object], token: str) -> None:
        """Make the folder.

        Raises:
            PartyError: it holds another session already.
            KeyFileError: it cannot be written.
        """
        try:
            for name in ("planned", "entries", "blobs"):
                (self.path / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            self.lock()
            known = self.path / "terms.json"
            if known.exists() and self.terms().session != terms.session:
                raise PartyError(f"{self.path} belongs to another session: choose another folder")
            write_private(known, canonical(terms.to_json()))
            write_private(self.path / "token", token.encode())
            write_private(self.path / "party.json", canonical(dict(facts)))
        except OSError as error:
            raise KeyFileError(f"cannot write to {self.path}: {error.strerror}") from error

    def lock(self) -> None:
        """Take the folder for this process, until `close`.

        Raises:
            DirectoryInUseError: another process has it.
            KeyFileError: no such folder.
        """
        if self._lock is not None:
            return
        try:
            self._lock = DirectoryLock(self.path)
        except OSError as error:
            raise KeyFileError(f"no party's folder at {self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Let the folder go."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def terms(self) -> SessionTerms:
        """Read the terms."""
        return SessionTerms.from_json(self.read_json("terms.json"))

    def token(self) -> str:
        """Read the relay's token."""
        return self._read("token").decode()

    def read_json(self, name: str) -> dict[str, object]:
        """Read one of our own JSON files.

        Raises:
            KeyFileError: missing or damaged.
        """
        try:
            fields = json.loads(self._read(name))
        except ValueError as error:
            raise KeyFileError(f"{self.path / name} is damaged") from error
        if not isinstance(fields, dict):
            raise KeyFileError(f"{self.path / name} is damaged")
        return fields

    def write_json(self, name: str, fields: Mapping[str, object]) -> None:
        """Write one of our own JSON files in one step, durably."""
        try:
            write_private(self.path / name, canonical(dict(fields)))
        except OSError as error:
            raise KeyFileError(f"cannot write {self.path / name}: {error.strerror}") from error

    def has(self, name: str) -> bool:
        """Tell whether a file is there."""
        return (self.path / name).exists()

    def write_secret(self, name: str, secret: bytes) -> None:
        """Write a key file."""
        write_key_file(self.path / name, KeyFile({"party": name}, secret), self.passphrase)

    def read_secret(self, name: str) -> bytes:
        """Read a key file."""
        return read_key_file(self.path / name, self.passphrase).secret

    def add_blob(self, label: str, content: bytes) -> Blob:
        """Keep a payload of our own, durably."""
        blob = Blob(label, hashlib.sha256(content).hexdigest(), len(content))
        try:
            write_private(self.blob_path(blob), content)
        except OSError as error:
            raise KeyFileError(f"cannot write to {self.path}: {error.strerror}") from error
        return blob

    def blob_path(self, blob: Blob) -> Path:
        """Return where a payload is, or would be."""
        return self.path / "blobs" / blob.sha256

    def blob(self, blob: Blob) -> bytes | None:
        """Return a payload that is here and has not been changed, else None."""
        try:
            content = self.blob_path(blob).read_bytes()
        except OSError:
            return None
        return content if hashlib.sha256(content).hexdigest() == blob.sha256 else None

    def write_once(self, signed: SignedEntry) -> None:
        """Keep an entry, durably; a different one of the same step and party is never replaced.

        Raises:
            WriteOnceError: there is a different one.
            KeyFileError: it cannot be written.
        """
        content = signed.to_bytes()
        folder = self.path / "entries"
        target = folder / f"{signed.entry.step}.{signed.entry.party}"
        temporary = folder / f".{secrets.token_hex(8)}.part"
        try:
            write_private(temporary, content)
            os.link(temporary, target)
            _sync(folder)
        except FileExistsError as error:
            if target.read_bytes() != content:
                raise WriteOnceError(
                    f"step {signed.entry.step!r} was written already, with other contents: what "
                    "was sent once is never replaced; begin a new session"
                ) from error
        except OSError as error:
            raise KeyFileError(f"cannot write to {folder}: {error.strerror}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def entry(self, step: str, party: int) -> SignedEntry | None:
        """Read a kept entry."""
        try:
            return SignedEntry.from_bytes((self.path / "entries" / f"{step}.{party}").read_bytes())
        except FileNotFoundError:
            return None

    def entries(self) -> Iterator[SignedEntry]:
        """Read all kept entries, in no order."""
        for path in sorted((self.path / "entries").glob("[a-z0-9]*")):
            yield SignedEntry.from_bytes(path.read_bytes())

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise KeyFileError(f"cannot read {self.path / name}: {error.strerror}") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
