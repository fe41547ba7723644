"""The key directory: one key pair per key configuration, and the signatures seen so far.

    DIR/<key config>/secret.key        the secret key, mode 0600
    DIR/<key config>/frames/…          its evaluation-key frames
    DIR/pins.json                      the digest of each model's signature when it was first used

A key pair is made under a temporary name and renamed when it is complete.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tacit.client.frames import Progress, no_progress
from tacit.client.key_files import is_encrypted, read_key_facts, write_private
from tacit.client.keys import KeyFacts, KeyPair
from tacit.errors import KeyFileError
from tacit.signature import Signature

_SECRET = "secret.key"
_FRAMES = "frames"
_PINS = "pins.json"
_LOCK = ".lock"
_CONFIG_DIGITS = 64


def default_directory() -> Path:
    """Return where keys are kept unless another place is named."""
    return Path.home() / ".local" / "share" / "tacit"


@dataclass(frozen=True, slots=True)
class RingEntry:
    """One key pair on disk: its key configuration, its facts, whether a passphrase protects it."""

    key_config: str
    facts: KeyFacts
    protected: bool


@dataclass(frozen=True, slots=True)
class KeyRing:
    """A directory of key pairs.

    Attributes:
        directory: made, with mode 0700, when the first key is.
        passphrase: protects every secret key in it; None for none.
        allow_insecure: accept parameters below 128 bits, in tests.
    """

    directory: Path
    passphrase: str | None = None
    allow_insecure: bool = False

    def __repr__(self) -> str:
        return f"KeyRing({str(self.directory)!r})"

    def find(self, signature: Signature) -> KeyPair | None:
        """Load the keys a model needs, if they are here.

        Raises:
            KeyFileError: they are here and cannot be read.
        """
        folder = self._folder(signature.key_config)
        if not (folder / _SECRET).exists():
            return None
        return KeyPair.load(
            folder / _SECRET,
            folder / _FRAMES,
            self.passphrase,
            allow_insecure=self.allow_insecure,
        )

    def make(
        self,
        signature: Signature,
        *,
        ttl: float | None = None,
        progress: Progress = no_progress,
    ) -> KeyPair:
        """Make the keys a model needs, replacing those that are here.

        Raises:
            SecurityError: the model's parameters are below 128 bits.
            KeyFileError: the directory cannot be written.
        """
        temporary = self.directory / f".making-{secrets.token_hex(8)}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary.mkdir(mode=0o700)
            made = KeyPair.for_model(
                signature,
                temporary / _FRAMES,
                ttl=ttl,
                progress=progress,
                allow_insecure=self.allow_insecure,
            )
            made.save(temporary / _SECRET, self.passphrase)
            folder = self._folder(signature.key_config)
            self._discard(folder)
            os.rename(temporary, folder)
        except OSError as error:
            reason = error.strerror
            raise KeyFileError(f"cannot write to {self.directory}: {reason}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return made.moved(folder / _FRAMES)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the directory's lock, so that two processes do not make the same keys.

        Raises:
            KeyFileError: the directory cannot be written.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            reason = error.strerror
            raise KeyFileError(f"cannot write to {self.directory}: {reason}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def entries(self) -> list[RingEntry]:
        """List the key pairs that can be read."""
        found = sorted(self.directory.glob(f"*/{_SECRET}"))
        return [
            RingEntry(
                path.parent.name, KeyFacts.from_json(read_key_facts(path)), is_encrypted(path)
            )
            for path in found
            if len(path.parent.name) == _CONFIG_DIGITS
        ]

    def entry(self, prefix: str) -> RingEntry:
        """Return the key pair whose configuration or key id begins with `prefix`.

        Raises:
            KeyFileError: none, or several.
        """
        entries = self.entries()
        found = [e for e in entries if e.key_config.startswith(prefix)]
        found = found or [e for e in entries if e.facts.key_id.startswith(prefix)]
        if len(found) != 1 or not prefix:
            raise KeyFileError(
                f"{len(found)} key pairs in {self.directory} begin with {prefix!r}: "
                "`tacit keys list` shows them all"
            )
        return found[0]

    def delete(self, key_config: str) -> None:
        """Delete a key pair for good: nothing encrypted under it can be read any more."""
        self._discard(self._folder(key_config))

    def pin(self, place: str, digest: str) -> str:
        """Remember a signature's digest; returns the one that was there before, or "".

        Raises:
            KeyFileError: the directory cannot be written.
        """
        pins = dict(self._pins())
        before = pins.get(place, "")
        if before != digest:
            pins[place] = digest
            try:
                self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_private(self.directory / _PINS, json.dumps(pins, sort_keys=True).encode())
            except OSError as error:
                reason = error.strerror
                raise KeyFileError(f"cannot write to {self.directory}: {reason}") from error
        return before

    def _pins(self) -> Mapping[str, str]:
        try:
            pins = json.loads((self.directory / _PINS).read_bytes())
        except (OSError, ValueError):
            return {}
        return pins if isinstance(pins, dict) else {}

    def _folder(self, key_config: str) -> Path:
        return self.directory / key_config

    def _discard(self, folder: Path) -> None:
        """Remove a folder, under another name first so that no half of it is ever found."""
        doomed = self.directory / f".deleted-{secrets.token_hex(8)}"
        try:
            os.rename(folder, doomed)
        except FileNotFoundError:
            return
        shutil.rmtree(doomed, ignore_errors=True)
