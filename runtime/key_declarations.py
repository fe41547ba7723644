"""What a client declares before it uploads evaluation keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tacit.runtime.refusals import BadRequestError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_FRAMES = 4096


@dataclass(frozen=True, slots=True)
class FrameDeclaration:
    """One frame: SHA-256 (hex) and length in bytes."""

    sha256: str
    length: int


@dataclass(frozen=True, slots=True)
class KeyDeclaration:
    """A key set: hex digests of its parameters and configuration, and its frames in order."""

    params_digest: str
    key_config: str
    frames: tuple[FrameDeclaration, ...]

    @property
    def total_bytes(self) -> int:
        """Bytes of all frames."""
        return sum(frame.length for frame in self.frames)

    def frame(self, sha256: str) -> FrameDeclaration | None:
        """Return the frame with this hash, if it was declared."""
        return next((frame for frame in self.frames if frame.sha256 == sha256), None)

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable dict."""
        return {
            "params_digest": self.params_digest,
            "key_config": self.key_config,
            "frames": [{"sha256": f.sha256, "bytes": f.length} for f in self.frames],
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> KeyDeclaration:
        """Read and check a declaration.

        Raises:
            BadRequestError: a field is missing or malformed, or a frame is declared twice.
        """
        frames = fields.get("frames")
        if not isinstance(frames, list) or not 1 <= len(frames) <= _MOST_FRAMES:
            raise BadRequestError(f"`frames` must list 1 to {_MOST_FRAMES} frames")
        declared = tuple(_frame(frame) for frame in frames)
        if len({frame.sha256 for frame in declared}) != len(declared):
            raise BadRequestError("a frame is declared twice")
        digests = [digest_of(fields.get(name), name) for name in ("params_digest", "key_config")]
        return cls(digests[0], digests[1], declared)


def digest_of(value: object, what: str) -> str:
    """Check a SHA-256 in hexadecimal.

    Raises:
        BadRequestError: it is none.
    """
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise BadRequestError(f"{what}: a SHA-256 of 64 lower-case hexadecimal digits expected")
    return value


def _frame(value: object) -> FrameDeclaration:
    if not isinstance(value, dict):
        raise BadRequestError("each frame is an object {sha256, bytes}")
    length = value.get("bytes")
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise BadRequestError("`bytes` of a frame must be a positive number")
    return FrameDeclaration(digest_of(value.get("sha256"), "sha256 of a frame"), length)
