"""Diagonals, the hybrid method, and the split into baby and giant steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tacit.circuit import LinearPlan, LinearTerm
from tacit.model_compiler.bsgs import (
    MOST_JOINT_FOLDS,
    RotationCosts,
    Split,
    choose_joint_folds,
    choose_split,
    plan_terms,
    rotations_in_cells,
    split_cost,
    to_diagonals,
)
from tacit.model_compiler.lowering.arrangement import Arrangement
from tacit.model_compiler.lowering.hybrid import entries_of
from tacit.model_compiler.lowering.matrices import coordinates
from tacit.model_compiler.split_counts import count_rotations

Floats = NDArray[np.float64]

SIZES = [(5, 3), (3, 5), (8, 8), (1, 1), (13, 1), (1, 13), (16, 3), (30, 10), (64, 10), (7, 64)]


def _apply(
    matrix: Floats,
    source: Arrangement,
    target: Arrangement,
    split: Split,
    centred: bool,
) -> tuple[Floats, int]:
    """Multiply a random vector by explicit rotations; returns the error per cell, and diagonals."""
    vector = np.random.default_rng(1).uniform(-1, 1, source.size)
    contents = source.contents()
    inputs = np.where(contents >= 0, vector[np.maximum(contents, 0)], 0.0)
    entries = entries_of(coordinates(csr_array(matrix)), source, target, centred=centred)
    width = max(source.span, target.period)
    diagonals = to_diagonals(entries, target.ciphertexts, width, source.cells)
    terms, rows = plan_terms(diagonals, split, 1)
    totals = np.zeros((target.ciphertexts, source.cells))
    for term in terms:
        product = np.roll(inputs[term.input], -term.baby) * rows[term.row]
        totals[term.output] += np.roll(product, -term.giant)
    while width > target.period:
        width //= 2
        totals += np.roll(totals, -width, axis=1)
    found = target.contents()
    results = matrix @ vector
    expected = np.where(found >= 0, results[np.maximum(found, 0)], 0.0)
    return np.abs(totals - expected), len(terms)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("width", [1, 3, 4, 64])
@pytest.mark.parametrize(("columns", "rows"), SIZES)
@pytest.mark.parametrize("cells", [16, 64, 128])
def test_every_cell_holds_its_output_or_zero(
    columns: int, rows: int, cells: int, width: int, centred: bool
) -> None:
    matrix = np.random.default_rng(0).normal(size=(rows, columns))
    source, target = Arrangement(columns, cells), Arrangement(rows, cells)
    errors, _ = _apply(matrix, source, target, Split(width, 5 if centred else 0), centred)
    assert errors.max() < 1e-12


@pytest.mark.parametrize(("columns", "rows"), [(5, 3), (8, 8), (30, 10), (13, 1), (60, 4), (9, 16)])
@pytest.mark.parametrize("cells", [64, 128, 256])
def test_turned_copies_divide_the_diagonals(columns: int, rows: int, cells: int) -> None:
    plain, target = Arrangement(columns, cells), Arrangement(rows, cells)
    copies = min(cells // plain.period, target.period)
    source = Arrangement(columns, cells, copies, target.period // copies)
    matrix = np.random.default_rng(0).normal(size=(rows, columns))
    errors, diagonals = _apply(matrix, source, target, Split(4), False)
    assert errors.max() < 1e-12
    assert diagonals == target.period // copies


@pytest.mark.parametrize("narrower", [1, 2])
def test_a_turned_input_serves_a_smaller_output_too(narrower: int) -> None:
    source = Arrangement(30, 128, copies=4, turn=4)
    target = Arrangement(16 >> narrower, 128)
    matrix = np.random.default_rng(0).normal(size=(target.size, 30))
    assert _apply(matrix, source, target, Split(2), False)[0].max() < 1e-12


def test_the_wide_layer_of_an_mnist_perceptron_takes_a_quarter_of_the_diagonals() -> None:
    source = Arrangement(784, 4096, copies=4, turn=32)
    entries = entries_of(
        coordinates(csr_array(np.ones((128, 784)))), source, Arrangement(128, 4096)
    )
    places = entries.places()
    assert places[:, 2].tolist() == list(range(32))
    split = choose_split(places, 4096, RotationCosts()).split
    giants, babies = split.steps(places[:, 2], 4096)
    assert (len(set(babies.tolist())), len(set(giants.tolist()))) == (8, 4)


@pytest.mark.parametrize("seed", range(6))
def test_the_chosen_split_is_the_cheapest_of_all_widths(seed: int) -> None:
    generator = np.random.default_rng(seed)
    offsets = np.unique(generator.integers(0, 60, size=20))
    zeros = np.zeros_like(offsets)
    places = np.stack([zeros, zeros, offsets], axis=1)
    costs = RotationCosts(key=float(seed % 2))
    chosen = choose_split(places, 64, costs)
    every = [split_cost(places, 64, Split(w), costs, frozenset()) for w in range(1, 65)]
    assert chosen.cost <= min(every) * 1.1


@pytest.mark.parametrize("seed", range(8))
def test_splits_priced_together_cost_what_they_cost_alone(seed: int) -> None:
    generator = np.random.default_rng(seed)
    places = np.unique(generator.integers(0, [3, 2, 64], size=(40, 3)), axis=0)
    known = frozenset(generator.integers(0, 64, 9).tolist())
    costs = RotationCosts(0.3, 0.7, 1.9, key=0.4 * (seed % 3), down=0.6, product=0.01)
    chosen = choose_split(places, 64, costs, known, few=bool(seed % 2))
    assert chosen.cost == split_cost(places, 64, chosen.split, costs, known)
    widths, shifts = np.divmod(np.arange(64, 64 * 65), 64)
    found = count_rotations(places, 64, widths, shifts, np.isin(np.arange(64), [0, *known]))
    for i in generator.integers(0, len(widths), 40):
        split = Split(int(widths[i]), int(shifts[i]))
        giants, babies = split.steps(places[:, 2], 64)
        turned = [set(zip(places[b != 0, c], b[b != 0], strict=True))
                  for c, b in ((1, babies), (0, giants))]  # fmt: skip
        assert (found.babies[i], found.giants[i]) == tuple(map(len, turned))
        ciphertexts = [len({c for c, _ in some}) for some in turned]
        assert [found.hoists[i], found.outputs[i]] == ciphertexts
        assert found.keys[i] == len({step for some in turned for _, step in some} - known)


def test_dear_keys_give_fewer_distinct_rotations() -> None:
    offsets = np.arange(64)
    places = np.stack([offsets * 0, offsets * 0, offsets], axis=1)

    def keys(price: float) -> int:
        split = choose_split(places, 64, RotationCosts(key=price, giant=1.0, baby=0.05)).split
        giants, babies = split.steps(offsets, 64)
        terms = [
            LinearTerm(0, 0, giant, baby, 0)
            for giant, baby in zip(giants.tolist(), babies.tolist(), strict=True)
        ]
        return len(LinearPlan(1, tuple(terms), "d", "", in_sequence=split.in_sequence).rotations())

    assert keys(100.0) < keys(0.0)


@pytest.mark.parametrize("shift", [0, 3, 16, 35])
@pytest.mark.parametrize("width", [1, 4, 7])
def test_giant_steps_in_sequence_compute_the_same(width: int, shift: int) -> None:
    matrix = np.random.default_rng(0).normal(size=(40, 40))
    source, target = Arrangement(40, 64), Arrangement(40, 64)
    errors, _ = _apply(matrix, source, target, Split(width, shift, in_sequence=True), True)
    assert errors.max() < 1e-12


@pytest.mark.parametrize("seed", range(8))
def test_a_split_in_sequence_is_priced_as_its_plan_runs(seed: int) -> None:
    generator = np.random.default_rng(seed)
    places = np.unique(generator.integers(0, [3, 2, 64], size=(40, 3)), axis=0)
    split = Split(int(generator.integers(1, 9)), int(generator.integers(0, 64)), in_sequence=True)
    giants, babies = split.steps(places[:, 2], 64)
    terms = [
        LinearTerm(int(out), int(source), int(giant), int(baby), 0)
        for (out, source, _), giant, baby in zip(places, giants, babies, strict=True)
    ]
    plan = LinearPlan(3, tuple(terms), "d", "", in_sequence=True)
    free = RotationCosts(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    rotations = sum(len(plan.giant_rotations(output)) for output in range(3))
    assert split_cost(places, 64, split, replace(free, giant=1.0), frozenset()) == rotations
    sharing = replace(free, giant=1.0, down=0.25, sequence_shares=True)
    turned = sum(bool(plan.giant_rotations(output)) for output in range(3))
    price = rotations - 0.25 * (rotations - turned)
    assert split_cost(places, 64, split, sharing, frozenset()) == price
    steps = {step % 64 for step in plan.rotations()} - {0}
    assert split_cost(places, 64, split, replace(free, key=1.0), frozenset()) == len(steps)


def test_an_output_without_weights_gets_a_diagonal_of_zeros() -> None:
    matrix = np.zeros((6, 4))
    matrix[5, 1] = 2.0
    source, target = Arrangement(4, 4), Arrangement(6, 4)
    errors, diagonals = _apply(matrix, source, target, Split(2), False)
    assert errors.max() < 1e-12
    assert diagonals == 2


def test_steps_count_slots_of_all_rows_in_a_batch() -> None:
    source, target = Arrangement(8, 8), Arrangement(8, 8)
    entries = entries_of(coordinates(csr_array(np.ones((8, 8)))), source, target)
    terms, _ = plan_terms(to_diagonals(entries, 1, 8, 8), Split(4), 16)
    plan = LinearPlan(1, tuple(terms), "d", "")
    assert plan.rotations() == {16, 32, 48, 64}
    assert rotations_in_cells(plan, 16) == {1, 2, 3, 4}


def test_folds_are_joined_where_the_shared_parts_are_dear_and_keys_are_cheap() -> None:
    folds = [32, 16, 8, 4]
    whole = RotationCosts(hoist=0.0, extended=1.0, down=0.0)
    assert choose_joint_folds(folds, whole) == (1, 1, 1, 1)
    shared = RotationCosts(hoist=1.0, extended=0.4, down=1.0)
    assert choose_joint_folds(folds, shared) == (2, 2)
    assert choose_joint_folds(folds, replace(shared, key=5.0)) == (1, 1, 1, 1)
    known = frozenset({32, 16, 48})
    assert choose_joint_folds(folds, replace(shared, key=5.0), known) == (2, 1, 1)
    assert choose_joint_folds([], shared) == ()


@pytest.mark.parametrize("seed", range(5))
def test_joint_folds_are_the_cheapest_of_all_groupings(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hoist, extended, down, key = rng.uniform(0.1, 2.0, 4).tolist()
    costs = RotationCosts(hoist=hoist, extended=extended, down=down, key=0.1 * key)
    folds = [64, 32, 16, 8, 4]

    def price(groups: tuple[int, ...]) -> float:
        """Count powers of two: no two groups share a sum."""
        rotations = [2**count - 1 for count in groups]
        return float(sum(hoist + r * (extended + costs.key) + down for r in rotations))

    def groupings(count: int) -> list[tuple[int, ...]]:
        if not count:
            return [()]
        firsts = range(1, min(count, MOST_JOINT_FOLDS) + 1)
        return [(first, *rest) for first in firsts for rest in groupings(count - first)]

    chosen = choose_joint_folds(folds, costs)
    assert price(chosen) == pytest.approx(min(price(groups) for groups in groupings(5)))
