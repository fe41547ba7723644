"""Which cell of which ciphertext holds which element of a tensor, in the latency plan.

Tensors repeat: a tensor of `size` elements has period p, the next power of two, and fills all cells
of its ciphertext with copies, so that a rotation of the cells is a cyclic rotation of the tensor. A
model input may be turned as well: copy c holds the tensor rotated by c * turn. The client does that
for nothing, and it divides the diagonals of the first linear map by the number of turned copies
(the hybrid method with the folding done on both sides).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.layout import Layout

Ints = NDArray[np.int64]


def power_of_two_above(size: int) -> int:
    """Return the smallest power of two that is at least `size`."""
    return 1 << (size - 1).bit_length()


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Positions of one tensor.

    Attributes:
        size: elements of the tensor.
        cells: cells of a ciphertext, a power of two.
        copies: turned copies (a power of two); they repeat if there is more room.
        turn: by how many cells each copy is rotated relative to the one before.
    """

    size: int
    cells: int
    copies: int = 1
    turn: int = 0

    @property
    def period(self) -> int:
        """Cells of one copy."""
        return min(power_of_two_above(self.size), self.cells)

    @property
    def span(self) -> int:
        """Cells after which everything repeats."""
        return self.period * self.copies

    @property
    def ciphertexts(self) -> int:
        """Ciphertexts of the tensor; several hold consecutive blocks of `cells` elements."""
        return -(-self.size // self.cells)

    @property
    def is_plain(self) -> bool:
        """Tell whether no copy is turned, so that elementwise operations may mix tensors."""
        return self.copies == 1 or self.turn == 0

    def contents(self) -> Ints:
        """Return the element in every cell, or -1; shape (ciphertexts, cells)."""
        cell = np.arange(self.cells)
        copy = (cell // self.period) % self.copies
        inside = (cell % self.period + copy * self.turn) % self.period
        elements = inside[None, :] + self.cells * np.arange(self.ciphertexts)[:, None]
        return np.where(elements < self.size, elements, -1)

    def layout(self, batch: int, copies: int | None = None) -> Layout:
        """Return where the client puts or finds the elements: all copies, or the first few."""
        element = np.arange(self.size)
        block, place = element // self.cells, element % self.cells
        count = self.cells // self.period if copies is None else copies
        places = []
        for copy in range(count):
            turned = (place - (copy % self.copies) * self.turn) % self.period
            places.append(block * self.cells + copy * self.period + turned)
        cells = np.stack(places).astype(np.int64)
        return Layout(self.cells * batch, batch, self.ciphertexts, cells)
