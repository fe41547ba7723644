"""How long the OpenFHE backend takes for elementary work, fitted to a table of measured operations.

`op_times.json` holds milliseconds of whole operations and says on what hardware; write it with
`python -m bench operations --write-cost-table`. Every operation is a known amount of elementary
work; the fit finds each kind's price.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from tacit.errors import CircuitError
from tacit.moduli import digit_limbs


@dataclass(frozen=True, slots=True)
class Work:
    """Amounts of elementary work; for an operation, or as prices in milliseconds per unit.

    Attributes:
        calls: OpenFHE calls.
        transforms: number-theoretic transforms, in butterflies (N / 2 log2 N per limb).
        products: modular products in base conversions and key switches.
        plain_products: modular products with an encoded plaintext.
        scalar_products: modular products with one number per limb.
        sums: modular sums.
        traffic: residues that come from memory, because too many others were used in between.
    """

    calls: float = 0.0
    transforms: float = 0.0
    products: float = 0.0
    plain_products: float = 0.0
    scalar_products: float = 0.0
    sums: float = 0.0
    traffic: float = 0.0

    def __add__(self, other: Work) -> Work:
        """Add amounts."""
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)))

    def __mul__(self, times: float) -> Work:
        """Multiply amounts."""
        return Work(*(getattr(self, f.name) * times for f in fields(Work)))

    def at(self, prices: Work) -> float:
        """Return the milliseconds this work takes."""
        return float(sum(getattr(self, f.name) * getattr(prices, f.name) for f in fields(Work)))


@dataclass(frozen=True, slots=True)
class Ring:
    """What the work of an operation depends on, for ciphertexts of `limbs` limbs.

    Attributes:
        log_n: log2 of the ring dimension.
        digit: limbs of one key-switching digit.
        specials: special primes.
        limbs: level + 1.
    """

    log_n: int
    digit: int
    specials: int
    limbs: int

    def work(
        self,
        transforms: float = 0,
        products: float = 0,
        plain: float = 0,
        scalar: float = 0,
        sums: float = 0,
        traffic: float = 0,
    ) -> Work:
        """Turn numbers of limbs into an amount of work, for one call."""
        n = 1 << self.log_n
        butterflies = transforms * n / 2 * self.log_n
        return Work(1.0, butterflies, products * n, plain * n, scalar * n, sums * n, traffic * n)

    def operation(self, name: str) -> Work:
        """Return the work of one operation, by its name in the table of measured times."""
        limbs = self.limbs
        match name:
            case "add":
                return self.work(sums=2 * limbs)
            case "add_plain" | "add_scalar":
                return self.work(sums=limbs)
            case "multiply_plain":
                return self.work(plain=2 * limbs)
            case "multiply_scalar":
                return self.work(scalar=2 * limbs)
            case "weighted_term":
                return self.work(scalar=2 * limbs, sums=2 * limbs, traffic=2 * limbs)
            case "rescale":
                return self.work(transforms=2 * limbs, products=4 * (limbs - 1))
            case "hoist":
                return self._decompose()
            case "hoisted":
                return self._extend() + self._divide()
            case "extended":
                return self._extend()
            case "down":
                return self._divide()
            case "rotate":
                return self._decompose() + self._extend() + self._divide()
            case "multiply":
                switch = self._decompose() + self._extend() + self._divide()
                return switch + self.work(products=4 * limbs)
        raise CircuitError(f"no operation {name!r} in the cost model")

    def _decompose(self) -> Work:
        """Cut one polynomial into digits and extend each to all moduli and special primes."""
        starts = range(0, self.limbs, self.digit)
        sizes = [min(self.digit, self.limbs - start) for start in starts]
        others = [self.limbs + self.specials - size for size in sizes]
        converted = sum(size * other for size, other in zip(sizes, others, strict=True))
        return self.work(transforms=self.limbs + sum(others), products=converted)

    def _extend(self) -> Work:
        """Multiply the digits with a key, and permute."""
        digits = -(-self.limbs // self.digit)
        every = self.limbs + self.specials
        return self.work(products=2 * digits * every, sums=2 * every)

    def _divide(self) -> Work:
        """Divide both components by the special primes."""
        converted = 2 * (self.specials * self.limbs + 2 * self.limbs)
        return self.work(transforms=2 * (self.limbs + self.specials), products=converted)


@dataclass(frozen=True, slots=True)
class MachineTimes:
    """Prices of elementary work on a machine.

    Attributes:
        prices: milliseconds per unit.
        machine: what was measured, in words.
    """

    prices: Work
    machine: str


def reference_times() -> MachineTimes:
    """Fit the prices to the table in this folder."""
    table = json.loads(Path(__file__).with_name("op_times.json").read_text())
    return MachineTimes(fit(table["rows"]), str(table["machine"]))


def fit(rows: Sequence[Mapping[str, float]]) -> Work:
    """Find the prices that explain measured times best, in relative terms, none negative.

    Args:
        rows: each with log_n, limbs (of fresh ciphertexts), specials, dnum, level, and the
            milliseconds of some of the operations that `Ring.operation` knows.
    """
    amounts, times = [], []
    for row in rows:
        digit = digit_limbs(int(row["limbs"]), int(row["dnum"]))
        ring = Ring(int(row["log_n"]), digit, int(row["specials"]), int(row["level"]) + 1)
        for name in OPERATIONS:
            if name in row:
                amounts.append([getattr(ring.operation(name), f.name) for f in fields(Work)])
                times.append(float(row[name]))
    relative = np.asarray(amounts) / np.asarray(times)[:, None]
    unit = np.maximum(relative.max(axis=0), 1e-300)
    prices, _ = nnls(relative / unit, np.ones(len(times)))
    return Work(*(prices / unit).tolist())


OPERATIONS = (
    "add",
    "add_plain",
    "add_scalar",
    "multiply_plain",
    "multiply_scalar",
    "weighted_term",
    "rescale",
    "hoist",
    "hoisted",
    "extended",
    "down",
    "rotate",
    "multiply",
)
