"""Launches for one parameter set: new arrays, the rows that a kernel works on, and its grid."""

from __future__ import annotations

import ctypes

from tacit.kernels.cuda import structures
from tacit.kernels.cuda.interface import Device
from tacit.kernels.cuda.levels import Level
from tacit.kernels.cuda.memory import DeviceArray
from tacit.kernels.cuda.tables import Conversion, RingTables
from tacit.params import CryptoParams

THREADS = 256
_TARGETS_PER_BLOCK = 8


class Launches:
    """What all kernels of a parameter set are launched with.

    Args:
        params: the parameters.
        device: with the ring's kernels.
        ring: its tables.

    Attributes:
        params: the parameters.
        device: the device.
        ring: tables of the primes.
        levels: the basis of each level.
    """

    def __init__(self, params: CryptoParams, device: Device, ring: RingTables) -> None:
        limbs = len(params.moduli)
        self.params = params
        self.device = device
        self.ring = ring
        self.levels = [Level(device, ring, k, limbs, params.dnum) for k in range(1, limbs + 1)]

    def array(self, components: int, rows: int, batch: int) -> DeviceArray:
        """Return a new array of undefined content."""
        shape = (components, rows, batch, self.params.n)
        return DeviceArray(shape, self.device.block(8 * components * rows * batch * shape[3]))

    def over_q(self, a: DeviceArray) -> structures.Span:
        """Return the rows of an array over Q."""
        rows = structures.Rows(a.shape[1], len(self.params.moduli))
        return structures.Span(self.ring.address, rows, a.shape[1], a.shape[2])

    def span(self, at: Level, a: DeviceArray) -> structures.Span:
        """Return the rows of an array over Q or QP at a level."""
        rows = structures.Rows(at.limbs, at.full_limbs)
        return structures.Span(self.ring.address, rows, a.shape[1], a.shape[2])

    def elementwise(self, name: str, out: DeviceArray, arguments: ctypes.Structure) -> None:
        """Launch a kernel that makes two words per thread of each row of `out`."""
        components, rows, batch, _ = out.shape
        self.pairs(name, batch, components * rows, 1, arguments)

    def pairs(
        self, name: str, batch: int, rows: int, depth: int, arguments: ctypes.Structure
    ) -> None:
        """Launch a kernel of two words per thread."""
        pieces = -(-batch * self.params.n // (2 * THREADS))
        self.launch(name, (pieces, rows, depth), THREADS, arguments)

    def launch(
        self, name: str, grid: tuple[int, int, int], threads: int, arguments: ctypes.Structure
    ) -> None:
        """Put a kernel of this ring into the stream."""
        self.device.launch(self.params.log_n, name, grid, threads, arguments)

    def convert(self, table: Conversion, source: DeviceArray, target: DeviceArray) -> None:
        """Convert rows of coefficients between bases."""
        batch, n = source.shape[2], source.shape[3]
        arguments = structures.Convert(
            *(self.ring.address, *(block.address for block in table.blocks)),
            *(source.address, target.address, batch, _TARGETS_PER_BLOCK),
            *(table.reads, table.writes),
        )
        chunks = -(-table.most_targets // _TARGETS_PER_BLOCK)
        grid = (-(-batch * n // THREADS), table.groups, chunks)
        self.launch("tacit_convert", grid, THREADS, arguments)
