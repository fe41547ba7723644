"""One evaluation-key frame on its way to disk."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tacit.errors import ChecksumError, OversizedError, TruncatedError
from tacit.runtime.key_declarations import FrameDeclaration
from tacit.runtime.refusals import StorageError

_READ_BYTES = 1 << 20


class FrameUpload:
    """A frame being received; a context manager. Call `write` for each piece, then `finish`.

    The temporary file is removed in any case: `finish` has moved it, or the upload failed.
    """

    def __init__(
        self,
        declared: FrameDeclaration,
        path: Path,
        finish: Callable[[Path], bool],
        release: Callable[[], None],
    ) -> None:
        """Create nothing yet.

        Args:
            declared: length and hash the frame must have.
            path: temporary file.
            finish: checks the file's content and takes it in.
            release: called at the end, whatever happened.
        """
        self._declared = declared
        self._path = path
        self._finish = finish
        self._release = release
        self._written = 0
        self._hash = hashlib.sha256()
        self._descriptor = -1

    def __enter__(self) -> FrameUpload:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._path.unlink(missing_ok=True)
        self._release()

    def write(self, chunk: bytes) -> None:
        """Append bytes.

        Raises:
            OversizedError: more than declared.
            StorageError: the disk is full.
        """
        self._written += len(chunk)
        if self._written > self._declared.length:
            raise OversizedError(f"more bytes than the declared {self._declared.length}")
        self._hash.update(chunk)
        with storing("store a key frame"):
            if self._descriptor < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                self._descriptor = os.open(self._path, flags, 0o600)
            write_all(self._descriptor, chunk)

    def finish(self) -> bool:
        """Check length, hash and residues; returns whether the key set is complete now.

        Raises:
            TruncatedError, ChecksumError, WireError: the frame is not the declared one, or no key.
            StorageError: the disk is full.
        """
        if self._written != self._declared.length:
            raise TruncatedError(f"{self._declared.length} bytes declared, {self._written} came")
        if self._hash.hexdigest() != self._declared.sha256:
            raise ChecksumError("the frame's bytes do not have the declared SHA-256")
        with storing("store a key frame"):
            os.fsync(self._descriptor)
        return self._finish(self._path)


def check_length(length: int | None, declared: FrameDeclaration) -> None:
    """Refuse a Content-Length other than the declared one, before a byte is read.

    Raises:
        OversizedError, TruncatedError.
    """
    if length is None or length == declared.length:
        return
    message = f"the frame was declared with {declared.length} bytes, Content-Length is {length}"
    raise OversizedError(message) if length > declared.length else TruncatedError(message)


def holds(path: Path, declared: FrameDeclaration) -> bool:
    """Tell whether a file can be read and is the declared frame."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_READ_BYTES):
                found.update(piece)
    except OSError:
        return False
    return found.hexdigest() == declared.sha256


def write_all(descriptor: int, chunk: bytes | bytearray | memoryview) -> None:
    """Write every byte."""
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def write_private(path: Path, content: bytes) -> None:
    """Write a file only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_all(descriptor, content)
    finally:
        os.close(descriptor)


@contextmanager
def storing(task: str) -> Iterator[None]:
    """Turn disk errors into `StorageError`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else (error.strerror or "disk error")
        raise StorageError(f"cannot {task}: {reason}") from error
