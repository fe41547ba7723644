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
product that is not rescaled yet, where it costs no precision. The keys that add up the rows are
used on one ciphertext only, but at the highest levels; with `keys_apart` there are fewer of them.

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

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.layout import Layout
from tacit.logistic import momenta, odd_sigmoid
from tacit.model_compiler.lowering.lowered import Lowered
from tacit.model_compiler.training_blocks import BlockWriter
from tacit.model_compiler.training_geometry import Geometry, Levels
from tacit.training import Algorithm
from tacit.training_clear import step_length
from tacit.training_plan import AHEAD, LABELS, MARGINS, ROWS, SUMS, VALIDATION, WEIGHTS

Floats = NDArray[np.float64]

# Weights are bootstrapped as numbers in [-1/2, 1/2): those up to 4 in magnitude fit.
REFRESHED_SHARE = 0.125


class StepWriter:
    """Writes the circuit of one step."""

    def __init__(self, geometry: Geometry, levels: Levels, label: str, keys_apart: int = 1) -> None:
        """Begin one; `keys_apart` as in `BlockWriter.over_rows`."""
        self._geometry = geometry
        self._task = geometry.task
        self._levels = levels
        self._slots = geometry.slots
        self._blocks = BlockWriter(geometry.slots, self._task.width, label)
        self._build = self._blocks.build
        self._label = label
        self._keys_apart = keys_apart

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
        total = self._build.add(one, other, self._label)
        return self._lowered(both, dict.fromkeys(both, level), [total], {"sum": layout})

    def select_labels(self, chosen: int) -> Lowered:
        """Bring the labels of one class into the first slot of their blocks."""
        layouts = {LABELS: self._geometry.layout(self._geometry.ciphertexts)}
        level = self._levels.upload
        outputs = []
        for _ in range(self._geometry.ciphertexts):
            value = self._build.input(level)
            for power in self._blocks.powers():
                if chosen & power:
                    value = self._blocks.rotated(value, power)
            outputs.append(self._blocks.times(value, self._blocks.mask))
        return self._lowered(layouts, {LABELS: level}, outputs, layouts)

    def iteration(self, number: int, level: int) -> Lowered:
        """Write iteration `number`, from 1, which starts from a state at `level`."""
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
        for mask in (even, 1.0 - even):
            kept = build.multiply_plain(packed, mask / REFRESHED_SHARE, self._label)
            whole = build.add(kept, self._blocks.rotated(kept, width), self._label)
            outputs.append(build.rescale(whole, self._label))
        return self._lowered(both, dict.fromkeys(both, level), outputs, both)

    def weights(self, level: int) -> Lowered:
        """Drop weights at `level` to the least level."""
        layouts = {WEIGHTS: self._geometry.weights_layout()}
        value = self._build.input(level)
        return self._lowered(layouts, {WEIGHTS: level}, [self._at_least(value)], layouts)

    def margins(self, level: int, ciphertexts: int, rows_level: int) -> Lowered:
        """Multiply rows by weights at `level`."""
        inputs = {
            ROWS: self._geometry.layout(ciphertexts),
            WEIGHTS: self._geometry.weights_layout(),
        }
        rows = [self._build.input(rows_level) for _ in range(ciphertexts)]
        weights = self._build.input(level)
        outputs = [self._at_least(self._blocks.margin(row, weights)) for row in rows]
        outputs_layout = {MARGINS: inputs[ROWS]}
        return self._lowered(inputs, {ROWS: rows_level, WEIGHTS: level}, outputs, outputs_layout)

    def moments(self) -> Lowered:
        """Multiply columns by the columns 0, 1, 2, ... places further on, and add up the rows."""
        build, level = self._build, self._levels.upload
        inputs = {ROWS: self._geometry.layout(self._geometry.ciphertexts)}
        rows = [build.input(level) for _ in range(self._geometry.ciphertexts)]
        outputs = []
        for apart in range(self._task.features + 2):
            products = [
                build.multiply(r, self._blocks.rotated(r, apart), self._label) for r in rows
            ]
            outputs.append(
                build.rescale(self._blocks.over_rows(self._blocks.total(products)), self._label)
            )
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
            half = self._build.multiply_plain(self._blocks.total(rows), np.asarray(0.5 * step))
            return self._summed(half)
        balance = min(1.0, math.sqrt(step))
        products = []
        for place, row in enumerate(rows):
            label = labels[place] if labels else None
            share = self._blocks.spread(self._share(row, label, ahead, momentum, step / balance))
            level = self._build.type_of(share).level
            weighted = self._blocks.times(self._build.drop(row, level + 1), np.asarray(balance))
            products.append(self._build.multiply(weighted, share, self._label))
        gradient = self._summed(self._blocks.total(products))
        return gradient if ahead is None else self._kept(ahead, momentum, gradient)

    def _summed(self, product: int) -> int:
        """Add up all rows of a product, and rescale."""
        return self._build.rescale(self._blocks.over_rows(product, self._keys_apart), self._label)

    def _kept(self, ahead: int, momentum: float, gradient: int) -> int:
        """Return (1 + m) (1 - decay) u + gradient."""
        build, level = self._build, self._build.type_of(gradient).level
        keep = np.asarray(1.0 + momentum)
        if self._task.decay:
            block = np.full(self._task.width, (1.0 + momentum) * (1.0 - self._task.decay))
            block[0] = 1.0 + momentum
            keep = np.tile(block, self._slots // self._task.width)
        cut = build.drop(ahead, level + 1, self._label)
        return build.add(self._blocks.times(cut, keep), gradient, self._label)

    def _look_ahead(self, number: int, weights: int, before: int | None) -> int:
        """Return u for iteration `number`."""
        momentum = momenta(self._task.iterations)[number - 1]
        if not momentum or before is None:
            return weights
        build, level = self._build, self._build.type_of(weights).level
        cut = build.drop(before, level + 1, self._label)
        scaled = self._blocks.times(cut, np.asarray(momentum / (1.0 + momentum)))
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
            return self._build.add_plain(last, constant * self._blocks.mask, self._label)
        margin = self._blocks.margin(row, ahead)
        if logistic:
            odd = odd_sigmoid(self._task.degree)
            wider = self._task.margin_scale * (1.0 + momentum)
            last = self._blocks.polynomial(
                margin, {p: -step * a * wider**p for p, a in odd.items()}
            )
        else:
            last = self._build.multiply_plain(margin, -step * (1.0 + momentum) * self._blocks.mask)
        if label is not None:
            cut = self._build.drop(label, self._build.type_of(last).level, self._label)
            target = self._build.multiply_plain(cut, np.asarray(step), self._label)
            last = self._build.add(last, target, self._label)
        return self._build.add_plain(last, constant * self._blocks.mask, self._label)

    def _at_least(self, x: int) -> int:
        return self._build.drop(x, self._levels.least, self._label)

    def _lowered(
        self,
        inputs: Mapping[str, Layout],
        levels: Mapping[str, int],
        values: Sequence[int],
        outputs: Mapping[str, Layout],
    ) -> Lowered:
        circuit = self._build.build(values)
        return Lowered(circuit, self._task.width, dict(inputs), dict(outputs), dict(levels))
