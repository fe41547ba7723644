"""Folding: adding a value rotated by one step after the other, several steps at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from tacit.errors import CircuitError


def joint_sums(folds: Sequence[int], counts: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the rotations that fold each group: all sums of one or more of its steps.

    Since (1 + r_a)(1 + r_b) = 1 + r_a + r_b + r_(a + b) for rotations r, the value plus its
    rotations by all those sums is what folding by one step after the other gives.

    Args:
        folds: steps, in order.
        counts: steps of each group; none for groups of one.

    Raises:
        CircuitError: the counts do not add up to the folds.
    """
    if counts and (min(counts) < 1 or sum(counts) != len(folds)):
        raise CircuitError(f"groups of {tuple(counts)} folds do not make up {len(folds)} folds")
    steps = iter(folds)
    groups = [[next(steps) for _ in range(count)] for count in counts or (1,) * len(folds)]
    return [_sums(group) for group in groups]


def _sums(steps: Sequence[int]) -> tuple[int, ...]:
    sizes = range(1, len(steps) + 1)
    return tuple(sum(some) for size in sizes for some in combinations(steps, size))
