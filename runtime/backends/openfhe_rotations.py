"""Rotations: one, several of one ciphertext, and sums of many.

A rotation is a decomposition into digits, a product with the key over the moduli and the special
primes, and a division by the special primes. Rotations of one ciphertext share the first part; a
sum of rotations shares the last, which for few digits is the dearer one. So
rotate(x, 1) + rotate(x, 2) + rotate(x, 3) costs about 2/3 of two rotations one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import openfhe

from tacit.params import CryptoParams
from tacit.runtime.backends.openfhe_calls import call, call_with_key
from tacit.runtime.backends.openfhe_key_limits import KeyLimits
from tacit.runtime.backends.openfhe_rounding import RotationCorrection


class Rotations:
    """Rotates slots to the left; steps are taken modulo the slots.

    Args:
        params: the parameters.
        context: OpenFHE's, with Galois keys under the key tag of the ciphertexts.
        correction: takes out OpenFHE's rounding error, or None.
        limits: the highest levels of trimmed keys.
    """

    def __init__(
        self,
        params: CryptoParams,
        context: openfhe.CryptoContext,
        correction: RotationCorrection | None,
        limits: KeyLimits,
    ) -> None:
        self._limits = limits
        self._conjugation = 2 * params.n - 1
        self._depth = params.depth
        self._slots = params.slots
        self._context = context
        self._correction = correction

    def each(self, a: openfhe.Ciphertext, steps: Sequence[int]) -> list[openfhe.Ciphertext]:
        """Rotate one ciphertext by several steps, hoisted from two on; by 0 gives it itself.

        Raises:
            UnknownKeyError: no Galois key for a step at this level.
        """
        wanted = sorted({step % self._slots for step in steps} - {0})
        rotated = {0: a}
        if len(wanted) == 1:
            rotated[wanted[0]] = self._one(a, wanted[0])
        elif wanted:
            digits = call(self._context.EvalFastRotationPrecompute, a)
            for step in wanted:
                moved = self._keyed(self._context.EvalFastRotation, step, a, step, digits)
                rotated[step] = self._corrected(moved)
        return [rotated[step % self._slots] for step in steps]

    def total(
        self, parts: Sequence[tuple[openfhe.Ciphertext, Iterable[int]]]
    ) -> openfhe.Ciphertext:
        """Sum ciphertexts of one type, each rotated by all of its steps, into a new one.

        Args:
            parts: (ciphertext, steps); 0 among the steps adds the ciphertext itself.

        Raises:
            UnknownKeyError: no Galois key for a step at this level.
        """
        reduced = [(a, [step % self._slots for step in steps]) for a, steps in parts]
        still = [a for a, steps in reduced for step in steps if not step]
        moving = [(a, [step for step in steps if step]) for a, steps in reduced]
        moving = [(a, steps) for a, steps in moving if steps]
        if not moving:
            total = self.copy(still.pop())
        elif len(moving) == 1 and len(moving[0][1]) == 1:
            total = self._one(moving[0][0], moving[0][1][0])
        else:
            total = self._corrected(self._moved_total(moving))
        for a in still:
            self._context.EvalAddInPlaceNoCheck(total, a)
        return total

    def conjugated(self, a: openfhe.Ciphertext) -> openfhe.Ciphertext:
        """Take the complex conjugate of every slot.

        Raises:
            UnknownKeyError: no Galois key for X -> X^-1 at this level.
        """
        self._limits.check_conjugation(self._depth - a.GetLevel())
        key = "the Galois key for conjugation"
        found = call_with_key(self._context.GetEvalAutomorphismKeyMap, a.GetKeyTag(), key=key)
        function = self._context.EvalAutomorphism
        return self._corrected(call_with_key(function, a, self._conjugation, found, key=key))

    def copy(self, a: openfhe.Ciphertext) -> openfhe.Ciphertext:
        """Copy a ciphertext, limbs and all.

        OpenFHE's Python module is compiled without optimisation, and ciphertexts that it made
        itself, by loading them, copy themselves with its code: 40 times slower than those that
        the library made. `Compress` to as many limbs as there are copies in the library.
        """
        limbs = self._depth - a.GetLevel() + 1
        return call(self._context.Compress, a, limbs, a.GetNoiseScaleDeg())

    def _one(self, a: openfhe.Ciphertext, step: int) -> openfhe.Ciphertext:
        return self._corrected(self._keyed(self._context.EvalRotate, step, a, step))

    def _moved_total(
        self, parts: Sequence[tuple[openfhe.Ciphertext, Sequence[int]]]
    ) -> openfhe.Ciphertext:
        """Sum products with keys over all primes, and divide by the special ones once."""
        total = None
        for a, steps in parts:
            digits = call(self._context.EvalFastRotationPrecompute, a)
            for step in steps:
                extended = self._keyed(
                    self._context.EvalFastRotationExt, step, a, step, digits, True
                )
                if total is None:
                    total = extended
                else:
                    call(self._context.EvalAddInPlaceNoCheck, total, extended)
        return call(self._context.KeySwitchDown, total)

    def _keyed(
        self,
        function: Callable[..., openfhe.Ciphertext],
        step: int,
        a: openfhe.Ciphertext,
        *operands: object,
    ) -> openfhe.Ciphertext:
        self._limits.check_rotation(step, self._depth - a.GetLevel())
        key = f"a Galois key for rotations by {step} slots"
        return call_with_key(function, a, *operands, key=key)

    def _corrected(self, moved: openfhe.Ciphertext) -> openfhe.Ciphertext:
        if self._correction is not None and moved.GetNoiseScaleDeg() == 1:
            self._correction.apply(moved, self._depth - moved.GetLevel())
        return moved
