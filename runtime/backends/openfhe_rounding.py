"""Correct how OpenFHE rounds after a key switch.

To divide by P = p_1 ... p_K, OpenFHE subtracts a remainder that its fast base conversion puts into
[0, K P) instead of [-P/2, P/2). So every coefficient of a rotated ciphertext comes out too small by
K / 2 on average, in both components: an error of (K / 2) (1 + X + X^2 + ...) (1 + s), which is
large where X is near 1, that is in slot 0, by more than the noise of a fresh ciphertext. It is the
same for every rotation, and public but for the secret s: adding K / 2 to all coefficients of both
components takes it away. For odd K the halves are added as 0 and 1 in the pattern of Golay, Rudin
and Shapiro, whose spectrum is flat, so that what remains spreads over all slots alike.
"""

from __future__ import annotations

import numpy as np
import openfhe
from numpy.typing import NDArray

from tacit.openfhe_bytes import ForeignCiphertext
from tacit.openfhe_context import PolynomialBasis, template_from_context
from tacit.params import CryptoParams
from tacit.runtime.backends.openfhe_archives import ciphertext_of

Residues = NDArray[np.uint64]


class RotationCorrection:
    """Adds K / 2 to the coefficients of rotated ciphertexts of degree 1.

    At degree 2 the error is smaller by the scale, and nothing is done.
    """

    def __init__(self, params: CryptoParams, context: openfhe.CryptoContext) -> None:
        self._context = context
        template = template_from_context(openfhe.Serialize(context, openfhe.BINARY))
        halves = half_of_every_coefficient(template.basis, len(params.special_moduli))
        foreign = ForeignCiphertext(
            limbs=np.stack([halves, halves]),
            level=0,
            noise_scale_degree=1,
            scaling_factor=params.scale(params.depth),
            slots=params.slots,
            key_tag="",
        )
        top = ciphertext_of(context, template, foreign)
        self._by_limbs = [context.Compress(top, limbs, 1) for limbs in range(1, params.depth + 2)]

    def apply(self, rotated: openfhe.Ciphertext, level: int) -> None:
        """Correct a rotated ciphertext of degree 1 in place."""
        self._context.EvalAddInPlaceNoCheck(rotated, self._by_limbs[level])


def half_of_every_coefficient(basis: PolynomialBasis, times: int) -> Residues:
    """Return a polynomial whose coefficients are times / 2, or both neighbours for odd `times`.

    Returns:
        Shape (moduli, N), NTT form in OpenFHE's order.
    """
    limbs = []
    for modulus, root in zip(basis.moduli, basis.roots, strict=True):
        q = np.uint64(modulus)
        ones, signs = _patterns(_points(modulus, root, basis.log_n), modulus, basis.log_n)
        limb = _product(ones, np.uint64(times // 2), modulus)
        if times % 2:
            half = np.uint64((modulus + 1) // 2)
            limb = (limb + _product((ones + signs) % q, half, modulus)) % q
        limbs.append(limb)
    return np.stack(limbs)


def _points(modulus: int, root: int, log_n: int) -> Residues:
    """Return root^(2 bitrev(k) + 1) at position k: where OpenFHE's NTT evaluates."""
    exponents: NDArray[np.int64] = np.zeros(1, dtype=np.int64)
    for _ in range(log_n):
        exponents = np.concatenate([2 * exponents, 2 * exponents + 1])
    powers = np.array([root], dtype=np.uint64)
    for bit in range(log_n):
        step = np.uint64(pow(root, 2 << bit, modulus))
        powers = np.concatenate([powers, _product(powers, step, modulus)])
    return np.asarray(powers[exponents])


def _patterns(points: Residues, modulus: int, log_n: int) -> tuple[Residues, Residues]:
    """Evaluate the sum of all X^i, and that with the Rudin-Shapiro signs, at the points."""
    q = np.uint64(modulus)
    ones = signs = partner = np.ones_like(points)
    power = points
    for _ in range(log_n):
        ones = (ones + _product(ones, power, modulus)) % q
        shifted = _product(partner, power, modulus)
        signs, partner = (signs + shifted) % q, (signs + q - shifted) % q
        power = _product(power, power, modulus)
    return ones, signs


def _product(a: Residues, b: Residues | np.uint64, modulus: int) -> Residues:
    """Multiply modulo a prime below 2^61: the quotient in 80-bit floats is off by one at most."""
    quotient = (a.astype(np.longdouble) * np.longdouble(b) / np.longdouble(modulus)).astype(
        np.uint64
    )
    q = np.int64(modulus)
    remainder = (a * b - quotient * np.uint64(modulus)).view(np.int64)
    remainder = np.where(remainder < 0, remainder + q, remainder)
    return np.asarray(np.where(remainder >= q, remainder - q, remainder)).view(np.uint64)
