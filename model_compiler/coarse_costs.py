"""Coarse operations as counts of fine ones, each backend in its own way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import LinearPlan
from tacit.model_compiler.op_times import Backend

Floats = NDArray[np.float64]
Parts = Counter[tuple[str, int]]
"""How often each fine operation runs, by name and level."""


def rotation_parts(steps: Sequence[int], slots: int, level: int) -> Parts:
    """Count rotations of one ciphertext by several steps."""
    moving = len({step % slots for step in steps} - {0})
    if moving == 0:
        return Counter()
    if moving == 1:
        return Counter({("rotate", level): 1})
    return Counter({("hoist", level): 1, ("hoisted", level): moving})


def linear_parts(
    backend: Backend, plan: LinearPlan, slots: int, level: int, specials: int
) -> Parts:
    """Count what a linear transform of inputs at `level` takes, all but its biases."""
    if backend is Backend.OPENFHE:
        return _openfhe_linear(plan, slots, level)
    return _native_linear(plan, slots, level, plan.over_qp(2 * slots, level + 1, specials))


def weighted_sum_parts(backend: Backend, weights: Floats, level: int) -> Parts:
    """Count what a matrix of scalars takes, all but its biases."""
    outputs, inputs = weights.shape
    used = int(np.count_nonzero(weights))
    parts: Parts = Counter({("rescale", level): outputs})
    if backend is Backend.OPENFHE:
        return parts + Counter({("weighted_term", level): used})
    # Where most weights are zero the engine works row by row, and reads its inputs each time.
    dense = 2 * used >= weights.size
    parts["weighted_input", level] = inputs if dense else used
    parts["weighted_term", level] = weights.size if dense else used
    parts["weighted_output", level] = outputs
    return parts


def _openfhe_linear(plan: LinearPlan, slots: int, level: int) -> Parts:
    """Hoisted baby steps; giant steps and folds as sums of rotations."""
    parts: Parts = Counter()
    for index in {term.input for term in plan.terms}:
        parts += rotation_parts(plan.baby_steps(index), slots, level)
    parts["multiply_plain", level] += len(plan.terms)
    parts["add", level] += len(plan.terms) - plan.outputs
    for output in range(plan.outputs):
        turns = [step for step in plan.giant_rotations(output) if step % slots]
        if plan.in_sequence:
            parts["rotate", level] += len(turns)
        else:
            parts += _sum_of_rotations(level, len(turns), len(turns))
    parts["rescale", level] += plan.outputs
    for steps in plan.fold_sums():
        for _ in range(plan.outputs):
            parts += _sum_of_rotations(level - 1, 1, len(steps))
        parts["add", level - 1] += plan.outputs * len(steps)
    return parts


def _sum_of_rotations(level: int, ciphertexts: int, rotations: int) -> Parts:
    """Rotations that are summed, but not the sums themselves."""
    if rotations == 1:
        return Counter({("rotate", level): 1})
    if rotations == 0:
        return Counter()
    hoists = {("hoist", level): ciphertexts, ("extended", level): rotations}
    return Counter({**hoists, ("down", level): 1})


def _native_linear(plan: LinearPlan, slots: int, level: int, extended: bool) -> Parts:
    """Double hoisting over QP; or over Q, where rotated inputs are rotations of their own."""
    suffix = "" if extended else "_q"
    parts: Parts = Counter()
    for index in {term.input for term in plan.terms}:
        babies = len({step % slots for step in plan.baby_steps(index)} - {0})
        parts["hoist", level] += babies > 0
        parts["baby" if extended else "hoisted", level] += babies
        parts["times_p", level] += extended
    sums = {(term.output, term.giant % slots) for term in plan.terms}
    turns = [plan.giant_rotations(output) for output in range(plan.outputs)]
    giants = sum(step % slots != 0 for some in turns for step in some)
    turned = {output for output, some in enumerate(turns) if any(s % slots for s in some)}
    parts[f"diagonal{suffix}", level] += len(plan.terms)
    parts[f"sum{suffix}", level] += len(sums)
    parts[f"giant{suffix}", level] += giants
    parts["down", level] += plan.outputs if extended else len(turned)
    if not extended:
        parts["times_p", level] += sum((output, 0) in sums for output in turned)
    parts["rescale", level] += plan.outputs
    for steps in plan.fold_sums():
        fold = _native_fold(level - 1, len(steps))
        parts += Counter({part: count * plan.outputs for part, count in fold.items()})
    return Counter({part: count for part, count in parts.items() if count})


def _native_fold(level: int, rotations: int) -> Parts:
    """Add rotations of a ciphertext to it; from two on over QP, divided by P once."""
    if rotations == 1:
        return Counter({("rotate", level): 1, ("add", level): 1})
    ends = {("times_p", level): 1, ("hoist", level): 1, ("down", level): 1}
    return Counter({**ends, ("baby", level): rotations})
