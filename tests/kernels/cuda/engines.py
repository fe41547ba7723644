"""Kernels on fibres and the CPU engine, side by side, over bases of every kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tacit.kernels.basis import Basis
from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.shim import Shim
from tacit.kernels.cuda.transforms import Form
from tacit.kernels.ring import Ring
from tacit.params import CryptoParams, Security
from tests.kernels.residues import Limbs, primes, residues

LOG_N = 7
# Bits of Q's primes, of P's, and digits: narrow and wide, alone and mixed.
BASES = {
    "narrow": ([45, 40, 40, 40], [60], 4),
    "wide-first": ([60, 49, 50, 50, 50, 50], [60, 60], 3),
    "all-wide": ([60, 55, 55], [60, 60, 60], 1),
    "narrow-specials": ([50, 30, 45, 36, 50], [50, 49, 48], 2),
    "one-limb": ([51], [60], 1),
    "ten-digits": ([60, *[50] * 9], [60], 10),
    "one-digit-of-ten": ([60, *[45] * 9], [60] * 9, 1),
}
# Every basis in one form, two of them in every form and arithmetic.
VARIANTS = [
    *[(name, Form.WHOLE, True) for name in BASES],
    ("wide-first", Form.TILED, True),
    ("narrow-specials", Form.TILED, True),
    ("wide-first", Form.WHOLE, False),
    ("narrow-specials", Form.TILED, False),
]


def variant_id(variant: tuple[str, Form, bool]) -> str:
    """Name a variant."""
    name, form, doubles = variant
    return f"{name}-{form.value}-{'doubles' if doubles else 'integers'}"


def basis_params(name: str, log_n: int = LOG_N) -> CryptoParams:
    """Return parameters without any security over one of the bases."""
    bits, special, dnum = BASES[name]
    moduli: list[int] = []
    for size in (*bits, *special):
        moduli.append(next(q for q in primes(size, log_n, 24) if q not in moduli))
    full = len(bits)
    return CryptoParams(
        *(log_n, full - 1, 40, bits[0], dnum, tuple(moduli[:full]), tuple(moduli[full:])),
        Security.UNCHECKED_INSECURE,
    )


@dataclass(frozen=True, slots=True)
class Engines:
    """The kernels under test and what to compare with.

    Attributes:
        params: of both.
        cuda: on fibres.
        ring: of the CPU engine.
        rng: for inputs.
    """

    params: CryptoParams
    cuda: CudaKernels
    ring: Ring
    rng: np.random.Generator

    @property
    def full(self) -> int:
        """Limbs of Q at the top."""
        return len(self.params.moduli)

    def basis(self, level: int) -> Basis:
        """Return the CPU engine's basis at a level."""
        return Basis(self.ring, level + 1, self.full, self.params.dnum)

    def over_q(self, level: int, components: int = 2, batch: int = 1) -> Limbs:
        """Return residues [component][limb][batch][N], edges among them."""
        return self._random(self.params.moduli[: level + 1], components, batch)

    def over_qp(self, level: int, components: int = 2, batch: int = 1) -> Limbs:
        """Return residues over QP."""
        moduli = self.params.moduli[: level + 1] + self.params.special_moduli
        return self._random(moduli, components, batch)

    def key(self) -> Limbs:
        """Return a switching key of random residues, shape (2, dnum, limbs + specials, N)."""
        made = [[self._rows() for _ in range(self.params.dnum)] for _ in range(2)]
        return np.array(made)

    def _rows(self) -> Limbs:
        return residues(self.rng, self.ring.moduli, self.params.n)

    def _random(self, moduli: tuple[int, ...], components: int, batch: int) -> Limbs:
        n = self.params.n
        made = [[residues(self.rng, (q,) * batch, n) for q in moduli] for _ in range(components)]
        return np.array(made)


def make_engines(
    shim: Shim,
    driver: Driver,
    name: str,
    *,
    form: Form | None = None,
    doubles: bool = True,
    log_n: int = LOG_N,
) -> Engines:
    """Load the kernels of a ring and make their tables."""
    params = basis_params(name, log_n)
    device = DriverDevice(driver)
    kernels = CudaKernels(params, device, shim.image(log_n), form=form, doubles=doubles)
    ring = Ring(log_n, params.moduli + params.special_moduli)
    return Engines(params, kernels, ring, np.random.default_rng(log_n))


def entry(a: Limbs, batch: int) -> Limbs:
    """Return one batch entry, contiguous, [component][row][N]."""
    return np.ascontiguousarray(a[:, :, batch])
