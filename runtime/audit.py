"""An audit log: one JSON line per request, each with the hash of the line before.

Changing, removing or reordering lines breaks the chain (cutting off the end does not: keep the last
hash elsewhere if that matters). Lines say who asked for what with which key and how it ended; they
never hold ciphertexts, tokens or nonces.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from tacit.errors import DamagedInputError, KeyFileError

_START = "0" * 64


class AuditLog:
    """Appends events to a file; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """Open or continue a log.

        Raises:
            KeyFileError: it cannot be opened.
            DamagedInputError: the chain of the existing file is broken.
        """
        self._lock = threading.Lock()
        self._last = verify(path) if path.exists() else _START
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise KeyFileError(f"cannot open the audit log {path}: {error.strerror}") from error
        self._file = os.fdopen(descriptor, "a", encoding="utf-8")

    def record(self, event: str, fields: Mapping[str, object]) -> None:
        """Append one event."""
        with self._lock:
            line = {"time": round(time.time(), 3), "event": event, **fields, "previous": self._last}
            self._last = _hash(line)
            self._file.write(json.dumps(line | {"hash": self._last}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


def verify(path: Path) -> str:
    """Check a log's chain; returns the last hash.

    Raises:
        DamagedInputError: a line was changed, removed or inserted; the message has its number.
    """
    last = _START
    with path.open(encoding="utf-8") as lines:
        for number, text in enumerate(lines, start=1):
            last = _checked(text, last, number)
    return last


def _checked(text: str, previous: str, number: int) -> str:
    try:
        line = json.loads(text)
        claimed = line.pop("hash")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedInputError(f"audit log line {number} is not an audit line") from error
    if line.get("previous") != previous or claimed != _hash(line):
        raise DamagedInputError(f"audit log line {number} breaks the chain: the log was changed")
    return str(claimed)


def _hash(line: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()
