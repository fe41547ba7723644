"""Encoded constants, kept within a limit of bytes, shared by all clients.

A circuit asks for its constants in the same order every time, so that least recent use would keep
none of them where the limit is too small. What is kept is what saves most: every constant comes
with its worth, the work that one byte of it saves in a request, and one that is worth more takes
the place of others. Among equals what was kept first stays.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from itertools import count

import numpy as np
from numpy.typing import NDArray

from tacit.errors import OutOfMemoryError
from tacit.kernels.limb_kernels import LimbArray

Floats = NDArray[np.float64]

_Key = tuple[object, ...]


class PlaintextCache:
    """Keeps what was made of constants; may be used by several threads.

    Constants are told apart by name and by where their values lie in memory; the cache holds the
    values, so a place cannot be taken by others while an entry lives.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._entries: dict[_Key, tuple[Floats, LimbArray]] = {}
        # The least worth first; of equals the one that came last.
        self._by_worth: list[tuple[float, int, _Key]] = []
        self._turns = count(0, -1)
        self._used_bytes = 0
        self._made = 0
        self._lock = threading.Lock()

    @property
    def limit_bytes(self) -> int:
        """How much it may hold."""
        return self._limit

    @property
    def used_bytes(self) -> int:
        """Bytes of all encoded constants held."""
        return self._used_bytes

    @property
    def made(self) -> int:
        """How often a constant was encoded."""
        return self._made

    def look(self, name: str, values: Floats, use: tuple[object, ...]) -> LimbArray | None:
        """Return what was made of a constant for this use, if it is held."""
        with self._lock:
            entry = self._entries.get(_key(name, values, use))
        return None if entry is None else entry[1]

    def find(
        self,
        name: str,
        values: Floats,
        use: tuple[object, ...],
        make: Callable[[], LimbArray],
        worth: float = 0.0,
    ) -> LimbArray:
        """Return what `make` gives, from the cache if it was made before for the same `use`.

        Args:
            name: of the constant.
            values: what it is made of.
            use: what it is made for.
            make: makes it.
            worth: what keeping it saves, by byte.

        Raises:
            OutOfMemoryError: no memory to make it.
        """
        held = self.look(name, values, use)
        if held is not None:
            return held
        try:
            made = make()
        except MemoryError as error:
            raise OutOfMemoryError(f"no memory to encode the constant {name!r}") from error
        key = _key(name, values, use)
        with self._lock:
            self._made += 1
            if key not in self._entries and self._make_room(made.nbytes, worth):
                self._entries[key] = (values, made)
                self._used_bytes += made.nbytes
                heapq.heappush(self._by_worth, (worth, next(self._turns), key))
        return made

    def _make_room(self, size: int, worth: float) -> bool:
        """Drop what is worth less, if that makes room; else nothing."""
        left, dropped = self._limit - self._used_bytes, []
        while left < size and self._by_worth and self._by_worth[0][0] < worth:
            dropped.append(heapq.heappop(self._by_worth))
            left += self._entries[dropped[-1][2]][1].nbytes
        if left < size:
            for entry in dropped:
                heapq.heappush(self._by_worth, entry)
            return False
        for _, _, key in dropped:
            self._used_bytes -= self._entries.pop(key)[1].nbytes
        return True


def _key(name: str, values: Floats, use: tuple[object, ...]) -> _Key:
    place = values.__array_interface__["data"][0]
    return (name, place, values.strides, values.shape, use)
