"""Amounts of elementary work, and the ring and level they depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tacit.moduli import digit_limbs
from tacit.params import NARROW_BITS, CryptoParams


@dataclass(frozen=True, slots=True)
class Work:
    """How much of each kind of elementary work."""

    amounts: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Work) -> Work:
        """Add amounts."""
        kinds = {**self.amounts, **other.amounts}
        return Work({k: self.amounts.get(k, 0.0) + other.amounts.get(k, 0.0) for k in kinds})

    def __mul__(self, times: float) -> Work:
        """Multiply amounts."""
        return Work({kind: amount * times for kind, amount in self.amounts.items()})

    def at(self, prices: Mapping[str, float]) -> float:
        """Return the milliseconds this work takes; kinds without a price cost nothing."""
        return sum(amount * prices.get(kind, 0.0) for kind, amount in self.amounts.items())


@dataclass(frozen=True, slots=True)
class Ring:
    """What the work of an operation depends on, for ciphertexts of some level.

    Attributes:
        log_n: log2 of the ring dimension.
        digit: limbs of one key-switching digit.
        narrow: for each limb q_0 .. q_level, whether it is below 2^50.
        narrow_specials: the same for the special primes.
    """

    log_n: int
    digit: int
    narrow: tuple[bool, ...]
    narrow_specials: tuple[bool, ...]

    @classmethod
    def at_level(cls, params: CryptoParams, level: int) -> Ring:
        """Describe ciphertexts at a level."""
        digit = digit_limbs(len(params.moduli), params.dnum)
        narrow, specials = (
            tuple(q >> NARROW_BITS == 0 for q in moduli)
            for moduli in (params.moduli[: level + 1], params.special_moduli)
        )
        return cls(params.log_n, digit, narrow, specials)

    @property
    def n(self) -> int:
        """Ring dimension."""
        return 1 << self.log_n

    @property
    def limbs(self) -> int:
        """Limbs of Q, level + 1."""
        return len(self.narrow)

    @property
    def specials(self) -> int:
        """Special primes."""
        return len(self.narrow_specials)

    @property
    def rows(self) -> int:
        """Limbs and special primes."""
        return self.limbs + self.specials

    @property
    def digits(self) -> int:
        """Digits of the key switch at this level."""
        return -(-self.limbs // self.digit)
