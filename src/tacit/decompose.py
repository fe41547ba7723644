"""Default decomposition of coarse operations into fine ones, for any Evaluator.

A backend without a fused form calls these; the level checker and the cost model run the same code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tacit.chebyshev import chebyshev_by_powers, chebyshev_depth
from tacit.circuit import C, Evaluator, LinearPlan, Plain, WeightedSumPlan

__all__ = [
    "add_biases",
    "chebyshev_by_powers",
    "chebyshev_depth",
    "linear_by_rotations",
    "weighted_sum_by_scalars",
]

Floats = NDArray[np.float64]


def linear_by_rotations(
    evaluator: Evaluator[C],
    inputs: Sequence[C],
    plan: LinearPlan,
    constants: Mapping[str, Floats],
) -> list[C]:
    """Apply a linear transform with hoisted baby steps, shared by all outputs."""
    rows = constants[plan.diagonals]
    rotated: dict[tuple[int, int], C] = {}
    for index, operand in enumerate(inputs):
        steps = plan.baby_steps(index)
        for step, value in zip(steps, evaluator.rotate_many(operand, steps), strict=True):
            rotated[index, step] = value
    sums: dict[tuple[int, int], C] = {}
    for term in plan.terms:
        plain = Plain(f"{plan.diagonals}/{term.row}", rows[term.row])
        product = evaluator.multiply_plain(rotated[term.input, term.baby], plain)
        key = (term.output, term.giant)
        sums[key] = evaluator.add(sums[key], product) if key in sums else product
    outputs = [_collect(evaluator, plan, output, sums) for output in range(plan.outputs)]
    return add_biases(evaluator, outputs, plan.bias, constants)


def _collect(
    evaluator: Evaluator[C], plan: LinearPlan, output: int, sums: dict[tuple[int, int], C]
) -> C:
    total = evaluator.rescale(_sum_of_giants(evaluator, plan, output, sums))
    for step in plan.folds:
        total = evaluator.add(total, evaluator.rotate(total, step))
    return total


def _sum_of_giants(
    evaluator: Evaluator[C], plan: LinearPlan, output: int, sums: dict[tuple[int, int], C]
) -> C:
    (last, _), *others = reversed(plan.giant_moves(output))
    if not plan.in_sequence:
        total = evaluator.rotate(sums[output, last], last) if last else sums[output, last]
        for giant, _ in others:
            total = evaluator.add(total, evaluator.rotate(sums[output, giant], giant))
        return total
    (first, _), *moves = plan.giant_moves(output)
    total = sums[output, first]
    for giant, step in moves:
        total = evaluator.add(evaluator.rotate(total, step), sums[output, giant])
    return evaluator.rotate(total, last) if last else total


def weighted_sum_by_scalars(
    evaluator: Evaluator[C],
    inputs: Sequence[C],
    plan: WeightedSumPlan,
    constants: Mapping[str, Floats],
) -> list[C]:
    """Apply a matrix of scalars; zero weights are skipped."""
    weights = constants[plan.weights]
    results = []
    for r in range(plan.outputs):
        total: C | None = None
        columns = np.flatnonzero(weights[r])
        for c in columns if len(columns) else range(1):
            plain = Plain(f"{plan.weights}/{r}/{c}", np.asarray(weights[r, c]))
            product = evaluator.multiply_plain(inputs[int(c)], plain)
            total = product if total is None else evaluator.add(total, product)
        assert total is not None
        results.append(evaluator.rescale(total))
    return add_biases(evaluator, results, plan.bias, constants)


def add_biases(
    evaluator: Evaluator[C], outputs: Sequence[C], name: str, constants: Mapping[str, Floats]
) -> list[C]:
    """Add a row of the constant `name` to each output; without a name, nothing."""
    if not name:
        return list(outputs)
    biases = constants[name]
    return [
        evaluator.add_plain(output, Plain(f"{name}/{r}", np.asarray(biases[r])))
        for r, output in enumerate(outputs)
    ]
