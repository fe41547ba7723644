"""The definition of every kernel in plain Python integers, limb by limb.

A limb is a list or an object array of N integers below its modulus q. Nothing here is fast, lazy
or clever; tests compare the compiled kernels with these functions for equality.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.object_]


def integers(values: object) -> Integers:
    """Return an object array of Python integers."""
    array = np.asarray(values)
    made: Integers = np.array(array.tolist(), dtype=object).reshape(array.shape)
    return made


def bit_reverse(n: int) -> NDArray[np.intp]:
    """Return the bit-reversed order of 0 .. n - 1; n is a power of two."""
    order: NDArray[np.intp] = np.zeros(1, dtype=np.intp)
    while len(order) < n:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order


def transform(a: Sequence[int], q: int, psi: int) -> list[int]:
    """Evaluate a polynomial at psi^(2 bitrev(k) + 1): the meaning of NTT form, in N^2 steps."""
    n = len(a)
    powers = [pow(psi, e, q) for e in range(2 * n)]
    order = bit_reverse(n).tolist()
    return [sum(c * powers[(2 * e + 1) * i % (2 * n)] for i, c in enumerate(a)) % q for e in order]


def forward(a: Integers, q: int, psi: int) -> Integers:
    """Coefficients to NTT form by halving: X^n - w^2 = (X^(n/2) - w)(X^(n/2) + w)."""
    return _split(a, q, psi, 2 * len(a), len(a))


def _split(a: Integers, q: int, psi: int, order: int, exponent: int) -> Integers:
    """Reduce modulo X^n - psi^exponent, then modulo its two factors, first the one with -."""
    if len(a) == 1:
        return a
    half = exponent // 2
    low, high = a[: len(a) // 2], a[len(a) // 2 :] * pow(psi, half, q) % q
    other = half + order // 2
    return np.concatenate(
        [
            _split((low + high) % q, q, psi, order, half),
            _split((low - high) % q, q, psi, order, other),
        ]
    )


def inverse(a: Integers, q: int, psi: int) -> Integers:
    """NTT form to coefficients."""
    n = len(a)
    joined: Integers = _join(a, q, psi, 2 * n, n) * pow(n, -1, q) % q
    return joined


def _join(a: Integers, q: int, psi: int, order: int, exponent: int) -> Integers:
    if len(a) == 1:
        return a
    half = exponent // 2
    first = _join(a[: len(a) // 2], q, psi, order, half)
    second = _join(a[len(a) // 2 :], q, psi, order, half + order // 2)
    low = (first + second) % q
    high = (first - second) * pow(psi, -half, q) % q
    return np.concatenate([low, high])


def convert(x: Sequence[Integers], source: Sequence[int], target: int) -> Integers:
    """Convert coefficients to another modulus, approximately: off by 0 .. len(source) - 1 products.

    sum_i [x_i (S / s_i)^-1]_(s_i) (S / s_i) modulo `target`, S the product of the sources.
    """
    product = prod(source)
    total: Integers = integers(np.zeros(len(x[0]), dtype=np.int64))
    for limb, s in zip(x, source, strict=True):
        other = product // s
        total = total + limb * pow(other, -1, s) % s * (other % target)
    reduced: Integers = total % target
    return reduced


def mod_up(
    x: Sequence[Integers], moduli: Sequence[int], special: Sequence[int], alpha: int
) -> list[list[Integers]]:
    """Extend digits of `alpha` limbs, as coefficients, to all moduli and the special ones."""
    digits = []
    for start in range(0, len(moduli), alpha):
        own = range(start, min(start + alpha, len(moduli)))
        source = [moduli[i] for i in own]
        digit = [x[i] for i in own]
        digits.append(
            [
                x[r] if r in own else convert(digit, source, m)
                for r, m in enumerate([*moduli, *special])
            ]
        )
    return digits


def mod_down(
    x: Sequence[Integers], moduli: Sequence[int], special: Sequence[int]
) -> list[Integers]:
    """Divide coefficients over QP by P: subtract the residue modulo P, converted, then divide."""
    p, rest = prod(special), x[len(moduli) :]
    return [
        (limb - convert(rest, special, q)) * pow(p, -1, q) % q
        for limb, q in zip(x, moduli, strict=False)
    ]


def rescale(x: Sequence[Integers], moduli: Sequence[int]) -> list[Integers]:
    """Divide coefficients by the last modulus: subtract its residue, centred, then divide."""
    last = moduli[-1]
    centred = np.where(x[-1] > last // 2, x[-1] - last, x[-1])
    return [
        (limb - centred) * pow(last, -1, q) % q for limb, q in zip(x, moduli[:-1], strict=False)
    ]


def key_switch(
    x: Sequence[Integers] | Integers,
    key: Sequence[Sequence[Sequence[Integers]]] | Integers,
    moduli: Sequence[int],
    special: Sequence[int],
    alpha: int,
    roots: Sequence[int],
) -> list[list[Integers]]:
    """Switch a polynomial to another key (hybrid).

    Args:
        x: limbs in NTT form.
        key: [part][digit][row], NTT form, rows for `moduli` and then `special`.
        moduli: of the limbs.
        special: primes of P.
        alpha: limbs per digit.
        roots: for `moduli` and then `special`.

    Returns:
        [part][limb], NTT form.
    """
    every = [*moduli, *special]
    coefficients = [inverse(limb, q, r) for limb, q, r in zip(x, moduli, roots, strict=False)]
    digits = [
        [forward(limb, q, r) for limb, q, r in zip(digit, every, roots, strict=True)]
        for digit in mod_up(coefficients, moduli, special, alpha)
    ]
    parts = []
    for half in key:
        sums = [
            sum(digit[row] * half[d][row] for d, digit in enumerate(digits)) % q
            for row, q in enumerate(every)
        ]
        plain = [inverse(limb, q, r) for limb, q, r in zip(sums, every, roots, strict=True)]
        low = mod_down(plain, moduli, special)
        parts.append([forward(limb, q, r) for limb, q, r in zip(low, moduli, roots, strict=False)])
    return parts


def automorphism(a: Integers, q: int, element: int) -> Integers:
    """Return the coefficients of a(X^element)."""
    n = len(a)
    result = a.copy()
    for i in range(n):
        e = i * element % (2 * n)
        result[e % n] = a[i] if e < n else -a[i] % q
    return result
