"""The OpenFHE backend: FLEXIBLEAUTO ciphertexts with our explicit levels.

OpenFHE counts levels upwards from 0, we count rescalings left: level = depth - GetLevel(). In
FLEXIBLEAUTO mode OpenFHE rescales by itself where an operation meets degree 2, and `Rescale` does
nothing. This backend never lets that happen: it refuses what the rules of `tacit.type_rules`
refuse, rescales by `Compress` (which divides by the last modulus until the degree asked for is
reached), and compares level and degree of every result with what the rules say.

Linear transforms and weighted sums are fused: sums in place, rotations summed before they are
divided by the special primes (`openfhe_rotations`), and no checks in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import openfhe
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.circuit import Chebyshev, Circuit, LinearPlan, Plain, ValueType, WeightedSumPlan
from tacit.decompose import chebyshev_by_powers
from tacit.errors import LevelError
from tacit.params import CryptoParams
from tacit.runtime.backends import bootstrapping
from tacit.runtime.backends.openfhe_calls import call, call_with_key
from tacit.runtime.backends.openfhe_key_limits import KeyLimits
from tacit.runtime.backends.openfhe_plaintexts import PlaintextBudget, PlaintextCache
from tacit.runtime.backends.openfhe_raising import Raising, SparseSwitch
from tacit.runtime.backends.openfhe_rotations import Rotations
from tacit.runtime.backends.openfhe_rounding import RotationCorrection
from tacit.type_rules import (
    combination_type,
    dropped_type,
    product_type,
    rescaled_type,
    sum_type,
)

Floats = NDArray[np.float64]

DEFAULT_PLAINTEXT_BYTES = 1 << 30

_TERMS_AT_ONCE = 8


class OpenFHEEvaluator:
    """Evaluate circuits on OpenFHE ciphertexts; may be used by several threads.

    Evaluation keys are OpenFHE's: they must have been inserted into its process-wide tables under
    the key tag of the ciphertexts. Ciphertexts given are never changed; results may be the
    ciphertext given where nothing had to be done.

    Args:
        params: the parameters.
        context: from `openfhe_parameters.make_context`.
        circuit: encode its constants now, so that its first evaluation takes no longer than the
            others; without it they are encoded when they are first used.
        budget: memory for encoded plaintexts, which may be shared with other evaluators; by
            default `DEFAULT_PLAINTEXT_BYTES` of its own. Only what circuits need is taken.
        correct_rotations: take OpenFHE's rounding error out of rotations (`openfhe_rounding`);
            without it they are OpenFHE's own, residue by residue.
        limits: the highest levels of keys that were trimmed; None if none was.
        sparse: the keys of an encapsulated secret, for circuits that bootstrap.
    """

    fused: None = None
    """Products of ciphertexts are added up one by one."""

    def __init__(
        self,
        params: CryptoParams,
        context: openfhe.CryptoContext,
        *,
        circuit: Circuit | None = None,
        budget: PlaintextBudget | None = None,
        correct_rotations: bool = True,
        limits: KeyLimits | None = None,
        sparse: SparseSwitch | None = None,
    ) -> None:
        self._params = params
        self._limits = limits or KeyLimits(params)
        self._context = context
        self._scales = tuple(params.scale(level) for level in range(params.depth + 1))
        budget = budget or PlaintextBudget(DEFAULT_PLAINTEXT_BYTES)
        self._plaintexts = PlaintextCache(params, context, budget)
        if circuit is not None:
            self._limits.check(circuit)
            self._plaintexts.prepare(circuit)
        correction = RotationCorrection(params, context) if correct_rotations else None
        self._raising = Raising(params, context, sparse)
        self._rotations = Rotations(params, context, correction, self._limits)

    @property
    def params(self) -> CryptoParams:
        """The parameters."""
        return self._params

    def type_of(self, a: openfhe.Ciphertext) -> ValueType:
        """Return level and degree as OpenFHE tracks them."""
        return ValueType(self._params.depth - a.GetLevel(), a.GetNoiseScaleDeg())

    def add(self, a: openfhe.Ciphertext, b: openfhe.Ciphertext) -> openfhe.Ciphertext:
        """Add two ciphertexts of equal type."""
        to = sum_type(self.type_of(a), self.type_of(b))
        return self._checked(call(self._context.EvalAdd, a, b), to)

    def subtract(self, a: openfhe.Ciphertext, b: openfhe.Ciphertext) -> openfhe.Ciphertext:
        """Subtract two ciphertexts of equal type."""
        to = sum_type(self.type_of(a), self.type_of(b))
        return self._checked(call(self._context.EvalSub, a, b), to)

    def negate(self, a: openfhe.Ciphertext) -> openfhe.Ciphertext:
        """Negate a ciphertext."""
        return self._checked(call(self._context.EvalNegate, a), self.type_of(a))

    def add_plain(self, a: openfhe.Ciphertext, plain: Plain) -> openfhe.Ciphertext:
        """Add a constant, encoded at the ciphertext's level and degree."""
        to = self.type_of(a)
        return self._checked(call(self._context.EvalAdd, a, self._operand(plain, to)), to)

    def multiply_plain(self, a: openfhe.Ciphertext, plain: Plain) -> openfhe.Ciphertext:
        """Multiply by a constant: degree 1 to degree 2."""
        at = self.type_of(a)
        to = product_type(at)
        return self._checked(call(self._context.EvalMult, a, self._operand(plain, at)), to)

    def multiply(self, a: openfhe.Ciphertext, b: openfhe.Ciphertext) -> openfhe.Ciphertext:
        """Multiply two ciphertexts of equal level and degree 1, and relinearise: degree 2.

        Raises:
            UnknownKeyError: no relinearisation key for this level.
        """
        to = product_type(self.type_of(a), self.type_of(b))
        self._limits.check_relinearization(to.level)
        product = call_with_key(self._context.EvalMult, a, b, key="a relinearisation key")
        return self._checked(product, to)

    def rotate(self, a: openfhe.Ciphertext, steps: int) -> openfhe.Ciphertext:
        """Rotate the slots to the left.

        Raises:
            UnknownKeyError: no Galois key for these steps at this level.
        """
        return self.rotate_many(a, (steps,))[0]

    def rotate_many(self, a: openfhe.Ciphertext, steps: Sequence[int]) -> list[openfhe.Ciphertext]:
        """Rotate one ciphertext by several steps, hoisted from two on; 0 is allowed."""
        to = self.type_of(a)
        return [self._checked(moved, to) for moved in self._rotations.each(a, steps)]

    def rescale(self, a: openfhe.Ciphertext) -> openfhe.Ciphertext:
        """Divide by the last modulus: (l, 2) to (l - 1, 1)."""
        to = rescaled_type(self.type_of(a))
        return self._checked(call(self._context.Compress, a, to.level + 1, 1), to)

    def drop(self, a: openfhe.Ciphertext, level: int) -> openfhe.Ciphertext:
        """Lower a degree-1 ciphertext to `level`, with that level's scale.

        Limbs are cut off down to one above the target, then one product with the ratio of the
        scales, which OpenFHE encodes as an integer near 2^log_scale, and one rescale give the
        target's scale. It costs about one rescale at that level.
        """
        at = self.type_of(a)
        to = dropped_type(at, level)
        cut = call(self._context.Compress, a, level + 2, 1) if at.level > level + 1 else a
        ratio = self._scales[level + 1] / self._scales[at.level]
        scaled = call(self._context.EvalMult, cut, ratio)
        lowered = call(self._context.Compress, scaled, level + 1, 1)
        lowered.SetScalingFactor(self._scales[level])
        return self._checked(lowered, to)

    def linear(
        self,
        inputs: Sequence[openfhe.Ciphertext],
        plan: LinearPlan,
        constants: Mapping[str, Floats],
    ) -> list[openfhe.Ciphertext]:
        """Apply a linear transform: hoisted baby steps, giant steps and folds as sums."""
        to = combination_type([self.type_of(operand) for operand in inputs])
        at = ValueType(to.level + 1)
        sums = self._diagonal_sums(inputs, plan, constants[plan.diagonals], at)
        results = []
        for output in range(plan.outputs):
            summed = self._sum_of_giants(plan, output, sums)
            total = call(self._context.Compress, summed, at.level, 1)
            for steps in plan.fold_sums():
                total = self._rotations.total([(total, (0, *steps))])
            if plan.bias:
                bias = Plain(f"{plan.bias}/{output}", constants[plan.bias][output])
                call(self._context.EvalAddInPlace, total, self._operand(bias, to))
            results.append(self._checked(total, to))
        return results

    def _sum_of_giants(
        self, plan: LinearPlan, output: int, sums: dict[tuple[int, int], openfhe.Ciphertext]
    ) -> openfhe.Ciphertext:
        """Rotate and add the sums under one output's giant steps, all at once or in sequence."""
        if not plan.in_sequence:
            parts = [(sums.pop(key), (key[1],)) for key in sorted(sums) if key[0] == output]
            return self._rotations.total(parts)
        (giant, _), *moves = plan.giant_moves(output)
        total = sums.pop((output, giant))
        for giant, step in moves:
            total = self._rotations.total([(total, (step,)), (sums.pop((output, giant)), (0,))])
        return self._rotations.total([(total, (giant,))]) if giant else total

    def _diagonal_sums(
        self, inputs: Sequence[openfhe.Ciphertext], plan: LinearPlan, rows: Floats, at: ValueType
    ) -> dict[tuple[int, int], openfhe.Ciphertext]:
        """Return the sum of products under each (output, giant step), of degree 2."""
        rotated = {}
        for index, operand in enumerate(inputs):
            steps = plan.baby_steps(index)
            moved = self._rotations.each(self._rotations.copy(operand), steps)
            rotated.update({(index, step): a for step, a in zip(steps, moved, strict=True)})
        sums: dict[tuple[int, int], openfhe.Ciphertext] = {}
        for term in plan.terms:
            plain = self._plaintexts.encode_row(plan.diagonals, rows, term.row, at)
            product = call(self._context.EvalMult, rotated[term.input, term.baby], plain)
            key = (term.output, term.giant)
            if key in sums:
                call(self._context.EvalAddInPlaceNoCheck, sums[key], product)
            else:
                sums[key] = product
        return sums

    def weighted_sum(
        self,
        inputs: Sequence[openfhe.Ciphertext],
        plan: WeightedSumPlan,
        constants: Mapping[str, Floats],
    ) -> list[openfhe.Ciphertext]:
        """Apply a matrix of scalars; zero weights are skipped."""
        to = combination_type([self.type_of(operand) for operand in inputs])
        results = []
        for r, weights in enumerate(constants[plan.weights]):
            total = call(self._context.Compress, self._combined(inputs, weights), to.level + 1, 1)
            if plan.bias:
                call(self._context.EvalAddInPlace, total, float(constants[plan.bias][r]))
            results.append(self._checked(total, to))
        return results

    def _combined(
        self, inputs: Sequence[openfhe.Ciphertext], weights: Floats
    ) -> openfhe.Ciphertext:
        """Return the weighted sum of degree 2, a few terms at a time to stay in the CPU's cache."""
        used = np.flatnonzero(weights) if np.any(weights) else np.arange(1)
        total = None
        for start in range(0, len(used), _TERMS_AT_ONCE):
            some = used[start : start + _TERMS_AT_ONCE]
            terms = [self._rotations.copy(inputs[int(c)]) for c in some]
            part = call(self._context.EvalLinearWSumMutable, weights[some].tolist(), terms)
            if total is None:
                total = part
            else:
                call(self._context.EvalAddInPlaceNoCheck, total, part)
        return total

    def chebyshev(
        self, a: openfhe.Ciphertext, polynomial: Chebyshev, constants: Mapping[str, Floats]
    ) -> openfhe.Ciphertext:
        """Evaluate a polynomial in the Chebyshev basis on [-1, 1]."""
        name = polynomial.coefficients
        return chebyshev_by_powers(self, a, constants[name], key=name)

    def bootstrap(
        self, a: openfhe.Ciphertext, plan: Bootstrap, constants: Mapping[str, Floats]
    ) -> openfhe.Ciphertext:
        """Raise the level, and apply a function to slots in [-1/2, 1/2).

        Raises:
            UnknownKeyError: a key is missing, or for lower levels.
            LevelError: the input's level is too low, or the parameters have too few levels.
        """
        return bootstrapping.bootstrap(self, a, plan, constants)

    def conjugate(self, a: openfhe.Ciphertext) -> openfhe.Ciphertext:
        """Take the complex conjugate of every slot.

        Raises:
            UnknownKeyError: no Galois key for X -> X^-1 at this level.
        """
        return self._checked(self._rotations.conjugated(a), self.type_of(a))

    def raised(self, a: openfhe.Ciphertext, level: int) -> openfhe.Ciphertext:
        """Take coefficients at level 0 as integers: the same plus multiples of q_0, at `level`.

        Raises:
            UnknownKeyError: the secret is encapsulated, and its switching keys are missing.
        """
        self._limits.check_from_sparse(level)
        return self._checked(self._raising.apply(a, level), ValueType(level))

    def _operand(self, plain: Plain, at: ValueType) -> float | complex | openfhe.Plaintext:
        return plain.values.item() if plain.is_scalar else self._plaintexts.encode(plain, at)

    def _checked(self, result: openfhe.Ciphertext, expected: ValueType) -> openfhe.Ciphertext:
        found = self.type_of(result)
        if found != expected:
            raise LevelError(
                f"OpenFHE gave level {found.level}, degree {found.degree}; "
                f"the rules say level {expected.level}, degree {expected.degree}"
            )
        return result
