"""Payloads of parties on their way to disk: streamed, hashed, taken in only if they are right."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from tacit.errors import ChecksumError, OversizedError
from tacit.runtime.frame_upload import storing, write_all


class BlobUpload:
    """One payload on its way to disk; a context manager."""

    def __init__(
        self,
        sha256: str,
        length: int,
        temporary: Path,
        target: Path,
        party: int,
        done: Callable[[], None],
    ) -> None:
        self._sha256, self._length, self._party = sha256, length, party
        self._temporary, self._target = temporary, target
        self._hash, self._written, self._done = hashlib.sha256(), 0, done
        with storing("store a payload"):
            self._descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def __enter__(self) -> BlobUpload:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)
        self._temporary.unlink(missing_ok=True)
        self._done()

    def write(self, chunk: bytes) -> None:
        """Append bytes.

        Raises:
            OversizedError: more than declared.
        """
        self._written += len(chunk)
        if self._written > self._length:
            raise OversizedError(f"more than the {self._length} bytes declared")
        self._hash.update(chunk)
        with storing("store a payload"):
            write_all(self._descriptor, chunk)

    def finish(self) -> None:
        """Check the content and take it in.

        Raises:
            ChecksumError: not the declared content.
        """
        if self._written != self._length or self._hash.hexdigest() != self._sha256:
            raise ChecksumError("the payload's bytes do not have the declared SHA-256")
        with storing("store a payload"):
            os.fsync(self._descriptor)
            os.replace(self._temporary, self._target)
            # Whose quota it counts against: an empty file beside it.
            (self._target.with_name(f"{self._sha256}.{self._party}")).touch(mode=0o600)
            sync_folder(self._target.parent)


def sync_folder(folder: Path) -> None:
    """Wait until a folder's names are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
