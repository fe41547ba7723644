"""The native backend: CKKS on our own kernels, equal to OpenFHE's results limb for limb.

Ciphertexts and keys are arrays of residues; nothing here knows a secret. Scales and levels are
those of OpenFHE's FLEXIBLEAUTO mode, so a ciphertext can change backends at any point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import Chebyshev, LinearPlan, Plain, ValueType, WeightedSumPlan
from tacit.decompose import chebyshev_by_powers
from tacit.kernels import elementwise
from tacit.kernels.automorphism import apply
from tacit.kernels.basis import Basis, mod_down
from tacit.kernels.keyswitch import key_product, switch
from tacit.kernels.rescale import rescale
from tacit.runtime.backends.native_keys import NativeCiphertext, NativeKeys, RotationKey
from tacit.runtime.backends.native_linear import apply_diagonals
from tacit.type_rules import (
    combination_type,
    dropped_type,
    product_type,
    rescaled_type,
    sum_type,
)

Floats = NDArray[np.float64]
Limbs = NDArray[np.uint64]


class NativeEvaluator:
    """Evaluate circuits on limbs with one client's keys; may be used by several threads.

    Args:
        keys: from `native_keys.load_keys`; they bring the engine and its parameters.
        correct_rotations: take the error of rounding down out of rotations, as our OpenFHE
            backend does; without it they are OpenFHE's own, residue by residue.
    """

    def __init__(self, keys: NativeKeys, *, correct_rotations: bool = True) -> None:
        self._keys = keys
        self._correct_rotations = correct_rotations
        self._engine = keys.engine
        self._ring = keys.engine.ring

    def type_of(self, a: NativeCiphertext) -> ValueType:
        """Return level and degree."""
        return ValueType(a.level, a.degree)

    def add(self, a: NativeCiphertext, b: NativeCiphertext) -> NativeCiphertext:
        """Add two ciphertexts of equal type."""
        to = sum_type(self.type_of(a), self.type_of(b))
        out = self._like(a)
        return _made(elementwise.add(self._ring, a.limbs, b.limbs, self._mods(to), out), to)

    def subtract(self, a: NativeCiphertext, b: NativeCiphertext) -> NativeCiphertext:
        """Subtract two ciphertexts of equal type."""
        to = sum_type(self.type_of(a), self.type_of(b))
        out = self._like(a)
        return _made(elementwise.subtract(self._ring, a.limbs, b.limbs, self._mods(to), out), to)

    def negate(self, a: NativeCiphertext) -> NativeCiphertext:
        """Negate a ciphertext."""
        to = self.type_of(a)
        return _made(elementwise.negate(self._ring, a.limbs, self._mods(to)), to)

    def add_plain(self, a: NativeCiphertext, plain: Plain) -> NativeCiphertext:
        """Add a constant, encoded at the ciphertext's level and degree."""
        to = self.type_of(a)
        out = self._like(a)
        out[1] = a.limbs[1]
        if plain.is_scalar:
            constants = self._engine.scalar(float(plain.values), to)
            elementwise.add_constant(self._ring, a.limbs[0], constants, out=out[0])
        else:
            encoded = self._engine.plaintext(plain, to)
            elementwise.add(self._ring, a.limbs[0], encoded, out=out[0])
        return _made(out, to)

    def multiply_plain(self, a: NativeCiphertext, plain: Plain) -> NativeCiphertext:
        """Multiply by a constant: degree 1 to degree 2."""
        at = self.type_of(a)
        to = product_type(at)
        if plain.is_scalar:
            constants = np.tile(self._engine.scalar(float(plain.values), at), 2)
            mods, out = self._mods(to), self._like(a)
            return _made(elementwise.scale(self._ring, a.limbs, constants, mods, out=out), to)
        encoded, out = self._engine.plaintext(plain, at), self._like(a)
        elementwise.dot_pairs(self._ring, [[(a.limbs, encoded)]], [out])
        return _made(out, to)

    def multiply(self, a: NativeCiphertext, b: NativeCiphertext) -> NativeCiphertext:
        """Multiply two ciphertexts of equal level and degree 1, and relinearise: degree 2.

        Raises:
            UnknownKeyError: no relinearisation key.
        """
        to = product_type(self.type_of(a), self.type_of(b))
        out = self._engine.array(3, to.level + 1)
        product = elementwise.tensor(self._ring, a.limbs, b.limbs, out)
        return _made(self._relinearised(self._engine.bases[to.level], product), to)

    def rotate(self, a: NativeCiphertext, steps: int) -> NativeCiphertext:
        """Rotate the slots to the left.

        Raises:
            UnknownKeyError: no Galois key for these steps.
        """
        return self.rotate_many(a, (steps,))[0]

    def rotate_many(self, a: NativeCiphertext, steps: Sequence[int]) -> list[NativeCiphertext]:
        """Rotate one ciphertext by several steps, extending its digits once; 0 is allowed."""
        slots = self._engine.params.slots
        keys = {step % slots: step for step in steps}
        keys.pop(0, None)
        found = {step: self._keys.rotation_key(name) for step, name in keys.items()}
        rotated = {0: a}
        basis = self._engine.bases[a.level]
        digits = self._engine.array(basis.digits, basis.rows)
        for position, (step, key) in enumerate(found.items()):
            product = self._engine.array(2, basis.rows)
            if position == 0:
                scratch = self._engine.array(basis.limbs)
                switch(basis, a.limbs[1], key.limbs, product, digits, scratch)
            else:
                key_product(basis, a.limbs[1], digits, key.limbs, product)
            rotated[step] = self._moved(basis, a, product, key)
        return [rotated[step % slots] for step in steps]

    def rescale(self, a: NativeCiphertext) -> NativeCiphertext:
        """Divide by the last modulus: (l, 2) to (l - 1, 1)."""
        to = rescaled_type(self.type_of(a))
        return _made(self._rescaled(a.limbs), to)

    def drop(self, a: NativeCiphertext, level: int) -> NativeCiphertext:
        """Lower a degree-1 ciphertext to `level`, with that level's scale.

        Limbs are cut off down to one above the target; a product with the ratio of the scales and
        one rescale give the target's scale.
        """
        to = dropped_type(self.type_of(a), level)
        scales = self._engine.scales
        ratio = scales[level + 1] / scales[a.level]
        constants = np.tile(self._engine.scalar(ratio, ValueType(level + 1)), 2)
        cut = self._engine.array(2, level + 2)
        cut[...] = a.limbs[:, : level + 2]
        mods = self._engine.twice[level + 1]
        scaled = elementwise.scale(self._ring, cut, constants, mods, out=cut)
        return _made(self._rescaled(scaled), to)

    def linear(
        self,
        inputs: Sequence[NativeCiphertext],
        plan: LinearPlan,
        constants: Mapping[str, Floats],
    ) -> list[NativeCiphertext]:
        """Apply a linear transform, with double hoisting."""
        to = combination_type([self.type_of(operand) for operand in inputs])
        limbs = [operand.limbs for operand in inputs]
        sums = apply_diagonals(self._keys, limbs, plan, constants)
        outputs = [_made(self._rescaled(total), to) for total in sums]
        for step in plan.folds:
            outputs = [self.add(output, self.rotate(output, step)) for output in outputs]
        if not plan.bias:
            return outputs
        biases = constants[plan.bias]
        return [
            self.add_plain(output, Plain(f"{plan.bias}/{r}", biases[r]))
            for r, output in enumerate(outputs)
        ]

    def weighted_sum(
        self,
        inputs: Sequence[NativeCiphertext],
        plan: WeightedSumPlan,
        constants: Mapping[str, Floats],
    ) -> list[NativeCiphertext]:
        """Apply a matrix of scalars, with one reduction per sixteen products."""
        to = combination_type([self.type_of(operand) for operand in inputs])
        at = self.type_of(inputs[0])
        limbs = [operand.limbs for operand in inputs]
        sums = self._combined(limbs, plan.weights, constants[plan.weights], at)
        outputs = [_made(self._rescaled(total), to) for total in sums]
        if not plan.bias:
            return outputs
        biases = constants[plan.bias]
        return [
            self.add_plain(output, Plain(plan.bias, biases[r, ...]))
            for r, output in enumerate(outputs)
        ]

    def chebyshev(
        self, a: NativeCiphertext, polynomial: Chebyshev, constants: Mapping[str, Floats]
    ) -> NativeCiphertext:
        """Evaluate a polynomial in the Chebyshev basis on [-1, 1]."""
        name = polynomial.coefficients
        return chebyshev_by_powers(self, a, constants[name], key=name)

    def _combined(
        self, limbs: Sequence[Limbs], name: str, weights: Floats, at: ValueType
    ) -> list[Limbs]:
        """Multiply by a matrix of scalars; row by row, without the zeros, if most are zero."""
        mods = self._mods(at)
        if 2 * np.count_nonzero(weights) >= weights.size:
            dense = self._engine.weights(name, weights, at.level)
            return elementwise.combine(self._ring, limbs, dense, mods)
        sums = []
        for r, row in enumerate(weights):
            used = np.flatnonzero(row) if np.any(row) else np.arange(1)
            sparse = self._engine.weights(f"{name}/{r}", row, at.level, used)
            sums += elementwise.combine(self._ring, [limbs[int(c)] for c in used], sparse, mods)
        return sums

    def _like(self, a: NativeCiphertext) -> Limbs:
        return self._engine.array(2, a.level + 1)

    def _mods(self, at: ValueType) -> NDArray[np.uint32]:
        return self._engine.twice[at.level]

    def _relinearised(self, basis: Basis, product: Limbs) -> Limbs:
        """Switch the third component, add it to the first two: shape (2, limbs, N)."""
        key, engine = self._keys.relinearization_key(), self._engine
        digits = engine.array(basis.digits, basis.rows)
        switched = engine.array(2, basis.rows)
        switch(basis, product[2], key, switched, digits, engine.array(basis.limbs))
        return self._divided(basis, switched, (product[0], product[1]))

    def _moved(
        self, basis: Basis, a: NativeCiphertext, product: Limbs, key: RotationKey
    ) -> NativeCiphertext:
        """Permute before dividing by P, as OpenFHE does: rounding down is not symmetric."""
        ring, engine = self._ring, self._engine
        mods = engine.twice_extended[a.level]
        moved = apply(ring, key.moved, product, mods, out=engine.array(2, basis.rows))
        first, halves = engine.array(basis.limbs), None
        if self._correct_rotations and a.degree == 1:
            halves = engine.halves[: basis.limbs]
            first[...] = halves
        apply(ring, key.moved, a.limbs[0], accumulate=halves is not None, out=first)
        return _made(self._divided(basis, moved, (first, halves)), self.type_of(a))

    def _divided(self, basis: Basis, x: Limbs, plus: Sequence[Limbs | None]) -> Limbs:
        """Return x / P + plus, shape (2, limbs, N)."""
        out = self._engine.array(2, basis.limbs)
        mod_down(basis, x, plus, out, self._engine.array(2, basis.limbs))
        return out

    def _rescaled(self, limbs: Limbs) -> Limbs:
        basis = self._engine.bases[limbs.shape[1] - 1]
        out = self._engine.array(2, basis.limbs - 1)
        rescale(basis, limbs, out, self._engine.array(2))
        return out


def _made(limbs: Limbs, at: ValueType) -> NativeCiphertext:
    return NativeCiphertext(limbs, at.level, at.degree)
