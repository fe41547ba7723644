"""Baby-step giant-step diagonals, and sums of rotations, with double hoisting.

Bossuat, Mouchet, Troncoso-Pastoriza and Hubaux, "Efficient bootstrapping for approximate
homomorphic encryption with non-sparse keys" (2021). The digits of an input are extended once;
rotated inputs stay over QP, multiplied by P, so that a baby step costs a key product and a
permutation. The sum under a giant step is divided by P in its second component only, switched,
and everything is divided by P once per output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import LinearPlan, LinearTerm
from tacit.kernels.limb_kernels import LimbArray
from tacit.runtime.backends.native_engine import NativeEngine, needs_extension
from tacit.runtime.backends.native_key_tables import KeyTables

Floats = NDArray[np.float64]


def apply_diagonals(
    engine: NativeEngine,
    keys: KeyTables,
    inputs: Sequence[LimbArray],
    plan: LinearPlan,
    constants: Mapping[str, Floats],
) -> list[LimbArray]:
    """Return each output before the rescale, over Q.

    Args:
        engine: of the inputs' parameters.
        keys: of the inputs' owners.
        inputs: shape (2, limbs, batch, N) each, degree 1.
        plan: folds and bias are left out.
        constants: holds the diagonals, shape (rows, length).

    Raises:
        UnknownKeyError: a Galois key is missing.
    """
    level, extended = inputs[0].shape[1] - 1, needs_extension(plan, engine.params.slots)
    run = _Run(engine, keys, level, plan, constants, extended)
    rotated = run.rotate_inputs(inputs)
    return [run.output(r, rotated) for r in range(plan.outputs)]


def add_rotations(
    engine: NativeEngine,
    keys: KeyTables,
    a: LimbArray,
    steps: Sequence[int],
    halves: LimbArray | None,
) -> LimbArray:
    """Return `a` plus its rotations by several steps, divided by P once.

    Args:
        engine: of the parameters.
        keys: of the owners.
        a: shape (2, limbs, batch, N).
        steps: none of them 0 modulo the slots.
        halves: what takes the error of rounding down out, or None.

    Raises:
        UnknownKeyError: a Galois key is missing.
    """
    kernels, level = engine.kernels, a.shape[1] - 1
    batch, second = a.shape[2], kernels.part(a, 1)
    total = kernels.times_p(a)
    first = kernels.scale(kernels.part(a, 0), engine.p_residues[: level + 1])
    found = [keys.rotation(step, batch, level) for step in steps]
    digits = kernels.mod_up(second)
    for key in found:
        product = kernels.key_product(second, digits, key.table)
        total = kernels.automorphism(level, product, key.moved, plus=first, into=total)
    return kernels.mod_down(level, total, shared=halves)


@dataclass(slots=True)
class _Run:
    """One application. `extended`: rotated inputs and sums are over QP and multiplied by P."""

    engine: NativeEngine
    keys: KeyTables
    level: int
    plan: LinearPlan
    constants: Mapping[str, Floats]
    extended: bool
    terms: dict[tuple[int, int], list[LinearTerm]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        slots = self.engine.params.slots
        for term in self.plan.terms:
            giant = term.giant if self.plan.in_sequence else term.giant % slots
            self.terms.setdefault((term.output, giant), []).append(term)

    def rotate_inputs(self, inputs: Sequence[LimbArray]) -> dict[tuple[int, int], LimbArray]:
        """Return inputs rotated by their baby steps, over QP and times P, or as they are."""
        if not self.extended:
            return {(index, 0): limbs for index, limbs in enumerate(inputs)}
        kernels, slots = self.engine.kernels, self.engine.params.slots
        rotated: dict[tuple[int, int], LimbArray] = {}
        for index, limbs in enumerate(inputs):
            steps = {step % slots for step in self.plan.baby_steps(index)}
            unmoved = kernels.times_p(limbs)
            if 0 in steps:
                rotated[index, 0] = unmoved
            second, first, digits = kernels.part(limbs, 1), kernels.part(unmoved, 0), None
            for step in sorted(steps - {0}):
                key = self.keys.rotation(step, limbs.shape[2], self.level)
                digits = kernels.mod_up(second) if digits is None else digits
                product = kernels.key_product(second, digits, key.table)
                moved = kernels.automorphism(self.level, product, key.moved, plus=first)
                rotated[index, step] = moved
        return rotated

    def output(self, output: int, rotated: Mapping[tuple[int, int], LimbArray]) -> LimbArray:
        """Return one output, over Q."""
        kernels = self.engine.kernels
        giants = sorted(giant for (r, giant) in self.terms if r == output)
        sums = self._products(output, giants, rotated)
        if not self.extended and giants == [0]:
            return sums[0]
        if self.plan.in_sequence:
            whole = self._in_sequence(output, dict(zip(giants, sums, strict=True)))
            return kernels.mod_down(self.level, whole)
        total: LimbArray | None = None
        for giant, part in zip(giants, sums, strict=True):
            if giant:
                total = self._add_giant(giant, part, total, extended=self.extended)
            else:
                total = self._over_qp(part)
        assert total is not None  # every output has terms
        return kernels.mod_down(self.level, total)

    def _in_sequence(self, output: int, sums: Mapping[int, LimbArray]) -> LimbArray:
        """Rotate the greatest sum and add it to the next, and so on; over QP and times P."""
        slots = self.engine.params.slots
        (last, _), *moves = self.plan.giant_moves(output)
        part, extended = sums[last], self.extended
        for last, step in moves:
            into = self._over_qp(sums[last])
            part = self._add_giant(step % slots, part, into, extended=extended)
            extended = True
        if last % slots:
            return self._add_giant(last % slots, part, None, extended=extended)
        return part if extended else self._over_qp(part)

    def _over_qp(self, sums: LimbArray) -> LimbArray:
        return sums if self.extended else self.engine.kernels.times_p(sums)

    def _add_giant(
        self, giant: int, sums: LimbArray, total: LimbArray | None, *, extended: bool
    ) -> LimbArray:
        """Rotate a sum and add it to the total, over QP and times P; `extended`: so is the sum."""
        kernels = self.engine.kernels
        key = self.keys.rotation(giant, sums.shape[2], self.level)
        first, second = kernels.part(sums, 0), kernels.part(sums, 1)
        if extended:
            second = kernels.mod_down(self.level, second)
        else:
            first = kernels.scale(first, self.engine.p_residues[: self.level + 1])
        product, _ = kernels.switch(second, key.table)
        return kernels.automorphism(self.level, product, key.moved, plus=first, into=total)

    def _products(
        self,
        output: int,
        giants: Sequence[int],
        rotated: Mapping[tuple[int, int], LimbArray],
    ) -> list[LimbArray]:
        """Sum diagonals times rotated inputs under each giant step; over Q unless extended."""
        slots = self.engine.params.slots
        terms = [
            [(rotated[t.input, t.baby % slots], self._diagonal(t.row)) for t in part]
            for part in (self.terms[output, giant] for giant in giants)
        ]
        return self.engine.kernels.dot_pairs(terms, self.level, extended=self.extended)

    def _diagonal(self, row: int) -> LimbArray:
        plan, extended = self.plan, self.extended
        return self.engine.diagonal(plan, self.constants, row, self.level, extended=extended)
