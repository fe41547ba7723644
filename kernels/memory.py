"""Arrays whose memory is used again: fresh pages from the system cost more than the arithmetic."""

from __future__ import annotations

import threading
from math import prod

import numpy as np
from numpy.typing import NDArray

from tacit.errors import OutOfMemoryError

Limbs = NDArray[np.uint64]


class ArrayPool:
    """Lends arrays; may be used by several threads.

    Args:
        limit_bytes: how much unused memory to keep.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._kept_bytes = 0
        self._held_bytes = 0
        self._peak_bytes = 0
        self._free: dict[int, list[Limbs]] = {}
        # Reentrant: a lease may end, by garbage collection, inside any of these methods.
        self._lock = threading.RLock()

    @property
    def kept_bytes(self) -> int:
        """Bytes that nobody uses at the moment."""
        return self._kept_bytes

    @property
    def peak_bytes(self) -> int:
        """Most bytes that were held at once, lent or waiting."""
        return self._peak_bytes

    def array(self, shape: tuple[int, ...]) -> Limbs:
        """Return an array of undefined content; it goes back when the last view of it is gone.

        Raises:
            OutOfMemoryError: there is no memory, even without what is kept.
        """
        words = prod(shape)
        with self._lock:
            memory = self._waiting(words)
        if memory is None:
            memory = self._fresh(words)
        return np.asarray(_Lease(self, memory))[:words].reshape(shape)

    def take_back(self, memory: Limbs) -> None:
        """Keep memory for the next array of half its size or more, within the limit."""
        with self._lock:
            if self._kept_bytes + memory.nbytes <= self._limit:
                self._free.setdefault(len(memory), []).append(memory)
                self._kept_bytes += memory.nbytes
            else:
                self._held_bytes -= memory.nbytes

    def clear(self) -> None:
        """Give back to the system what nobody uses."""
        with self._lock:
            self._free.clear()
            self._held_bytes -= self._kept_bytes
            self._kept_bytes = 0

    def _waiting(self, words: int) -> Limbs | None:
        """Take the smallest memory that waits and is large enough, but not over twice as large."""
        fitting = [size for size in self._free if words <= size <= 2 * words]
        if not fitting:
            return None
        size = min(fitting)
        memory = self._free[size].pop()
        if not self._free[size]:
            del self._free[size]
        self._kept_bytes -= memory.nbytes
        return memory

    def _fresh(self, words: int) -> Limbs:
        memory: Limbs
        try:
            memory = np.empty(words, dtype=np.uint64)
        except MemoryError:
            self.clear()
            memory = self._last_try(words)
        with self._lock:
            self._held_bytes += memory.nbytes
            self._peak_bytes = max(self._peak_bytes, self._held_bytes)
        return memory

    def _last_try(self, words: int) -> Limbs:
        try:
            return np.empty(words, dtype=np.uint64)
        except MemoryError as error:
            raise OutOfMemoryError(
                f"no memory for {8 * words} bytes of limbs: evaluate fewer requests at a time"
            ) from error


class _Lease:
    """Owns memory while arrays over it live."""

    __slots__ = ("__array_interface__", "_memory", "_pool")

    def __init__(self, pool: ArrayPool, memory: Limbs) -> None:
        self._pool = pool
        self._memory = memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._pool.take_back(self._memory)
