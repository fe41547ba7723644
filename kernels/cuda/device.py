"""A CUDA device: its memory, one stream of work, kernels by name, and graphs of recorded work."""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from tacit.errors import InternalError
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.interface import Abilities, Pinned
from tacit.kernels.cuda.memory import Block, DevicePool
from tacit.kernels.cuda.owners import DriverOwner, Owner
from tacit.kernels.cuda.recording import Graph, Timer
from tacit.kernels.cuda.staging import SLOT_BYTES, Staging

Words = NDArray[np.uint64]


_MULTIPROCESSORS, _MAJOR, _MINOR, _SHARED = 16, 75, 76, 97  # cuDeviceGetAttribute
_DYNAMIC_SHARED = 8  # cuFuncSetAttribute
_RELAXED = 2  # capture mode: other streams may allocate and copy meanwhile
_RESERVED_BYTES = 512 << 20  # of the device's memory, for others


class DriverDevice:
    """A device behind the driver.

    Args:
        driver: loaded.
        ordinal: which device.
        memory_bytes: the most to use; by default all that is free but half a GiB.
        owner: of memory and stream; by default the driver.

    Raises:
        UnusableEnvironmentError: the device cannot be used.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        ordinal: int = 0,
        memory_bytes: int | None = None,
        owner: Owner | None = None,
    ) -> None:
        self._driver = driver
        self._handle = driver.integer("cuDeviceGet", ordinal)
        self._context = driver.place("cuDevicePrimaryCtxRetain", self._handle)
        self._current = threading.local()
        self._enter()
        self.abilities = self._read_abilities()
        self._owner = DriverOwner(driver) if owner is None else owner
        self._stream = self._owner.stream
        self._copies = driver.place("cuStreamCreate", 1)
        limit = self.free_bytes() - _RESERVED_BYTES if memory_bytes is None else memory_bytes
        self.pool = DevicePool(self, limit)
        self._modules: dict[int, int] = {}
        self._functions: dict[tuple[int, str], int] = {}
        self._staging = Staging(driver)
        self._landing = driver.place("cuMemHostAlloc", SLOT_BYTES, 0)
        self._lock = threading.RLock()
        self._recorder: tuple[int, DevicePool, list[Block]] | None = None
        self._discarded: deque[tuple[int, DevicePool]] = deque()
        self.launches = 0

    @property
    def driver_version(self) -> int:
        """1000 major + 10 minor of the CUDA that the driver knows."""
        return self._driver.version

    @property
    def kept_bytes(self) -> int:
        """Bytes that nobody uses and that are kept for the next blocks."""
        return self.pool.kept_bytes

    @property
    def peak_bytes(self) -> int:
        """Most bytes that were lent at once."""
        return self.pool.peak_bytes

    def load(self, log_n: int, image: bytes) -> None:
        """Take the cubin of a ring in, unless one is there.

        Raises:
            UnusableEnvironmentError: the driver refuses it.
        """
        with self._lock:
            self._enter()
            if log_n not in self._modules:
                self._modules[log_n] = self._driver.place("cuModuleLoadData", image)

    def allocate(self, nbytes: int) -> int:
        """Return the address of new memory, for the pool."""
        self._enter()
        return self._owner.allocate(nbytes)

    def free(self, address: int) -> None:
        """Give memory back, for the pool."""
        self._enter()
        self._owner.free(address)

    def free_bytes(self) -> int:
        """Return how much memory nobody uses, in any process."""
        self._enter()
        unused, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._driver.call("cuMemGetInfo_v2", ctypes.byref(unused), ctypes.byref(total))
        return unused.value

    def block(self, nbytes: int) -> Block:
        """Lend memory of undefined content; while a graph is recorded, for the graph alone.

        Raises:
            OutOfMemoryError: there is not as much.
        """
        recorder = self._recorder
        if recorder is not None and recorder[0] == threading.get_ident():
            return recorder[1].block(nbytes)
        return self.pool.block(nbytes)

    def lasting_block(self, nbytes: int) -> Block:
        """Lend memory for words that are uploaded, while work is recorded or not.

        Uploads are not part of a graph: in memory of the graph's own, work that was recorded before
        them would overwrite the words with every launch.

        Raises:
            OutOfMemoryError: there is not as much.
        """
        return self.pool.block(nbytes)

    def pin(self, words: Words) -> Pinned:
        """Copy words to pinned host memory.

        Raises:
            OutOfMemoryError: the host has not as much.
        """
        self._enter()
        flat = np.ascontiguousarray(words)
        address = self._driver.place("cuMemHostAlloc", max(flat.nbytes, 1), 0)
        ctypes.memmove(address, flat.ctypes.data, flat.nbytes)
        return Pinned(address, flat.nbytes, self._driver)

    def upload_pinned(self, pinned: Pinned, block: Block) -> None:
        """Copy pinned memory to a block; never part of a graph."""
        with self._lock:
            self._enter()
            if self._recorder is None:
                self._wait(self._stream)
            arguments = (block.address, pinned.address, pinned.nbytes, self._copies)
            self._driver.call("cuMemcpyHtoDAsync_v2", *arguments)
            self._wait(self._copies)

    def upload(self, words: Words, block: Block) -> None:
        """Copy words to a block, through pinned memory; never part of a graph."""
        if words.nbytes > block.nbytes:
            raise InternalError(f"{words.nbytes} bytes do not fit into {block.nbytes}")
        self.upload_to(words, block.address)
        recorder = self._recorder
        if recorder is not None and recorder[0] == threading.get_ident():
            recorder[2].append(block)  # launches of the graph find these words, every time

    def upload_to(self, words: Words, address: int) -> None:
        """Copy words to an address within a block; see `upload`."""
        flat = np.ascontiguousarray(words).view(np.uint8).reshape(-1)
        with self._lock:
            self._enter()
            if self._recorder is None:
                self._staging.upload(flat, address, self._stream)
            else:  # the stream only records: copy beside it, now
                self._staging.upload(flat, address, self._copies)
                self._wait(self._copies)

    def download(self, address: int, count: int) -> Words:
        """Wait for all work, then return words."""
        made = np.empty(count, dtype=np.uint64)
        with self._lock:
            self._enter()
            self._refuse_in_graph("a result is read")
            self._wait(self._stream)
            for start in range(0, made.nbytes, SLOT_BYTES):
                length = min(SLOT_BYTES, made.nbytes - start)
                arguments = (self._landing, address + start, length, self._copies)
                self._driver.call("cuMemcpyDtoHAsync_v2", *arguments)
                self._wait(self._copies)
                ctypes.memmove(made.ctypes.data + start, self._landing, length)
        return made

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Copy within the device, in the stream."""
        with self._lock:
            self._enter()
            self._driver.call("cuMemcpyDtoDAsync_v2", target, source, nbytes, self._stream)

    def launch(
        self,
        log_n: int,
        name: str,
        grid: tuple[int, int, int],
        threads: int,
        arguments: ctypes.Structure,
        shared_bytes: int = 0,
    ) -> None:
        """Put a kernel of a ring into the stream.

        Raises:
            DeviceLostError: the device does not work any more.
            InternalError: the launch is refused.
        """
        size = ctypes.c_size_t(ctypes.sizeof(arguments))
        # CU_LAUNCH_PARAM_BUFFER_POINTER, _BUFFER_SIZE, _END
        extra = (ctypes.c_void_p * 5)(
            1, ctypes.addressof(arguments), 2, ctypes.addressof(size), None
        )
        with self._lock:
            self._enter()
            function = self._function(log_n, name, shared_bytes)
            places = (*grid, threads, 1, 1, shared_bytes, self._stream, None, extra)
            self._driver.call("cuLaunchKernel", function, *places)
            self.launches += 1

    def synchronize(self) -> None:
        """Wait for all work; failures of kernels show here at the latest."""
        with self._lock:
            self._enter()
            self._wait(self._stream)

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        """Record the work of the body instead of doing it.

        Memory that the body asks for is the graph's own, for as long as the graph lives.

        Yields:
            A graph, complete at the end of the body; other threads wait meanwhile.
        """
        with self._lock:
            self._enter()
            self._refuse_in_graph("another graph begins")
            self._wait(self._stream)
            self._clean_up()
            arena = DevicePool(self, self.pool.limit_bytes)
            self._driver.call("cuStreamBeginCapture_v2", self._stream, _RELAXED)
            graph = Graph(
                self._driver, self._stream, self._lock, self._enter, arena, self._discarded
            )
            self._recorder = (threading.get_ident(), arena, graph.constants)
            try:
                yield graph
            except BaseException:
                self._recorder = None
                graph.abandon()
                raise
            self._recorder = None
            graph.end()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Let no other thread put work into the stream during the body."""
        with self._lock:
            yield

    def timer(self) -> Timer:
        """Return a stop-watch for work in the stream."""
        self._enter()
        return Timer(self._driver, self._stream)

    def close(self) -> None:
        """Give all memory back; nothing may be used after that."""
        self._enter()
        self._wait(self._stream)
        self.pool.close()
        self._staging.close()
        self._driver.call("cuMemFreeHost", self._landing)
        self._owner.close()
        self._driver.call("cuStreamDestroy_v2", self._copies)

    def _enter(self) -> None:
        """Make the context that of this thread, once per thread."""
        if not getattr(self._current, "entered", False):
            self._driver.call("cuCtxSetCurrent", self._context)
            self._current.entered = True

    def _wait(self, stream: int) -> None:
        self._driver.call("cuStreamSynchronize", stream)

    def _clean_up(self) -> None:
        """Give back what graphs held that nobody has any more."""
        while self._discarded:
            executable, arena = self._discarded.popleft()
            self._driver.call("cuGraphExecDestroy", executable)
            arena.close()

    def _refuse_in_graph(self, what: str) -> None:
        if self._recorder is not None:
            raise InternalError(f"{what} while a graph is recorded")

    def _function(self, log_n: int, name: str, shared_bytes: int) -> int:
        found = self._functions.get((log_n, name))
        if found is None:
            module = self._modules[log_n]
            found = self._driver.place("cuModuleGetFunction", module, name.encode())
            if shared_bytes > 48 << 10:
                self._driver.call("cuFuncSetAttribute", found, _DYNAMIC_SHARED, shared_bytes)
            self._functions[log_n, name] = found
        return found

    def _read_abilities(self) -> Abilities:
        name = ctypes.create_string_buffer(256)
        self._driver.call("cuDeviceGetName", name, 256, self._handle)

        def attribute(number: int) -> int:
            return self._driver.integer("cuDeviceGetAttribute", number, self._handle)

        compute = 10 * attribute(_MAJOR) + attribute(_MINOR)
        return Abilities(
            name.value.decode(), compute, attribute(_MULTIPROCESSORS), attribute(_SHARED)
        )
