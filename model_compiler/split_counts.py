"""Rotations of many splits of one matrix at once: rows of numbers, sorted, and what differs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Small = NDArray[np.int32]
Bools = NDArray[np.bool_]

_ABSENT = np.int32(-1)


@dataclass(frozen=True, slots=True, eq=False)
class SplitCounts:
    """What each split takes; arrays of shape (splits,). Steps of 0 are no rotations.

    Attributes:
        hoists: inputs that are rotated.
        babies: baby rotations of all inputs.
        giants: giant rotations of all outputs.
        outputs: outputs with any.
        keys: distinct steps that need a new key.
    """

    hoists: Ints
    babies: Ints
    giants: Ints
    outputs: Ints
    keys: Ints


def count_rotations(
    places: Ints, cells: int, widths: Ints, shifts: Ints, known: Bools | None
) -> SplitCounts:
    """Count rotations for every pair of a width and a shift, giant steps apart from each other.

    Args:
        places: shape (diagonals, 3): output, input and offset; ciphertexts times cells below 2^31.
        cells: of a ciphertext, a power of two.
        widths: between giant steps, shape (splits,).
        shifts: of the diagonals before they are split, shape (splits,).
        known: shape (cells,): steps that need no new key; None if keys need not be counted.
    """
    output, source, offset = places.T.astype(np.int32)
    width, shift = (array.astype(np.int32)[:, None] for array in (widths, shifts))
    moved = (offset + shift) & (cells - 1)
    inner, baby = shift % width, moved % width
    giant = (moved - baby - (shift - inner)) & (cells - 1)
    baby = (baby - inner) & (cells - 1)
    hoists, babies = _steps_taken(source, baby, cells)
    outputs, giants = _steps_taken(output, giant, cells)
    keys = np.zeros_like(babies)
    if known is not None:
        steps = np.concatenate([baby, giant], axis=1)
        keys = _distinct(np.where(known[steps], _ABSENT, steps))
    return SplitCounts(hoists, babies, giants, outputs, keys)


def gap_shifts(offsets: Ints, widths: Ints) -> Ints:
    """Return for each width the shift that puts the widest gap, modulo the width, at its end."""
    width = widths[:, None]
    rest = np.sort(offsets % width, axis=1)
    gaps = np.diff(rest, axis=1, append=rest[:, :1] + width)
    after = (gaps.argmax(axis=1) + 1) % offsets.size
    start = np.take_along_axis(rest, after[:, None], axis=1)[:, 0]
    return np.asarray((widths - start) % widths)


def _steps_taken(ciphertext: Small, step: Small, cells: int) -> tuple[Ints, Ints]:
    """Count, for each row of steps, ciphertexts that are rotated and their distinct rotations."""
    number = np.where(step == 0, _ABSENT, ciphertext * np.int32(cells) + step)
    rotations = _distinct(number)
    if not np.any(ciphertext != ciphertext[:1]):
        return np.minimum(rotations, 1), rotations
    return _distinct(np.where(step == 0, _ABSENT, ciphertext)), rotations


def _distinct(numbers: Small) -> Ints:
    """Count the distinct numbers of each row, but for those that are absent."""
    numbers.sort(axis=1)
    changes = np.count_nonzero(numbers[:, 1:] != numbers[:, :-1], axis=1)
    return np.asarray(changes + (numbers[:, 0] != _ABSENT))
