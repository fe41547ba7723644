"""How much noise each CKKS operation adds, and precision in bits.

Everything is a standard deviation over the slots of one stored value, in stored units (a slot holds
a number of about [-1, 1]). A polynomial with independent coefficients of deviation s evaluates to
slots whose real part deviates by s sqrt(N / 2); divided by the scale that is the error of a slot.

The formulas are the usual averages (Kim, Papadimitriou and Polyakov, "Approximate homomorphic
encryption with reduced approximation error", CT-RSA 2022), with one addition, found by measurement:
after a key switch OpenFHE divides by P, a product of K primes, with an error uniform in a range of
K instead of one. The backend takes its mean, K / 2, out of rotations; for odd K an error of 1/2
stays. Key switches at degree 2 count for almost nothing: the scale divides their error twice.

Compared with OpenFHE 1.6.1 (deviation times scale; formula, then measured over 12 ciphertexts, each
decrypted 16 times, which leaves 3 % of decryption's noise in the fresh column):

    N, log scale, dnum, K    fresh           key switch
    2^11, 30, 4, 1            5335   5540      683    688
    2^11, 45, 3, 3            5335   5513      836    899
    2^12, 50, 2, 2           10670  10915      966   1009
    2^13, 30, 4, 1           21338  22069     2731   2710
    2^13, 30, 2, 2           21338  22110     1931   1948

Decryption adds, on purpose, noise as large as the one it finds (OpenFHE's defence against reading
the key out of decryptions), which multiplies what a client sees by sqrt(2).
"""

from __future__ import annotations

import math

from tacit.moduli import digit_limbs
from tacit.params import CryptoParams

ERROR_DEVIATION = 3.19
"""Deviation of the error polynomials in public keys, ciphertexts and evaluation keys."""

DECRYPTION_FACTOR = math.sqrt(2.0)
"""What OpenFHE's decryption multiplies the deviation by."""

_TERNARY_VARIANCE = 2.0 / 3.0
_ROUNDING_VARIANCE = 1.0 / 12.0


def bits(error: float) -> float:
    """Return -log2 of an absolute error: how many binary digits after the point are right."""
    return math.inf if error == 0.0 else -math.log2(abs(error))


def fresh_deviation(params: CryptoParams) -> float:
    """Return the deviation of a slot after encryption under the public key."""
    variance = ERROR_DEVIATION**2 * (2.0 * params.n * _TERNARY_VARIANCE + 1.0)
    return _slot_deviation(params, variance) / params.scale(params.depth)


def encoding_deviation(params: CryptoParams, level: int, degree: int = 1) -> float:
    """Return the deviation of a slot of a plaintext, from rounding its coefficients."""
    return _slot_deviation(params, _ROUNDING_VARIANCE) / params.scale(level) ** degree


def rescale_deviation(params: CryptoParams, level: int) -> float:
    """Return the deviation that a rescale to `level` adds, from rounding both components."""
    return _slot_deviation(params, _two_components(params)) / params.scale(level)


def key_switch_deviation(params: CryptoParams, level: int, degree: int = 1) -> float:
    """Return the deviation of a slot that a rotation or relinearisation adds."""
    specials = len(params.special_moduli)
    rounding = specials + 3.0 * (specials % 2)
    variance = rounding * _two_components(params) + _key_error_variance(params, level)
    return _slot_deviation(params, variance) / params.scale(level) ** degree


def expected_error_bits(
    params: CryptoParams, *, level: int | None = None, rotations: int = 0, rescalings: int = 0
) -> float:
    """Return the bits that hold in every slot of a decrypted value, with a margin of one bit.

    Args:
        params: the parameters.
        level: where the operations happen; by default at the top.
        rotations: rotations at degree 1 behind the value, independent of each other.
        rescalings: rescalings behind the value.
    """
    level = params.depth if level is None else level
    fresh = fresh_deviation(params)
    switched = key_switch_deviation(params, level)
    rescaled = rescale_deviation(params, max(level - 1, 0))
    variance = fresh**2 + rotations * switched**2 + rescalings * rescaled**2
    largest = math.sqrt(2.0 * math.log(2.0 * params.slots)) + 1.0
    return bits(2.0 * DECRYPTION_FACTOR * largest * math.sqrt(variance))


def _slot_deviation(params: CryptoParams, coefficient_variance: float) -> float:
    return math.sqrt(coefficient_variance * params.n / 2.0)


def _two_components(params: CryptoParams) -> float:
    """Variance of e0 + e1 s for coefficients e0, e1 uniform in [-1/2, 1/2]."""
    return _ROUNDING_VARIANCE * (1.0 + params.n * _TERNARY_VARIANCE)


def _key_error_variance(params: CryptoParams, level: int) -> float:
    """Variance of sum over digits of (digit * key error) / P."""
    alpha = digit_limbs(len(params.moduli), params.dnum)
    log_p = sum(math.log2(p) for p in params.special_moduli)
    second_moment = alpha * _ROUNDING_VARIANCE + alpha**2 / 4.0
    total = 0.0
    for start in range(0, level + 1, alpha):
        log_digit = sum(math.log2(q) for q in params.moduli[start : min(start + alpha, level + 1)])
        total += second_moment * 4.0 ** (log_digit - log_p)
    return total * params.n * ERROR_DEVIATION**2
