"""Rows and factors of each operation at each level, made when they are first needed.

The formulas are those of `tacit.kernels.reference`; the constants those of `tacit.kernels.basis`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import prod
from typing import TypeVar

from tacit.kernels.cuda.interface import Device
from tacit.kernels.cuda.tables import (
    Conversion,
    Group,
    RingTables,
    Row,
    RowTable,
    conversion,
    row_table,
)
from tacit.moduli import digit_limbs

T = TypeVar("T")


class Level:
    """The basis QP with `limbs` limbs of Q in use.

    Args:
        device: that holds the tables.
        ring: over the primes of Q, all of them, and then those of P.
        limbs: level + 1.
        full_limbs: of Q, at the top.
        dnum: digits of the key switch at the top.

    Attributes:
        limbs: of Q, in use.
        specials: primes of P.
        rows: both.
        alpha: limbs of a digit.
        digits: of the key switch, at this level.
    """

    def __init__(
        self, device: Device, ring: RingTables, limbs: int, full_limbs: int, dnum: int
    ) -> None:
        self._device = device
        self._ring = ring
        self.limbs = limbs
        self.full_limbs = full_limbs
        self.specials = len(ring.moduli) - full_limbs
        self.rows = limbs + self.specials
        self.alpha = digit_limbs(full_limbs, dnum)
        self.digits = -(-limbs // self.alpha)
        self._moduli = ring.moduli[:limbs]
        self._special = ring.moduli[full_limbs:]
        self._made: dict[tuple[str, int], object] = {}
        self._lock = threading.Lock()

    def p_product(self) -> list[int]:
        """Return P modulo each limb's prime."""
        p = prod(self._special)
        return [p % q for q in self._moduli]

    def modulus(self, row: int) -> int:
        """Return the index of a row's prime in the ring."""
        return row if row < self.limbs else self.full_limbs + row - self.limbs

    def forward(self, *, extended: bool) -> RowTable:
        """Rows of one polynomial, in place."""
        rows = self.rows if extended else self.limbs
        return self._table(
            "forward", int(extended), lambda: [Row(self.modulus(r), r, r) for r in range(rows)]
        )

    def transformed(self, components: int, *, inverse: bool) -> RowTable:
        """Limbs of several components, either way."""
        factor = 1 if inverse else None
        return self._table(
            "inverse" if inverse else "forward all",
            components,
            lambda: [
                Row(i, c * self.limbs + i, c * self.limbs + i, factor=factor)
                for i in range(self.limbs)
                for c in range(components)
            ],
        )

    def digits_down(self) -> RowTable:
        """Limbs to coefficients times (D / q_i)^-1, D the product of the limb's digit."""
        return self._table("digits_down", 0, self._digits_down)

    def digits_up(self) -> RowTable:
        """Rows of digits but their own, in place."""
        return self._table(
            "digits_up",
            0,
            lambda: [
                Row(self.modulus(r), d * self.rows + r, d * self.rows + r)
                for r in range(self.rows)
                for d in range(self.digits)
                if not self._owns(d, r)
            ],
        )

    def extension(self) -> Conversion:
        """Digits to all rows but their own."""
        groups = [self._digit(d) for d in range(self.digits)]
        return self._once("extension", 0, lambda: conversion(self._device, groups))

    def specials_down(self, components: int) -> RowTable:
        """Rows of P to coefficients times (P / p_k)^-1, gathered by component."""
        p = prod(self._special)
        return self._table(
            "specials_down",
            components,
            lambda: [
                Row(
                    self.full_limbs + k,
                    c * self.rows + self.limbs + k,
                    c * self.specials + k,
                    factor=pow(p // q, -1, q),
                )
                for c in range(components)
                for k, q in enumerate(self._special)
            ],
        )

    def keyed_specials_down(self, turns: int) -> RowTable:
        """Rows of P of products with keys to coefficients times (P / p_k)^-1, turn after turn."""
        p = prod(self._special)
        return self._table(
            "keyed_specials_down",
            turns,
            lambda: [
                Row(
                    *(self.full_limbs + k, self.limbs + k, (2 * turn + part) * self.specials + k),
                    component=part,
                    turn=turn,
                    factor=pow(p // q, -1, q),
                )
                for k, q in enumerate(self._special)
                for turn in range(turns)
                for part in range(2)
            ],
        )

    def keyed_divided(self, turns: int) -> RowTable:
        """Limbs that are subtracted from products with keys, times 1 / P, turn after turn."""
        p = prod(self._special)
        return self._table(
            "keyed_divided",
            turns,
            lambda: [
                Row(
                    *(i, (2 * turn + part) * self.limbs + i, (2 * turn + part) * self.limbs + i),
                    *(i, part, i, turn),
                    scale=pow(p, -1, q),
                )
                for i, q in enumerate(self._moduli)
                for turn in range(turns)
                for part in range(2)
            ],
        )

    def raised(self, components: int) -> RowTable:
        """Coefficients modulo the first prime to all limbs."""
        return self._table(
            "raised",
            components,
            lambda: [
                Row(i, c, c * self.limbs + i) for i in range(self.limbs) for c in range(components)
            ],
        )

    def specials_to_limbs(self, components: int) -> Conversion:
        """Residues modulo P to the limbs of Q."""
        p = prod(self._special)
        weights = tuple(tuple(p // k % q for k in self._special) for q in self._moduli)
        groups = [
            Group(
                c * self.specials,
                tuple((i, c * self.limbs + i) for i in range(self.limbs)),
                weights,
            )
            for c in range(components)
        ]
        return self._once("specials_to_limbs", components, lambda: conversion(self._device, groups))

    def divided_by_p(self, components: int) -> RowTable:
        """Limbs that are subtracted from those of QP, times 1 / P."""
        p = prod(self._special)
        return self._table(
            "divided_by_p",
            components,
            lambda: [
                Row(
                    *(i, c * self.limbs + i, c * self.limbs + i),
                    *(c * self.rows + i, c, i),
                    scale=pow(p, -1, q),
                )
                for i, q in enumerate(self._moduli)
                for c in range(components)
            ],
        )

    def last_down(self, components: int) -> RowTable:
        """The last limb of each component to coefficients."""
        last = self.limbs - 1
        return self._table(
            "last_down",
            components,
            lambda: [Row(last, c * self.limbs + last, c, factor=1) for c in range(components)],
        )

    def divided_by_last(self, components: int) -> RowTable:
        """The centred last limb, subtracted from the others, times 1 / q_last."""
        left, last = self.limbs - 1, self._moduli[-1]
        return self._table(
            "divided_by_last",
            components,
            lambda: [
                Row(
                    *(i, c, c * left + i),
                    *(c * self.limbs + i, c, i),
                    scale=pow(last, -1, self._moduli[i]),
                )
                for i in range(left)
                for c in range(components)
            ],
        )

    def _digits_down(self) -> list[Row]:
        rows = []
        for i, q in enumerate(self._moduli):
            start = i - i % self.alpha
            product = prod(self._moduli[start : start + self.alpha])
            rows.append(Row(i, i, i, factor=pow(product // q, -1, q)))
        return rows

    def _digit(self, digit: int) -> Group:
        start = digit * self.alpha
        own = self._moduli[start : start + self.alpha]
        product = prod(own)
        others = [r for r in range(self.rows) if not self._owns(digit, r)]
        moduli = self._ring.moduli
        return Group(
            start,
            tuple((self.modulus(r), digit * self.rows + r) for r in others),
            tuple(tuple(product // q % moduli[self.modulus(r)] for q in own) for r in others),
        )

    def _owns(self, digit: int, row: int) -> bool:
        return row < self.limbs and row // self.alpha == digit

    def _table(self, name: str, variant: int, rows: Callable[[], list[Row]]) -> RowTable:
        return self._once(name, variant, lambda: row_table(self._device, self._ring, rows()))

    def _once(self, name: str, variant: int, make: Callable[[], T]) -> T:
        with self._lock:
            found = self._made.get((name, variant))
            if found is None:
                found = self._made[name, variant] = make()
        return found  # type: ignore[return-value]
