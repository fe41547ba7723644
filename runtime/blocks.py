"""Blocks of shared memory that carry ciphertexts between the server and a worker process.

A block is an anonymous memory file: its descriptor travels over a socket, and it vanishes with the
last process that holds it, however that process ended.

    bytes 0..7        length of the JSON header
    bytes 16..31      nodes done and nodes in all of the request that runs (progress)
    bytes 64..4095    one byte per request: 1 once nobody waits for it
    bytes 4096..      JSON header, then the frames, each at a multiple of 64
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tacit.errors import InternalError
from tacit.runtime.requests import Frame

_FLAGS = 64
_START = 4096
_ALIGNMENT = 64
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A mapped block; the mapping lives as long as some view of it."""

    descriptor: int
    memory: memoryview

    @classmethod
    def create(cls, header: Mapping[str, object], frames: Sequence[Frame]) -> Block:
        """Write a header and frames into a new block."""
        lengths = [len(frame) for frame in frames]
        text = json.dumps({**header, "lengths": lengths}).encode()
        offsets = _offsets(_START + len(text), lengths)
        descriptor = os.memfd_create("tacit-block", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, offsets[-1])
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            block = cls(descriptor, memoryview(mmap.mmap(descriptor, offsets[-1])))
        except OSError as error:
            os.close(descriptor)
            raise InternalError(f"no shared memory of {offsets[-1]} bytes") from error
        block.memory[:8] = len(text).to_bytes(8, "little")
        block.memory[_START : _START + len(text)] = text
        for frame, start in zip(frames, offsets, strict=False):
            block.memory[start : start + len(frame)] = frame
        return block

    @classmethod
    def open(cls, descriptor: int) -> Block:
        """Map a block that another process made; closes the descriptor.

        Raises:
            InternalError: the other process could still shrink it under our feet.
        """
        try:
            if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) != _SEALS:
                raise InternalError("a block of shared memory is not sealed")
            size = os.fstat(descriptor).st_size
            return cls(-1, memoryview(mmap.mmap(descriptor, size)))
        finally:
            os.close(descriptor)

    def read(self) -> tuple[dict[str, object], list[memoryview]]:
        """Return the header and views of the frames."""
        length = int.from_bytes(self.memory[:8], "little")
        header = json.loads(bytes(self.memory[_START : _START + length]))
        lengths: list[int] = header.pop("lengths")
        offsets = _offsets(_START + length, lengths)
        frames = [
            self.memory[start : start + n] for start, n in zip(offsets, lengths, strict=False)
        ]
        return header, frames

    def abandon(self, index: int) -> None:
        """Note that nobody waits for a request any more."""
        self.memory[_FLAGS + index] = 1

    def is_abandoned(self, index: int) -> bool:
        """Tell whether nobody waits for a request any more."""
        return self.memory[_FLAGS + index] == 1

    def report(self, done: int, total: int) -> None:
        """Write progress."""
        self.memory[16:24] = done.to_bytes(8, "little")
        self.memory[24:32] = total.to_bytes(8, "little")

    def progress(self) -> tuple[int, int]:
        """Read progress: nodes done and nodes in all."""
        done, total = self.memory[16:24], self.memory[24:32]
        return int.from_bytes(done, "little"), int.from_bytes(total, "little")

    def close(self) -> None:
        """Close the descriptor; views stay valid."""
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _offsets(start: int, lengths: Sequence[int]) -> list[int]:
    """Return where each frame begins, and the end."""
    offsets = []
    for length in lengths:
        start = -(-start // _ALIGNMENT) * _ALIGNMENT
        offsets.append(start)
        start += length
    return [*offsets, start]
