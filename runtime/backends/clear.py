"""The clear backend: numpy vectors that mean what ciphertexts mean.

This is the definition of every operation, with the failure modes of CKKS: running out of levels,
values that outgrow the modulus and wrap around, and, if wanted, noise.

A value may carry leading axes, shape (..., slots): independent ciphertexts, computed together, so
that thousands of rows can be simulated at numpy's speed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit import precision
from tacit.bootstrap import Bootstrap
from tacit.bootstrap_levels import bootstrap_deviation, raised_level
from tacit.circuit import Chebyshev, LinearPlan, Plain, ValueType, WeightedSumPlan
from tacit.decompose import (
    add_biases,
    chebyshev_by_powers,
    linear_by_rotations,
    weighted_sum_by_scalars,
)
from tacit.errors import InputShapeError
from tacit.fourier import evaluate_series
from tacit.params import CryptoParams
from tacit.type_rules import (
    bootstrapped_type,
    combination_type,
    dropped_type,
    product_type,
    rescaled_type,
    sum_type,
)

Floats = NDArray[np.float64]

# Rows of a linear transform are computed in blocks of about this many numbers, to stay in cache.
_BLOCK = 1 << 17


@dataclass(frozen=True, slots=True, eq=False)
class ClearCiphertext:
    """What a ciphertext holds: `values` of shape (..., slots), float64, at a level and degree."""

    values: Floats
    level: int
    degree: int = 1

    @property
    def type(self) -> ValueType:
        """Level and degree."""
        return ValueType(self.level, self.degree)


class ClearEvaluator:
    """Evaluate circuits on numbers in the clear.

    Args:
        params: the parameters whose levels, moduli and noise to imitate.
        noise: add Gaussian noise as large as `tacit.precision` expects.
        wrap: reduce coefficients modulo q_0 ... q_level, as a ciphertext does when its values grow
            too large; without it values may grow without bound.
        seed: of the noise.
    """

    def __init__(
        self, params: CryptoParams, *, noise: bool = False, wrap: bool = True, seed: int = 0
    ) -> None:
        self._params = params
        self._slots = params.slots
        self._noise = np.random.default_rng(seed) if noise else None
        self._limits = _limits(params) if wrap else {}
        self._overflows = 0

    @property
    def overflows(self) -> int:
        """How many operations gave values outside the modulus, which then wrapped around."""
        return self._overflows

    def encrypt(self, values: Floats, level: int | None = None) -> ClearCiphertext:
        """Make a fresh value; by default at the top level.

        Args:
            values: shape (..., slots).
            level: rescalings left.

        Raises:
            InputShapeError: the last axis is not the slots.
        """
        values = np.asarray(values, dtype=np.float64)
        if values.ndim == 0 or values.shape[-1] != self._slots:
            raise InputShapeError(f"shape (..., {self._slots}) expected, got {values.shape}")
        level = self._params.depth if level is None else level
        deviation = precision.fresh_deviation(self._params) if self._noise else 0.0
        return self._made(self._disturb(values, deviation), ValueType(level))

    def type_of(self, a: ClearCiphertext) -> ValueType:
        """Return level and degree."""
        return a.type

    def add(self, a: ClearCiphertext, b: ClearCiphertext) -> ClearCiphertext:
        """Add two ciphertexts of equal type."""
        return self._made(a.values + b.values, sum_type(a.type, b.type))

    def subtract(self, a: ClearCiphertext, b: ClearCiphertext) -> ClearCiphertext:
        """Subtract two ciphertexts of equal type."""
        return self._made(a.values - b.values, sum_type(a.type, b.type))

    def negate(self, a: ClearCiphertext) -> ClearCiphertext:
        """Negate a ciphertext."""
        return ClearCiphertext(-a.values, a.level, a.degree)

    def add_plain(self, a: ClearCiphertext, plain: Plain) -> ClearCiphertext:
        """Add a constant."""
        return self._made(a.values + self._encoded(plain, a.level, a.degree), a.type)

    def multiply_plain(self, a: ClearCiphertext, plain: Plain) -> ClearCiphertext:
        """Multiply by a constant: degree 1 to degree 2."""
        to = product_type(a.type)
        return self._made(a.values * self._encoded(plain, a.level, 1), to)

    def multiply(self, a: ClearCiphertext, b: ClearCiphertext) -> ClearCiphertext:
        """Multiply two ciphertexts of equal level and degree 1: degree 2."""
        to = product_type(a.type, b.type)
        return self._made(self._switched(a.values * b.values, to), to)

    def rotate(self, a: ClearCiphertext, steps: int) -> ClearCiphertext:
        """Rotate the slots to the left."""
        if steps % self._slots == 0:
            return a
        moved = np.roll(a.values, -steps, axis=-1)
        return ClearCiphertext(self._switched(moved, a.type), a.level, a.degree)

    def rotate_many(self, a: ClearCiphertext, steps: Sequence[int]) -> list[ClearCiphertext]:
        """Rotate by several steps; 0 is allowed."""
        return [self.rotate(a, step) for step in steps]

    def rescale(self, a: ClearCiphertext) -> ClearCiphertext:
        """Bring (l, 2) to (l - 1, 1); the values stay."""
        return self._rounded(a, rescaled_type(a.type))

    def drop(self, a: ClearCiphertext, level: int) -> ClearCiphertext:
        """Lower a degree-1 value to `level`; the values stay if they fit."""
        return self._rounded(a, dropped_type(a.type, level))

    def linear(
        self, inputs: Sequence[ClearCiphertext], plan: LinearPlan, constants: Mapping[str, Floats]
    ) -> list[ClearCiphertext]:
        """Apply a linear transform."""
        to = combination_type([value.type for value in inputs])
        if self._noise:
            return linear_by_rotations(self, inputs, plan, constants)
        shape = np.broadcast_shapes(*(value.values.shape for value in inputs))
        rows = [np.broadcast_to(v.values, shape).reshape(-1, self._slots) for v in inputs]
        results = np.empty((plan.outputs, *rows[0].shape))
        block = max(1, _BLOCK // self._slots)
        for start in range(0, len(rows[0]), block):
            part = slice(start, start + block)
            results[:, part] = _apply_diagonals([r[part] for r in rows], plan, constants)
        outputs = [self._made(result.reshape(shape), to) for result in results]
        for step in plan.folds:
            outputs = [self.add(output, self.rotate(output, step)) for output in outputs]
        return add_biases(self, outputs, plan.bias, constants)

    def weighted_sum(
        self,
        inputs: Sequence[ClearCiphertext],
        plan: WeightedSumPlan,
        constants: Mapping[str, Floats],
    ) -> list[ClearCiphertext]:
        """Apply a matrix of scalars to a vector of ciphertexts."""
        to = combination_type([value.type for value in inputs])
        if self._noise:
            return weighted_sum_by_scalars(self, inputs, plan, constants)
        stacked = np.stack(np.broadcast_arrays(*(value.values for value in inputs)))
        results = np.tensordot(constants[plan.weights], stacked, axes=1)
        biases = constants[plan.bias] if plan.bias else np.zeros(plan.outputs)
        return [self._made(result + bias, to) for result, bias in zip(results, biases, strict=True)]

    def chebyshev(
        self, a: ClearCiphertext, polynomial: Chebyshev, constants: Mapping[str, Floats]
    ) -> ClearCiphertext:
        """Evaluate a polynomial in the Chebyshev basis."""
        name = polynomial.coefficients
        return chebyshev_by_powers(self, a, constants[name], key=name)

    def bootstrap(
        self, a: ClearCiphertext, plan: Bootstrap, constants: Mapping[str, Floats]
    ) -> ClearCiphertext:
        """Evaluate the series: outside its range too, where it repeats by its period.

        Values that should repeat and do not quite are replaced by their mean, as they are when
        coefficients are added up.
        """
        to = bootstrapped_type(a.type, plan)
        series = constants[plan.series]
        raised_level(self._params, plan, len(series[0]) - 1)
        blocks = a.values.reshape(*a.values.shape[:-1], -1, 1 << plan.log_slots)
        mean = np.broadcast_to(blocks.mean(axis=-2, keepdims=True), blocks.shape)
        values = evaluate_series(series, mean.reshape(a.values.shape), plan.period)
        deviation = bootstrap_deviation(self._params, plan, series) if self._noise else 0.0
        return self._made(self._disturb(values, deviation), to)

    def _made(self, values: Floats, to: ValueType) -> ClearCiphertext:
        limit = self._limits.get(to, math.inf)
        if limit < math.inf and max(np.max(values), -np.min(values)) >= limit:
            self._overflows += 1
            values = wrap_coefficients(values, 2.0 * limit)
        return ClearCiphertext(values, to.level, to.degree)

    def _encoded(self, plain: Plain, level: int, degree: int) -> Floats:
        if plain.is_scalar:
            return plain.values
        values = plain.expand(self._slots)
        if self._noise is None:
            return values
        return self._disturb(values, precision.encoding_deviation(self._params, level, degree))

    def _rounded(self, a: ClearCiphertext, to: ValueType) -> ClearCiphertext:
        deviation = precision.rescale_deviation(self._params, to.level) if self._noise else 0.0
        return self._made(self._disturb(a.values, deviation), to)

    def _switched(self, values: Floats, at: ValueType) -> Floats:
        if self._noise is None:
            return values
        deviation = precision.key_switch_deviation(self._params, at.level, at.degree)
        return self._disturb(values, deviation)

    def _disturb(self, values: Floats, deviation: float) -> Floats:
        if self._noise is None:
            return values
        return values + self._noise.normal(size=values.shape) * deviation


def wrap_coefficients(values: Floats, modulus: float) -> Floats:
    """Reduce the coefficients of the polynomial behind the slots to [-modulus/2, modulus/2).

    What decryption would show beside the real part, an imaginary part as large, is lost here.

    Args:
        values: shape (..., slots); slot j is the polynomial at exp(i pi 5^j / N).
        modulus: in units of the values.
    """
    slots = values.shape[-1]
    order = 4 * slots
    exponents = np.array([pow(5, j, order) for j in range(slots)])
    spectrum = np.zeros((*values.shape[:-1], order))
    spectrum[..., exponents] = values
    spectrum[..., order - exponents] = values
    coefficients = np.fft.fft(spectrum)[..., : 2 * slots].real / (2 * slots)
    coefficients -= modulus * np.floor(coefficients / modulus + 0.5)
    return np.asarray(np.fft.ifft(coefficients, n=order)[..., exponents].real * order)


def _apply_diagonals(
    inputs: list[Floats], plan: LinearPlan, constants: Mapping[str, Floats]
) -> Floats:
    """Return each output before folds and bias, shape (outputs, k, slots)."""
    rows = constants[plan.diagonals]
    slots = inputs[0].shape[-1]
    rotated: dict[tuple[int, int], Floats] = {}
    sums: dict[tuple[int, int], Floats] = {}
    for term in plan.terms:
        source = (term.input, term.baby)
        if source not in rotated:
            rotated[source] = np.roll(inputs[term.input], -term.baby, axis=-1)
        product = rotated[source] * Plain(plan.diagonals, rows[term.row]).expand(slots)
        key = (term.output, term.giant)
        sums[key] = np.add(sums[key], product, out=sums[key]) if key in sums else product
    results = np.zeros((plan.outputs, *inputs[0].shape))
    for (output, giant), part in sums.items():
        results[output] += np.roll(part, -giant, axis=-1)
    return results


def _limits(params: CryptoParams) -> dict[ValueType, float]:
    """Return, by type, the magnitude from which on values wrap around; infinite beyond float64."""
    limits = {}
    product = 1
    for level, modulus in enumerate(params.moduli):
        product *= modulus
        for degree in (1, 2):
            log_limit = math.log2(product) - 1.0 - degree * math.log2(params.scale(level))
            limits[ValueType(level, degree)] = 2.0**log_limit if log_limit < 1000 else math.inf
    return limits
