"""Bringing evaluation keys to a server: once, and only the frames it lacks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from tacit.client.frames import FrameFolder, Progress
from tacit.client.keys import KeyFacts
from tacit.client.service import KeyDeclaration, Service
from tacit.errors import ServiceError

_TRIES = 4
_PAUSE_SECONDS = 0.5


class EvaluationKeys(Protocol):
    """A key set on disk: that of a key pair, or a joint one."""

    @property
    def facts(self) -> KeyFacts:
        """What is known of it."""
        ...

    @property
    def folder(self) -> FrameFolder:
        """Where its frames are."""
        ...


def upload_keys(
    service: Service,
    keys: EvaluationKeys,
    key_config: str,
    progress: Progress,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Upload what the server lacks of a key set; returns the bytes sent.

    A connection that breaks is tried again, up to four times, with the frames still missing.

    Args:
        service: the server.
        keys: the key pair, or the joint keys.
        key_config: of the signature the keys were made for.
        progress: hears "upload", bytes done, and bytes in all.
        pause: waits between tries.

    Raises:
        ExpiredKeyError: no model there takes such keys.
        ServiceError: the server cannot be reached, or has no room.
    """
    if service.has_key(keys.facts.key_id):
        return 0
    frames = keys.facts.frames
    declared = KeyDeclaration(keys.facts.key_id, keys.facts.params.digest.hex(), key_config, frames)
    sender = _Sender(service, keys, progress)
    for left in reversed(range(_TRIES)):
        try:
            missing = service.declare_keys(declared)
            sender.send(missing)
            return sender.sent
        except ServiceError:
            if not left:
                raise
            pause(_PAUSE_SECONDS * (_TRIES - left))
    return sender.sent


class _Sender:
    """Counts bytes over several tries."""

    def __init__(self, service: Service, keys: EvaluationKeys, progress: Progress) -> None:
        self._service = service
        self._keys = keys
        self._progress = progress
        self._done = 0
        self.sent = 0

    def send(self, missing: frozenset[str]) -> None:
        """Send the missing frames in order."""
        wanted = [frame for frame in self._keys.facts.frames if frame.sha256 in missing]
        total = self._keys.facts.key_bytes
        self._done = total - sum(frame.length for frame in wanted)
        self._progress("upload", self._done, total)
        for frame in wanted:
            path = self._keys.folder.file(frame)
            self._service.upload_frame(self._keys.facts.key_id, frame, path, self._count)

    def _count(self, piece: int) -> None:
        self._done += piece
        self.sent += piece
        self._progress("upload", self._done, self._keys.facts.key_bytes)
