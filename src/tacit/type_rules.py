"""Which level and degree an operation gives, or why it is not allowed: the rules, once.

Backends, the level checker and the cost model call these functions.
"""

from __future__ import annotations

from collections.abc import Sequence

from tacit.bootstrap import Bootstrap
from tacit.circuit import ValueType
from tacit.errors import CircuitError, LevelError


def sum_type(a: ValueType, b: ValueType) -> ValueType:
    """Return the type of a sum or difference.

    Raises:
        LevelError: the levels differ.
        CircuitError: the degrees differ.
    """
    if a.level != b.level:
        raise LevelError(
            f"cannot add ciphertexts of levels {a.level} and {b.level}: drop the higher one first"
        )
    if a.degree != b.degree:
        raise CircuitError(
            f"cannot add ciphertexts of degrees {a.degree} and {b.degree}: "
            "rescale the one of degree 2 first"
        )
    return a


def product_type(a: ValueType, b: ValueType | None = None) -> ValueType:
    """Return the type of a product of ciphertexts, or of a ciphertext and a constant.

    Raises:
        LevelError: the levels differ, or are 0, so that the product could never be rescaled.
        CircuitError: an operand has degree 2.
    """
    operands = (a,) if b is None else (a, b)
    if any(operand.degree != 1 for operand in operands):
        raise CircuitError("cannot multiply a ciphertext of degree 2: rescale it first")
    if len({operand.level for operand in operands}) > 1:
        levels = " and ".join(str(operand.level) for operand in operands)
        raise LevelError(
            f"cannot multiply ciphertexts of levels {levels}: drop the higher one first"
        )
    if a.level == 0:
        raise LevelError("cannot multiply at level 0: no rescaling is left; use a greater depth")
    return ValueType(a.level, 2)


def rescaled_type(a: ValueType) -> ValueType:
    """Return the type after a rescale.

    Raises:
        LevelError: at level 0.
        CircuitError: not of degree 2.
    """
    if a.degree != 2:
        raise CircuitError(f"cannot rescale a ciphertext of degree {a.degree}: 2 is needed")
    if a.level == 0:
        raise LevelError("cannot rescale at level 0: no rescaling is left; use a greater depth")
    return ValueType(a.level - 1, 1)


def dropped_type(a: ValueType, level: int) -> ValueType:
    """Return the type after a drop to `level`.

    Raises:
        LevelError: `level` is not below the ciphertext's, or negative.
        CircuitError: not of degree 1.
    """
    if a.degree != 1:
        raise CircuitError("cannot drop a ciphertext of degree 2: rescale it first")
    if not 0 <= level < a.level:
        raise LevelError(
            f"cannot drop a ciphertext of level {a.level} to {level}: "
            "the target must be lower, and at least 0"
        )
    return ValueType(level, 1)


def combination_type(operands: Sequence[ValueType]) -> ValueType:
    """Return the type of a linear combination, rescaled, of ciphertexts of equal types.

    Raises:
        LevelError: the levels differ or are 0.
        CircuitError: there is no operand, or one has degree 2.
    """
    if not operands:
        raise CircuitError("a linear combination needs at least one ciphertext")
    for other in operands[1:]:
        product_type(operands[0], other)
    return rescaled_type(product_type(operands[0]))


def bootstrapped_type(a: ValueType, plan: Bootstrap) -> ValueType:
    """Return the type after a bootstrap.

    Raises:
        LevelError: fewer levels left than its first stages use up.
        CircuitError: not of degree 1.
    """
    if a.degree != 1:
        raise CircuitError("cannot bootstrap a ciphertext of degree 2: rescale it first")
    if a.level < plan.to_coefficients:
        raise LevelError(
            f"cannot bootstrap a ciphertext of level {a.level}: its first stages use up "
            f"{plan.to_coefficients}; bootstrap earlier, or in fewer stages"
        )
    return ValueType(plan.level, 1)
