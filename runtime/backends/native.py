"""The native backend: CKKS on our own kernels, equal to OpenFHE's results limb for limb.

Ciphertexts and keys are arrays of residues in a device's memory; nothing here knows a secret, nor
the device: arithmetic is that of `tacit.kernels.limb_kernels`. Scales and levels are those of
OpenFHE's FLEXIBLEAUTO mode, so a ciphertext can change backends at any point.

Every operation works on a batch, each entry under its owner's keys; entries never mix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.chebyshev import chebyshev_by_powers
from tacit.circuit import Chebyshev, LinearPlan, Plain, ValueType, WeightedSumPlan
from tacit.decompose import add_biases
from tacit.errors import CircuitError, InternalError, KeyMismatchError
from tacit.kernels.limb_kernels import LimbArray
from tacit.runtime.backends.native_ciphertext import NativeCiphertext
from tacit.runtime.backends.native_key_tables import KeyTables
from tacit.runtime.backends.native_keys import NativeKeys
from tacit.runtime.backends.native_linear import add_rotations, apply_diagonals
from tacit.type_rules import (
    combination_type,
    dropped_type,
    product_type,
    rescaled_type,
    sum_type,
)

Floats = NDArray[np.float64]


class NativeEvaluator:
    """Evaluate circuits on limbs; may be used by several threads.

    Args:
        keys: those of each batch entry, in order; or one client's, for batches of any size. They
            bring the engine and its parameters.
        correct_rotations: take the error of rounding down out of rotations, as our OpenFHE
            backend does; without it they are OpenFHE's own, residue by residue.

    Raises:
        KeyMismatchError: no keys, or keys of different engines; from any operation: ciphertexts
            of others than the keys' owners.
    """

    def __init__(
        self, keys: NativeKeys | Sequence[NativeKeys], *, correct_rotations: bool = True
    ) -> None:
        self._keys = KeyTables([keys] if isinstance(keys, NativeKeys) else keys)
        self._correct_rotations = correct_rotations
        self._engine = self._keys.engine
        self._kernels = self._engine.kernels
        self._checked: tuple[bytes, ...] | None = None

    def type_of(self, a: NativeCiphertext) -> ValueType:
        """Return level and degree."""
        return a.type

    def add(self, a: NativeCiphertext, b: NativeCiphertext) -> NativeCiphertext:
        """Add two ciphertexts of equal type."""
        to = self._sum_type(a, b)
        return _made(self._kernels.add(a.limbs, b.limbs), to, a)

    def subtract(self, a: NativeCiphertext, b: NativeCiphertext) -> NativeCiphertext:
        """Subtract two ciphertexts of equal type."""
        to = self._sum_type(a, b)
        return _made(self._kernels.subtract(a.limbs, b.limbs), to, a)

    def negate(self, a: NativeCiphertext) -> NativeCiphertext:
        """Negate a ciphertext."""
        self._check(a)
        return _made(self._kernels.negate(a.limbs), a.type, a)

    def add_plain(self, a: NativeCiphertext, plain: Plain) -> NativeCiphertext:
        """Add a constant, encoded at the ciphertext's level and degree."""
        self._check(a)
        to = a.type
        if plain.is_scalar:
            constants = self._engine.scalar(float(plain.values), to)
            return _made(self._kernels.add_constant(a.limbs, constants), to, a)
        encoded = self._engine.plaintext(plain, to)
        return _made(self._kernels.add_plain(a.limbs, encoded), to, a)

    def multiply_plain(self, a: NativeCiphertext, plain: Plain) -> NativeCiphertext:
        """Multiply by a constant: degree 1 to degree 2."""
        self._check(a)
        at = a.type
        to = product_type(at)
        if plain.is_scalar:
            constants = self._engine.scalar(float(plain.values), at)
            return _made(self._kernels.scale(a.limbs, constants), to, a)
        encoded = self._engine.plaintext(plain, at)
        (product,) = self._kernels.dot_pairs([[(a.limbs, encoded)]], at.level)
        return _made(product, to, a)

    def multiply(self, a: NativeCiphertext, b: NativeCiphertext) -> NativeCiphertext:
        """Multiply two ciphertexts of equal level and degree 1, and relinearise: degree 2.

        Raises:
            UnknownKeyError: no relinearisation key for this level.
        """
        to = product_type(a.type, b.type)
        self._check(a, b)
        keys, kernels = self._keys.relinearization(len(a.owners), to.level), self._kernels
        return _made(kernels.multiply(a.limbs, b.limbs, keys.table), to, a)

    def rotate(self, a: NativeCiphertext, steps: int) -> NativeCiphertext:
        """Rotate the slots to the left.

        Raises:
            UnknownKeyError: no Galois key for these steps at this level.
        """
        return self.rotate_many(a, (steps,))[0]

    def rotate_many(self, a: NativeCiphertext, steps: Sequence[int]) -> list[NativeCiphertext]:
        """Rotate one ciphertext by several steps, extending its digits once; 0 is allowed."""
        self._check(a)
        slots, batch, kernels = self._engine.params.slots, len(a.owners), self._kernels
        wanted = {step % slots: step for step in steps}
        wanted.pop(0, None)
        found = [self._keys.rotation(name, batch, a.level) for name in wanted.values()]
        rotated = {0: a}
        if found:
            made = kernels.switch_down(
                kernels.part(a.limbs, 1),
                [key.table for key in found],
                [key.moved for key in found],
                plus=(kernels.part(a.limbs, 0), None),
                shared=self._halves(a),
            )
            rotated |= {
                step: _made(limbs, a.type, a) for step, limbs in zip(wanted, made, strict=True)
            }
        return [rotated[step % slots] for step in steps]

    def rescale(self, a: NativeCiphertext) -> NativeCiphertext:
        """Divide by the last modulus: (l, 2) to (l - 1, 1)."""
        self._check(a)
        to = rescaled_type(a.type)
        return _made(self._kernels.rescale(a.limbs), to, a)

    def drop(self, a: NativeCiphertext, level: int) -> NativeCiphertext:
        """Lower a degree-1 ciphertext to `level`, with that level's scale.

        Limbs are cut off down to one above the target; a product with the ratio of the scales and
        one rescale give the target's scale.
        """
        self._check(a)
        to = dropped_type(a.type, level)
        ratio = self._engine.scales[level + 1] / self._engine.scales[a.level]
        constants = self._engine.scalar(ratio, ValueType(level + 1))
        return _made(self._kernels.rescale(self._kernels.scale(a.limbs, constants)), to, a)

    def linear(
        self,
        inputs: Sequence[NativeCiphertext],
        plan: LinearPlan,
        constants: Mapping[str, Floats],
    ) -> list[NativeCiphertext]:
        """Apply a linear transform, with double hoisting."""
        to = combination_type([operand.type for operand in inputs])
        self._check(*inputs)
        limbs = [operand.limbs for operand in inputs]
        sums = apply_diagonals(self._engine, self._keys, limbs, plan, constants)
        outputs = [_made(self._kernels.rescale(total), to, inputs[0]) for total in sums]
        for steps in plan.fold_sums():
            outputs = [self._folded(output, steps) for output in outputs]
        return add_biases(self, outputs, plan.bias, constants)

    def weighted_sum(
        self,
        inputs: Sequence[NativeCiphertext],
        plan: WeightedSumPlan,
        constants: Mapping[str, Floats],
    ) -> list[NativeCiphertext]:
        """Apply a matrix of scalars, with one reduction per sixteen products."""
        to = combination_type([operand.type for operand in inputs])
        self._check(*inputs)
        weights = constants[plan.weights]
        if weights.shape != (plan.outputs, len(inputs)):
            raise CircuitError(
                f"weights {plan.weights!r} of shape {(plan.outputs, len(inputs))} expected, got "
                f"{weights.shape}"
            )
        sums: list[LimbArray] = []
        for used, block in self._engine.weight_blocks(plan.weights, weights, inputs[0].level):
            sums += self._kernels.combine([inputs[i].limbs for i in used], block)
        outputs = [_made(self._kernels.rescale(total), to, inputs[0]) for total in sums]
        return add_biases(self, outputs, plan.bias, constants)

    def chebyshev(
        self, a: NativeCiphertext, polynomial: Chebyshev, constants: Mapping[str, Floats]
    ) -> NativeCiphertext:
        """Evaluate a polynomial in the Chebyshev basis on [-1, 1]."""
        name = polynomial.coefficients
        return chebyshev_by_powers(self, a, constants[name], key=name, fused=self.sum_of_products)

    def sum_of_products(
        self,
        level: int,
        pairs: Sequence[tuple[NativeCiphertext, NativeCiphertext, int]],
        scaled: Sequence[tuple[NativeCiphertext, float | complex]],
        addend: NativeCiphertext | None,
    ) -> NativeCiphertext:
        """Add up products with one relinearisation; see `tacit.chebyshev.SumOfProducts`.

        Multiples of ciphertexts at higher levels are made without lowering them: limbs are cut off,
        and the factor's own scale makes up for the difference.

        Raises:
            UnknownKeyError: no relinearisation key.
        """
        operands = [c for a, b, _ in pairs for c in (a, b)] + [c for c, _ in scaled]
        operands += [] if addend is None else [addend]
        self._check(*operands)
        kernels, to = self._kernels, ValueType(level, 2)
        total = None if addend is None else addend.limbs
        if scaled:
            at, halves_of = ValueType(level), self._engine.halves_of
            columns = [halves_of(complex(factor), at, c.level) for c, factor in scaled]
            weights = np.ascontiguousarray(np.stack(columns, axis=-1)[:, :, None])
            made = kernels.weighted([c.limbs for c, _ in scaled], weights)
            total = made if total is None else kernels.add(total, made)
        if not pairs:
            assert total is not None  # there is a term
            return _made(total, to, operands[0])
        keys = self._keys.relinearization(len(operands[0].owners), level)
        products = [(a.limbs, b.limbs) for a, b, times in pairs for _ in range(times)]
        return _made(kernels.multiply_sum(products, keys.table, total), to, operands[0])

    def bootstrap(
        self, a: NativeCiphertext, plan: Bootstrap, constants: Mapping[str, Floats]
    ) -> NativeCiphertext:
        """Raise the level, and apply a function to slots in [-1/2, 1/2).

        Raises:
            UnknownKeyError: a key is missing.
            LevelError: the input's level is too low, or the parameters have too few levels.
        """
        from tacit.runtime.backends.bootstrapping import bootstrap
        from tacit.runtime.backends.native_complex import ComplexEvaluator

        self._check(a)
        return bootstrap(ComplexEvaluator(self), a, plan, constants)

    def _folded(self, a: NativeCiphertext, steps: Sequence[int]) -> NativeCiphertext:
        """Return `a` plus its rotations by all steps."""
        if len(steps) == 1:
            return self.add(a, self.rotate(a, steps[0]))
        slots = self._engine.params.slots
        turned = [step for step in steps if step % slots]
        halves = self._halves(a)
        limbs = add_rotations(self._engine, self._keys, a.limbs, turned, halves)
        whole = _made(limbs, a.type, a)
        for _ in range(len(steps) - len(turned)):
            whole = self.add(whole, a)
        return whole

    def _sum_type(self, a: NativeCiphertext, b: NativeCiphertext) -> ValueType:
        self._check(a, b)
        return sum_type(a.type, b.type)

    def _halves(self, a: NativeCiphertext) -> LimbArray | None:
        return self._engine.halves if self._correct_rotations and a.degree == 1 else None

    def _check(self, a: NativeCiphertext, *others: NativeCiphertext) -> None:
        """Check that ciphertexts belong to these keys, entry by entry."""
        owners = a.owners
        if a.limbs.shape[1] != a.level + 1:
            raise InternalError(f"level {a.level} needs {a.level + 1} limbs, not {a.limbs.shape}")
        if owners is not self._checked:
            self._keys.check(owners)
            self._checked = owners  # results share the tuple: the next look is cheap
        for other in others:
            if other.owners is not owners and other.owners != owners:
                raise KeyMismatchError(
                    f"batches of {len(owners)} and {len(other.owners)} entries, or of different "
                    "owners, in one operation: join all inputs in the same order"
                )


def _made(limbs: LimbArray, to: ValueType, a: NativeCiphertext) -> NativeCiphertext:
    return NativeCiphertext(a.kernels, limbs, to.level, to.degree, a.owners)
