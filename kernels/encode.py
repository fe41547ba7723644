"""CKKS encoding: slots to coefficients (Cheon, Kim, Kim and Song 2017), then residues."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tacit.errors import CircuitError
from tacit.kernels.ring import Limbs, Mods, Ring

Floats = NDArray[np.float64]


class SlotTransform:
    """Slots of a real polynomial, slot j being its value at zeta^(5^j), zeta = exp(i pi / N).

    As X^(N/2) is i there, the polynomial has the values of one with the N/2 complex coefficients
    a_k + i a_(k + N/2), at points zeta^(4 t + 1): a twisted Fourier transform.
    """

    def __init__(self, log_n: int) -> None:
        slots = 1 << (log_n - 1)
        power, places = 1, np.empty(slots, dtype=np.int64)
        for j in range(slots):
            places[j] = power >> 2
            power = power * 5 % (4 * slots)
        self._places = places
        self._twist = np.exp(-0.5j * np.pi * np.arange(slots) / slots) / slots

    def coefficients(self, slots: Floats) -> Floats:
        """Return the N coefficients of the polynomial with these values, shape (N,)."""
        spread = np.empty(len(slots), dtype=np.complex128)
        spread[self._places] = slots
        complexes = np.fft.fft(spread) * self._twist
        return np.concatenate([complexes.real, complexes.imag])

    def slots(self, coefficients: Floats) -> Floats:
        """Return the real parts of the values of a polynomial, shape (N/2,)."""
        half = len(coefficients) // 2
        complexes = coefficients[:half] + 1j * coefficients[half:]
        spread = np.fft.ifft(complexes / self._twist)
        return np.asarray(spread.real[self._places])


def encode(ring: Ring, coefficients: Floats, scale: float, mods: Mods | None, rows: int) -> Limbs:
    """Round coefficients times the scale and reduce them.

    Args:
        ring: the primes.
        coefficients: shape (N,).
        scale: of the plaintext.
        mods: index of each row's modulus.
        rows: how many.

    Returns:
        Shape (rows, N), NTT form.

    Raises:
        CircuitError: a value is not finite.
    """
    out = np.empty((rows, ring.n), dtype=np.uint64)
    values = np.ascontiguousarray(coefficients, dtype=np.float64)
    if values.shape != (ring.n,):
        raise CircuitError(f"{ring.n} coefficients expected, got shape {values.shape}")
    failed = ring.library.tacit_encode(
        ring.handle,
        rows,
        ring.row_moduli(mods, rows),
        values.ctypes.data,
        scale,
        ring.address(out, rows),
    )
    if failed:
        raise CircuitError("a constant is not finite, or outgrows double precision at its scale")
    return out


def constant(value: float, scale: float, moduli: tuple[int, ...]) -> Limbs:
    """Return the same value in every slot as residues, one per modulus.

    Raises:
        CircuitError: the value is not finite.
    """
    if not np.isfinite(value):
        raise CircuitError("a constant is not finite")
    numerator, denominator = (float(value) * scale).as_integer_ratio()
    rounded = (2 * numerator + denominator) // (2 * denominator)
    return np.array([rounded % q for q in moduli], dtype=np.uint64)


def constants(values: Floats, scale: float, moduli: tuple[int, ...]) -> Limbs:
    """Return many numbers as residues, shape (moduli, *values.shape), as `constant` does one.

    Raises:
        CircuitError: a value is not finite.
    """
    rows = [constant(float(value), scale, moduli) for value in values.flat]
    return np.ascontiguousarray(np.array(rows, dtype=np.uint64).T).reshape(-1, *values.shape)
