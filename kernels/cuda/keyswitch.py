"""Key switches on a CUDA device: several automorphisms of one ciphertext in the same launches.

The product of digits and keys is never written where a division by P follows: it is computed where
the division reads it, in the load of the inverse transform of P's rows and in the last store of the
forward transform of the quotient's.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tacit.errors import InternalError
from tacit.kernels.cuda import structures
from tacit.kernels.cuda.keys import CudaKeyTable, KeyShelf
from tacit.kernels.cuda.launches import THREADS, Launches
from tacit.kernels.cuda.levels import Level
from tacit.kernels.cuda.memory import DeviceArray
from tacit.kernels.cuda.transforms import Transforms, entries_per_block

TURNS_PER_LAUNCH = 16


class KeySwitch:
    """Key switching for one parameter set.

    Args:
        launches: of the parameter set.
        transforms: of its ring.
        shelf: brings keys to the device.

    Attributes:
        tables_noted: while set, by which thread, and the key tables that it used, in order.
    """

    def __init__(self, launches: Launches, transforms: Transforms, shelf: KeyShelf) -> None:
        self._launches = launches
        self._transforms = transforms
        self._shelf = shelf
        self.tables_noted: tuple[int, list[CudaKeyTable]] | None = None

    def mod_up(self, a: DeviceArray) -> DeviceArray:
        """Extend the digits of a polynomial to QP: (digits, rows, batch, N)."""
        at, batch = self._level(a), a.shape[2]
        coefficients = self._launches.array(1, at.limbs, batch)
        self._transforms.backward(at.digits_down(), a, coefficients, batch)
        return self._extended(at, coefficients)

    def multiply(self, a: DeviceArray, b: DeviceArray, keys: CudaKeyTable) -> DeviceArray:
        """Multiply two ciphertexts and relinearise."""
        if a.shape != b.shape or a.shape[0] != 2:
            raise InternalError(f"two ciphertexts of two components expected: {a.shape} {b.shape}")
        at, batch = self._level(a), a.shape[2]
        last, coefficients = (self._launches.array(1, at.limbs, batch) for _ in range(2))
        self._transforms.backward_product(at.digits_down(), a, b, last, coefficients)
        digits = self._extended(at, coefficients)
        keyed = self._keyed(last, digits, [keys], [1])
        (made,) = self._divided(at, keyed, [keys], (), None, (a, b))
        return made

    def multiply_sum(
        self,
        product: DeviceArray,
        keys: CudaKeyTable,
        plus: Sequence[DeviceArray],
    ) -> DeviceArray:
        """Relinearise a product of three components; `plus` is added to the first two."""
        last = product.first(2, 3)
        (made,) = self.switch_down(last, self.mod_up(last), [keys], [1], plus, None)
        return made

    def switch_down(
        self,
        a: DeviceArray,
        digits: DeviceArray,
        keys: Sequence[CudaKeyTable],
        elements: Sequence[int],
        plus: Sequence[DeviceArray | None],
        shared: DeviceArray | None,
    ) -> list[DeviceArray]:
        """Return (digits times keys)(X^e) / P + plus(X^e) + shared for keys and elements."""
        at, made = self._level(a), []
        for start in range(0, len(keys), TURNS_PER_LAUNCH):
            part = slice(start, start + TURNS_PER_LAUNCH)
            keyed = self._keyed(a, digits, keys[part], elements[part])
            made += self._divided(at, keyed, keys[part], plus, shared, None)
        return made

    def turned(
        self,
        a: DeviceArray,
        digits: DeviceArray,
        keys: Sequence[CudaKeyTable],
        elements: Sequence[int],
        plus: DeviceArray | None,
        into: DeviceArray | None,
    ) -> list[DeviceArray]:
        """Return (digits times keys + plus)(X^e) over QP for keys and elements, or their sum."""
        at, made = self._level(a), []
        if into is not None and into.shape != (2, at.rows, *a.shape[2:]):
            raise InternalError(f"two components over QP expected, got {into.shape} for {a.shape}")
        for start in range(0, len(keys), structures.MOST_TURNS):
            part = slice(start, start + structures.MOST_TURNS)
            keyed, turns = self._keyed(a, digits, keys[part], elements[part]), len(keys[part])
            out = into or self._launches.array(2 * turns, at.rows, a.shape[2])
            self._launch_products(at, keyed, keys[part], plus, out, into is not None)
            made += [] if into is not None else _pairs(out)
        return made if into is None else [into]

    def mod_down(
        self,
        at: Level,
        x: DeviceArray,
        plus: Sequence[DeviceArray | None],
        shared: DeviceArray | None,
    ) -> DeviceArray:
        """Return x / P + plus + shared, rounding down as OpenFHE does."""
        components, rows, batch, _ = x.shape
        if rows != at.rows or components > 3 or len(plus) not in (0, components):
            raise InternalError(f"{x.shape} over QP with {at.rows} rows, {len(plus)} to add")
        specials = self._launches.array(components, at.specials, batch)
        limbs, out = (self._launches.array(components, at.limbs, batch) for _ in range(2))
        self._transforms.backward(at.specials_down(components), x, specials, batch)
        self._launches.convert(at.specials_to_limbs(components), specials, limbs)
        table = at.divided_by_p(components)
        self._transforms.divide(table, limbs, x, out, plus=plus, common=shared)
        return out

    def _level(self, a: DeviceArray) -> Level:
        return self._launches.levels[a.shape[1] - 1]

    def _extended(self, at: Level, coefficients: DeviceArray) -> DeviceArray:
        digits = self._launches.array(at.digits, at.rows, coefficients.shape[2])
        self._launches.convert(at.extension(), coefficients, digits)
        self._transforms.forward(at.digits_up(), digits, coefficients.shape[2])
        return digits

    def _keyed(
        self,
        a: DeviceArray,
        digits: DeviceArray,
        keys: Sequence[CudaKeyTable],
        elements: Sequence[int],
    ) -> structures.Keyed:
        at, batch = self._level(a), a.shape[2]
        if a.shape[0] != 1 or digits.shape != (at.digits, at.rows, batch, a.shape[3]):
            raise InternalError(f"digits {digits.shape} for {a.shape}")
        if len(keys) != len(elements) or any(table.batch != batch for table in keys):
            raise InternalError(f"keys for batches of {[t.batch for t in keys]}, for {a.shape}")
        keyed = structures.Keyed(
            *(a.address, digits.address, structures.Rows(at.limbs, at.full_limbs), at.rows),
            *(at.digits, at.alpha, batch),
            max(table.different for table in keys),
        )
        for turn, (table, element) in enumerate(zip(keys, elements, strict=True)):
            limbs = table.rows - at.specials
            if table.digits < at.digits or limbs < at.limbs:
                raise InternalError(f"keys of {limbs} limbs of Q, for a ciphertext of {at.limbs}")
            keyed.turns[turn] = structures.Turn(
                table.address, element, table.digits, table.rows, limbs
            )
        return keyed

    def _divided(
        self,
        at: Level,
        keyed: structures.Keyed,
        keys: Sequence[CudaKeyTable],
        plus: Sequence[DeviceArray | None],
        shared: DeviceArray | None,
        factors: tuple[DeviceArray, DeviceArray] | None,
    ) -> list[DeviceArray]:
        turns, batch = len(keys), keyed.batch
        specials = self._launches.array(2 * turns, at.specials, batch)
        limbs, out = (self._launches.array(2 * turns, at.limbs, batch) for _ in range(2))
        down, divided = at.keyed_specials_down(turns), at.keyed_divided(turns)
        with self._shelf.held(keys):
            self._transforms.backward_keyed(down, keyed, specials)
            self._launches.convert(at.specials_to_limbs(2 * turns), specials, limbs)
            self._transforms.divide_keyed(
                divided, limbs, keyed, out, plus=plus, common=shared, factors=factors
            )
        self._note(keys)
        return _pairs(out)

    def _launch_products(
        self,
        at: Level,
        keyed: structures.Keyed,
        keys: Sequence[CudaKeyTable],
        plus: DeviceArray | None,
        out: DeviceArray,
        accumulate: bool,
    ) -> None:
        n, batch = self._launches.params.n, keyed.batch
        pieces = -(-n // (2 * THREADS))
        arguments = structures.KeyProduct(
            *(self._launches.ring.address, keyed, 0 if plus is None else plus.address),
            *(out.address, len(keys), 0 if plus is None else plus.shape[1], int(accumulate)),
            entries_per_block(self._launches.device, pieces * at.rows, batch),
        )
        grid = (pieces, at.rows, -(-batch // arguments.per_block))
        with self._shelf.held(keys):
            self._launches.launch("tacit_key_product", grid, min(THREADS, n // 2), arguments)
        self._note(keys)

    def _note(self, keys: Sequence[CudaKeyTable]) -> None:
        noted = self.tables_noted
        if noted is not None and noted[0] == threading.get_ident():
            noted[1].extend(table for table in keys if table not in noted[1])


def _pairs(a: DeviceArray) -> list[DeviceArray]:
    return [a.first(i, i + 2) for i in range(0, a.shape[0], 2)]
