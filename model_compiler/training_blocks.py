"""Arithmetic on blocks of slots, one row to a block: what every step of a training is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import Op, Steps
from tacit.model_compiler.builder import CircuitBuilder

Floats = NDArray[np.float64]


class BlockWriter:
    """Writes operations on blocks; values are ids of the builder.

    Attributes:
        build: the builder.
        label: of the nodes that are written.
        mask: 1 in the first slot of each block, 0 elsewhere.
    """

    def __init__(self, slots: int, width: int, label: str) -> None:
        """Begin a circuit of blocks of `width` slots."""
        self.build = CircuitBuilder(slots)
        self.label = label
        self.mask = np.zeros(slots)
        self.mask[::width] = 1.0
        self._slots = slots
        self._width = width

    def polynomial(self, x: int, factors: Mapping[int, float]) -> int:
        """Return the mask times the sum of factors[p] x^p, degree 2."""
        build, label, degree = self.build, self.label, max(factors)
        square = build.rescale(build.multiply(x, x, label), label)
        if degree == 3:
            last = build.multiply(self.times(x, factors[3] * self.mask), square, label)
        else:
            cube = build.rescale(build.multiply(x, square, label), label)
            inner = self.times(square, factors[5] * self.mask)
            inner = build.add_plain(inner, factors[3] * self.mask, label)
            last = build.multiply(cube, inner, label)
        if degree == 7:
            third = self.times(x, factors[7] * self.mask)
            third = build.rescale(build.multiply(third, square, label), label)
            fourth = build.rescale(build.multiply(square, square, label), label)
            last = build.add(last, build.multiply(third, fourth, label), label)
        low = build.drop(x, build.type_of(last).level, label)
        return build.add(last, build.multiply_plain(low, factors[1] * self.mask, label), label)

    def margin(self, row: int, weights: int) -> int:
        """Return row . weights in the first slot of each block; the others hold what nobody reads.

        Costs one level.
        """
        total = self.build.multiply(row, weights, self.label)
        for power in self.powers():
            total = self.build.add(total, self.rotated(total, power), self.label)
        return self.build.rescale(total, self.label)

    def spread(self, share: int) -> int:
        """Copy the first slot of each block to all of it; one level."""
        for power in self.powers():
            share = self.build.add(share, self.rotated(share, -power), self.label)
        return self.build.rescale(share, self.label)

    def over_rows(self, x: int, keys_apart: int = 1) -> int:
        """Add up all blocks; every block gets the sum.

        Args:
            x: what is added up.
            keys_apart: only every so many-th doubling has a key of its own; those between rotate
                2, 4, ... times by the key before, which saves keys for a little time.
        """
        doublings = (self._slots // self._width).bit_length() - 1
        for doubling in range(doublings):
            behind = doubling % keys_apart
            turned = x
            for _ in range(1 << behind):
                turned = self.rotated(turned, self._width << (doubling - behind))
            x = self.build.add(x, turned, self.label)
        return x

    def total(self, values: Sequence[int]) -> int:
        """Add up values."""
        total = values[0]
        for value in values[1:]:
            total = self.build.add(total, value, self.label)
        return total

    def times(self, x: int, factor: Floats) -> int:
        """Multiply and rescale."""
        return self.build.rescale(self.build.multiply_plain(x, factor, self.label), self.label)

    def rotated(self, x: int, steps: int) -> int:
        """Rotate to the left; nothing happens for no steps."""
        if not steps:
            return x
        return self.build.append(Op.ROTATE, (x,), Steps(steps), self.label)[0]

    def powers(self) -> list[int]:
        """Return the steps that reach every slot of a block."""
        return [1 << i for i in range(self._width.bit_length() - 1)]
