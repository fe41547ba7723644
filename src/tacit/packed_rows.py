"""Rows of a linear transform, kept small and written out one at a time.

The diagonals of a convolution hold few distinct numbers many times over, repeat along the slots,
and are rotated by a step that the split into baby and giant steps decides. So a row is kept as
codes into a table of distinct numbers, or as numbers where nearly all differ, once per period;
reading `rows[i]` looks the numbers up, rotates them and repeats them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tacit.errors import CircuitError

Floats = NDArray[np.float64]

_SAMPLE = 1 << 16
_MOST_CODES = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """Stands in for an array of shape (rows, length); `rows[i]` makes an array of shape (length,).

    Attributes:
        stored: shape (rows, period): float64 numbers, or unsigned codes into `codebook`.
        codebook: distinct numbers, float64; empty if numbers are stored.
        shifts: shape (rows,): by how many places each row is rotated to the right.
        length: of a row, a multiple of the period.
    """

    stored: NDArray[np.float64] | NDArray[np.unsignedinteger]
    codebook: Floats
    shifts: NDArray[np.int64]
    length: int

    def __post_init__(self) -> None:
        if self.stored.ndim != 2 or self.shifts.shape != self.stored.shape[:1]:
            raise CircuitError("packed rows need two axes and one shift for each row")
        period = self.stored.shape[1]
        if period < 1 or self.length % period:
            raise CircuitError(f"rows of length {self.length} do not repeat after {period}")
        if (self.stored.dtype.kind == "u") != bool(len(self.codebook)):
            raise CircuitError("packed rows need a codebook for codes, and only for them")
        if self.stored.dtype.kind == "u" and self.stored.max(initial=0) >= len(self.codebook):
            raise CircuitError("a code is outside the codebook")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and length of the array it stands for."""
        return len(self.stored), self.length

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return self.stored.nbytes + self.codebook.nbytes + self.shifts.nbytes

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, row: int) -> Floats:
        return self.moved(row, 0)

    def moved(self, row: int, steps: int) -> Floats:
        """Return a row rotated by so many places to the left."""
        kept = self.stored[row]
        values = self.codebook[kept] if len(self.codebook) else np.array(kept, dtype=np.float64)
        turn = (int(self.shifts[row]) - steps) % len(values)
        rolled = np.roll(values, turn) if turn else values
        return np.tile(rolled, self.length // len(values)) if self.length > len(rolled) else rolled

    def __iter__(self) -> Iterator[Floats]:
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: object = None, copy: bool | None = None) -> Floats:
        rows = [self[row] for row in range(len(self))]
        return np.stack(rows) if rows else np.zeros(self.shape)


def pack_rows(
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    values: Floats,
    shape: tuple[int, int],
    length: int,
) -> PackedRows:
    """Pack the entries of rows, by codes if there are few distinct numbers; none is rotated.

    Args:
        places: row and position in the period of every entry; no place twice.
        values: of the entries; everywhere else the rows are zero.
        shape: rows and period.
        length: of the rows, a multiple of the period.
    """
    unmoved, found = np.zeros(shape[0], dtype=np.int64), _coded(values)
    if found is None:
        numbers = np.zeros(shape)
        numbers[places] = values
        return PackedRows(numbers, np.zeros(0), unmoved, length)
    codebook, numbers_of = found
    codes = np.zeros(shape, dtype=np.uint8 if len(codebook) < 1 << 8 else np.uint16)
    codes[places] = numbers_of + 1
    return PackedRows(codes, np.concatenate([[0.0], codebook]), unmoved, length)


def rotated(rows: PackedRows, shifts: NDArray[np.int64], length: int) -> PackedRows:
    """Return the same stored rows with other rotations or another length; nothing is copied."""
    return PackedRows(rows.stored, rows.codebook, shifts, length)


def memory_of_row(rows: Floats, row: int) -> Floats:
    """Return an array whose memory tells a row apart from all others while it is held.

    Args:
        rows: an array of rows, or packed rows in its place.
        row: which.
    """
    packed = cast("object", rows)
    return cast("Floats", packed.stored[row]) if isinstance(packed, PackedRows) else rows[row]


def _coded(values: Floats) -> tuple[Floats, NDArray[np.int64]] | None:
    """Return the distinct numbers, sorted, and each value's place; None if there are too many."""
    guess = np.unique(values[:: max(1, values.size // _SAMPLE)])
    most = min(values.size // 4, _MOST_CODES - 1)
    if not len(guess) or len(guess) > most or np.isnan(guess[-1]):
        return None
    place = np.minimum(np.searchsorted(guess, values), len(guess) - 1)
    missed = values[guess[place] != values]
    if not missed.size:
        return guess, place
    codebook = np.unique(np.concatenate([guess, missed]))
    return (codebook, np.searchsorted(codebook, values)) if len(codebook) <= most else None
