"""The steps of a training as circuits; `tacit.training_plan` lists them.

Nesterov's accelerated gradient. With stored rows r (`tacit.logistic`), weights b stored over
R = `task.margin_scale`, and k = `step_length`:

    v_t     = b_t + m_t (b_t - b_(t-1))
    b_(t+1) = v_t + k sum_i share_i r_i

share_i = sigmoid(-R r_i . v_t) for rows multiplied by their sign, t_i - sigmoid(R r_i . v_t) for
labels of their own, t_i - r_i . v_t for linear regression.

**Layout.** Slots are blocks of `width` slots; block i holds row i and all blocks hold the same
weights. Rotations by 1, 2, 4, ... gather a row's products in its first slot; the polynomial is
multiplied by a mask that keeps only that slot, for nothing, as its coefficients are plaintexts;
rotations by -1, -2, ... spread it over the block; rotations by width, 2 width, ... add up the rows,
cyclically, so that the sum arrives in every block: the layout of Han, Song, Cheon and Park,
"Logistic regression on homomorphic encrypted data at scale" (2019). Every rotation works on a
product that is not rescaled yet, where it costs no precision.

**Momentum costs no level.** A state is (u, b) with u_t = v_t / (1 + m_t) = b_t - r b_(t-1),
r = m_t / (1 + m_t): b_(t-1) is at a higher level than b_t, so there is room for its factor. The
factor 1 + m_t goes into the polynomial's coefficients and the next sum.

**Balance.** A share is about k, and rescaling it leaves an error of the same size as for numbers
near 1. So the shares are computed over q = sqrt(k) and the rows multiplied by it, above.

**Refreshing.** u and b go into the even and odd blocks of one ciphertext that repeats every two
blocks, are bootstrapped together and taken apart again: a level before and one after.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.circuit import Op, Steps
from tacit.errors import ParameterError
from tacit.layout import Layout
from tacit.logistic import momenta, odd_sigmoid
from tacit.model_compiler.builder import CircuitBuilder
from tacit.model_compiler.lowering.lowered import Lowered
from tacit.training import Algorithm, TrainingTask
from tacit.training_clear import step_length
from tacit.training_plan import AHEAD, LABELS, MARGINS, ROWS, SUMS, VALIDATION, WEIGHTS

Floats = NDArray[np.float64]

# Weights are bootstrapped as numbers in [-1/2, 1/2): those up to 4 in magnitude fit.
REFRESHED_SHARE = 0.125


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of a training's ciphertexts.

    Attributes:
        task: what is trained.
        slots: of a ciphertext.

    Raises:
        ParameterError: two rows do not fit into a ciphertext.
    """

    task: TrainingTask
    slots: int

    def __post_init__(self) -> None:
        if 2 * self.task.width > self.slots:
            raise ParameterError(
                f"rows of {self.task.width} slots do not fit twice into {self.slots} slots"
            )

    @property
    def batch_ciphertexts(self) -> int:
        """Ciphertexts of rows that an iteration reads."""
        return self._needed(self.task.batch_rows or self.task.rows)

    @property
    def batches(self) -> int:
        """Mini-batches."""
        return -(-self._needed(self.task.rows) // self.batch_ciphertexts)

    @property
    def ciphertexts(self) -> int:
        """Ciphertexts of all rows."""
        return self.batches * self.batch_ciphertexts

    def layout(self, ciphertexts: int) -> Layout:
        """Return the layout of one row to a block: features are Layout's rows."""
        blocks = ciphertexts * self.slots // self.task.width
        cells = np.arange(blocks, dtype=np.int64)[None, :]
        return Layout(self.slots, self.task.width, ciphertexts, cells)

    def weights_layout(self) -> Layout:
        """Return the layout of weights, which are read from the first block."""
        return Layout(self.slots, self.task.width, 1, np.zeros((1, 1), dtype=np.int64))

    @property
    def validation_ciphertexts(self) -> int:
        """Ciphertexts of validation rows."""
        return self._needed(self.task.validation_rows)

    def _needed(self, rows: int) -> int:
        return -(-rows * self.task.width // self.slots)


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels of a training.

    Attributes:
        upload: of rows, labels and validation rows.
        least: of weights and margins that go home.
    """

    upload: int
    least: int = 0


def iteration_depth(task: TrainingTask) -> int:
    """Return the levels of an iteration, the first excepted."""
    if task.algorithm is Algorithm.LINEAR:
        return 3
    return 2 + task.degree.bit_length()


def first_depth(task: TrainingTask) -> int:
    """Return the levels of the first iteration, whose shares do not depend on weights."""
    if not task.labelled:
        return 1
    return 2 + (task.classes > 1)


class StepWriter:
    """Writes the circuit of one step."""

    def __init__(self, geometry: Geometry, levels: Levels) -> None:
        self._geometry = geometry
        self._task = geometry.task
        self._levels = levels
        self._slots = geometry.slots
        self._build = CircuitBuilder(geometry.slots)
        self._label = ""
        self._mask = np.zeros(self._slots)
        self._mask[:: self._task.width] = 1.0

    def upload(self) -> Lowered:
        """Write nothing: what comes in goes out."""
        layouts = {ROWS: self._geometry.layout(self._geometry.ciphertexts)}
        if self._task.labelled:
            layouts[LABELS] = layouts[ROWS]
        if self._task.validation_rows:
            layouts[VALIDATION] = self._geometry.layout(self._geometry.validation_ciphertexts)
        level = self._levels.upload
        values = [self._build.input(level) for v in layouts.values() for _ in range(v.ciphertexts)]
        return self._lowered(layouts, dict.fromkeys(layouts, level), values, layouts)

    def predict_rows(self, level: int) -> Lowered:
        """Write nothing: one ciphertext of rows in and out."""
        layouts = {ROWS: self._geometry.layout(1)}
        return self._lowered(layouts, {ROWS: level}, [self._build.input(level)], layouts)

    def add(self) -> Lowered:
        """Add two uploaded ciphertexts."""
        layout, level = self._geometry.layout(1), self._levels.upload
        both = {"one": layout, "other": layout}
        one, other = self._build.input(level), self._build.input(level)
        total = self._build.add(one, other, "add")
        return self._lowered(both, dict.fromkeys(both, level), [total], {"sum": layout})

    def select_labels(self, chosen: int) -> Lowered:
        """Bring the labels of one class into the first slot of their blocks."""
        self._label = "labels"
        layouts = {LABELS: self._geometry.layout(self._geometry.ciphertexts)}
        level = self._levels.upload
        outputs = []
        for _ in range(self._geometry.ciphertexts):
            value = self._build.input(level)
            for power in self._powers():
                if chosen & power:
                    value = self._rotated(value, power)
            outputs.append(self._times(value, self._mask))
        return self._lowered(layouts, {LABELS: level}, outputs, layouts)

    def iteration(self, number: int, level: int) -> Lowered:
        """Write iteration `number`, from 1, which starts from a state at `level`."""
        self._label = f"iteration {number}"
        rows, labels, inputs, levels = self._iteration_inputs(number, level)
        ahead = weights = None
        if number > 1:
            inputs |= {AHEAD: self._geometry.weights_layout()}
            inputs |= {WEIGHTS: self._geometry.weights_layout()}
            levels |= {AHEAD: level, WEIGHTS: level}
            ahead, weights = self._build.input(level), self._build.input(level)
        moved = self._moved(number, rows, labels, ahead)
        outputs = {WEIGHTS: self._geometry.weights_layout()}
        if number == self._task.iterations:
            return self._lowered(inputs, levels, [moved], outputs)
        following = self._look_ahead(number + 1, moved, weights)
        outputs = {AHEAD: self._geometry.weights_layout(), **outputs}
        return self._lowered(inputs, levels, [following, moved], outputs)

    def refresh(self, level: int, plan: Bootstrap, series: Floats) -> Lowered:
        """Write the bootstrap of a state at `level`; the result is at `plan.level - 1`."""
        self._label = "refresh"
        build, width = self._build, self._task.width
        even = np.tile(np.repeat([1.0, 0.0], width), self._slots // (2 * width))
        both = {AHEAD: self._geometry.weights_layout(), WEIGHTS: self._geometry.weights_layout()}
        ahead, weights = build.input(level), build.input(level)
        packed = build.rescale(
            build.add(
                build.multiply_plain(ahead, REFRESHED_SHARE * even, self._label),
                build.multiply_plain(weights, REFRESHED_SHARE * (1.0 - even), self._label),
            ),
            self._label,
        )
        packed = build.bootstrap(packed, plan, series, self._label)
        outputs = []
        # Both halves of the state must go to the same two blocks: errors of u and b that came from
        # one block cancel in the momentum, and grow where they come from different ones.
        for mask, steps in ((even, -width), (1.0 - even, width)):
            kept = build.multiply_plain(packed, mask / REFRESHED_SHARE, self._label)
            whole = build.add(kept, self._rotated(kept, steps), self._label)
            outputs.append(build.rescale(whole, self._label))
        return self._lowered(both, dict.fromkeys(both, level), outputs, both)

    def weights(self, level: int) -> Lowered:
        """Drop weights at `level` to the least level."""
        layouts = {WEIGHTS: self._geometry.weights_layout()}
        value = self._build.input(level)
        return self._lowered(layouts, {WEIGHTS: level}, [self._at_least(value)], layouts)

    def margins(self, level: int, ciphertexts: int, rows_level: int) -> Lowered:
        """Multiply rows by weights at `level`."""
        self._label = "margins"
        inputs = {
            ROWS: self._geometry.layout(ciphertexts),
            WEIGHTS: self._geometry.weights_layout(),
        }
        rows = [self._build.input(rows_level) for _ in range(ciphertexts)]
        weights = self._build.input(level)
        outputs = [self._at_least(self._margin(row, weights)) for row in rows]
        outputs_layout = {MARGINS: inputs[ROWS]}
        return self._lowered(inputs, {ROWS: rows_level, WEIGHTS: level}, outputs, outputs_layout)

    def moments(self) -> Lowered:
        """Multiply columns by the columns 0, 1, 2, ... places further on, and add up the rows."""
        self._label = "moments"
        build, level = self._build, self._levels.upload
        inputs = {ROWS: self._geometry.layout(self._geometry.ciphertexts)}
        rows = [build.input(level) for _ in range(self._geometry.ciphertexts)]
        outputs = []
        for apart in range(self._task.features + 2):
            products = [build.multiply(r, self._rotated_far(r, apart), self._label) for r in rows]
            outputs.append(build.rescale(self._over_rows(self._total(products)), self._label))
        count = len(outputs)
        cells = np.arange(count, dtype=np.int64)[None, :] * (self._slots // self._task.width)
        sums = {SUMS: Layout(self._slots, self._task.width, count, cells)}
        return self._lowered(inputs, {ROWS: level}, outputs, sums)

    def _iteration_inputs(
        self, number: int, level: int
    ) -> tuple[list[int], list[int], dict[str, Layout], dict[str, int]]:
        count = self._geometry.batch_ciphertexts
        inputs = {ROWS: self._geometry.layout(count)}
        levels = {ROWS: self._levels.upload}
        rows = [self._build.input(self._levels.upload) for _ in range(count)]
        labels: list[int] = []
        if self._task.labelled:
            inputs[LABELS] = inputs[ROWS]
            levels[LABELS] = self._levels.upload - (self._task.classes > 1)
            labels = [self._build.input(levels[LABELS]) for _ in range(count)]
        return rows, labels, inputs, levels

    def _moved(
        self, number: int, rows: Sequence[int], labels: Sequence[int], ahead: int | None
    ) -> int:
        """Return the weights after an iteration."""
        step = step_length(self._task, self._geometry.batches, number)
        momentum = momenta(self._task.iterations)[number - 1]
        if ahead is None and not labels:
            half = self._build.multiply_plain(self._total(rows), np.asarray(0.5 * step))
            return self._build.rescale(self._over_rows(half), self._label)
        balance = min(1.0, math.sqrt(step))
        products = []
        for place, row in enumerate(rows):
            label = labels[place] if labels else None
            share = self._spread(self._share(row, label, ahead, momentum, step / balance))
            level = self._build.type_of(share).level
            weighted = self._times(self._build.drop(row, level + 1), np.asarray(balance))
            products.append(self._build.multiply(weighted, share, self._label))
        gradient = self._build.rescale(self._over_rows(self._total(products)), self._label)
        return gradient if ahead is None else self._kept(ahead, momentum, gradient)

    def _kept(self, ahead: int, momentum: float, gradient: int) -> int:
        """Return (1 + m) (1 - decay) u + gradient."""
        build, level = self._build, self._build.type_of(gradient).level
        keep = np.asarray(1.0 + momentum)
        if self._task.decay:
            block = np.full(self._task.width, (1.0 + momentum) * (1.0 - self._task.decay))
            block[0] = 1.0 + momentum
            keep = np.tile(block, self._slots // self._task.width)
        cut = build.drop(ahead, level + 1, self._label)
        return build.add(self._times(cut, keep), gradient, self._label)

    def _look_ahead(self, number: int, weights: int, before: int | None) -> int:
        """Return u for iteration `number`."""
        momentum = momenta(self._task.iterations)[number - 1]
        if not momentum or before is None:
            return weights
        build, level = self._build, self._build.type_of(weights).level
        cut = build.drop(before, level + 1, self._label)
        scaled = self._times(cut, np.asarray(momentum / (1.0 + momentum)))
        return build.subtract(weights, scaled, self._label)

    def _share(
        self, row: int, label: int | None, ahead: int | None, momentum: float, step: float
    ) -> int:
        """Return the share in the first slot of each block, degree 2; the other slots are 0."""
        logistic = self._task.algorithm is Algorithm.LOGISTIC
        constant = (0.5 if label is None else -0.5) * step if logistic else 0.0
        if ahead is None:
            assert label is not None
            last = self._build.multiply_plain(label, np.asarray(step), self._label)
            return self._build.add_plain(last, constant * self._mask, self._label)
        margin = self._margin(row, ahead)
        if logistic:
            odd = odd_sigmoid(self._task.degree)
            wider = self._task.margin_scale * (1.0 + momentum)
            last = self._polynomial(margin, {p: -step * a * wider**p for p, a in odd.items()})
        else:
            last = self._build.multiply_plain(margin, -step * (1.0 + momentum) * self._mask)
        if label is not None:
            cut = self._build.drop(label, self._build.type_of(last).level, self._label)
            target = self._build.multiply_plain(cut, np.asarray(step), self._label)
            last = self._build.add(last, target, self._label)
        return self._build.add_plain(last, constant * self._mask, self._label)

    def _polynomial(self, x: int, factors: Mapping[int, float]) -> int:
        """Return the mask times the sum of factors[p] x^p, degree 2."""
        build, label = self._build, self._label
        square = build.rescale(build.multiply(x, x, label), label)
        if self._task.degree == 3:
            last = build.multiply(self._times(x, factors[3] * self._mask), square, label)
        else:
            cube = build.rescale(build.multiply(x, square, label), label)
            inner = self._times(square, factors[5] * self._mask)
            inner = build.add_plain(inner, factors[3] * self._mask, label)
            last = build.multiply(cube, inner, label)
        if self._task.degree == 7:
            third = self._times(x, factors[7] * self._mask)
            third = build.rescale(build.multiply(third, square, label), label)
            fourth = build.rescale(build.multiply(square, square, label), label)
            last = build.add(last, build.multiply(third, fourth, label), label)
        low = build.drop(x, build.type_of(last).level, label)
        return build.add(last, build.multiply_plain(low, factors[1] * self._mask, label), label)

    def _margin(self, row: int, weights: int) -> int:
        """Return row . weights in the first slot of each block; the others hold what nobody reads.

        Costs one level.
        """
        total = self._build.multiply(row, weights, self._label)
        for power in self._powers():
            total = self._build.add(total, self._rotated(total, power), self._label)
        return self._build.rescale(total, self._label)

    def _spread(self, share: int) -> int:
        """Copy the first slot of each block to all of it; one level."""
        for power in self._powers():
            share = self._build.add(share, self._rotated(share, -power), self._label)
        return self._build.rescale(share, self._label)

    def _over_rows(self, x: int) -> int:
        """Add up all blocks; every block gets the sum."""
        step = self._task.width
        while step < self._slots:
            x = self._build.add(x, self._rotated(x, step), self._label)
            step *= 2
        return x

    def _total(self, values: Sequence[int]) -> int:
        total = values[0]
        for value in values[1:]:
            total = self._build.add(total, value, self._label)
        return total

    def _times(self, x: int, factor: Floats) -> int:
        """Multiply and rescale."""
        return self._build.rescale(self._build.multiply_plain(x, factor, self._label), self._label)

    def _rotated(self, x: int, steps: int) -> int:
        return self._build.append(Op.ROTATE, (x,), Steps(steps), self._label)[0]

    def _rotated_far(self, x: int, steps: int) -> int:
        return self._rotated(x, steps) if steps else x

    def _at_least(self, x: int) -> int:
        return self._build.drop(x, self._levels.least, self._label)

    def _powers(self) -> list[int]:
        return [1 << i for i in range(self._task.width.bit_length() - 1)]

    def _lowered(
        self,
        inputs: Mapping[str, Layout],
        levels: Mapping[str, int],
        values: Sequence[int],
        outputs: Mapping[str, Layout],
    ) -> Lowered:
        circuit = self._build.build(values)
        return Lowered(circuit, self._task.width, dict(inputs), dict(outputs), dict(levels))
