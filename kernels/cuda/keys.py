"""Switching keys: all in pinned host memory, those used last on the device as well."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from math import prod

import numpy as np
from numpy.typing import NDArray

from tacit.errors import InternalError, OutOfMemoryError
from tacit.kernels.cuda.interface import Device, Pinned
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
        batch: entries.
        different: keys among them.
        digits: of each key; trimmed keys have fewer.
        rows: of each key: limbs of Q and primes of P.
        keys: kept from being freed; empty once they were forgotten.
        address: of the keys' addresses, in device memory.
        written: the addresses that are there.

    Raises:
        InternalError: there is no key, or they are not of one shape.
    """

    __slots__ = ("_block", "address", "batch", "different", "digits", "keys", "rows", "written")

    def __init__(self, keys: tuple[CudaKey, ...], block: Block, offset_bytes: int = 0) -> None:
        if len({key.shape for key in keys}) != 1:
            raise InternalError(f"keys of one shape expected, got {[key.shape for key in keys]}")
        _, self.digits, self.rows, _ = keys[0].shape
        self.batch = len(keys)
        self.different = len({id(key) for key in keys})
        self.keys = keys
        self._block = block
        self.address = block.address + offset_bytes
        self.written: tuple[int, ...] = ()

    def forget(self) -> None:
        """Let go of the keys: the place is filled for each launch by whoever launches."""
        self.keys = ()
        self.written = ()


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
        return self.tables([keys])[0]

    def tables(self, groups: Sequence[Sequence[CudaKey]]) -> list[CudaKeyTable]:
        """Return tables that lie side by side, so that one copy fills them all."""
        block = self._device.lasting_block(8 * sum(len(keys) for keys in groups))
        made, offset = [], 0
        for keys in groups:
            made.append(CudaKeyTable(tuple(keys), block, offset))
            offset += 8 * len(keys)
        return made

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Let no other thread move keys during the body; taken before the device's own lock."""
        with self._lock:
            yield

    @contextmanager
    def placed(
        self, tables: Sequence[CudaKeyTable], groups: Sequence[Sequence[CudaKey]]
    ) -> Iterator[None]:
        """As `held`, with other keys in tables that lie side by side.

        Raises:
            OutOfMemoryError: the keys do not fit into the budget together.
        """
        with self._lock:
            keys = [key for group in groups for key in group]
            self._bring(keys)
            addresses = tuple(self._resident[id(key)][1].address for key in keys)
            if addresses != tuple(at for table in tables for at in table.written):
                words = np.array(addresses, dtype=np.uint64)
                self._device.upload_to(words, tables[0].address)
                for table in tables:
                    table.written, addresses = addresses[: table.batch], addresses[table.batch :]
            yield

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
                    self._device.upload_to(np.array(addresses, dtype=np.uint64), table.address)
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
                self._upload(name, key, wanted)

    def _make_room(self, nbytes: int) -> None:
        """Drop keys used longest ago; those that are wanted now lie at the end."""
        while self._resident and self._used_bytes + nbytes > self._budget:
            _, (key, _) = self._resident.popitem(last=False)
            self._used_bytes -= key.nbytes

    def _upload(self, name: int, key: CudaKey, wanted: Collection[int]) -> None:
        block = self._block(key.nbytes, wanted)
        self._device.upload_pinned(key.pinned, block)
        self._resident[name] = (key, block)
        self._used_bytes += key.nbytes
        self.uploads += 1

    def _block(self, nbytes: int, wanted: Collection[int]) -> Block:
        """Borrow memory; where others took it, drop keys until there is some."""
        while True:
            try:
                return self._device.lasting_block(nbytes)
            except OutOfMemoryError:
                oldest = next(iter(self._resident), None)
                if oldest is None or oldest in wanted:
                    raise
                _, (key, _) = self._resident.popitem(last=False)
                self._used_bytes -= key.nbytes
