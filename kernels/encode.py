"""CKKS encoding: slots to coefficients (Cheon, Kim, Kim and Song 2017), then residues."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from tacit.errors import CircuitError
from tacit.kernels import library
from tacit.kernels.ring import Limbs, Mods, Ring

Floats = NDArray[np.float64]


class SlotTransform:
    """Slots of a real polynomial, slot j being its value at zeta^(5^j), zeta = exp(i pi / N).

    As X^(N/2) is i there, the polynomial has the values of one with the N/2 complex coefficients
    a_k + i a_(k + N/2), at points zeta^(4 t + 1): a twisted Fourier transform.

    Args:
        log_n: base-2 logarithm of N.
        kernels: the compiled library; by default that of this machine.

    Attributes:
        sources: for each place of the transform the slot that it takes, uint32, shape (N/2,).
        roots: of its layers, for halves N/4, N/8, ...: real parts and then imaginary ones.
        twist: real and imaginary parts, shape (2, N/2).
    """

    def __init__(self, log_n: int, kernels: ctypes.CDLL | None = None) -> None:
        slots = 1 << (log_n - 1)
        power, places = 1, np.empty(slots, dtype=np.int64)
        for j in range(slots):
            places[j] = power >> 2
            power = power * 5 % (4 * slots)
        self._kernels = library.load() if kernels is None else kernels
        self._places = places
        self._twist = np.exp(-0.5j * np.pi * np.arange(slots) / slots) / slots
        self.sources = np.argsort(places).astype(np.uint32)
        self.twist = np.ascontiguousarray([self._twist.real, self._twist.imag])
        self.roots = _roots(slots)

    def coefficients(self, slots: Floats) -> Floats:
        """Return the N coefficients of the polynomial with these values, real or complex."""
        real, imaginary = self.parts(slots)
        work, made = np.empty(2 * len(real)), np.empty(2 * len(real))
        tables = (a.ctypes.data for a in (self.sources, self.roots, self.twist))
        self._kernels.tacit_slot_coefficients(
            len(real).bit_length() - 1,
            real.ctypes.data,
            None if imaginary is None else imaginary.ctypes.data,
            *(*tables, work.ctypes.data, made.ctypes.data),
        )
        return made

    def parts(self, slots: Floats) -> tuple[Floats, Floats | None]:
        """Return real parts of slots, and imaginary ones if they are complex, contiguous.

        Raises:
            CircuitError: another number of slots.
        """
        if slots.shape != self.sources.shape:
            raise CircuitError(f"{len(self.sources)} slots expected, got shape {slots.shape}")
        if np.iscomplexobj(slots):
            return np.ascontiguousarray(slots.real), np.ascontiguousarray(slots.imag)
        return np.ascontiguousarray(slots, dtype=np.float64), None

    def slots(self, coefficients: Floats) -> Floats:
        """Return the real parts of the values of a polynomial, shape (N/2,)."""
        half = len(coefficients) // 2
        complexes = coefficients[:half] + 1j * coefficients[half:]
        spread = np.fft.ifft(complexes / self._twist)
        return np.asarray(spread.real[self._places])


def _roots(count: int) -> Floats:
    layers = []
    half = count // 2
    while half:
        layer = np.exp(-1j * np.pi * np.arange(half) / half)
        layers += [layer.real, layer.imag]
        half //= 2
    return np.concatenate(layers) if layers else np.empty(0)


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
