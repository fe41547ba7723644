"""Smudging: noise that hides what a share of a decryption would say about its party's secret.

A share is c_1 s_i plus noise. Together with the decrypted value it tells the other parties the
ciphertext's own noise, which depends on secrets, unless noise far larger than that covers it. Each
party adds, to every coefficient, a number drawn uniformly from [-2^k, 2^k) with
k = `smudging_bits` + log2 of a bound on the ciphertext's noise, so that a share with other noise
underneath has a distribution within N 2^-smudging_bits of the same one. The draws are the
operating system's (`secrets`), whole words masked to k + 1 bits: exact, and without rejection.

OpenFHE's own noise in a share, of deviation 2^20 whatever the parameters, comes on top.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ParameterError
from tacit.modular import forward, residues
from tacit.params import CryptoParams
from tacit.party_frame import sum_limbs

Limbs = NDArray[np.uint64]

LARGEST_BITS = 61
OPENFHE_DEVIATION = 2.0**20
_ERROR_DEVIATION = 3.2
# A normal variable is beyond this many deviations with probability 2e-11.
_DEVIATIONS = 6.7


@dataclass(frozen=True, slots=True)
class Smudging:
    """The noise of one decryption's shares.

    Attributes:
        bits: how many bits the noise is above the bound of the ciphertext's own noise.
        log_bound: k above: log2 of the largest draw.
        precision_bits: what the decrypted values keep: log2 of 1 / six deviations of their error.
    """

    bits: int
    log_bound: int
    precision_bits: float


def fresh_noise_bits(params: CryptoParams, parties: int, added: int = 1) -> float:
    """Return log2 of a bound on a coefficient's noise in a sum of fresh ciphertexts.

    Encryption under the joint public key gives v e + e_0 + e_1 s: v is ternary, e the sum of the
    parties' errors, s the sum of their secrets.

    Args:
        params: the CKKS parameters.
        parties: who share the key.
        added: ciphertexts in the sum.
    """
    variance = _ERROR_DEVIATION**2 * (4.0 / 3.0 * parties * params.n + 1.0)
    # The encoding's rounding is below one half.
    return math.log2(added * (_DEVIATIONS * math.sqrt(variance) + 0.5))


def choose_smudging(
    params: CryptoParams,
    parties: int,
    scale: float,
    noise_bits: float,
    *,
    bits: int,
    least_bits: int,
    precision_bits: float,
    repeats: int = 1,
) -> Smudging:
    """Size the noise, and say what precision it leaves.

    Args:
        params: the CKKS parameters.
        parties: who add noise.
        scale: of the ciphertext, squared for degree 2.
        noise_bits: log2 of a bound on the ciphertext's own noise, in coefficients.
        bits: how far above it the noise is, if there is room.
        least_bits: how far it must be.
        precision_bits: what must be left.
        repeats: how many slots hold each value, to be averaged.

    Raises:
        ParameterError: even the least noise leaves less precision.
    """
    own = math.ceil(noise_bits)
    largest = largest_log_bound(params, parties, scale, precision_bits, repeats)
    chosen = min(bits, largest - own)
    if chosen < least_bits:
        left = precision_left(params, parties, scale, least_bits + own, repeats)
        raise ParameterError(
            f"smudging of {least_bits} bits above noise of {noise_bits:.0f} bits leaves "
            f"{left:.1f} bits of precision at scale 2^{math.log2(scale):.0f}, {precision_bits:g} "
            "are wanted: choose parameters of a larger scale, or agree on fewer smudging bits"
        )
    log_bound = chosen + own
    return Smudging(chosen, log_bound, precision_left(params, parties, scale, log_bound, repeats))


def precision_left(
    params: CryptoParams, parties: int, scale: float, log_bound: float, repeats: int = 1
) -> float:
    """Return log2 of 1 / six deviations of a decrypted slot's error.

    Each party's noise has variance 4^log_bound / 3 + OpenFHE's; a slot's real part collects half
    of N coefficients of it, and OpenFHE's decoding adds noise of the same size once more.
    """
    variance = parties * (4.0**log_bound / 3.0 + OPENFHE_DEVIATION**2)
    deviation = math.sqrt(variance * params.n / repeats)
    return math.log2(scale / (6.0 * deviation))


def largest_log_bound(
    params: CryptoParams, parties: int, scale: float, precision: float, repeats: int = 1
) -> int:
    """Return the largest k that leaves a precision, 0 if none does."""
    for k in range(LARGEST_BITS, 0, -1):
        if precision_left(params, parties, scale, k, repeats) >= precision:
            return k
    return 0


def smudged(limbs: Limbs, moduli: tuple[int, ...], log_bound: int) -> Limbs:
    """Add fresh noise to a share.

    Args:
        limbs: shape (limbs, N), NTT form.
        moduli: one per limb.
        log_bound: k above.
    """
    noise = draw(limbs.shape[-1], log_bound)
    added = np.stack([forward(residues(noise, q), q) for q in moduli])
    return sum_limbs([limbs, added], moduli)


def draw(count: int, log_bound: int) -> NDArray[np.int64]:
    """Draw integers uniformly from [-2^log_bound, 2^log_bound)."""
    if not 0 <= log_bound <= LARGEST_BITS:
        raise ParameterError(f"noise of 0 to {LARGEST_BITS} bits can be drawn, not {log_bound}")
    words = np.frombuffer(secrets.token_bytes(8 * count), dtype="<u8")
    kept = words & np.uint64((2 << log_bound) - 1)
    return kept.astype(np.int64) - np.int64(1 << log_bound)
