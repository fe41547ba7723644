"""Matrices on slots as diagonals, and their split into baby steps and giant steps.

A matrix M on vectors of slots is sum_d diag_d * rotate(x, d). With d = giant + baby,

    M x = sum_giant rotate( sum_baby rotate(diag_d, -giant) * rotate(x, baby), giant ),

so about 2 sqrt(diagonals) rotations do (Halevi and Shoup, CRYPTO 2014 and 2018). Baby rotations of
one input share the expensive half of a key switch (hoisting); they serve every output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import LinearPlan, LinearTerm
from tacit.model_compiler.split_counts import count_rotations, gap_shifts
from tacit.packed_rows import PackedRows, pack_rows, rotated

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_JOINT_FOLDS = 4
_LARGEST_TABLE = 1 << 24
# Diagonals up to which sorting the steps of all splits together is faster than one by one.
_MOST_SORTED = 1 << 11


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
        product: a diagonal: its product and sum, and its share of encoding.
        sequence_shares: whether giant steps taken in sequence share `down` as well.
    """

    hoist: float = 0.5
    baby: float = 0.6
    giant: float = 1.0
    key: float = 0.0
    extended: float = 0.5
    down: float = 0.0
    product: float = 0.05
    sequence_shares: bool = False


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
        if len(parts) == 1:
            return parts[0]
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
        rows: shape (count, cells), not rotated.
    """

    places: Ints
    rows: PackedRows

    @property
    def cells(self) -> int:
        """Cells of a ciphertext."""
        return self.rows.length


@dataclass(frozen=True, slots=True)
class Split:
    """How diagonals are split into giant and baby steps.

    Attributes:
        width: between giant steps.
        shift: how many cells the diagonals are shifted before they are split.
        in_sequence: giant steps are taken in sequence, see `LinearPlan`.
    """

    width: int
    shift: int = 0
    in_sequence: bool = False

    def steps(self, offset: Ints, cells: int) -> tuple[Ints, Ints]:
        """Return giant and baby steps of diagonals, giant + baby = offset modulo the cells.

        Baby steps, and giant steps unless they are taken in sequence, lie in [0, cells).
        """
        moved = (offset + self.shift) % cells
        inner, baby = self.shift % self.width, moved % self.width
        giant = moved - baby - (self.shift - inner)
        return giant if self.in_sequence else giant % cells, (baby - inner) % cells


@dataclass(frozen=True, slots=True)
class PricedSplit:
    """A split and what its rotations cost."""

    split: Split
    cost: float


def to_diagonals(entries: Entries, outputs: int, width: int, cells: int) -> Diagonals:
    """Sort entries into diagonals that repeat after `width` cells, at least one per output."""
    missing = np.setdiff1d(np.arange(outputs, dtype=np.int64), entries.output)
    if len(missing):
        zeros = np.zeros(len(missing), dtype=np.int64)
        fill = Entries(missing, zeros, zeros, zeros, np.zeros(len(missing)))
        entries = Entries.joined([entries, fill])
    places, index = _grouped(entries)
    shape = (len(places), width)
    return Diagonals(places, pack_rows((index, entries.cell), entries.value, shape, cells))


def _grouped(entries: Entries) -> tuple[Ints, Ints]:
    """Return the distinct (output, input, offset) triples and which one each entry belongs to."""
    inputs = int(entries.input.max(initial=0)) + 1
    offsets = int(entries.offset.max(initial=0)) + 1
    number = (entries.output * inputs + entries.input) * offsets + entries.offset
    bound = (int(entries.output.max(initial=0)) + 1) * inputs * offsets
    if bound <= _LARGEST_TABLE:
        distinct = np.flatnonzero(np.bincount(number, minlength=1))
        table = np.zeros(bound, dtype=np.int64)
        table[distinct] = np.arange(len(distinct))
        index = table[number]
    else:
        distinct, index = np.unique(number, return_inverse=True)
    triples = [distinct // offsets // inputs, distinct // offsets % inputs, distinct % offsets]
    return np.stack(triples, axis=1), index.reshape(-1)


def choose_split(
    places: Ints,
    cells: int,
    costs: RotationCosts,
    known: frozenset[int] = frozenset(),
    widths: Sequence[int] = (),
    *,
    few: bool = False,
) -> PricedSplit:
    """Find the split of least cost by trial.

    Args:
        places: shape (count, 3), as in `Diagonals`.
        cells: cells of a ciphertext.
        costs: prices.
        known: steps (in cells) whose keys the circuit needs anyway.
        widths: further widths to try, such as the rows and planes of an image.
        few: try the likeliest widths only.
    """
    tried = _few_widths(places, widths) if few else _widths(places, cells, widths)
    pairs = _with_shifts(places, cells, np.array(tried, dtype=np.int64))
    had = _table(known, cells)
    apart = _costs_apart(places, cells, pairs, costs, had)
    first = int(apart.argmin())
    best = PricedSplit(Split(int(pairs[first, 0]), int(pairs[first, 1])), float(apart[first]))
    if few or not costs.key:
        return best
    in_sequence = [Split(int(width), int(shift), in_sequence=True) for width, shift in pairs]
    priced = [PricedSplit(split, _cost(places, cells, split, costs, had)) for split in in_sequence]
    return min((best, *priced), key=lambda choice: choice.cost)


def _costs_apart(
    places: Ints, cells: int, pairs: Ints, costs: RotationCosts, had: NDArray[np.bool_]
) -> Floats:
    """Price pairs of width and shift, giant steps apart from each other; shape (pairs,)."""
    ciphertexts = 1 + max(int(places[:, :2].max(initial=0)), 0)
    if len(places) > _MOST_SORTED or ciphertexts * cells >= 1 << 31:
        splits = (Split(int(width), int(shift)) for width, shift in pairs)
        return np.array([_cost(places, cells, split, costs, had) for split in splits])
    new = had if costs.key else None
    found = count_rotations(places, cells, pairs[:, 0], pairs[:, 1], new)
    return np.asarray(
        found.hoists * costs.hoist
        + found.babies * costs.baby
        + found.giants * costs.giant
        - (found.giants - found.outputs) * costs.down
        + found.keys * costs.key
        + len(places) * costs.product
    )


def split_cost(
    places: Ints, cells: int, split: Split, costs: RotationCosts, known: frozenset[int]
) -> float:
    """Price one split: its rotations, keys and diagonals."""
    return _cost(places, cells, split, costs, _table(known, cells))


def _table(steps: frozenset[int], cells: int) -> NDArray[np.bool_]:
    table = np.zeros(cells, dtype=np.bool_)
    table[[0, *steps]] = True
    return table


def _cost(
    places: Ints, cells: int, split: Split, costs: RotationCosts, had: NDArray[np.bool_]
) -> float:
    giant, baby = split.steps(places[:, 2], cells)
    babies = _used(places[:, 1], baby, cells)
    if split.in_sequence:
        rotations, outputs, steps = _sequence(places[:, 0], giant, cells)
    else:
        giants = _used(places[:, 0], giant, cells)
        rotations, outputs = int(giants.sum()), int(giants.any(axis=1).sum())
        steps = np.asarray(giants.any(axis=0))
    shares = costs.sequence_shares or not split.in_sequence
    keys = (babies.any(axis=0) | steps) & ~had
    return (
        int(babies.any(axis=1).sum()) * costs.hoist
        + int(babies.sum()) * costs.baby
        + rotations * costs.giant
        - (rotations - outputs if shares else 0) * costs.down
        + int(keys.sum()) * costs.key
        + len(places) * costs.product
    )


def _sequence(outputs: Ints, giant: Ints, cells: int) -> tuple[int, int, NDArray[np.bool_]]:
    """Count rotations of giant steps in sequence, and outputs with any; return their steps."""
    lowest = int(giant.min(initial=0))
    reach = int(giant.max(initial=0)) - lowest + 1
    distinct = np.unique(outputs * reach + (giant - lowest))
    output, place = np.divmod(distinct, reach)
    place = place + lowest
    first = np.flatnonzero(np.diff(output, prepend=-1))
    steps = np.diff(place, prepend=0)
    steps[first] = place[first]
    used = np.zeros(cells, dtype=np.bool_)
    used[steps % cells] = True
    used[0] = False
    turned = steps % cells != 0
    return int(turned.sum()), len(np.unique(output[turned])), used


def _used(ciphertexts: Ints, steps: Ints, cells: int) -> NDArray[np.bool_]:
    """Return which steps each ciphertext takes, step 0 left out; shape (ciphertexts, cells)."""
    used = np.zeros((int(ciphertexts.max(initial=0)) + 1, cells), dtype=np.bool_)
    used[ciphertexts, steps] = True
    used[:, 0] = False
    return used


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


def plan_terms(
    diagonals: Diagonals, split: Split, batch: int
) -> tuple[list[LinearTerm], PackedRows]:
    """Return the terms, steps counted in slots, and the rows rotated back by their giant."""
    giants, babies = split.steps(diagonals.places[:, 2], diagonals.cells)
    terms = [
        LinearTerm(output, source, giant * batch, baby * batch, row)
        for row, (output, source, giant, baby) in enumerate(
            zip(
                diagonals.places[:, 0].tolist(),
                diagonals.places[:, 1].tolist(),
                giants.tolist(),
                babies.tolist(),
                strict=True,
            )
        )
    ]
    return terms, rotated(diagonals.rows, giants, diagonals.cells)


def rotations_in_cells(plan: LinearPlan, batch: int) -> frozenset[int]:
    """Return the steps of a plan counted in cells."""
    return frozenset(step // batch for step in plan.rotations())


def _widths(places: Ints, cells: int, more: Sequence[int]) -> list[int]:
    """Widths worth trying: all small ones, powers of two times 1 and 3, multiples of `more`."""
    largest = max(2, min(cells, 2 * int(places[:, 2].max(initial=0)) + 2))
    powers = [base << k for k in range(largest.bit_length()) for base in (1, 3)]
    multiples = [width * k for width in more for k in (1, 2, 3, 4, 6, 8, 16)]
    return sorted({w for w in [*range(1, 33), *powers, *multiples] if 0 < w <= largest})


def _few_widths(places: Ints, more: Sequence[int]) -> list[int]:
    """Powers of two about the square root of the number of diagonals, and some of `more`."""
    root = max(1, len(places).bit_length() // 2)
    powers = [1 << k for k in range(max(0, root - 1), root + 3)]
    return sorted({*powers, *more, *(2 * width for width in more)})


def _with_shifts(places: Ints, cells: int, widths: Ints) -> Ints:
    """Pair widths with shifts worth trying, shape (pairs, 2).

    These are none, the one that makes the smallest negative offset zero, and the one that keeps
    offsets together which differ by little across a multiple of the width.
    """
    offsets = np.unique(places[:, 2])
    centred = (offsets + cells // 2) % cells - cells // 2
    lowest = int(-centred.min(initial=0))
    gaps = gap_shifts(offsets, widths).tolist()
    shifts = [sorted({0, lowest, gap}) for gap in gaps]
    pairs = [(w, s) for w, some in zip(widths.tolist(), shifts, strict=True) for s in some]
    return np.array(pairs, dtype=np.int64)
