"""Elementwise nodes on the ciphertexts of a tensor: the same rules for both plans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.errors import CircuitError
from tacit.model_compiler.builder import CircuitBuilder
from tacit.model_compiler.graph import Fourier, Polynomial
from tacit.model_compiler.lowering.matrices import is_signs

Floats = NDArray[np.float64]
Values = tuple[int, ...]


def lower_polynomial(builder: CircuitBuilder, values: Values, node: Polynomial) -> Values:
    """Evaluate a polynomial on [-1, 1] in every ciphertext.

    Raises:
        CircuitError: the polynomial's domain is another one.
    """
    if node.center != 0.0 or node.half_width != 1.0:
        raise CircuitError(f"polynomial {node.output!r} is not on [-1, 1]: scale the graph first")
    if len(node.coefficients) == 2:
        constant, slope = (np.asarray(c) for c in node.coefficients)
        return tuple(
            builder.add_plain(_times(builder, v, slope, node.origin), constant, node.origin)
            for v in values
        )
    return tuple(builder.chebyshev(v, node.coefficients, node.origin) for v in values)


def lower_fourier(
    builder: CircuitBuilder, values: Values, node: Fourier, plan: Bootstrap
) -> Values:
    """Bootstrap every ciphertext of values in [-1/2, 1/2].

    Raises:
        CircuitError: the series' domain is another one.
    """
    if node.center != 0.0 or node.half_width != 0.5:
        raise CircuitError(f"series {node.output!r} is not on [-1/2, 1/2]: scale the graph first")
    return tuple(builder.bootstrap(v, plan, node.series, node.origin) for v in values)


def lower_product(builder: CircuitBuilder, left: Values, right: Values, label: str) -> Values:
    """Multiply two tensors of equal arrangement element by element."""
    pairs = zip(left, right, strict=True)
    return tuple(builder.rescale(builder.multiply(a, b, label), label) for a, b in pairs)


def lower_scalars(
    builder: CircuitBuilder,
    operands: Sequence[Values],
    factors: Sequence[float],
    bias: Floats,
    label: str,
) -> Values:
    """Add multiples of tensors of equal arrangement, and a bias of shape (ciphertexts, length).

    Factors 1 and -1 cost nothing; if there are others all are multiplied, for one level.
    """
    plain = is_signs(tuple(factors))
    results = []
    for block, addend in zip(zip(*operands, strict=True), bias, strict=True):
        if plain:
            total = _signed_sum(builder, block, factors, label)
        else:
            terms = [
                builder.multiply_plain(value, np.asarray(factor), label)
                for value, factor in zip(block, factors, strict=True)
            ]
            total = builder.rescale(_sum(builder, terms, label), label)
        results.append(builder.add_plain(total, addend, label))
    return tuple(results)


def _signed_sum(
    builder: CircuitBuilder, values: Sequence[int], signs: Sequence[float], label: str
) -> int:
    positive = [v for v, sign in zip(values, signs, strict=True) if sign > 0]
    negative = [v for v, sign in zip(values, signs, strict=True) if sign < 0]
    if not positive:
        return builder.negate(_sum(builder, negative, label), label)
    total = _sum(builder, positive, label)
    for value in negative:
        total = builder.subtract(total, value, label)
    return total


def _sum(builder: CircuitBuilder, values: Sequence[int], label: str) -> int:
    total = values[0]
    for value in values[1:]:
        total = builder.add(total, value, label)
    return total


def _times(builder: CircuitBuilder, value: int, factor: Floats, label: str) -> int:
    return builder.rescale(builder.multiply_plain(value, factor, label), label)
