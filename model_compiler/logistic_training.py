"""Logistic regression trained on encrypted rows: the circuit of a fixed number of iterations.

Nesterov's accelerated gradient on the mean logistic loss, full batch, without regularisation. The
customer's rows come as signed rows r_i = y_i (1, x_i) / c with y_i = 1 or -1, scaled so that the
step length is 1 (`tacit.logistic`), hence everything below is independent of the data:

    v_t     = (1 + m_t) b_t - m_t b_(t-1)
    b_(t+1) = v_t + k sum_i sigmoid(-R r_i . v_t) r_i,     k = c^2 / (R capacity), b_0 = 0

With weights divided by R = 8, the range of the sigmoid's polynomial, margins stay in [-1, 1], where
noise is not amplified.

**Layout.** Slots are blocks of `width` slots, the power of two from features + 1; block i holds
row i and all blocks hold the same weights. Rotations by 1, 2, 4, ... gather a row's products in its
first slot; the sigmoid's polynomial is multiplied by a mask that keeps only that slot, for nothing,
as its coefficients are plaintexts; rotations by -1, -2, ... spread it over the block; rotations by
width, 2 width, ... add up the rows, cyclically, so that the sum arrives in every block. It is the
layout of Han, Song, Cheon and Park, "Logistic regression on homomorphic encrypted data at scale"
(2019), with iterate and look-ahead told apart by their margins: since
r . v = (1 + m) r . b_t - m r . b_(t-1), momentum costs no level and no ciphertext of its own. Every
rotation works on a product that is not rescaled yet, where it costs no precision.

**Depth.** 1 level for the first iteration, whose sigmoid is 1/2, then 2 and those of the
polynomial: 4 levels an iteration for degree 3, 5 for degrees 5 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import Circuit, Op, Steps, WeightedSumPlan
from tacit.errors import ParameterError
from tacit.layout import Layout
from tacit.logistic import SIGMOID_RANGE, momenta, odd_sigmoid
from tacit.model_compiler.builder import CircuitBuilder
from tacit.model_compiler.lowering.arrangement import power_of_two_above
from tacit.model_compiler.lowering.lowered import Lowered

Floats = NDArray[np.float64]

DEGREES = (3, 5, 7)
ROWS, WEIGHTS = "rows", "weights"


@dataclass(frozen=True, slots=True)
class LogisticTraining:
    """What is trained.

    Attributes:
        rows: how many rows fit.
        features: without the constant one.
        iterations: of the gradient method, the first included.
        degree: of the sigmoid's polynomial: 3, 5 or 7.
        row_scale: c above; rows are stored in [-1, 1].

    Raises:
        ParameterError: a number is out of range.
    """

    rows: int
    features: int
    iterations: int
    degree: int = 5
    row_scale: float = 4.0

    def __post_init__(self) -> None:
        if min(self.rows, self.features, self.iterations) < 1:
            raise ParameterError("training needs at least one row, one feature and one iteration")
        if self.degree not in DEGREES:
            raise ParameterError(f"the sigmoid's degree must be one of {DEGREES}")

    @property
    def width(self) -> int:
        """Slots of one row, the constant one included."""
        return power_of_two_above(self.features + 1)

    @property
    def depth(self) -> int:
        """Levels that the circuit takes."""
        return 1 + (self.iterations - 1) * (2 + self.degree.bit_length())

    def ciphertexts(self, slots: int) -> int:
        """Count the ciphertexts of the rows.

        Raises:
            ParameterError: a row does not fit into one.
        """
        if self.width > slots:
            raise ParameterError(f"{self.features} features do not fit into {slots} slots")
        return -(-self.rows * self.width // slots)

    def capacity(self, slots: int) -> int:
        """Count the rows that fit into the ciphertexts."""
        return self.ciphertexts(slots) * slots // self.width


def lower_training(task: LogisticTraining, slots: int) -> Lowered:
    """Write the circuit: `rows` (capacity x width) in, `weights` (features + 1) out.

    Args:
        task: what is trained.
        slots: of a ciphertext.

    Raises:
        ParameterError: a row does not fit.
    """
    count = task.ciphertexts(slots)
    rows = np.arange(count * slots, dtype=np.int64)[None, :]
    weights = np.arange(task.features + 1, dtype=np.int64)[None, :]
    return Lowered(
        _Training(task, slots).run(),
        1,
        {ROWS: Layout(slots, 1, count, rows)},
        {WEIGHTS: Layout(slots, 1, 1, weights)},
        {ROWS: task.depth},
    )


class _Training:
    """Writes the iterations; values are ids of the builder, one margin per ciphertext of rows."""

    def __init__(self, task: LogisticTraining, slots: int) -> None:
        self._task = task
        self._builder = CircuitBuilder(slots)
        self._slots = slots
        count = task.ciphertexts(slots)
        self._rows = [self._builder.input(task.depth) for _ in range(count)]
        self._step = task.row_scale**2 / (SIGMOID_RANGE * task.capacity(slots))
        self._mask = np.zeros(slots)
        self._mask[:: task.width] = 1.0

    def run(self) -> Circuit:
        """Write everything."""
        task = self._task
        factors = momenta(task.iterations)
        weights = self._first(self._step)
        before: int | None = None
        margins_before: list[int] = []
        for index in range(1, task.iterations):
            label = f"iteration {index + 1}"
            momentum = factors[index]
            margins = [self._margin(row, weights, label) for row in self._rows]
            ahead = self._look_ahead(margins, margins_before, momentum, label)
            shares = [self._share(m, momentum, self._step, label) for m in ahead]
            gradient = self._gradient(shares, label)
            moved = self._moved(weights, before, momentum, gradient, label)
            before, margins_before, weights = weights, margins, moved
        return self._builder.build([weights])

    def _first(self, step: float) -> int:
        build, label = self._builder, "iteration 1"
        total = self._rows[0]
        for row in self._rows[1:]:
            total = build.add(total, row, label)
        half = build.multiply_plain(total, np.asarray(0.5 * step), label)
        return build.rescale(self._over_rows(half, label), label)

    def _margin(self, row: int, weights: int, label: str) -> int:
        """Return r . b in the first slot of each block; the others hold what is masked later."""
        build = self._builder
        total = build.multiply(row, weights, label)
        for step in self._powers(self._task.width):
            total = build.add(total, self._rotated(total, step, label), label)
        return build.rescale(total, label)

    def _look_ahead(
        self, margins: list[int], before: list[int], momentum: float, label: str
    ) -> list[int]:
        """Return r . v / (1 + m)."""
        if not momentum:
            return margins
        build, ratio = self._builder, np.asarray(momentum / (1.0 + momentum))
        ahead = []
        for margin, old in zip(margins, before, strict=True):
            level = build.type_of(margin).level
            cut = build.drop(old, level + 1, label)
            scaled = build.rescale(build.multiply_plain(cut, ratio, label), label)
            ahead.append(build.subtract(margin, scaled, label))
        return ahead

    def _share(self, margin: int, momentum: float, step: float, label: str) -> int:
        """Return k sigmoid(-r . v) in every slot of its block."""
        odd = odd_sigmoid(self._task.degree)
        wider = SIGMOID_RANGE * (1.0 + momentum)
        factors = {p: -step * a * wider**p for p, a in odd.items()}
        share = self._polynomial(margin, factors, 0.5 * step, label)
        for power in self._powers(self._task.width):
            share = self._builder.add(share, self._rotated(share, -power, label), label)
        return self._builder.rescale(share, label)

    def _polynomial(self, x: int, factors: dict[int, float], constant: float, label: str) -> int:
        """Return the mask times (constant + sum of factors[p] x^p), degree 2."""
        build = self._builder
        square = build.rescale(build.multiply(x, x, label), label)
        if self._task.degree == 3:
            last = build.multiply(self._masked(x, factors[3], label), square, label)
        else:
            cube = build.rescale(build.multiply(x, square, label), label)
            inner = self._masked(square, factors[5], label)
            inner = build.add_plain(inner, factors[3] * self._mask, label)
            last = build.multiply(cube, inner, label)
        if self._task.degree == 7:
            seventh = build.multiply(self._masked(x, factors[7], label), square, label)
            fourth = build.rescale(build.multiply(square, square, label), label)
            last = build.add(
                last, build.multiply(build.rescale(seventh, label), fourth, label), label
            )
        level = build.type_of(last).level
        low = build.drop(x, level, label)
        linear = build.multiply_plain(low, factors[1] * self._mask, label)
        return build.add_plain(build.add(last, linear, label), constant * self._mask, label)

    def _masked(self, x: int, factor: float, label: str) -> int:
        product = self._builder.multiply_plain(x, factor * self._mask, label)
        return self._builder.rescale(product, label)

    def _gradient(self, shares: list[int], label: str) -> int:
        build = self._builder
        products = [
            build.multiply(row, share, label) for row, share in zip(self._rows, shares, strict=True)
        ]
        total = products[0]
        for product in products[1:]:
            total = build.add(total, product, label)
        return build.rescale(self._over_rows(total, label), label)

    def _over_rows(self, x: int, label: str) -> int:
        """Add up all blocks; every block gets the sum."""
        step = self._task.width
        while step < self._slots:
            x = self._builder.add(x, self._rotated(x, step, label), label)
            step *= 2
        return x

    def _moved(
        self,
        weights: int,
        before: int | None,
        momentum: float,
        gradient: int,
        label: str,
    ) -> int:
        build, level = self._builder, self._builder.type_of(gradient).level
        terms, factors = [weights], [1.0 + momentum]
        if momentum and before is not None:
            terms, factors = [weights, before], [1.0 + momentum, -momentum]
        name = build.constant(np.array([factors]), f"{label}/momentum")
        cut = [build.drop(term, level + 1, label) for term in terms]
        (ahead,) = build.weighted_sum(cut, WeightedSumPlan(1, name, ""), label)
        return build.add(ahead, gradient, label)

    def _rotated(self, x: int, steps: int, label: str) -> int:
        return self._builder.append(Op.ROTATE, (x,), Steps(steps), label)[0]

    @staticmethod
    def _powers(width: int) -> list[int]:
        return [1 << i for i in range(width.bit_length() - 1)]
