"""What the engine needs of a device, whether it is real, simulated, or only counts."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.memory import Block

Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Abilities:
    """What kernels must know of a device.

    Attributes:
        name: as its maker calls it.
        compute: capability, 10 major + minor: 80, 90, 100.
        multiprocessors: how many.
        shared_bytes: the most that one block may have.
    """

    name: str
    compute: int
    multiprocessors: int
    shared_bytes: int

    @property
    def doubles(self) -> bool:
        """Whether doubles run at half the rate of floats: A100, H100, H200, B200."""
        return self.compute in (60, 70, 80, 90, 100)


class Pinned:
    """Host memory that a device reads at full speed."""

    __slots__ = ("_driver", "address", "nbytes")

    def __init__(self, address: int, nbytes: int, driver: Driver | None) -> None:
        self.address = address
        self.nbytes = nbytes
        self._driver = driver

    def __del__(self) -> None:
        if self._driver is not None:
            self._driver.library.cuMemFreeHost(self.address)


class Device(Protocol):
    """What `CudaKernels` needs: real, simulated, or only counting."""

    @property
    def abilities(self) -> Abilities:
        """What the device can do."""
        ...

    @property
    def kept_bytes(self) -> int:
        """Bytes that nobody uses and that are kept for the next blocks."""
        ...

    @property
    def peak_bytes(self) -> int:
        """Most bytes that were lent at once."""
        ...

    def load(self, log_n: int, image: bytes) -> None:
        """Take the kernels of a ring in, unless they are there."""
        ...

    def block(self, nbytes: int) -> Block:
        """Lend memory."""
        ...

    def lasting_block(self, nbytes: int) -> Block:
        """Lend memory for words that are uploaded; never that of work which is being recorded."""
        ...

    def upload(self, words: Words, block: Block) -> None:
        """Copy words to a block; they may change after that."""
        ...

    def upload_to(self, words: Words, address: int) -> None:
        """Copy words to an address within a block; they may change after that."""
        ...

    def download(self, address: int, count: int) -> Words:
        """Wait for all work, then return words."""
        ...

    def pin(self, words: Words) -> Pinned:
        """Copy words to host memory that the device reads at full speed."""
        ...

    def upload_pinned(self, pinned: Pinned, block: Block) -> None:
        """Copy pinned memory to a block."""
        ...

    def launch(
        self,
        log_n: int,
        name: str,
        grid: tuple[int, int, int],
        threads: int,
        arguments: ctypes.Structure,
        shared_bytes: int = 0,
    ) -> None:
        """Put a kernel of a ring into the stream."""
        ...
