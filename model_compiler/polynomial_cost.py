"""What polynomials cost on ciphertexts: levels, and products of two ciphertexts."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tacit.chebyshev import chebyshev_by_powers, chebyshev_depth
from tacit.circuit import ValueType
from tacit.model_compiler.graph import Node, Polynomial, Product
from tacit.model_compiler.levels import LevelChecker

Floats = NDArray[np.float64]


class _Counter(LevelChecker):
    """A level checker that counts products of ciphertexts."""

    def __init__(self) -> None:
        self.products = 0

    def multiply(self, a: ValueType, b: ValueType) -> ValueType:
        self.products += 1
        return super().multiply(a, b)


def polynomial_levels(coefficients: Floats) -> int:
    """Count the levels of a polynomial in the Chebyshev basis."""
    return chebyshev_depth(int(np.max(np.flatnonzero(coefficients), initial=0)))


def polynomial_products(coefficients: Floats) -> int:
    """Count the products of two ciphertexts of a polynomial in the Chebyshev basis."""
    degree = int(np.max(np.flatnonzero(coefficients), initial=0))
    linear, even, odd = (bool(np.any(part)) for part in _parts(coefficients))
    return 0 if degree < 2 else _products(degree, linear, even, odd)


def node_products(nodes: Iterable[Node]) -> int:
    """Count the products of two ciphertexts, for tensors of one ciphertext each."""
    total = 0
    for node in nodes:
        if isinstance(node, Polynomial):
            total += polynomial_products(node.coefficients)
        elif isinstance(node, Product):
            total += 1
    return total


def _parts(coefficients: Floats) -> tuple[Floats, Floats, Floats]:
    """Return views of the linear coefficient, the even ones and the other odd ones."""
    return coefficients[1:2], coefficients[2::2], coefficients[3::2]


@lru_cache(maxsize=1024)
def _products(degree: int, linear: bool, even: bool, odd: bool) -> int:
    """Count by running the very decomposition on a polynomial with the same zeros.

    The others are drawn, as equal ones would leave no remainders when divided.
    """
    coefficients = np.random.default_rng(0).uniform(1.0, 2.0, degree + 1)
    for part, kept in zip(_parts(coefficients), (linear, even, odd), strict=True):
        part *= float(kept)
    counter = _Counter()
    chebyshev_by_powers(counter, ValueType(chebyshev_depth(degree)), coefficients)
    return counter.products
