"""Baby-step giant-step diagonals, and sums of rotations, with double hoisting.

Bossuat, Mouchet, Troncoso-Pastoriza and Hubaux, "Efficient bootstrapping for approximate
homomorphic encryption with non-sparse keys" (2021). The digits of an input are extended once;
rotated inputs stay over QP, multiplied by P, so that a baby step costs a key product and a
permutation; those of large maps with many diagonals are divided by P instead, see
`LinearPlan.over_qp`. The sum under a giant step is divided by P in its second component only,
switched, and everything is divided by P once per output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import LinearPlan, LinearTerm
from tacit.kernels.limb_kernels import LimbArray
from tacit.packed_rows import memory_of_row
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_key_tables import KeyTables

Floats = NDArray[np.float64]

# Diagonals of one product, at the most; more giant steps are taken one product after the other.
_GROUP_BYTES = 1 << 28


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
    level = inputs[0].shape[1] - 1
    extended = engine.over_qp(plan, level)
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
    total = kernels.times_p(a)
    first = kernels.scale(kernels.part(a, 0), engine.p_residues[: level + 1])
    found = [keys.rotation(step, a.shape[2], level) for step in steps]
    tables, moves = [key.table for key in found], [key.moved for key in found]
    kernels.turned(kernels.part(a, 1), tables, moves, plus=first, into=total)
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
        """Return inputs rotated by their baby steps, over QP and times P, or over Q."""
        slots = self.engine.params.slots
        rotated: dict[tuple[int, int], LimbArray] = {}
        for index, limbs in enumerate(inputs):
            steps = {step % slots for step in self.plan.baby_steps(index)}
            turns = sorted(steps - {0})
            unmoved = self.engine.kernels.times_p(limbs) if self.extended else limbs
            if 0 in steps:
                rotated[index, 0] = unmoved
            made = self._turned(limbs, unmoved, turns) if turns else []
            rotated |= {(index, step): a for step, a in zip(turns, made, strict=True)}
        return rotated

    def _turned(self, a: LimbArray, unmoved: LimbArray, steps: Sequence[int]) -> list[LimbArray]:
        """Rotate an input; `unmoved` is the input itself, over QP if the results are."""
        kernels = self.engine.kernels
        found = [self.keys.rotation(step, a.shape[2], self.level) for step in steps]
        tables, moves = [key.table for key in found], [key.moved for key in found]
        second, first = kernels.part(a, 1), kernels.part(unmoved, 0)
        if self.extended:
            return kernels.turned(second, tables, moves, plus=first)
        halves = self.engine.halves
        return kernels.switch_down(second, tables, moves, plus=(first, None), shared=halves)

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
        return kernels.turned(second, [key.table], [key.moved], plus=first, into=total)[0]

    def _products(
        self,
        output: int,
        giants: Sequence[int],
        rotated: Mapping[tuple[int, int], LimbArray],
    ) -> list[LimbArray]:
        """Sum diagonals times rotated inputs under each giant step; over Q unless extended."""
        sums: list[LimbArray] = []
        for some in self._groups([self.terms[output, giant] for giant in giants]):
            sums += self._group_products(some, rotated)
        return sums

    def _groups(self, parts: Sequence[list[LinearTerm]]) -> Iterator[list[list[LinearTerm]]]:
        """Group giant steps, so that diagonals that are not kept take little memory."""
        group: list[list[LinearTerm]] = []
        values = memory_of_row(self.constants[self.plan.diagonals], 0)
        each = self.engine.encoded_bytes(values, self.level, self.extended)
        most = max(1, _GROUP_BYTES // each)
        for part in parts:
            if group and sum(map(len, group)) + len(part) > most:
                yield group
                group = []
            group.append(part)
        yield group

    def _group_products(
        self, parts: Sequence[list[LinearTerm]], rotated: Mapping[tuple[int, int], LimbArray]
    ) -> list[LimbArray]:
        slots, extended = self.engine.params.slots, self.extended
        rows = [term.row for part in parts for term in part]
        found = iter(
            self.engine.diagonals(self.plan, self.constants, rows, self.level, extended=extended)
        )
        terms = [[(rotated[t.input, t.baby % slots], next(found)) for t in part] for part in parts]
        return self.engine.kernels.dot_pairs(terms, self.level, extended=extended)
