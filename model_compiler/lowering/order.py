"""The order of a tensor's elements along the cells: planes with room, and channels interleaved.

A tensor of channels x height x width lies in planes. With gap g, pixel (y, x) of a channel is at
row g y and column g x of its plane, and g * g channels share a plane, shifted against each other by
less than g. A stride of s takes gap g to gap g s: the outputs stay where their inputs were, and
other channels fill the holes (Lee et al., ICML 2022). Rows and planes may have room at their ends,
so that all tensors of a network shift by the same steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """Positions of a tensor's elements, counted along its first copy.

    Attributes:
        channels, height, width: of the tensor.
        gap: distance of neighbouring pixels; gap * gap channels share a plane.
        row: positions of a row of a plane.
        plane: positions of a plane.
    """

    channels: int
    height: int
    width: int
    gap: int
    row: int
    plane: int

    @property
    def extent(self) -> int:
        """One more than the greatest position."""
        return _extent(self)

    def positions(self) -> Ints:
        """Return the position of every element, elements in C order."""
        start = self._starts(np.arange(self.channels, dtype=np.int64))
        down = np.arange(self.height, dtype=np.int64) * (self.gap * self.row)
        right = np.arange(self.width, dtype=np.int64) * self.gap
        return (start[:, None, None] + down[None, :, None] + right[None, None, :]).ravel()

    @property
    def strides(self) -> tuple[int, ...]:
        """Steps by which rotations of this tensor are likely to differ."""
        return tuple(sorted({self.row, self.gap * self.row, self.plane}))

    @property
    def is_flat(self) -> bool:
        """Tell whether the elements lie in C order, one after the other."""
        return self.gap == 1 and (self.row, self.plane) == (self.width, self.height * self.width)

    def _starts(self, channel: Ints) -> Ints:
        inner = channel % self.gap**2
        first = channel // self.gap**2 * self.plane
        return np.asarray(first + inner // self.gap * self.row + inner % self.gap)


@lru_cache(maxsize=1 << 12)
def _extent(order: Order) -> int:
    channel = np.arange(max(0, order.channels - 2 * order.gap**2), order.channels)
    last = (order.height - 1) * order.gap * order.row + (order.width - 1) * order.gap
    return int(order._starts(channel).max()) + last + 1


def flat(shape: Shape) -> Order:
    """Return C order."""
    channels, height, width = as_image(shape)
    return Order(channels, height, width, 1, width, height * width)


def as_image(shape: Shape) -> tuple[int, int, int]:
    """Read a shape as channels, height and width; a vector has one pixel per channel."""
    channels = shape[0] if shape else 1
    width = shape[-1] if len(shape) > 1 else 1
    return channels, int(np.prod(shape[1:-1], dtype=np.int64)), width


def pixels(shape: Shape) -> int:
    """Return how many pixels a channel of a shape has."""
    _, height, width = as_image(shape)
    return height * width


def frames(shapes: Iterable[Shape], most: int = 2) -> tuple[tuple[int, int], ...]:
    """Return (row, plane) lengths worth trying: the largest images', exact and rounded up.

    Args:
        shapes: of all tensors.
        most: how many image sizes to look at.
    """
    sizes = {as_image(shape)[1:] for shape in shapes}
    largest = sorted((s for s in sizes if s[0] * s[1] > 1), key=lambda s: -s[0] * s[1])[:most]
    found: dict[tuple[int, int], None] = {}
    for height, width in largest:
        wide = _rounded(width)
        found[width, height * width] = None
        found[width, _rounded(height * width)] = None
        found[wide, _rounded(height) * wide] = None
    return tuple(found)


def candidates(shape: Shape, planes: Sequence[tuple[int, int]], cells: int) -> tuple[Order, ...]:
    """Return the orders worth trying for a tensor: C order first, none of more ciphertexts."""
    plain = flat(shape)
    channels, height, width = as_image(shape)
    found = {plain: None}
    if height * width > 1:
        for row, plane in planes:
            gap = 1
            while gap * width <= row and gap * height * row <= plane:
                order = Order(channels, height, width, gap, row, plane)
                if -(-order.extent // cells) <= -(-plain.extent // cells):
                    found[order] = None
                gap += 1 if gap < 4 else gap
    return tuple(found)


def _rounded(size: int) -> int:
    return 1 << (size - 1).bit_length()
