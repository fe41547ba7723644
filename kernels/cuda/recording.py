"""Recorded work that one call repeats, and a stop-watch on the device."""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable

from tacit.errors import InternalError
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.memory import Block, DevicePool


class Graph:
    """Work of a stream, recorded by `DriverDevice.capture`.

    Attributes:
        constants: memory that was filled while the work was recorded, and that it reads.
    """

    def __init__(
        self,
        driver: Driver,
        stream: int,
        lock: threading.RLock,
        enter: Callable[[], None],
        arena: DevicePool,
        discarded: deque[tuple[int, DevicePool]],
    ) -> None:
        self._driver = driver
        self._discarded = discarded
        self._stream = stream
        self._lock = lock
        self._enter = enter
        self._arena = arena
        self._executable = 0
        self.constants: list[Block] = []

    @property
    def arena_bytes(self) -> int:
        """Bytes of memory that the recorded work uses."""
        return self._arena.used_bytes + self._arena.kept_bytes

    def __del__(self) -> None:
        # Whoever lets go may hold any lock: the device cleans up before its next recording.
        if self._executable:
            self._discarded.append((self._executable, self._arena))

    def end(self) -> None:
        """Close the recording; for the device."""
        made = ctypes.c_void_p()
        self._driver.call("cuStreamEndCapture", self._stream, ctypes.byref(made))
        graph = made.value
        self._executable = self._driver.place("cuGraphInstantiateWithFlags", graph, 0)
        self._driver.call("cuGraphDestroy", graph)

    def abandon(self) -> None:
        """Leave the recording after a failure of the body; for the device."""
        made = ctypes.c_void_p()
        self._driver.library.cuStreamEndCapture(self._stream, ctypes.byref(made))
        if made.value:
            self._driver.library.cuGraphDestroy(made)

    def launch(self) -> None:
        """Put the work into the stream.

        Raises:
            InternalError: the recording failed.
        """
        if not self._executable:
            raise InternalError("this graph was not recorded to its end")
        with self._lock:
            self._enter()
            self._driver.call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Forget the work, and give its memory back as soon as nobody holds results of it."""
        if self._executable:
            with self._lock:
                self._enter()
                self._driver.call("cuStreamSynchronize", self._stream)
                self._driver.call("cuGraphExecDestroy", self._executable)
            self._executable = 0
        self.constants.clear()
        self._arena.close()


class Timer:
    """Milliseconds between two places of a stream."""

    def __init__(self, driver: Driver, stream: int) -> None:
        self._driver = driver
        self._stream = stream
        self._events = [driver.place("cuEventCreate", 0) for _ in range(2)]

    def start(self) -> None:
        """Put the beginning into the stream."""
        self._driver.call("cuEventRecord", self._events[0], self._stream)

    def stop(self) -> float:
        """Put the end into the stream, wait for it, and return the milliseconds between."""
        first, last = self._events
        self._driver.call("cuEventRecord", last, self._stream)
        self._driver.call("cuEventSynchronize", last)
        passed = ctypes.c_float()
        self._driver.call("cuEventElapsedTime", ctypes.byref(passed), first, last)
        return passed.value

    def close(self) -> None:
        """Give the events back."""
        for event in self._events:
            self._driver.call("cuEventDestroy_v2", event)
