"""Matrices on slots as diagonals, and their split into baby steps and giant steps.

A matrix M on vectors of slots is sum_d diag_d * rotate(x, d). With d = giant + baby,

    M x = sum_giant rotate( sum_baby rotate(diag_d, -giant) * rotate(x, baby), giant ),

so about 2 sqrt(diagonals) rotations do (Halevi and Shoup, CRYPTO 2014 and 2018). Baby rotations of
one input share the expensive half of a key switch (hoisting); they serve every output.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import LinearPlan, LinearTerm

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_JOINT_FOLDS = 4


@dataclass(frozen=True, slots=True)
class RotationCosts:
    """What rotations cost, in one unit of time.

    Attributes:
        hoist: first rotation of a hoisted set, beyond `baby` or `extended`.
        baby: each rotation of a hoisted set.
        giant: a rotation of its own.
        key: price of every rotation key the circuit does not need yet.
        extended: each rotation of a ciphertext of which several are summed.
        down: the part of `giant` that all rotations of a sum share.
    """

    hoist: float = 0.5
    baby: float = 0.6
    giant: float = 1.0
    key: float = 0.0
    extended: float = 0.5
    down: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Nonzero weights as diagonal entries; parallel arrays, one element per weight.

    rows[output][cell] += value * input[(cell + offset) mod cells].

    Attributes:
        output, input: ciphertext numbers.
        offset: the diagonal, 0 <= offset < cells.
        cell: where on the diagonal.
        value: the weight.
    """

    output: Ints
    input: Ints
    offset: Ints
    cell: Ints
    value: Floats

    def places(self) -> Ints:
        """Return the distinct (output, input, offset) triples, sorted; shape (count, 3)."""
        return _grouped(self)[0]

    @classmethod
    def joined(cls, parts: Sequence[Entries]) -> Entries:
        """Concatenate."""
        return cls(
            np.concatenate([p.output for p in parts]),
            np.concatenate([p.input for p in parts]),
            np.concatenate([p.offset for p in parts]),
            np.concatenate([p.cell for p in parts]),
            np.concatenate([p.value for p in parts]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Diagonals:
    """A linear map as diagonals.

    Attributes:
        places: shape (count, 3): output, input and offset of each diagonal; sorted, distinct.
        rows: shape (count, cells).
    """

    places: Ints
    rows: Floats

    @property
    def cells(self) -> int:
        """Cells of a ciphertext."""
        return int(self.rows.shape[1])


@dataclass(frozen=True, slots=True)
class Split:
    """Steps between giants, and how many cells the diagonals are shifted before they are split."""

    width: int
    shift: int = 0

    def steps(self, offset: Ints, cells: int) -> tuple[Ints, Ints]:
        """Return giant and baby steps of diagonals, in [0, cells), giant + baby = offset."""
        moved = (offset + self.shift) % cells
        baby = moved % self.width
        return (moved - baby - self.shift) % cells, baby


@dataclass(frozen=True, slots=True)
class PricedSplit:
    """A split and what its rotations cost."""

    split: Split
    cost: float


def to_diagonals(entries: Entries, outputs: int, width: int, cells: int) -> Diagonals:
    """Sort entries into diagonals that repeat after `width` cells, at least one per output."""
    missing = np.setdiff1d(np.arange(outputs, dtype=np.int64), entries.output)
    zeros = np.zeros(len(missing), dtype=np.int64)
    fill = Entries(missing, zeros, zeros, zeros, np.zeros(len(missing)))
    entries = Entries.joined([entries, fill])
    places, index = _grouped(entries)
    rows = np.zeros((len(places), width))
    np.add.at(rows, (index, entries.cell), entries.value)
    return Diagonals(places, np.tile(rows, (1, cells // width)))


def _grouped(entries: Entries) -> tuple[Ints, Ints]:
    """Return the distinct (output, input, offset) triples and which one each entry belongs to."""
    inputs = int(entries.input.max(initial=0)) + 1
    offsets = int(entries.offset.max(initial=0)) + 1
    number = (entries.output * inputs + entries.input) * offsets + entries.offset
    distinct, index = np.unique(number, return_inverse=True)
    triples = [distinct // offsets // inputs, distinct // offsets % inputs, distinct % offsets]
    return np.stack(triples, axis=1), index.reshape(-1)


def choose_split(
    places: Ints, cells: int, costs: RotationCosts, known: frozenset[int] = frozenset()
) -> PricedSplit:
    """Find the split of least cost by trial.

    Args:
        places: shape (count, 3), as in `Diagonals`.
        cells: cells of a ciphertext.
        costs: prices.
        known: steps (in cells) whose keys the circuit needs anyway.
    """
    candidates = [Split(w, s) for s in _shifts(places, cells) for w in _widths(places, cells)]
    priced = [PricedSplit(c, split_cost(places, cells, c, costs, known)) for c in candidates]
    return min(priced, key=lambda choice: choice.cost)


def split_cost(
    places: Ints, cells: int, split: Split, costs: RotationCosts, known: frozenset[int]
) -> float:
    """Price the rotations of one split."""
    giant, baby = split.steps(places[:, 2], cells)
    babies = np.unique((places[:, 1] * cells + baby)[baby > 0])
    giants = np.unique((places[:, 0] * cells + giant)[giant > 0])
    hoisted = len(np.unique(babies // cells))
    keys = set((babies % cells).tolist()) | set((giants % cells).tolist())
    return (
        hoisted * costs.hoist
        + len(babies) * costs.baby
        + len(giants) * costs.giant
        - (len(giants) - len(np.unique(giants // cells))) * costs.down
        + len(keys - known) * costs.key
    )


def choose_joint_folds(
    folds: Sequence[int], costs: RotationCosts, known: frozenset[int] = frozenset()
) -> tuple[int, ...]:
    """Find how many consecutive folds to do at once, each time, for the least cost.

    k folds at once take 2^k - 1 rotations of one ciphertext and as many keys, summed before the
    division by the special primes; one by one they take k whole rotations.

    Args:
        folds: steps, in cells.
        costs: prices at the level of the folds.
        known: steps whose keys the circuit needs anyway.
    """
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for end in range(1, len(folds) + 1):
        choices = []
        for count in range(1, min(end, MOST_JOINT_FOLDS) + 1):
            before, groups = best[end - count]
            cost = before + _joint_cost(folds[end - count : end], costs, known)
            choices.append((cost, (*groups, count)))
        best.append(min(choices, key=lambda choice: choice[0]))
    return best[-1][1]


def _joint_cost(steps: Sequence[int], costs: RotationCosts, known: frozenset[int]) -> float:
    sums = {0}
    for step in steps:
        sums |= {step + other for other in sums}
    new = sums - known - {0}
    rotations = (1 << len(steps)) - 1
    return costs.hoist + rotations * costs.extended + costs.down + len(new) * costs.key


def plan_terms(diagonals: Diagonals, split: Split, batch: int) -> tuple[list[LinearTerm], Floats]:
    """Return the terms, steps counted in slots, and the rows rotated back by their giant."""
    giants, babies = split.steps(diagonals.places[:, 2], diagonals.cells)
    columns = (np.arange(diagonals.cells)[None, :] - giants[:, None]) % diagonals.cells
    rows = np.take_along_axis(diagonals.rows, columns, axis=1)
    terms = [
        LinearTerm(int(output), int(source), int(giant) * batch, int(baby) * batch, row)
        for row, (output, source, giant, baby) in enumerate(
            zip(diagonals.places[:, 0], diagonals.places[:, 1], giants, babies, strict=True)
        )
    ]
    return terms, rows


def rotations_in_cells(plan: LinearPlan, batch: int) -> frozenset[int]:
    """Return the steps of a plan counted in cells."""
    return frozenset(step // batch for step in plan.rotations())


def _widths(places: Ints, cells: int) -> list[int]:
    """Widths worth trying: all small ones, and powers of two times 1 and 3."""
    largest = max(2, min(cells, 2 * int(places[:, 2].max(initial=0)) + 2))
    powers = [base << k for k in range(largest.bit_length()) for base in (1, 3)]
    return sorted({w for w in [*range(1, 33), *powers] if w <= largest})


def _shifts(places: Ints, cells: int) -> Iterable[int]:
    """Shifts worth trying: none, and the one that makes the smallest negative offset zero."""
    centred = (places[:, 2] + cells // 2) % cells - cells // 2
    return sorted({0, int(-centred.min(initial=0))})
