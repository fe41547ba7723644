"""A matrix times a vector of slots: its diagonals, and the rotations they need."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from tacit.errors import CircuitError
from tacit.folds import joint_sums

# How much more memory the diagonals of a map may take over QP, whatever it saves.
_EXTENSION_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class LinearTerm:
    """One diagonal: constant row `row` times rotation `baby` of `input`, summed under `giant`."""

    output: int
    input: int
    giant: int
    baby: int
    row: int


@dataclass(frozen=True, slots=True)
class LinearPlan:
    """A matrix times a vector of slots, by baby-step giant-step diagonals. Costs one level.

    output r = fold( rescale( sum_giant rotate( sum_(input c, baby) diagonal[row] *
    rotate(input c, baby), giant ) ) ) + bias[r], where fold adds, for each step in `folds` in
    order, the value rotated by that step. All steps count slots, to the left.

    Giant steps may be taken in sequence, the greatest first: with giants g < h the sum is
    rotate( sum_g + rotate( sum_h, h - g ), g ), so that keys are needed for g and for differences
    only (Horner's rule).

    Attributes:
        outputs: number of output ciphertexts.
        terms: the diagonals; rows already hold the pre-rotation by -giant.
        diagonals: name of a constant of shape (rows, length), length a divisor of the slots.
        bias: name of a constant of shape (outputs, length), or "".
        folds: steps of the final rotate-and-add, applied to each output.
        joint_folds: how many consecutive folds are done at once; () for one by one.
        in_sequence: whether giant steps are taken in sequence; they may be negative then.
    """

    outputs: int
    terms: tuple[LinearTerm, ...]
    diagonals: str
    bias: str
    folds: tuple[int, ...] = ()
    joint_folds: tuple[int, ...] = ()
    in_sequence: bool = False

    def __post_init__(self) -> None:
        self.fold_sums()
        missing = set(range(self.outputs)) - {term.output for term in self.terms}
        if missing:
            raise CircuitError(f"outputs {sorted(missing)} of a linear transform have no terms")

    def baby_steps(self, input_index: int) -> tuple[int, ...]:
        """Return the sorted rotation steps needed of one input, 0 included if used."""
        return tuple(sorted({t.baby for t in self.terms if t.input == input_index}))

    def giant_moves(self, output: int) -> tuple[tuple[int, int], ...]:
        """Return (giant, step) for each giant of an output, greatest first.

        In sequence the sum of all greater giants is rotated by `step` and then meets this one's
        own; what is left at the end is rotated by the last giant. Otherwise the step is 0.
        """
        giants = sorted({t.giant for t in self.terms if t.output == output}, reverse=True)
        if not self.in_sequence:
            return tuple((giant, 0) for giant in giants)
        steps = [0, *(a - b for a, b in pairwise(giants))]
        return tuple(zip(giants, steps, strict=True))

    def giant_rotations(self, output: int) -> tuple[int, ...]:
        """Return the steps other than 0 by which sums of an output are rotated, repeats too."""
        moves = self.giant_moves(output)
        steps = [step for _, step in moves] + [moves[-1][0]]
        return tuple(step for step in (steps if self.in_sequence else dict(moves)) if step)

    def over_qp(self, n: int, limbs: int, specials: int) -> bool:
        """Tell whether a backend with double hoisting keeps rotated inputs and diagonals over QP.

        There a rotated input is not divided by P, but every diagonal has rows for the primes of P.
        A large map of more diagonals than its rotated inputs make up for stays over Q.

        Args:
            n: coefficients of a polynomial.
            limbs: of Q, of the inputs.
            specials: primes of P.
        """
        slots = n // 2
        babies = len({(t.input, t.baby % slots) for t in self.terms if t.baby % slots})
        rows = specials * len({term.row for term in self.terms})
        large = 8 * n * rows > _EXTENSION_BYTES
        return babies > 0 and not (large and rows > 2 * babies * (limbs + specials))

    def fold_sums(self) -> list[tuple[int, ...]]:
        """Return, for each group of folds, the rotations whose sum with the value folds it."""
        return joint_sums(self.folds, self.joint_folds)

    def rotations(self) -> frozenset[int]:
        """Return every non-zero rotation step used."""
        steps = {t.baby for t in self.terms}
        giants = [self.giant_rotations(output) for output in range(self.outputs)]
        return frozenset(steps.union(*giants, *self.fold_sums()) - {0})
