"""The level checker: circuits run on (level, degree) pairs instead of ciphertexts.

An illegal operation raises where it is appended to a circuit, not on the server months later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.circuit import Chebyshev, Circuit, LinearPlan, Plain, ValueType, WeightedSumPlan, execute
from tacit.decompose import chebyshev_by_powers
from tacit.errors import CircuitError
from tacit.fourier import complex_series
from tacit.type_rules import (
    bootstrapped_type,
    combination_type,
    dropped_type,
    product_type,
    rescaled_type,
    sum_type,
)

Floats = NDArray[np.float64]


class LevelChecker:
    """An Evaluator whose values are `ValueType`s; it enforces `tacit.type_rules`."""

    def add(self, a: ValueType, b: ValueType) -> ValueType:
        """Require equal types."""
        return sum_type(a, b)

    def subtract(self, a: ValueType, b: ValueType) -> ValueType:
        """Require equal types."""
        return sum_type(a, b)

    def negate(self, a: ValueType) -> ValueType:
        """Keep the type."""
        return a

    def add_plain(self, a: ValueType, plain: Plain) -> ValueType:
        """Keep the type."""
        return a

    def multiply_plain(self, a: ValueType, plain: Plain) -> ValueType:
        """Take degree 1 to degree 2."""
        return product_type(a)

    def multiply(self, a: ValueType, b: ValueType) -> ValueType:
        """Take two equal degree-1 types to degree 2."""
        return product_type(a, b)

    def rotate(self, a: ValueType, steps: int) -> ValueType:
        """Keep the type."""
        return a

    def rotate_many(self, a: ValueType, steps: Sequence[int]) -> list[ValueType]:
        """Keep the type."""
        return [a for _ in steps]

    def rescale(self, a: ValueType) -> ValueType:
        """Take (l, 2) to (l - 1, 1)."""
        return rescaled_type(a)

    def drop(self, a: ValueType, level: int) -> ValueType:
        """Take (l, 1) to (level, 1)."""
        return dropped_type(a, level)

    def linear(
        self, inputs: Sequence[ValueType], plan: LinearPlan, constants: Mapping[str, Floats]
    ) -> list[ValueType]:
        """Take equal degree-1 types one level down; folds and a bias keep the type."""
        return [combination_type(inputs)] * plan.outputs

    def weighted_sum(
        self, inputs: Sequence[ValueType], plan: WeightedSumPlan, constants: Mapping[str, Floats]
    ) -> list[ValueType]:
        """Check the shape of the weights and one row: all rows share its type."""
        weights = constants[plan.weights]
        if weights.shape != (plan.outputs, len(inputs)):
            raise CircuitError(
                f"weighted sum of {len(inputs)} inputs and {plan.outputs} outputs has weights of "
                f"shape {weights.shape}"
            )
        return [combination_type(inputs)] * plan.outputs

    def chebyshev(
        self, a: ValueType, polynomial: Chebyshev, constants: Mapping[str, Floats]
    ) -> ValueType:
        """Run the default decomposition."""
        return chebyshev_by_powers(self, a, constants[polynomial.coefficients])

    def bootstrap(
        self, a: ValueType, plan: Bootstrap, constants: Mapping[str, Floats]
    ) -> ValueType:
        """Check the series, take any level that is high enough to the plan's."""
        complex_series(constants[plan.series])
        return bootstrapped_type(a, plan)

    def type_of(self, a: ValueType) -> ValueType:
        """Return the value itself."""
        return a


def check_levels(circuit: Circuit) -> None:
    """Check every node of a circuit and the types it declares.

    Raises:
        LevelError: no level left somewhere.
        CircuitError: types that do not fit, or a declared type that is not the computed one.
    """

    def compare(index: int, results: Sequence[ValueType]) -> None:
        node = circuit.nodes[index]
        for value, computed in zip(node.outputs, results, strict=True):
            if circuit.types[value] != computed:
                raise CircuitError(
                    f"node {index} ({node.op.value}, {node.label}) declares "
                    f"{circuit.types[value]} and gives {computed}"
                )

    inputs = [circuit.types[value] for value in circuit.inputs]
    execute(circuit, inputs, LevelChecker(), lambda i, _node, results: compare(i, results))
