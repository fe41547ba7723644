"""Predicted encryption error: a circuit run on standard deviations, slot by slot.

Stored values are at most 1 in magnitude; errors of different origin are taken as independent, the
two factors of a product as fully dependent (a square doubles the error).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from tacit import precision
from tacit.bootstrap import Bootstrap
from tacit.bootstrap_levels import bootstrap_deviation
from tacit.circuit import Chebyshev, LinearPlan, Plain, ValueType, WeightedSumPlan, execute
from tacit.decompose import chebyshev_by_powers
from tacit.fourier import greatest_slope
from tacit.model_compiler.levels import LevelChecker
from tacit.model_compiler.lowering.lowered import Lowered
from tacit.model_compiler.noise_course import Course, key_of
from tacit.packed_rows import PackedRows
from tacit.params import CryptoParams

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Uncertain:
    """A ciphertext's type and the variance of the error in each slot, shape (slots,) or ().

    Attributes:
        identity: the same for a value at another level.
        course: of a polynomial of another value, how it depends on it.
        origin: variance of that other value.
    """

    type: ValueType
    variance: Floats
    identity: object = field(default_factory=object)
    course: Course | None = None
    origin: Floats | None = None


def predicted_error(lowered: Lowered, params: CryptoParams) -> float:
    """Return the greatest error expected in any slot the client reads, in stored units."""
    model = NoiseModel(params, lowered.samples)
    circuit = lowered.circuit
    inputs = [model.fresh(circuit.types[v].level) for v in circuit.inputs]
    results = execute(circuit, inputs, model)
    worst, values, first = 0.0, 0, 0
    for layout in lowered.outputs.values():
        blocks = results[first : first + layout.ciphertexts]
        first += layout.ciphertexts
        full = np.stack([np.broadcast_to(block.variance, (params.slots,)) for block in blocks])
        read = layout.unpack(full, layout.batch)
        worst, values = max(worst, float(read.max())), values + read.size
    largest = math.sqrt(2.0 * math.log(2.0 * values))
    return precision.DECRYPTION_FACTOR * largest * math.sqrt(worst)


@dataclass(slots=True)
class NoiseModel:
    """An Evaluator on variances of errors.

    Attributes:
        samples: values that polynomials read, by `noise_course.key_of` their coefficients.
    """

    params: CryptoParams
    samples: Mapping[bytes, Floats] = field(default_factory=dict)
    _checker: LevelChecker = field(default_factory=LevelChecker)
    _switches: dict[ValueType, float] = field(default_factory=dict)

    def fresh(self, level: int) -> Uncertain:
        """Return a fresh ciphertext; one below the top is as noisy, its scale being alike."""
        return Uncertain(ValueType(level), np.asarray(precision.fresh_deviation(self.params) ** 2))

    def add(self, a: Uncertain, b: Uncertain) -> Uncertain:
        """Add variances; adding a value to itself doubles its error."""
        total = 4.0 * a.variance if a is b else a.variance + b.variance
        return Uncertain(self._checker.add(a.type, b.type), np.asarray(total))

    def subtract(self, a: Uncertain, b: Uncertain) -> Uncertain:
        """Add variances."""
        return Uncertain(self._checker.subtract(a.type, b.type), a.variance + b.variance)

    def negate(self, a: Uncertain) -> Uncertain:
        """Keep the variance."""
        return a

    def add_plain(self, a: Uncertain, plain: Plain) -> Uncertain:
        """Add the rounding of the constant."""
        return Uncertain(a.type, a.variance + self._encoding(plain, a.type))

    def multiply_plain(self, a: Uncertain, plain: Plain) -> Uncertain:
        """Multiply the error by the constant, and add the rounding of the constant."""
        factor = plain.values if plain.is_scalar else plain.expand(self.params.slots)
        variance = a.variance * factor**2 + self._encoding(plain, a.type)
        return Uncertain(self._checker.multiply_plain(a.type, plain), np.asarray(variance))

    def multiply(self, a: Uncertain, b: Uncertain) -> Uncertain:
        """Add the errors of two factors, each times the other, and of the relinearisation."""
        to = self._checker.multiply(a.type, b.type)
        for source, sign in ((a, b), (b, a)):
            if sign.course is not None and sign.course.source is source.identity:
                gain, added = sign.course.times_source()
                return Uncertain(to, gain * source.variance + added + self._switch(to))
        variance = (_size(b) * np.sqrt(a.variance) + _size(a) * np.sqrt(b.variance)) ** 2
        return Uncertain(to, variance + self._switch(to))

    def rotate(self, a: Uncertain, steps: int) -> Uncertain:
        """Move the error, and add that of a key switch."""
        if steps % self.params.slots == 0:
            return a
        moved = np.roll(a.variance, -steps) if a.variance.ndim else a.variance
        return Uncertain(a.type, moved + self._switch(a.type))

    def rotate_many(self, a: Uncertain, steps: Sequence[int]) -> list[Uncertain]:
        """Rotate by several steps."""
        return [self.rotate(a, step) for step in steps]

    def rescale(self, a: Uncertain) -> Uncertain:
        """Add the rounding."""
        return self._rounded(a, self._checker.rescale(a.type))

    def drop(self, a: Uncertain, level: int) -> Uncertain:
        """Add the rounding."""
        lower = self._rounded(a, self._checker.drop(a.type, level))
        return replace(lower, identity=a.identity, course=a.course, origin=a.origin)

    def linear(
        self, inputs: Sequence[Uncertain], plan: LinearPlan, constants: Mapping[str, Floats]
    ) -> list[Uncertain]:
        """Add up what each diagonal reads: the default decomposition, all rotations at once."""
        (to, *_) = self._checker.linear([a.type for a in inputs], plan, constants)
        source = inputs[0].type
        product = replace(source, degree=2)
        sums = _sums_of_terms(
            [a.variance for a in inputs],
            plan,
            constants[plan.diagonals],
            self._switch(source),
            self.params.slots,
        )
        rounding = self._rounded_constant(source)
        results = []
        for output, total in enumerate(sums):
            diagonals = sum(term.output == output for term in plan.terms)
            moved = sum(step % self.params.slots != 0 for step in plan.giant_rotations(output))
            total += diagonals * rounding + moved * self._switch(product)
            results.append(self._finished(Uncertain(product, total), plan, constants, output, to))
        return results

    def _finished(
        self,
        total: Uncertain,
        plan: LinearPlan,
        constants: Mapping[str, Floats],
        output: int,
        to: ValueType,
    ) -> Uncertain:
        """Rescale a sum of diagonals, fold it and add the bias."""
        total = self._rounded(total, to)
        for step in plan.folds:
            total = self.add(total, self.rotate(total, step))
        if not plan.bias:
            return total
        return self.add_plain(total, Plain(plan.bias, constants[plan.bias][output]))

    def weighted_sum(
        self, inputs: Sequence[Uncertain], plan: WeightedSumPlan, constants: Mapping[str, Floats]
    ) -> list[Uncertain]:
        """Weight the variances by the squares of the weights; scalars are encoded exactly."""
        (to, *_) = self._checker.weighted_sum([a.type for a in inputs], plan, constants)
        rounding = precision.rescale_deviation(self.params, to.level) ** 2
        variances = np.stack(np.broadcast_arrays(*(a.variance for a in inputs)))
        sums = np.tensordot(constants[plan.weights] ** 2, variances, axes=1)
        return [Uncertain(to, np.asarray(total + rounding)) for total in sums]

    def chebyshev(
        self, a: Uncertain, polynomial: Chebyshev, constants: Mapping[str, Floats]
    ) -> Uncertain:
        """Multiply the error by the slope where the values are; unknown, by the greatest.

        An error in some T_k within the evaluation acts like one of the argument. Products switch
        keys at degree 2, where it costs no precision; the rescalings are what is left.
        """
        coefficients = constants[polynomial.coefficients]
        to = chebyshev_by_powers(self._checker, a.type, coefficients)
        rounding = precision.rescale_deviation(self.params, to.level) ** 2
        inside = rounding * (a.type.level - to.level)
        known = self.samples.get(key_of(coefficients))
        before = a.course or Course.start(a.identity, known)
        origin = a.variance if a.origin is None else a.origin
        course = before.through(coefficients, inside, rounding)
        if a.course is not None or course.observed:
            gain, added = course.typical
        else:
            gain = _greatest_slope(coefficients) ** 2
            added = gain * inside + rounding
        variance = np.asarray(gain * origin + added)
        return Uncertain(to, variance, course=course, origin=origin)

    def bootstrap(
        self, a: Uncertain, plan: Bootstrap, constants: Mapping[str, Floats]
    ) -> Uncertain:
        """Multiply the error by the greatest slope, and add the bootstrap's own."""
        series = constants[plan.series]
        to = self._checker.bootstrap(a.type, plan, constants)
        own = bootstrap_deviation(self.params, plan, series)
        slope = greatest_slope(series, plan.period)
        return Uncertain(to, np.asarray(slope**2 * a.variance + own**2))

    def type_of(self, a: Uncertain) -> ValueType:
        """Return level and degree."""
        return a.type

    def _rounded(self, a: Uncertain, to: ValueType) -> Uncertain:
        rounding = precision.rescale_deviation(self.params, to.level) ** 2
        return Uncertain(to, a.variance + rounding)

    def _encoding(self, plain: Plain, at: ValueType) -> float:
        return 0.0 if plain.is_scalar else self._rounded_constant(at)

    def _rounded_constant(self, at: ValueType) -> float:
        return precision.encoding_deviation(self.params, at.level, at.degree) ** 2

    def _switch(self, at: ValueType) -> float:
        if at not in self._switches:
            deviation = precision.key_switch_deviation(self.params, at.level, at.degree)
            self._switches[at] = deviation**2
        return self._switches[at]


