"""What kernels read besides ciphertexts: primes, roots, rows and factors, in device memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tacit.kernels.cuda import structures
from tacit.kernels.cuda.interface import Device
from tacit.kernels.cuda.memory import Block
from tacit.moduli import smallest_root

Words = NDArray[np.uint64]

NARROW_BITS = 50  # primes below 2^50 are transformed in doubles where those are fast
_ROOT_BYTES = 16
_THREADS = 256


class RingTables:
    """The primes of a ring and their roots.

    Args:
        device: that has the kernels of this ring.
        log_n: base-2 logarithm of N.
        moduli: primes below 2^60, 1 modulo 2N.
        doubles: whether narrow primes are transformed in doubles.

    Attributes:
        moduli: the primes.
        address: of the array of primes on the device.
    """

    def __init__(self, device: Device, log_n: int, moduli: Sequence[int], *, doubles: bool) -> None:
        self.moduli = tuple(moduli)
        self.log_n = log_n
        self._device = device
        self._doubles = doubles
        table_bytes = _ROOT_BYTES << log_n
        self._roots = device.lasting_block(2 * len(self.moduli) * table_bytes)
        described = np.zeros(len(self.moduli), dtype=structures.MODULUS)
        for i, q in enumerate(self.moduli):
            at = self._roots.address + 2 * i * table_bytes
            described[i] = (
                *(q, (1 << 64) // q, (1 << 64) % q, companion((1 << 64) % q, q)),
                *(float(q), 1 / q, at, at + table_bytes, self.in_doubles(i), *quotient(q)),
            )
        self._held = [put(device, described)]
        self.address = self._held[0].address
        self._make_roots()

    def in_doubles(self, modulus: int) -> bool:
        """Whether the transform of a prime runs in doubles."""
        return self._doubles and self.moduli[modulus] >> NARROW_BITS == 0

    def root(self, modulus: int, value: int) -> tuple[int, int]:
        """Return a factor as the transform of its prime takes it: two words."""
        q = self.moduli[modulus]
        value %= q
        if not self.in_doubles(modulus):
            return value, companion(value, q)
        centred = value - q if value > q // 2 else value
        words = np.array([float(centred), centred / q]).view(np.uint64)
        return int(words[0]), int(words[1])

    def _make_roots(self) -> None:
        psi = [smallest_root(q, self.log_n) for q in self.moduli]
        pairs = [(r, pow(r, -1, q)) for r, q in zip(psi, self.moduli, strict=True)]
        odd = [pow(q, -1, 1 << 64) for q in self.moduli]
        blocks = [put(self._device, np.array(words, dtype=np.uint64)) for words in (pairs, odd)]
        arguments = structures.Roots(self.address, blocks[0].address, blocks[1].address)
        grid = (max(1, (1 << self.log_n) // _THREADS), len(self.moduli), 2)
        self._device.launch(self.log_n, "tacit_make_roots", grid, _THREADS, arguments)


def companion(w: int, q: int) -> int:
    """Return Shoup's quotient of a factor."""
    return (w << 64) // q


def quotient(q: int) -> tuple[int, int, int]:
    """Return shift, factor and second shift for quotients of numbers below 16q, of q > 2^14.

    ((x >> shift) factor >> 32) >> down is floor(x / q), or one less.
    """
    bits = q.bit_length()
    shift, down = max(0, bits - 28), min(24, bits - 1)
    return shift, (1 << (shift + 32 + down)) // q, down


def put(device: Device, array: NDArray[Any]) -> Block:
    """Return device memory with the content of an array of any type."""
    block = device.lasting_block(max(array.nbytes, 8))
    device.upload(array, block)
    return block


@dataclass(frozen=True, slots=True, eq=False)
class RowTable:
    """Rows of a transform on the device.

    Attributes:
        rows: how many.
        tables: different moduli among them.
        block: of NTT_ROW.
        factors: of Root, one per row, or None.
        scales: of Factor, one per row, or None.
    """

    rows: int
    tables: int
    block: Block
    factors: Block | None = None
    scales: Block | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a transform; indices are in rows of the operands.

    Attributes:
        modulus: of the row.
        source: row that is read.
        target: row that is written.
        minuend: row that the transform is subtracted from.
        component: of the minuend, or part of a product with keys.
        limb: of the minuend.
        turn: which automorphism and keys.
        middle: where two kernels meet; by default the target's index.
        factor: of an inverse transform, besides 1 / N.
        scale: of the difference from the minuend.
    """

    modulus: int
    source: int
    target: int
    minuend: int = 0
    component: int = 0
    limb: int = 0
    turn: int = 0
    middle: int = -1
    factor: int | None = None
    scale: int | None = None


def row_table(device: Device, ring: RingTables, rows: Sequence[Row]) -> RowTable:
    """Put rows on the device."""
    words = np.array(
        [
            (
                *(row.modulus, row.source, row.target if row.middle < 0 else row.middle),
                *(row.target, row.minuend, row.component, row.limb, row.turn),
            )
            for row in rows
        ],
        dtype=structures.NTT_ROW,
    )
    factors = scales = None
    if rows[0].factor is not None:
        n = 1 << ring.log_n
        made = [
            ring.root(r.modulus, (r.factor or 0) * pow(n, -1, ring.moduli[r.modulus])) for r in rows
        ]
        factors = put(device, np.array(made, dtype=np.uint64))
    if rows[0].scale is not None:
        pairs = [(r.scale or 0, companion(r.scale or 0, ring.moduli[r.modulus])) for r in rows]
        scales = put(device, np.array(pairs, dtype=np.uint64))
    tables = len({row.modulus for row in rows})
    return RowTable(len(rows), tables, put(device, words), factors, scales)


@dataclass(frozen=True, slots=True, eq=False)
class Conversion:
    """Base conversions on the device.

    Attributes:
        groups: sets of sources.
        most_targets: of one group.
        blocks: groups, targets and weights.
        terms: products per coefficient, of all groups; for the model of costs.
        reads: source rows of all groups.
        writes: target rows of all groups.
    """

    groups: int
    most_targets: int
    blocks: tuple[Block, Block, Block]
    terms: int
    reads: int
    writes: int


@dataclass(frozen=True, slots=True)
class Group:
    """Source rows `first` to `first + len(weights[0]) - 1` to several targets.

    Attributes:
        first: row of the source.
        targets: (modulus, row) each.
        weights: for each target one per source.
    """

    first: int
    targets: tuple[tuple[int, int], ...]
    weights: tuple[tuple[int, ...], ...]


def conversion(device: Device, groups: Sequence[Group]) -> Conversion:
    """Put base conversions on the device."""
    described: list[tuple[int, ...]] = []
    targets: list[tuple[int, int]] = []
    weights: list[int] = []
    for group in groups:
        sources = len(group.weights[0])
        described.append((group.first, sources, len(targets), len(group.targets), len(weights), 0))
        targets += group.targets
        weights += [word for row in group.weights for word in row]
    blocks = (
        put(device, np.array(described, dtype=structures.GROUP)),
        put(device, np.array(targets, dtype=structures.TARGET)),
        put(device, np.array(weights, dtype=np.uint64)),
    )
    most = max(len(group.targets) for group in groups)
    reads = sum(len(group.weights[0]) for group in groups)
    return Conversion(len(groups), most, blocks, len(weights), reads, len(targets))
