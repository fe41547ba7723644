"""Device memory that is used again, and arrays in it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import prod
from typing import Any, Protocol

from tacit.errors import InternalError, OutOfMemoryError

_GRAIN = 256  # bytes: every block is aligned for any access


class Source(Protocol):
    """Where a pool takes memory from."""

    def allocate(self, nbytes: int) -> int:
        """Return the address of new memory.

        Raises:
            OutOfMemoryError: there is not as much.
        """
        ...

    def free(self, address: int) -> None:
        """Give memory back."""
        ...


class Block:
    """Memory of a pool; goes back to it when nobody holds the block."""

    __slots__ = ("__weakref__", "_give_back", "address", "nbytes")

    def __init__(self, address: int, nbytes: int, give_back: Callable[[int, int], None]) -> None:
        self.address = address
        self.nbytes = nbytes
        self._give_back = give_back

    def __del__(self) -> None:
        self._give_back(self.address, self.nbytes)


class DevicePool:
    """Lends memory for kernels of one stream; may be used by several threads.

    What goes back may be lent again at once, although kernels that use it are still waiting: those
    of the next owner come after them in the stream.

    Args:
        source: of the memory.
        limit_bytes: how much may be in use and kept, together.
    """

    def __init__(self, source: Source, limit_bytes: int) -> None:
        self._source = source
        self.limit_bytes = limit_bytes
        self._free: dict[int, list[int]] = {}
        # Reentrant: a block may go back, by garbage collection, inside any of these methods.
        self._lock = threading.RLock()
        self._closed = False
        self.used_bytes = 0
        self.kept_bytes = 0
        self.peak_bytes = 0

    def block(self, nbytes: int) -> Block:
        """Lend memory of undefined content.

        Raises:
            OutOfMemoryError: neither the limit nor the device allow it.
        """
        size = -(-max(nbytes, 1) // _GRAIN) * _GRAIN
        with self._lock:
            waiting = self._free.get(size)
            if waiting:
                address = waiting.pop()
                self.kept_bytes -= size
            else:
                address = self._new(size)
            self.used_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        return Block(address, size, self._take_back)

    def trim(self) -> None:
        """Give memory that nobody uses back to the device."""
        with self._lock:
            for addresses in self._free.values():
                while addresses:
                    self._source.free(addresses.pop())
            self._free.clear()
            self.kept_bytes = 0

    def close(self) -> None:
        """Give everything back, what is lent as soon as it comes back."""
        with self._lock:
            self._closed = True
            self.trim()

    def _new(self, size: int) -> int:
        if self.used_bytes + self.kept_bytes + size > self.limit_bytes:
            self.trim()
        if self.used_bytes + size > self.limit_bytes:
            raise OutOfMemoryError(
                f"{size} bytes more than the {self.used_bytes} in use exceed the limit of "
                f"{self.limit_bytes} bytes of device memory: lower the batch size"
            )
        try:
            return self._source.allocate(size)
        except OutOfMemoryError:
            self.trim()
            return self._source.allocate(size)

    def _take_back(self, address: int, size: int) -> None:
        with self._lock:
            self.used_bytes -= size
            if self._closed:
                self._source.free(address)
                return
            self._free.setdefault(size, []).append(address)
            self.kept_bytes += size


class DeviceArray:
    """A contiguous array of 64-bit words in device memory, or a part of one.

    Attributes:
        shape: its axes.
        block: keeps the memory.
        address: of the first word.
    """

    __slots__ = ("address", "block", "shape")

    def __init__(self, shape: tuple[int, ...], block: Block, offset_bytes: int = 0) -> None:
        self.shape = shape
        self.block = block
        self.address = block.address + offset_bytes
        if offset_bytes + self.nbytes > block.nbytes:
            raise InternalError(f"an array {shape} does not fit into {block.nbytes} bytes")

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return 8 * prod(self.shape)

    def first(self, start: int, stop: int) -> DeviceArray:
        """Return entries `start` to `stop` - 1 of the first axis; the memory is the same."""
        each = 8 * prod(self.shape[1:])
        offset = self.address - self.block.address + start * each
        return DeviceArray((stop - start, *self.shape[1:]), self.block, offset)

    def reshaped(self, *shape: int) -> DeviceArray:
        """Return the same memory with other axes."""
        if prod(shape) != prod(self.shape):
            raise InternalError(f"{self.shape} cannot become {shape}")
        return DeviceArray(shape, self.block, self.address - self.block.address)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """How torch, CuPy and others see it without a copy (as signed words in torch: `view`)."""
        return {
            "shape": self.shape,
            "typestr": "<u8",
            "data": (self.address, False),
            "version": 3,
            "strides": None,
        }
