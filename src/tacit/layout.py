"""Which slot of which ciphertext holds which element of a tensor.

A layout divides every ciphertext of `slots` slots into `slots / batch` cells of `batch` neighbours;
slot = batch * cell + row, so `batch` rows travel together and a rotation by batch * k moves each
row by k cells. Element i of a row sits in one or more cells (copies). Latency packing uses many
cells a ciphertext; `batch == slots` is slot-per-sample packing: one ciphertext per element.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ArtifactError, InputShapeError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Positions of a tensor of `size` elements.

    Attributes:
        slots: slots of a ciphertext.
        batch: rows per ciphertext, a divisor of `slots`.
        ciphertexts: how many ciphertexts hold a row.
        cells: shape (copies, size), int64: cell numbers counted through all ciphertexts
            (ciphertext = cell // (slots / batch)). `unpack` reads copy 0; -1 marks an absent copy.
    """

    slots: int
    batch: int
    ciphertexts: int
    cells: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.slots % self.batch:
            raise ArtifactError(f"batch {self.batch} does not divide {self.slots} slots")
        if self.cells.ndim != 2 or self.cells.shape[1] < 1:
            raise ArtifactError("layout cells must have shape (copies, size)")
        used = self.cells[self.cells >= 0]
        if len(used) and int(used.max()) >= self.ciphertexts * self.cells_per_ciphertext:
            raise ArtifactError("layout names a cell beyond its ciphertexts")
        if len(np.unique(used)) != len(used) or np.any(self.cells[0] < 0):
            raise ArtifactError("layout puts two elements in one cell, or none of some element")

    @property
    def size(self) -> int:
        """Elements of one row."""
        return int(self.cells.shape[1])

    @property
    def cells_per_ciphertext(self) -> int:
        """Cells of one ciphertext, slots / batch."""
        return self.slots // self.batch

    def pack(self, rows: Floats) -> Floats:
        """Place up to `batch` rows; unused slots are zero.

        Args:
            rows: shape (r, size), r <= batch.

        Returns:
            Shape (ciphertexts, slots).

        Raises:
            InputShapeError: too many rows, or rows of another size.
        """
        if rows.ndim != 2 or rows.shape[1] != self.size or len(rows) > self.batch:
            raise InputShapeError(
                f"expected at most {self.batch} rows of {self.size} values, got shape {rows.shape}"
            )
        cells = np.zeros((self.ciphertexts * self.cells_per_ciphertext, self.batch))
        for copy in self.cells:
            present = copy >= 0
            cells[copy[present], : len(rows)] = rows.T[present]
        return cells.reshape(self.ciphertexts, self.slots)

    def unpack(self, vectors: Floats, rows: int) -> Floats:
        """Read `rows` rows back.

        Args:
            vectors: shape (ciphertexts, slots).
            rows: how many, at most `batch`.

        Returns:
            Shape (rows, size).
        """
        if vectors.shape != (self.ciphertexts, self.slots) or rows > self.batch:
            raise InputShapeError(
                f"expected {self.ciphertexts} vectors of {self.slots} slots and at most "
                f"{self.batch} rows, got shape {vectors.shape} and {rows} rows"
            )
        cells = vectors.reshape(-1, self.batch)
        return np.asarray(cells[self.cells[0], :rows].T)

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable dict; runs of consecutive cells are shortened."""
        return {
            "slots": self.slots,
            "batch": self.batch,
            "ciphertexts": self.ciphertexts,
            "size": self.size,
            "copies": [_runs(copy) for copy in self.cells],
        }

    @classmethod
    def from_json(cls, fields: dict[str, object]) -> Layout:
        """Rebuild from `to_json`.

        Raises:
            ArtifactError: a field is missing, of the wrong type, or unreasonably large.
        """
        try:
            size = int(str(fields["size"]))
            copies = fields["copies"]
            if not isinstance(copies, list) or not 0 < size <= _MAX_SIZE:
                raise ArtifactError(f"layout of size {size} is not acceptable")
            cells = np.stack([_expand(runs, size) for runs in copies])
            slots, batch, count = (
                int(str(fields[key])) for key in ("slots", "batch", "ciphertexts")
            )
            return cls(slots, batch, count, cells)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise ArtifactError(f"not a layout: {error}") from error


_MAX_SIZE = 1 << 24


def _runs(copy: NDArray[np.int64]) -> list[list[int]]:
    """Cut a list of cells into [first cell, step, count] runs."""
    runs: list[list[int]] = []
    for cell in copy.tolist():
        if runs:
            first, step, count = runs[-1]
            if count == 1:
                runs[-1] = [first, cell - first, 2]
                continue
            if cell == first + step * count:
                runs[-1][2] += 1
                continue
        runs.append([cell, 0, 1])
    return runs


def _expand(runs: list[list[int]], size: int) -> NDArray[np.int64]:
    if sum(count for _, _, count in runs) != size:
        raise ArtifactError(f"layout runs do not cover {size} elements")
    parts = [first + step * np.arange(count, dtype=np.int64) for first, step, count in runs]
    return np.concatenate(parts)
