"""A circuit run on clear numbers with the noise of encryption: an Evaluator on noisy slots.

Where values are known to be small, as in training, a run says more about errors than bounds do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit import precision
from tacit.bootstrap import Bootstrap
from tacit.bootstrap_levels import bootstrap_deviations
from tacit.circuit import Chebyshev, LinearPlan, Plain, ValueType, WeightedSumPlan
from tacit.decompose import chebyshev_by_powers, linear_by_rotations, weighted_sum_by_scalars
from tacit.fourier import evaluate_series
from tacit.model_compiler.levels import LevelChecker
from tacit.params import CryptoParams

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Noisy:
    """Slots, shape (slots,), and the type of their ciphertext."""

    values: Floats
    type: ValueType


class NoisyRun:
    """An Evaluator that adds Gaussian noise as large as `tacit.precision` expects."""

    def __init__(self, params: CryptoParams, seed: int = 0) -> None:
        """Begin a run.

        Args:
            params: whose noise to add.
            seed: of the noise.
        """
        self._params = params
        self._random = np.random.default_rng(seed)
        self._checker = LevelChecker()

    def encrypt(self, values: Floats, level: int) -> Noisy:
        """Return a fresh ciphertext."""
        fresh = precision.fresh_deviation(self._params)
        return self._noisy(values, fresh, ValueType(level))

    def add(self, a: Noisy, b: Noisy) -> Noisy:
        """Add."""
        return Noisy(a.values + b.values, self._checker.add(a.type, b.type))

    def subtract(self, a: Noisy, b: Noisy) -> Noisy:
        """Subtract."""
        return Noisy(a.values - b.values, self._checker.subtract(a.type, b.type))

    def negate(self, a: Noisy) -> Noisy:
        """Negate."""
        return Noisy(-a.values, a.type)

    def add_plain(self, a: Noisy, plain: Plain) -> Noisy:
        """Add a constant."""
        return Noisy(a.values + self._encoded(plain, a.type), a.type)

    def multiply_plain(self, a: Noisy, plain: Plain) -> Noisy:
        """Multiply by a constant."""
        to = self._checker.multiply_plain(a.type, plain)
        return Noisy(a.values * self._encoded(plain, a.type), to)

    def multiply(self, a: Noisy, b: Noisy) -> Noisy:
        """Multiply and relinearise."""
        return self._switched(a.values * b.values, self._checker.multiply(a.type, b.type))

    def rotate(self, a: Noisy, steps: int) -> Noisy:
        """Rotate to the left."""
        return self._switched(np.roll(a.values, -steps), a.type)

    def rotate_many(self, a: Noisy, steps: Sequence[int]) -> list[Noisy]:
        """Rotate by several steps."""
        return [self.rotate(a, step) for step in steps]

    def rescale(self, a: Noisy) -> Noisy:
        """Round."""
        return self._rounded(a.values, self._checker.rescale(a.type))

    def drop(self, a: Noisy, level: int) -> Noisy:
        """Round."""
        return self._rounded(a.values, self._checker.drop(a.type, level))

    def linear(
        self, inputs: Sequence[Noisy], plan: LinearPlan, constants: Mapping[str, Floats]
    ) -> list[Noisy]:
        """Run the default decomposition."""
        return linear_by_rotations(self, inputs, plan, constants)

    def weighted_sum(
        self, inputs: Sequence[Noisy], plan: WeightedSumPlan, constants: Mapping[str, Floats]
    ) -> list[Noisy]:
        """Run the default decomposition."""
        return weighted_sum_by_scalars(self, inputs, plan, constants)

    def chebyshev(self, a: Noisy, polynomial: Chebyshev, constants: Mapping[str, Floats]) -> Noisy:
        """Run the default decomposition."""
        name = polynomial.coefficients
        return chebyshev_by_powers(self, a, constants[name], key=name)

    def bootstrap(self, a: Noisy, plan: Bootstrap, constants: Mapping[str, Floats]) -> Noisy:
        """Evaluate the series, at the mean of all repetitions of the values."""
        series = constants[plan.series]
        to = self._checker.bootstrap(a.type, plan, constants)
        once = a.values.reshape(-1, 1 << plan.log_slots).mean(axis=0)
        own, repeated = bootstrap_deviations(self._params, plan, series)
        once = evaluate_series(series, once, plan.period)
        once = once + repeated * self._random.normal(size=once.shape)
        return self._noisy(np.tile(once, self._params.slots >> plan.log_slots), own, to)

    def type_of(self, a: Noisy) -> ValueType:
        """Return level and degree."""
        return a.type

    def _noisy(self, values: Floats, deviation: float, to: ValueType) -> Noisy:
        return Noisy(values + deviation * self._random.normal(size=values.shape), to)

    def _rounded(self, values: Floats, to: ValueType) -> Noisy:
        return self._noisy(values, precision.rescale_deviation(self._params, to.level), to)

    def _switched(self, values: Floats, to: ValueType) -> Noisy:
        deviation = precision.key_switch_deviation(self._params, to.level, to.degree)
        return self._noisy(values, deviation, to)

    def _encoded(self, plain: Plain, at: ValueType) -> Floats:
        values = plain.expand(self._params.slots)
        if plain.is_scalar:
            return values
        deviation = precision.encoding_deviation(self._params, at.level, at.degree)
        return np.asarray(values + deviation * self._random.normal(size=values.shape))
