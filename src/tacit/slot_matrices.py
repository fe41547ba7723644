"""The matrices between slots and coefficients, as products of sparse ones.

Slot j of a polynomial is its value at exp(2 pi i 5^j / 4n). With n complex numbers
c_k = a_k + i a_(k+n) for the 2n coefficients a, the slots are V c, V[j, k] = zeta^(5^j k). V is a
product of log2 n butterflies and a bit reversal (Cheon, Han, Kim, Kim and Song 2018). Butterflies
have two or three diagonals; neighbours are multiplied together into as many stages as levels may be
spent (Han and Ki 2020). The bit reversal is left out: it cancels between the two directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import giant_step, stage_groups, stage_steps
from tacit.circuit import LinearPlan, LinearTerm
from tacit.errors import ParameterError

Complexes = NDArray[np.complex128]
# A matrix by diagonals: M v = sum_r diagonals[r] * rotate(v, r).
_Diagonals = dict[int, Complexes]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One sparse matrix, a level each.

    Attributes:
        plan: its rotations; the constant is called "rows".
        rows: diagonals, already rotated back by the giant steps, shape (rows, repeats n).
    """

    plan: LinearPlan
    rows: Complexes


@lru_cache(maxsize=8)
def slots_to_coefficients(
    log_slots: int, stages: int, factor: float = 1.0, repeats: int = 1
) -> tuple[Stage, ...]:
    """Return stages, first to last, that turn slots x into the slots of a polynomial with x inside.

    Its complex coefficients c are x in bit-reversed order, times the factor. The same objects are
    returned for the same arguments, so that encoded diagonals are found again.

    Args:
        log_slots: base-2 logarithm of n.
        stages: 1 to log_slots.
        factor: above 0, shared by the stages.
        repeats: how often the n values stand in the slots.

    Raises:
        ParameterError: another number of stages, or a factor that is not positive.
    """
    return _stages(log_slots, _butterfly, _checked(log_slots, stages), factor, repeats)


@lru_cache(maxsize=8)
def coefficients_to_slots(
    log_slots: int, stages: int, factor: float = 1.0, repeats: int = 1
) -> tuple[Stage, ...]:
    """Return the stages of the inverse of `slots_to_coefficients`, times the factor."""
    groups = [group[::-1] for group in reversed(_checked(log_slots, stages))]
    return _stages(log_slots, _inverse, groups, factor, repeats)


@lru_cache(maxsize=64)
def stage_plan(log_slots: int, group: range) -> LinearPlan:
    """Return a stage's rotations, without its matrix; both directions have the same."""
    terms = []
    for row, step in enumerate(stage_steps(log_slots, group)):
        giant = giant_step(log_slots, group, step)
        terms.append(LinearTerm(0, 0, giant, step - giant, row))
    return LinearPlan(1, tuple(terms), "rows", "")


def _checked(log_slots: int, stages: int) -> list[range]:
    if not 1 <= stages <= log_slots:
        raise ParameterError(f"{stages} stages for 2^{log_slots} slots: 1 to {log_slots} expected")
    return stage_groups(log_slots, stages)


def _stages(
    log_slots: int,
    butterfly: Callable[[int, int], _Diagonals],
    groups: Sequence[range],
    factor: float,
    repeats: int,
) -> tuple[Stage, ...]:
    if not factor > 0.0:
        raise ParameterError(f"a factor above 0 is needed, not {factor}")
    share = factor ** (1.0 / len(groups))
    made = []
    for group in groups:
        matrix = _product([butterfly(log_slots, log_span) for log_span in group])
        made.append(_stage(log_slots, range(min(group), max(group) + 1), matrix, share, repeats))
    return tuple(made)


def _roots(log_slots: int, log_span: int) -> Complexes:
    """Return zeta^(5^j) for the blocks of 2^log_span, j < half a block, for every slot."""
    half = 1 << (log_span - 1)
    order = 8 * half
    powers = np.array([pow(5, j, order) for j in range(half)])
    roots = np.exp(2j * np.pi * powers / order)
    return np.tile(np.concatenate([roots, roots]), 1 << (log_slots - log_span))


def _first_halves(log_slots: int, log_span: int) -> NDArray[np.bool_]:
    return np.asarray((np.arange(1 << log_slots) >> (log_span - 1)) % 2 == 0)


def _butterfly(log_slots: int, log_span: int) -> _Diagonals:
    """(x, y) to (x + w y, x - w y) on the halves of each block."""
    w, first = _roots(log_slots, log_span), _first_halves(log_slots, log_span)
    half = 1 << (log_span - 1)
    parts = [(0, np.where(first, 1.0, -w)), (half, np.where(first, w, 0.0))]
    return _merged([*parts, (-half, np.where(first, 0.0, 1.0 + 0j))], 1 << log_slots)


def _inverse(log_slots: int, log_span: int) -> _Diagonals:
    """(x, y) to ((x + y) / 2, (x - y) / 2w) on the halves of each block."""
    w, first = _roots(log_slots, log_span).conj() / 2, _first_halves(log_slots, log_span)
    half = 1 << (log_span - 1)
    parts = [(0, np.where(first, 0.5, -w)), (half, np.where(first, 0.5 + 0j, 0.0))]
    return _merged([*parts, (-half, np.where(first, 0.0, w))], 1 << log_slots)


def _merged(parts: Sequence[tuple[int, Complexes]], n: int) -> _Diagonals:
    """Add diagonals whose rotations are equal modulo n; rotations are in [-n/2, n/2)."""
    merged: _Diagonals = {}
    for step, diagonal in parts:
        at = (step + n // 2) % n - n // 2
        merged[at] = merged[at] + diagonal if at in merged else diagonal.astype(np.complex128)
    return merged


def _product(matrices: Sequence[_Diagonals]) -> _Diagonals:
    """Multiply matrices; the first is applied first."""
    total = matrices[0]
    for matrix in matrices[1:]:
        n = len(next(iter(total.values())))
        parts = [
            (outer + inner, left * np.roll(right, -outer))
            for outer, left in matrix.items()
            for inner, right in total.items()
        ]
        total = _merged(parts, n)
    return total


def _stage(log_slots: int, group: range, matrix: _Diagonals, factor: float, repeats: int) -> Stage:
    plan = stage_plan(log_slots, group)
    rows = [
        np.tile(factor * np.roll(matrix[term.giant + term.baby], term.giant), repeats)
        for term in plan.terms
    ]
    return Stage(plan, np.stack(rows))