def _sums_of_terms(
    variances: Sequence[Floats],
    plan: LinearPlan,
    rows: Floats | PackedRows,
    switch: float,
    slots: int,
) -> Floats:
    """Return the variance that diagonals bring to each output, shape (outputs, slots).

    A term is rotated by its giant step in the end, which undoes what its row was rotated by: slot i
    of the output reads slot i + giant + baby of the input.

    Args:
        variances: of the inputs, each of shape (slots,) or ().
        plan: the diagonals.
        rows: their values.
        switch: variance that a rotated input has beside its own.
        slots: of a ciphertext.
    """
    twice = [np.tile(np.broadcast_to(variance, slots), 2) for variance in variances]
    repeat = slots // rows.shape[1]
    sums = np.zeros((plan.outputs, slots))
    for term in plan.terms:
        first = (term.giant + term.baby) % slots
        read = twice[term.input][first : first + slots]
        read = read + switch if term.baby % slots else read
        row = _moved(rows, term.row, term.giant // repeat)
        sums[term.output] += (row if repeat == 1 else np.repeat(row, repeat)) ** 2 * read
    return sums


def _moved(rows: Floats | PackedRows, row: int, steps: int) -> Floats:
    """Return a row rotated to the left."""
    if isinstance(rows, PackedRows):
        return rows.moved(row, steps)
    return np.roll(rows[row], -steps)


def _size(a: Uncertain) -> float:
    """Return the magnitude of a factor."""
    return 1.0 if a.course is None else a.course.magnitude


def _greatest_slope(coefficients: Floats) -> float:
    """Return the greatest |p'| on [-1, 1], by sampling densely."""
    points = np.cos(np.linspace(0.0, np.pi, 16 * len(coefficients)))
    return float(np.abs(chebyshev.chebval(points, chebyshev.chebder(coefficients))).max())
