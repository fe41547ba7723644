"""Switching keys: all in pinned host memory, those used last on the device as well."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod

import numpy as np
from numpy.typing import NDArray

from tacit.errors import InternalError, OutOfMemoryError
from tacit.kernels.cuda.device import Device, Pinned
from tacit.kernels.cuda.memory import Block

Words = NDArray[np.uint64]


class CudaKey:
    """A switching key in host memory.

    Attributes:
        shape: (2, digits, limbs of Q + primes of P, N); trimmed keys have fewer limbs and digits.
        pinned: its words.
    """

    __slots__ = ("__weakref__", "pinned", "shape")

    def __init__(self, shape: tuple[int, ...], pinned: Pinned) -> None:
        self.shape = shape
        self.pinned = pinned

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return 8 * prod(self.shape)


class CudaKeyTable:
    """Places of switching keys, one per batch entry.

    Attributes:
        keys: kept from being freed.
        block: their addresses, in device memory.
        written: the addresses that the block holds.
        digits: of each key.
        rows: of each key: limbs of Q and primes of P.

    Raises:
        InternalError: there is no key, or they are not of one shape.
    """

    __slots__ = ("block", "digits", "keys", "rows", "written")

    def __init__(self, keys: tuple[CudaKey, ...], block: Block) -> None:
        if len({key.shape for key in keys}) != 1:
            raise InternalError(f"keys of one shape expected, got {[key.shape for key in keys]}")
        self.keys = keys
        _, self.digits, self.rows, _ = keys[0].shape
        self.block = block
        self.written: tuple[int, ...] = ()

    @property
    def batch(self) -> int:
        """Entries."""
        return len(self.keys)


class KeyShelf:
    """Keeps the keys used last on a device; may be used by several threads.

    Args:
        device: for the keys.
        budget_bytes: of device memory, for keys.
    """

    def __init__(self, device: Device, budget_bytes: int) -> None:
        self._device = device
        self._budget = budget_bytes
        self._resident: OrderedDict[int, tuple[CudaKey, Block]] = OrderedDict()
        self._lock = threading.RLock()
        self.uploads = 0
        self._used_bytes = 0

    @property
    def used_bytes(self) -> int:
        """Bytes of keys on the device."""
        return self._used_bytes

    def table(self, keys: Sequence[CudaKey]) -> CudaKeyTable:
        """Return a table of keys, not yet on the device."""
        return CudaKeyTable(tuple(keys), self._device.block(8 * len(keys)))

    @contextmanager
    def held(self, tables: Sequence[CudaKeyTable]) -> Iterator[None]:
        """Have all keys of tables on the device while the body launches what needs them.

        Work that was launched keeps its keys: their memory serves others only after it, since
        copies to the device wait for the stream.

        Raises:
            OutOfMemoryError: they do not fit into the budget together.
        """
        with self._lock:
            self._bring([key for table in tables for key in table.keys])
            for table in tables:
                addresses = tuple(self._resident[id(key)][1].address for key in table.keys)
                if addresses != table.written:
                    self._device.upload(np.array(addresses, dtype=np.uint64), table.block)
                    table.written = addresses
            yield

    def _bring(self, keys: Sequence[CudaKey]) -> None:
        wanted = {id(key): key for key in keys}
        needed = sum(key.nbytes for key in wanted.values())
        if needed > self._budget:
            raise OutOfMemoryError(
                f"{len(wanted)} evaluation keys of {needed} bytes exceed the {self._budget} bytes "
                "of device memory for keys: lower the batch size or raise the budget"
            )
        for name in wanted:
            if name in self._resident:
                self._resident.move_to_end(name)
        for name, key in wanted.items():
            if name not in self._resident:
                self._make_room(key.nbytes)
                self._upload(name, key)

    def _make_room(self, nbytes: int) -> None:
        """Drop keys used longest ago; those that are wanted now lie at the end."""
        while self._resident and self._used_bytes + nbytes > self._budget:
            _, (key, _) = self._resident.popitem(last=False)
            self._used_bytes -= key.nbytes

    def _upload(self, name: int, key: CudaKey) -> None:
        block = self._device.block(key.nbytes)
        self._device.upload_pinned(key.pinned, block)
        self._resident[name] = (key, block)
        self._used_bytes += key.nbytes
        self.uploads += 1
