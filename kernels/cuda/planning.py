"""Launches, bytes and instructions of any work, counted without a device.

`CountingDevice` takes the place of a device: the same launches reach it, and it adds up what each
must move and compute at least. Times from these counts are predictions, not measurements.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tacit.kernels.cuda import structures
from tacit.kernels.cuda.interface import Abilities, Pinned
from tacit.kernels.cuda.memory import Block, DevicePool
from tacit.kernels.cuda.transforms import VALUES_PER_THREAD

Words = NDArray[np.uint64]

H200 = Abilities("H200 (counted, not run)", 90, 132, 227 << 10)


@dataclass(frozen=True, slots=True)
class Rates:
    """What a device can do.

    Attributes:
        bytes_per_us: of device memory, read and written.
        instructions_per_us: of all threads together.
        launch_us: between two kernels of a stream or graph; 0 leaves it out.
    """

    bytes_per_us: float
    instructions_per_us: float
    launch_us: float = 0.0


# 4.3 TB/s was measured as a copy on an H200; 132 multiprocessors of 4 x 32 lanes at 1.98 GHz.
H200_RATES = Rates(4.3e6, 132 * 128 * 1980.0)


@dataclass(slots=True)
class Work:
    """What a number of launches must do at least.

    Attributes:
        launches: by kernel.
        nbytes: read and written, each array once per launch.
        instructions: of all threads, of the kernels whose machine code was counted.
        us: the larger of both times for each launch, added up.
    """

    launches: Counter[str] = field(default_factory=Counter)
    nbytes: int = 0
    instructions: int = 0
    us: float = 0.0


class CountingDevice:
    """A device that computes nothing.

    Args:
        log_n: of the ring.
        instructions: of one thread by kernel; kernels that are missing count as bytes only.
        rates: of the device that is planned for.
        abilities: of that device.
    """

    def __init__(
        self,
        log_n: int,
        instructions: Mapping[str, int],
        *,
        rates: Rates = H200_RATES,
        abilities: Abilities = H200,
    ) -> None:
        self.abilities = abilities
        self.work = Work()
        self._n = 1 << log_n
        self._instructions = instructions
        self._rates = rates
        self._next = 1 << 20
        self.pool = DevicePool(self, 1 << 60)

    @property
    def kept_bytes(self) -> int:
        """Bytes that nobody uses."""
        return self.pool.kept_bytes

    @property
    def peak_bytes(self) -> int:
        """Most bytes that were lent at once."""
        return self.pool.peak_bytes

    def restart(self) -> None:
        """Count from nothing."""
        self.work = Work()

    def allocate(self, nbytes: int) -> int:
        """Return an address that nothing else has."""
        self._next += nbytes
        return self._next - nbytes

    def free(self, address: int) -> None:
        """Forget an address."""

    def load(self, log_n: int, image: bytes) -> None:
        """Take no kernels in."""

    def block(self, nbytes: int) -> Block:
        """Lend an address."""
        return self.pool.block(nbytes)

    def lasting_block(self, nbytes: int) -> Block:
        """Lend an address."""
        return self.pool.block(nbytes)

    def upload(self, words: Words, block: Block) -> None:
        """Copy nothing."""

    def upload_to(self, words: Words, address: int) -> None:
        """Copy nothing."""

    def download(self, address: int, count: int) -> Words:
        """Return zeros."""
        return np.zeros(count, dtype=np.uint64)

    def pin(self, words: Words) -> Pinned:
        """Keep nothing."""
        return Pinned(0, words.nbytes, None)

    def upload_pinned(self, pinned: Pinned, block: Block) -> None:
        """Copy nothing."""

    def launch(
        self,
        log_n: int,
        name: str,
        grid: tuple[int, int, int],
        threads: int,
        arguments: ctypes.Structure,
        shared_bytes: int = 0,
    ) -> None:
        """Count a launch."""
        nbytes = self._n * 8 * rows_moved(name, arguments, grid)
        blocks = grid[0] * grid[1] * grid[2]
        repeats = getattr(arguments, "per_block", 1) if "forward" in name or "back" in name else 1
        code = self._code(name, arguments, grid)
        instructions = blocks * threads * repeats * code
        work = self.work
        work.launches[name] += 1
        work.nbytes += nbytes
        work.instructions += instructions
        times = (nbytes / self._rates.bytes_per_us, instructions / self._rates.instructions_per_us)
        work.us += max(times) + self._rates.launch_us

    def _code(self, name: str, arguments: ctypes.Structure, grid: tuple[int, int, int]) -> int:
        """Return instructions of one thread for one entry of a batch."""
        plain = self._instructions.get(name.removesuffix("_keyed"), 0)
        if plain and isinstance(arguments, structures.Ntt) and name.endswith("_keyed"):
            each = arguments.keyed.count * _MULTIPLY_ADD + _REDUCE + _MOVED
            return int(plain + VALUES_PER_THREAD * each)
        return plain or estimated_instructions(arguments, grid)


_MOVED = 40  # where a position comes from, subtracted, scaled and added to
_MULTIPLY_ADD = 9  # a 64 x 64 product added to 128 bits
_REDUCE = 34  # 128 bits to a residue, with loads and stores around it


def estimated_instructions(arguments: ctypes.Structure, grid: tuple[int, int, int]) -> int:
    """Return roughly the instructions of one thread, of kernels whose loops depend on arguments."""
    match arguments:
        case structures.Convert():
            sources, targets = (
                count / grid[1] for count in (arguments.rows_read, arguments.rows_written)
            )
            return int(targets / grid[2] * (_REDUCE + _MULTIPLY_ADD * sources))
        case structures.KeyProduct():
            each = 4 * (arguments.keyed.count * _MULTIPLY_ADD + _REDUCE)
            return int(arguments.turns * arguments.per_block * each)
        case structures.Dot():
            return int(2 * (arguments.terms * _MULTIPLY_ADD + _REDUCE))
        case structures.Tensor():
            return 2 * (4 * _MULTIPLY_ADD + 3 * _REDUCE)
        case structures.Combine():
            outputs = structures.OUTPUTS_PER_BLOCK
            return int(2 * outputs * (arguments.terms * _MULTIPLY_ADD + _REDUCE))
    return 0


def rows_moved(name: str, arguments: ctypes.Structure, grid: tuple[int, int, int]) -> int:
    """Return how many rows of N words a launch reads and writes at least, roots included."""
    match arguments:
        case structures.Ntt():
            return _rows_of_transform(name, arguments, grid[1])
        case structures.KeyProduct():
            keyed, turns = arguments.keyed, arguments.turns
            written = 2 * (1 + arguments.accumulate) * (1 if arguments.accumulate else turns)
            added = arguments.plus_rows * keyed.batch
            return int(added + keyed.rows * (_keyed(keyed, turns) + written * keyed.batch))
        case structures.Dot():
            each = arguments.span.batch * (arguments.terms + 1 + arguments.continues)
            return int(grid[1] * each + grid[1] * arguments.terms // 2)
        case structures.Combine():
            rows = arguments.components * arguments.span.rows * arguments.span.batch
            return int(rows * (arguments.terms * grid[2] + arguments.outputs))
        case structures.Tensor():
            return int((7 + 3 * arguments.accumulate) * grid[1] * arguments.span.batch)
        case structures.Binary():
            return int(3 * grid[1] * arguments.span.batch)
        case structures.Convert():
            return int((arguments.rows_read + arguments.rows_written) * arguments.batch)
        case structures.Copy():
            return int(2 * grid[1] * arguments.batch)
        case structures.Roots():
            return int(4 * grid[1])
        case structures.Fourier():
            return 3  # a row is as many words as all parts of the slots; and roots
        case structures.Round():
            return 3
    span = getattr(arguments, "span", None)
    return int(2 * grid[1] * span.batch) if span is not None else 0


def _keyed(keyed: structures.Keyed, turns: int) -> int:
    """Return words read for one position and row, of both parts: each digit once, each key once.

    Turns follow each other where digits are still in caches. Entries with the same key share it.
    """
    return int(keyed.count * keyed.batch + 2 * keyed.count * turns * keyed.different)


def _rows_of_transform(name: str, arguments: structures.Ntt, rows: int) -> int:
    batch = arguments.batch
    if name.endswith("columns"):  # few roots serve all columns
        return int(2 * rows * batch)
    operands, extra = 2.0, 0
    if name.endswith("_product"):
        operands = 4.0  # two factors, their product and the result
    if name.endswith(("_divided", "_keyed")):
        operands += sum(part != 0 for part in arguments.plus) / 2
    if name.endswith("_divided"):
        operands += 1.0
    if name.endswith("_keyed"):
        turns = sum(turn.keys != 0 for turn in arguments.keyed.turns)
        moduli = rows // (2 * turns)
        extra = moduli * _keyed(arguments.keyed, turns)
        extra += moduli * 4 * batch if arguments.left else 0  # two ciphertexts, read once
        operands -= "backward" in name  # the products take the place of a source
    roots = 2 * arguments.tables  # a table is twice a row
    return int(operands * rows * batch + extra + roots)
