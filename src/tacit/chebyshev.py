"""Polynomials in the Chebyshev basis on ciphertexts, in ceil(log2(degree + 1)) levels.

A polynomial is divided by some T_g into quotient * T_g + remainder, again and again, until what
is left is a plain combination of T_k that are at hand (Paterson and Stockmeyer 1973; in the
Chebyshev basis: Chen, Chillotti and Song, EUROCRYPT 2019). All products and plain terms of one
block meet at degree 2 and are rescaled once. Which T_k to prepare, and by which T_g to divide, is
found by a small search for the fewest products of ciphertexts that keeps the depth optimal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import Enum
from functools import cache
from typing import Any, Generic, Protocol

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import C, Evaluator, Plain

Floats = NDArray[np.float64]
Numbers = NDArray[np.inexact[Any]]

# Relative costs, from OpenFHE at N = 2^13: a product with relinearisation, a rescaling, a product
# with a scalar.
_PRODUCT, _RESCALE, _SCALAR = 50, 8, 1
_LARGEST_PREPARED = 16


class _Parity(Enum):
    FULL = "full"
    ODD = "odd"
    EVEN = "even"


class SumOfProducts(Protocol[C]):
    """A fused form of what a block of a polynomial adds up before it is rescaled."""

    def __call__(
        self,
        level: int,
        pairs: Sequence[tuple[C, C, int]],
        scaled: Sequence[tuple[C, float | complex]],
        addend: C | None,
    ) -> C:
        """Return the sum of a b times (1 or 2), of factor a, and of the addend: at least one term.

        Args:
            level: of the result, whose degree is 2.
            pairs: a, b and how often, of degree 1 at this level.
            scaled: a and its factor, of degree 1 at this level or above.
            addend: of the result's type.
        """
        ...


def chebyshev_depth(degree: int) -> int:
    """Levels that `chebyshev_by_powers` uses: ceil(log2(degree + 1)), at least 1.

    `degree` is the index of the last coefficient that is not zero.
    """
    return max(1, int(degree).bit_length())


def chebyshev_by_powers(
    evaluator: Evaluator[C],
    a: C,
    coefficients: Numbers,
    *,
    key: str = "chebyshev",
    fused: SumOfProducts[C] | None = None,
) -> C:
    """Evaluate sum_k coefficients[k] T_k(a) in exactly `chebyshev_depth` levels.

    Odd and even functions, whose other coefficients are exactly zero, need fewer products; so do
    even ones plus a linear term, such as relu and SiLU.

    Args:
        evaluator: the backend.
        a: degree 1, stored values in [-1, 1].
        coefficients: shape (degree + 1,); trailing zeros are ignored. Complex ones only for an
            evaluator that takes complex scalars.
        key: prefix for the names of the constants, for caches.
        fused: adds up products; by default one by one.

    Raises:
        LevelError: fewer levels left than `chebyshev_depth`.
    """
    c = _trim(_numbers(coefficients))
    powers = chebyshev_powers(len(c) - 1, _parity(c) is _Parity.ODD)
    program = _Program(evaluator, a, key, powers, fused)
    if len(c) == 2 or np.any(c[3::2]):
        return program.block(c, chebyshev_depth(len(c) - 1))
    half = c[::2]  # even, but perhaps for c_1 T_1: a polynomial of T_2, plus a multiple of a
    square = program.power(2)
    inner = _Program(evaluator, square, key, chebyshev_powers(len(half) - 1, odd=False), fused)
    budget = chebyshev_depth(len(half) - 1)
    level = evaluator.type_of(square).level - budget + 1
    linear = program.scaled(1, level, c[1].item()) if c[1] else None
    return inner.block(half, budget, linear)


def polynomial_by_powers(
    evaluator: Evaluator[C],
    a: C,
    coefficients: Numbers,
    *,
    key: str = "powers",
    fused: SumOfProducts[C] | None = None,
) -> C:
    """Evaluate sum_k coefficients[k] a^k in exactly `chebyshev_depth` levels.

    Meant for values on the unit circle, whose powers neither grow nor vanish; arguments and errors
    as for `chebyshev_by_powers`.
    """
    c = _trim(_numbers(coefficients))
    powers = chebyshev_powers(len(c) - 1, odd=False)
    program = _PowerProgram(evaluator, a, key, powers, fused)
    return program.block(c, chebyshev_depth(len(c) - 1))


class _Program(Generic[C]):
    """Memoised T_k at every level asked for, and the recursive division, for one input."""

    def __init__(
        self,
        evaluator: Evaluator[C],
        a: C,
        key: str,
        prepared: frozenset[int],
        fused: SumOfProducts[C] | None,
    ) -> None:
        self._ev = evaluator
        self._fused = fused
        self._top = evaluator.type_of(a).level
        self._at: dict[tuple[int, int], C] = {(1, self._top): a}
        self._key = key
        self._prepared = prepared

    def power(self, k: int, level: int | None = None) -> C:
        """Return T_k(a) at `level`; by default at its own, depth ceil(log2 k) below the top."""
        own = self._top - _power_depth(k)
        level = own if level is None else level
        if (k, level) not in self._at:
            made = self._make(k, own) if level == own else self._ev.drop(self.power(k), level)
            self._at[k, level] = made
        return self._at[k, level]

    def _make(self, k: int, own: int) -> C:
        """Compute 2 T_a T_b - T_(a-b), a + b = k."""
        a, b = _split(k, self._prepared)
        pair = (self.power(a, own + 1), self.power(b, own + 1), 2)
        if a == b:
            double = self._sum(own + 1, [pair], [], None)
            return self._ev.add_plain(self._ev.rescale(double), self._scalar(-1.0))
        return self._ev.rescale(self._sum(own + 1, [pair], [(a - b, -1.0)], None))

    def scaled(self, k: int, level: int, factor: float | complex) -> C:
        """Return factor T_k(a) at `level`, degree 2."""
        return self._ev.multiply_plain(self.power(k, level), self._scalar(factor))

    def block(self, c: Numbers, budget: int, addend: C | None = None) -> C:
        """Evaluate sum_k c_k T_k at exactly `budget` levels below the top.

        `addend`, of degree 2 and one level above the result, is added.
        """
        level = self._top - budget + 1
        pairs: list[tuple[C, C, int]] = []
        scaled: list[tuple[int, float | complex]] = []
        c = _trim(c)
        while np.any(c[1:]):
            g = _divisor(len(c) - 1, _parity(c), budget, self._prepared)
            if g is None:
                scaled += [(int(k), c[k].item()) for k in np.flatnonzero(c[1:]) + 1]
                break
            quotient, c = self._divide(c, g)
            if np.any(quotient[1:]):
                pairs.append((self.block(quotient, budget - 1), self.power(g, level), 1))
            else:
                scaled.append((g, quotient[0].item()))
            c = _trim(c)
        if addend is None and not pairs and not scaled:
            scaled.append((1, 0.0))
        result = self._ev.rescale(self._sum(level, pairs, scaled, addend))
        return self._ev.add_plain(result, self._scalar(c[0].item())) if c[0] else result

    def _sum(
        self,
        level: int,
        pairs: Sequence[tuple[C, C, int]],
        scaled: Sequence[tuple[int, float | complex]],
        addend: C | None,
    ) -> C:
        """Add up products, and multiples of T_k, at `level`, degree 2."""
        if self._fused is not None:
            terms = [(self.power(k), factor) for k, factor in scaled]
            return self._fused(level, pairs, terms, addend)
        total = addend
        for a, b, times in pairs:
            product = self._ev.multiply(a, b)
            total = self._add(total, self._ev.add(product, product) if times == 2 else product)
        for k, factor in scaled:
            total = self._add(total, self.scaled(k, level, factor))
        assert total is not None  # nothing is rescaled that is no sum
        return total

    def _add(self, total: C | None, term: C) -> C:
        return term if total is None else self._ev.add(total, term)

    def _divide(self, c: Numbers, g: int) -> tuple[Numbers, Numbers]:
        return _divide(c, g)

    def _scalar(self, value: float | complex) -> Plain:
        return Plain(f"{self._key}:{value!r}", np.asarray(value))


class _PowerProgram(_Program[C]):
    """The same with a^k in place of T_k(a)."""

    def _make(self, k: int, own: int) -> C:
        a, b = _split(k, self._prepared)
        pair = (self.power(a, own + 1), self.power(b, own + 1), 1)
        return self._ev.rescale(self._sum(own + 1, [pair], [], None))

    def _divide(self, c: Numbers, g: int) -> tuple[Numbers, Numbers]:
        return c[g:], c[:g]


def _numbers(coefficients: Numbers) -> Numbers:
    kind = np.complex128 if np.iscomplexobj(coefficients) else np.float64
    return np.asarray(coefficients, dtype=kind)


def _trim(c: Numbers) -> Numbers:
    """Cut trailing zeros, but keep two coefficients."""
    last = int(np.max(np.flatnonzero(c), initial=1))
    return np.pad(c, (0, max(0, 2 - len(c))))[: last + 1]


def _parity(c: Numbers) -> _Parity:
    if not np.any(c[2::2]):
        return _Parity.ODD
    return _Parity.FULL if np.any(c[1::2]) else _Parity.EVEN


def _divide(c: Numbers, g: int) -> tuple[Numbers, Numbers]:
    """Divide sum_k c_k T_k by T_g; uses T_k = 2 T_g T_(k-g) - T_|k-2g|, highest k first."""
    remainder = c.copy()
    quotient = np.zeros(len(c) - g, dtype=c.dtype)
    for k in range(len(c) - 1, g, -1):
        quotient[k - g] += 2.0 * remainder[k]
        remainder[abs(k - 2 * g)] -= remainder[k]
    quotient[0] += remainder[g]
    return quotient, remainder[:g]


def _power_depth(k: int) -> int:
    return (k - 1).bit_length()


def _split(k: int, prepared: frozenset[int]) -> tuple[int, int]:
    """Return a >= b, a + b = k, no deeper than needed, preferring what is prepared anyway."""
    depth = _power_depth(k) - 1
    choices = [(a, k - a) for a in range((k + 1) // 2, k) if _power_depth(a) <= depth]
    known = prepared | {0}
    return min(choices, key=lambda ab: sum(x not in known for x in (*ab, ab[0] - ab[1])))


# ---- the search for the cheapest plan ----


@cache
def chebyshev_powers(degree: int, odd: bool) -> frozenset[int]:
    """Return the k for which T_k is worth preparing, for a polynomial of this degree.

    Args:
        degree: index of the last coefficient that is not zero.
        odd: whether all even coefficients, but perhaps the constant one, vanish.
    """
    parity = _Parity.ODD if odd else _Parity.FULL
    budget = chebyshev_depth(degree)
    return min(
        _candidates(degree, odd),
        key=lambda s: (_block_cost(degree, parity, budget, s) + _preparation_cost(s), sorted(s)),
    )


def _candidates(degree: int, odd: bool) -> set[frozenset[int]]:
    found = set()
    step = 2 if odd else 1
    for babies in range(1, min(degree, _LARGEST_PREPARED) + 1, step):
        small = set(range(1, babies + 1, step))
        for base in {babies, babies + 1, 1 << babies.bit_length(), 2}:
            doublings = range((degree // base).bit_length())
            for count in (len(doublings), len(doublings) - 1):
                giants = {base << j for j in doublings[: max(count, 0)]}
                found.add(_closure(small | giants))
    return found


def _closure(powers: Iterable[int]) -> frozenset[int]:
    """Add every T_k that the recurrence of another needs."""
    closed = frozenset(powers) | {1}
    while True:
        needed = {x for k in closed if k > 1 for x in _needs(k, closed)}
        if needed <= closed:
            return closed
        closed |= needed


def _needs(k: int, prepared: frozenset[int]) -> set[int]:
    a, b = _split(k, prepared)
    return {a, b, a - b} - {0}


def _preparation_cost(powers: frozenset[int]) -> int:
    return (len(powers) - 1) * (_PRODUCT + _RESCALE)


@cache
def _plan(
    degree: int, parity: _Parity, budget: int, powers: frozenset[int]
) -> tuple[float, int | None]:
    """Return the cost of the sum inside a block and the divisor to use; None is a plain sum."""
    used = [k for k in range(1, degree + 1) if _occurs(k, parity)]
    usable = {k for k in powers if _power_depth(k) < budget}
    if usable.issuperset(used):
        return len(used) * _SCALAR, None
    top = used[-1]
    best: tuple[float, int | None] = (math.inf, None)
    for g in sorted(k for k in usable if k <= top):
        cost = _quotient_cost(top - g, _parity_by(parity, g), budget - 1, powers)
        if cost < best[0]:
            cost += _plan(g - 1, parity, budget, powers)[0]
        best = min(best, (cost, g), key=lambda choice: choice[0])
    return best


def _quotient_cost(degree: int, parity: _Parity, budget: int, powers: frozenset[int]) -> float:
    if degree == 0:
        return _SCALAR
    return _PRODUCT + _block_cost(degree, parity, budget, powers)


def _block_cost(degree: int, parity: _Parity, budget: int, powers: frozenset[int]) -> float:
    if budget < chebyshev_depth(degree):
        return math.inf
    return _RESCALE + _plan(degree, parity, budget, powers)[0]


def _divisor(degree: int, parity: _Parity, budget: int, powers: frozenset[int]) -> int | None:
    """Return by which T_g to divide; without a plan, by the largest power of two, which works."""
    cost, g = _plan(degree, parity, budget, powers)
    return g if math.isfinite(cost) else 1 << (degree.bit_length() - 1)


def _occurs(k: int, parity: _Parity) -> bool:
    return parity is _Parity.FULL or (k % 2 == 1) == (parity is _Parity.ODD)


def _parity_by(parity: _Parity, g: int) -> _Parity:
    """Return the parity of the quotient by T_g."""
    if parity is _Parity.FULL or g % 2 == 0:
        return parity
    return _Parity.EVEN if parity is _Parity.ODD else _Parity.ODD
