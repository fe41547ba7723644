"""Which cell of which ciphertext holds which element of a tensor, in the latency plan.

Tensors repeat: a tensor whose order takes `extent` positions has period p, the next power of two,
and fills all cells of its ciphertext with copies, so that a rotation of the cells is a cyclic
rotation of the tensor. A model input may be turned as well: copy c holds the tensor rotated by
c * turn. The client does that for nothing, and it divides the diagonals of the first linear map by
the number of turned copies (the hybrid method with the folding done on both sides).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.layout import Layout
from tacit.model_compiler.lowering.order import Order

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
        order: of the elements along a copy; None for one after the other.
    """

    size: int
    cells: int
    copies: int = 1
    turn: int = 0
    order: Order | None = None

    @property
    def extent(self) -> int:
        """Positions of the tensor, those of no element included."""
        return self.size if self.order is None else self.order.extent

    @property
    def period(self) -> int:
        """Cells of one copy."""
        return min(power_of_two_above(self.extent), self.cells)

    @property
    def span(self) -> int:
        """Cells after which everything repeats."""
        return self.period * self.copies

    @property
    def ciphertexts(self) -> int:
        """Ciphertexts of the tensor; several hold consecutive blocks of `cells` positions."""
        return -(-self.extent // self.cells)

    def positions(self) -> Ints:
        """Return the position of every element: its cell in the first copy, through all blocks."""
        if self.order is None:
            return np.arange(self.size, dtype=np.int64)
        return self.order.positions()

    def contents(self) -> Ints:
        """Return the element in every cell, or -1; shape (ciphertexts, cells)."""
        element = np.full(self.ciphertexts * self.cells, -1, dtype=np.int64)
        element[self.positions()] = np.arange(self.size)
        cell = np.arange(self.cells)
        copy = (cell // self.period) % self.copies
        inside = (cell % self.period + copy * self.turn) % self.period
        return element.reshape(self.ciphertexts, self.cells)[:, inside]

    def layout(self, batch: int, copies: int | None = None) -> Layout:
        """Return where the client puts or finds the elements: all copies, or the first few."""
        position = self.positions()
        block, place = position // self.cells, position % self.cells
        count = self.cells // self.period if copies is None else copies
        places = []
        for copy in range(count):
            turned = (place - (copy % self.copies) * self.turn) % self.period
            places.append(block * self.cells + copy * self.period + turned)
        cells = np.stack(places).astype(np.int64)
        return Layout(self.cells * batch, batch, self.ciphertexts, cells)
