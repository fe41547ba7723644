"""Encoded constants, kept within a limit of bytes, shared by all clients.

A circuit asks for its constants in the same order every time. So what is once kept stays: with too
small a limit a share of the constants is kept and the others are made each time, where least recent
use would keep none of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

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
        self._used_bytes = 0
        self._made = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """Bytes of all encoded constants held."""
        return self._used_bytes

    @property
    def made(self) -> int:
        """How often a constant was encoded."""
        return self._made

    def find(
        self, name: str, values: Floats, use: tuple[object, ...], make: Callable[[], LimbArray]
    ) -> LimbArray:
        """Return what `make` gives, from the cache if it was made before for the same `use`.

        Raises:
            OutOfMemoryError: no memory to make it.
        """
        place = values.__array_interface__["data"][0]
        key = (name, place, values.strides, values.shape, use)
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                return entry[1]
        try:
            made = make()
        except MemoryError as error:
            raise OutOfMemoryError(f"no memory to encode the constant {name!r}") from error
        with self._lock:
            self._made += 1
            if key not in self._entries and self._used_bytes + made.nbytes <= self._limit:
                self._entries[key] = (values, made)
                self._used_bytes += made.nbytes
        return made
