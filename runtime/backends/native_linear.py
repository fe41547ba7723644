"""Baby-step giant-step diagonals with double hoisting.

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
from tacit.kernels import elementwise
from tacit.kernels.automorphism import apply
from tacit.kernels.basis import Basis, mod_down, mod_up
from tacit.kernels.keyswitch import key_product, switch
from tacit.runtime.backends.native_engine import NativeEngine, needs_extension
from tacit.runtime.backends.native_keys import NativeKeys

Floats = NDArray[np.float64]
Limbs = NDArray[np.uint64]


def apply_diagonals(
    keys: NativeKeys, inputs: Sequence[Limbs], plan: LinearPlan, constants: Mapping[str, Floats]
) -> list[Limbs]:
    """Return each output before the rescale, shape (2, limbs, N).

    Args:
        keys: of the inputs' owner.
        inputs: shape (2, limbs, N) each, NTT form, degree 1.
        plan: folds and bias are left out.
        constants: holds the diagonals, shape (rows, length).

    Raises:
        UnknownKeyError: a Galois key is missing.
    """
    engine = keys.engine
    level = inputs[0].shape[1] - 1
    extended = needs_extension(plan, engine.params.slots)
    run = _Run(keys, engine, engine.bases[level], level, plan, constants, extended)
    rotated = run.rotate_inputs(inputs)
    return [run.output(r, rotated) for r in range(plan.outputs)]


@dataclass(slots=True)
class _Run:
    """One application. `extended`: rotated inputs and sums are over QP and multiplied by P."""

    keys: NativeKeys
    engine: NativeEngine
    basis: Basis
    level: int
    plan: LinearPlan
    constants: Mapping[str, Floats]
    extended: bool
    terms: dict[tuple[int, int], list[LinearTerm]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for term in self.plan.terms:
            giant = term.giant % self.engine.params.slots
            self.terms.setdefault((term.output, giant), []).append(term)

    def rotate_inputs(self, inputs: Sequence[Limbs]) -> dict[tuple[int, int], Limbs]:
        """Return inputs rotated by their baby steps, shape (2, rows, N) or (2, limbs, N)."""
        if not self.extended:
            return {(index, 0): limbs for index, limbs in enumerate(inputs)}
        basis, slots = self.basis, self.engine.params.slots
        digits = self.engine.array(basis.digits, basis.rows)
        rotated = {}
        for index, limbs in enumerate(inputs):
            steps = {step % slots for step in self.plan.baby_steps(index)}
            unmoved = self._times_p(limbs)
            if 0 in steps:
                rotated[index, 0] = unmoved
            if steps - {0}:
                mod_up(basis, limbs[1], digits, self.engine.array(basis.limbs))
            for step in sorted(steps - {0}):
                rotated[index, step] = self._baby(limbs, digits, step, unmoved[0])
        return rotated

    def output(self, output: int, rotated: dict[tuple[int, int], Limbs]) -> Limbs:
        """Return one output, shape (2, limbs, N)."""
        engine, basis = self.engine, self.basis
        giants = sorted(giant for (r, giant) in self.terms if r == output)
        sums = self._products(output, giants, rotated)
        if not self.extended and giants == [0]:
            return sums[0]
        if giants[0] == 0:
            total = sums[0] if self.extended else self._times_p(sums[0])
        else:
            total = engine.array(2, basis.rows)
            total[...] = 0
        for giant, part in zip(giants, sums, strict=True):
            if giant:
                self._add_giant(giant, part, total)
        out = engine.array(2, basis.limbs)
        mod_down(basis, total, (None, None), out, engine.array(2, basis.limbs))
        return out

    def _add_giant(self, giant: int, sums: Limbs, total: Limbs) -> None:
        """Rotate the sum under one giant step and add it to the total, over QP and times P."""
        engine, basis = self.engine, self.basis
        key = self.keys.rotation_key(giant)
        second, first = sums[1], sums[0]
        if self.extended:
            second = engine.array(basis.limbs)
            mod_down(basis, sums[1], (None,), second, engine.array(basis.limbs))
        else:
            first = elementwise.scale(engine.ring, first, basis.p_product, out=first)
        product = engine.array(2, basis.rows)
        digits = engine.array(basis.digits, basis.rows)
        switch(basis, second, key.limbs, product, digits, engine.array(basis.limbs))
        mods = engine.twice_extended[self.level]
        apply(engine.ring, key.moved, product, mods, plus=first, accumulate=True, out=total)

    def _products(
        self, output: int, giants: Sequence[int], rotated: dict[tuple[int, int], Limbs]
    ) -> list[Limbs]:
        """Sum diagonals times rotated inputs under each giant step; over Q unless extended."""
        engine, slots = self.engine, self.engine.params.slots
        terms = [
            [(rotated[t.input, t.baby % slots], self._diagonal(t.row)) for t in part]
            for part in (self.terms[output, giant] for giant in giants)
        ]
        rows = self.basis.rows if self.extended else self.basis.limbs
        sums = [engine.array(2, rows) for _ in giants]
        elementwise.dot_pairs(engine.ring, terms, sums, self.basis.mods if self.extended else None)
        return sums

    def _diagonal(self, row: int) -> Limbs:
        plan, extended = self.plan, self.extended
        return self.engine.diagonal(plan, self.constants, row, self.level, extended=extended)

    def _baby(self, limbs: Limbs, digits: Limbs, step: int, first: Limbs) -> Limbs:
        """Rotate an input, over QP and times P; `first` is P times its first component."""
        engine, basis = self.engine, self.basis
        key = self.keys.rotation_key(step)
        product, out = engine.array(2, basis.rows), engine.array(2, basis.rows)
        key_product(basis, limbs[1], digits, key.limbs, product)
        mods = engine.twice_extended[self.level]
        return apply(engine.ring, key.moved, product, mods, plus=first, out=out)

    def _times_p(self, a: Limbs) -> Limbs:
        """Return P a, both components, over QP: 0 modulo the primes of P."""
        out, limbs = self.engine.array(2, self.basis.rows), self.basis.limbs
        out[:, limbs:] = 0
        for part, target in zip(a, out, strict=True):
            low = target[:limbs]
            elementwise.scale(self.engine.ring, part, self.basis.p_product, out=low)
        return out
