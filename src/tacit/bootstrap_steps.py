"""The steps of a bootstrap on levels and degrees: what the native engine does, for cost models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tacit.bootstrap import Bootstrap, stage_groups
from tacit.bootstrap_levels import Floats, exponential, raised_level
from tacit.chebyshev import SumOfProducts, chebyshev_by_powers, polynomial_by_powers
from tacit.circuit import C, Evaluator
from tacit.fourier import complex_series
from tacit.params import CryptoParams, SecretDistribution
from tacit.slot_matrices import stage_plan


def bootstrap_by_steps(
    evaluator: Evaluator[C],
    a: C,
    plan: Bootstrap,
    series: Floats,
    params: CryptoParams,
    raised: Callable[[C, int], C],
    fused: SumOfProducts[C] | None = None,
) -> C:
    """Run each step of a bootstrap on an evaluator that prices or counts operations.

    A conjugation, and the switch back from a sparse secret, count as rotations. The transforms of
    one limb that raising the modulus takes are left to `raised`.

    Args:
        evaluator: complex scalars and the matrices are all alike to it.
        a: the input, of degree 1.
        plan: what to do.
        series: shape (2, degree + 1).
        params: the parameters.
        raised: makes a value of level 0 one of the level given.
        fused: adds up products, see `tacit.chebyshev`.

    Raises:
        LevelError: too few levels.
    """
    level = raised_level(params, plan, len(series[0]) - 1)
    if evaluator.type_of(a).level > plan.to_coefficients:
        a = evaluator.drop(a, plan.to_coefficients)
    a = raised(_through(evaluator, a, plan, plan.to_coefficients, params), level)
    if params.secret is SecretDistribution.SPARSE_ENCAPSULATED:
        a = evaluator.rotate(a, 1)
    for _ in range((params.slots >> plan.log_slots).bit_length() - 1):
        a = evaluator.add(a, evaluator.rotate(a, 1))
    a = _through(evaluator, a, plan, plan.to_slots, params)
    a = evaluator.add(a, evaluator.rotate(a, 1))
    how = exponential(params, plan.period)
    a = chebyshev_by_powers(evaluator, a, how.coefficients, fused=fused)
    for _ in range(how.doublings):
        a = evaluator.rescale(evaluator.multiply(a, a))
    a = polynomial_by_powers(evaluator, a, complex_series(series), fused=fused)
    return evaluator.add(a, evaluator.rotate(a, 1))


def _through(
    evaluator: Evaluator[C], a: C, plan: Bootstrap, stages: int, params: CryptoParams
) -> C:
    level = evaluator.type_of(a).level
    for group in stage_groups(plan.log_slots, stages):
        # Other levels, other matrices: the constants that are left over are shared out by stage.
        name = f"stage {group} of {stages} from level {level}"
        matrix = replace(stage_plan(plan.log_slots, group), diagonals=name)
        rows = np.broadcast_to(0j, (len(matrix.terms), params.slots))
        a = evaluator.linear([a], matrix, {name: rows})[0]
    return a
