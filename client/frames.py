"""Evaluation-key frames on disk: public bytes, one file per frame, named by their SHA-256.

They are kept so that an upload can go on where it broke off, and so that a server that lost them
can be served again; they cannot be made a second time, because making a key takes fresh randomness.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tacit.client.key_files import write_private
from tacit.errors import KeyFileError

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much is done, and how much there is to do."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class FrameEntry:
    """An evaluation-key frame: SHA-256 in hexadecimal, and bytes."""

    sha256: str
    length: int


@dataclass(frozen=True, slots=True)
class FrameFolder:
    """A folder of frames."""

    path: Path

    def add(self, frame: bytes) -> FrameEntry:
        """Store one frame.

        Raises:
            KeyFileError: the folder cannot be written.
        """
        entry = FrameEntry(hashlib.sha256(frame).hexdigest(), len(frame))
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(self.file(entry), frame, durable=False)
        except OSError as error:
            raise KeyFileError(f"cannot write to {self.path}: {error.strerror}") from error
        return entry

    def file(self, entry: FrameEntry) -> Path:
        """Return where a frame is."""
        return self.path / f"{entry.sha256}.frame"

    def missing(self, entries: Iterable[FrameEntry]) -> list[FrameEntry]:
        """List frames that are not here, or not with their length."""
        return [entry for entry in entries if _length(self.file(entry)) != entry.length]


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
