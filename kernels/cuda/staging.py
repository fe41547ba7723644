"""Pinned host memory through which uploads go, so that nobody waits for the device."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from tacit.kernels.cuda.driver import Driver

_SLOTS = 4
SLOT_BYTES = 4 << 20


class Staging:
    """A ring of pinned slots; each is used again when its last copy is done.

    For one thread at a time.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._slots = [driver.place("cuMemHostAlloc", SLOT_BYTES, 0) for _ in range(_SLOTS)]
        self._events = [driver.place("cuEventCreate", 2) for _ in range(_SLOTS)]  # no timing
        self._used = [False] * _SLOTS
        self._next = 0

    def upload(self, flat: NDArray[np.uint8], target: int, stream: int) -> None:
        """Put copies of these bytes to device memory into a stream; they may change after that."""
        for start in range(0, flat.nbytes, SLOT_BYTES):
            piece = flat[start : start + SLOT_BYTES]
            index, self._next = self._next, (self._next + 1) % _SLOTS
            if self._used[index]:
                self._driver.call("cuEventSynchronize", self._events[index])
            slot = self._slots[index]
            ctypes.memmove(slot, piece.ctypes.data, piece.nbytes)
            self._driver.call("cuMemcpyHtoDAsync_v2", target + start, slot, piece.nbytes, stream)
            self._driver.call("cuEventRecord", self._events[index], stream)
            self._used[index] = True

    def close(self) -> None:
        """Give the memory back; all copies must be done."""
        for slot, event in zip(self._slots, self._events, strict=True):
            self._driver.call("cuMemFreeHost", slot)
            self._driver.call("cuEventDestroy_v2", event)
