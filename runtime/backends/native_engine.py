"""What all clients of one parameter set share: a device's kernels, constants, their encodings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import Circuit, LinearPlan, Plain, ValueType
from tacit.errors import CircuitError
from tacit.kernels import encode
from tacit.kernels.devices import open_kernels
from tacit.kernels.limb_kernels import Galois, LimbArray, LimbKernels, Words
from tacit.moduli import smallest_root
from tacit.packed_rows import memory_of_row
from tacit.params import CryptoParams
from tacit.runtime.backends.native_plaintexts import PlaintextCache

Floats = NDArray[np.float64]

DEFAULT_CACHE_BYTES = 2 << 30

# Unpacking a constant and its Fourier transform take as long as that many rows of its residues.
_ROWS_OF_A_TRANSFORM = 6
# Matrices of scalars are small, and made by exact arithmetic, number by number.
_WORTH_OF_SCALARS = 1e6

A = TypeVar("A")
B = TypeVar("B")


class NativeEngine:
    """The kernels and constants of one parameter set on one device; holds nobody's keys.

    May be used by several threads.

    Args:
        params: the parameters.
        kernels: of these parameters; by default on the processor.
        threads: encode constants; of the default kernels, they share the limbs of one operation.
        cache_bytes: how much memory encoded constants may take.

    Attributes:
        params: the parameters.
        kernels: arithmetic on limbs.
        scales: by level.
        p_residues: the product of P's primes modulo each limb's prime.
        halves: what takes the error of rounding down out of a division by P; see `_halves`.
        plaintexts: encoded constants.

    Raises:
        UnusableEnvironmentError: there are no compiled kernels.
        OutOfMemoryError: no memory for the tables.
    """

    def __init__(
        self,
        params: CryptoParams,
        kernels: LimbKernels | None = None,
        *,
        threads: int = 1,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        self.params = params
        self.kernels = open_kernels(params, threads=threads) if kernels is None else kernels
        self.scales = tuple(params.scale(level) for level in range(params.depth + 1))
        p = prod(params.special_moduli)
        self.p_residues = np.array([p % q for q in params.moduli], dtype=np.uint64)
        row = _halves(params.n, len(params.special_moduli))
        self.halves = self.kernels.transform(np.tile(row, (len(params.moduli), 1)))
        self.plaintexts = PlaintextCache(cache_bytes)
        half = params.n // 2
        self._units = [pow(smallest_root(q, params.log_n), half, q) for q in params.moduli]
        self._galois: dict[int, Galois] = {}
        self._uses: dict[int, int] = {}
        self._pool = ThreadPoolExecutor(threads, "tacit-encode") if threads > 1 else None
        self._lock = threading.Lock()

    def galois(self, element: int) -> Galois:
        """Return X -> X^element, prepared once.

        Raises:
            ParameterError: the element is even or out of range.
        """
        with self._lock:
            if element not in self._galois:
                self._galois[element] = self.kernels.galois(element)
            return self._galois[element]

    def scalar(self, value: float, at: ValueType) -> Words:
        """Return a number at a level's scale as residues, one per limb, in the host's memory.

        Raises:
            CircuitError: it is not finite.
        """
        scale = self.scales[at.level] ** at.degree
        return encode.constant(value, scale, self.params.moduli[: at.level + 1])

    def halves_of(self, value: complex, at: ValueType, own: int | None = None) -> Words:
        """Return a complex number as residues for the two halves of the positions.

        X^(N/2) is i in every slot. In NTT form it is a square root of -1 in the first half of the
        positions and its negative in the second half.

        Args:
            value: real or complex.
            at: level and degree of what it is added to, or of the product at degree 1.
            own: level of a ciphertext of degree 1 above that it is multiplied by; its limbs are cut
                off, and this scale makes up for the difference.

        Returns:
            Shape (limbs, 2).

        Raises:
            CircuitError: it is not finite.
        """
        scale, moduli = self.scales[at.level] ** at.degree, self.params.moduli[: at.level + 1]
        if own is not None:
            scale *= self.scales[at.level] / self.scales[own]
        words = np.repeat(encode.constant(value.real, scale, moduli)[:, None], 2, axis=1)
        if not value.imag:
            return words
        turned = encode.constant(value.imag, scale, moduli)
        for row, q in enumerate(moduli):
            i = int(turned[row]) * self._units[row]
            words[row] = [(int(words[row, 0]) + i) % q, (int(words[row, 1]) - i) % q]
        return words

    def over_qp(self, plan: LinearPlan, level: int) -> bool:
        """Tell whether a linear transform of inputs at `level` works over QP."""
        return plan.over_qp(self.params.n, level + 1, len(self.params.special_moduli))

    def encoded_bytes(self, values: Floats, level: int, extended: bool) -> int:
        """Return what an encoded constant takes; of diagonals `values` is any of them."""
        real = not np.iscomplexobj(values)
        return self.kernels.plaintext_bytes(self._rows(level, extended), real=real)

    def plaintext(self, plain: Plain, at: ValueType, *, extended: bool = False) -> LimbArray:
        """Return a constant for ciphertexts of type `at`, shape (1, rows, 1, N).

        Args:
            plain: the constant.
            at: level and degree.
            extended: over QP, instead of Q.

        Raises:
            CircuitError: its length does not divide the slots, or a value is not finite.
        """
        return self.plaintexts.find(
            plain.key,
            plain.values,
            (at, extended),
            lambda: self._encode(plain, at, extended),
            self.worth(plain.values, at.level, extended),
        )

    def diagonal(
        self,
        plan: LinearPlan,
        constants: Mapping[str, Floats],
        row: int,
        level: int,
        *,
        extended: bool,
    ) -> LimbArray:
        """Return one encoded diagonal of a linear transform; a packed row is unpacked if needed."""
        key, rows, at = f"{plan.diagonals}/{row}", constants[plan.diagonals], ValueType(level)
        return self.plaintexts.find(
            key,
            memory_of_row(rows, row),
            (at, extended),
            lambda: self._encode(Plain(key, rows[row]), at, extended),
            self.worth(memory_of_row(rows, 0), level, extended),
        )

    def diagonals(
        self,
        plan: LinearPlan,
        constants: Mapping[str, Floats],
        rows: Sequence[int],
        level: int,
        *,
        extended: bool,
    ) -> list[LimbArray]:
        """Return encoded diagonals; those that are not kept are encoded on several threads."""
        at, values = ValueType(level), constants[plan.diagonals]
        found = [
            self.plaintexts.look(
                f"{plan.diagonals}/{row}", memory_of_row(values, row), (at, extended)
            )
            for row in rows
        ]

        def make(place: int) -> LimbArray:
            held = found[place]
            if held is not None:
                return held
            return self.diagonal(plan, constants, rows[place], level, extended=extended)

        return self.each(make, range(len(rows)), sum(held is None for held in found))

    def each(self, make: Callable[[A], B], items: Iterable[A], worth_sharing: int = 2) -> list[B]:
        """Call a function for all items, on the engine's threads if two or more take time."""
        if self._pool is None or worth_sharing < 2:
            return [make(item) for item in items]
        return list(self._pool.map(make, items))

    def register(self, rows: Floats, uses: int) -> None:
        """Note how often a request takes an array of diagonals, or a constant."""
        place = _place(memory_of_row(rows, 0) if len(rows.shape) > 1 else rows)
        with self._lock:
            self._uses[place] = max(uses, self._uses.get(place, 0))

    def worth(self, values: Floats, level: int, extended: bool) -> float:
        """Return what one byte of an encoded constant saves in a request; see `PlaintextCache`.

        Args:
            values: whose place was registered: of diagonals, the first.
            level: of the plaintext.
            extended: over QP.
        """
        work = _ROWS_OF_A_TRANSFORM + self._rows(level, extended)
        kept_rows = self.encoded_bytes(values, level, extended) / (8 * self.params.n)
        return self._uses.get(_place(values), 1) * work / kept_rows

    def weight_blocks(
        self, name: str, weights: Floats, level: int
    ) -> list[tuple[Sequence[int], LimbArray]]:
        """Return a matrix of scalars as blocks of outputs, in order, for `LimbKernels.combine`.

        One block; or, if most weights are zero, one per output, without the zeros.

        Args:
            name: of the constant.
            weights: shape (outputs, inputs).
            level: of the inputs.

        Returns:
            For each block, the inputs it takes, and residues (limbs, outputs, those inputs).

        Raises:
            CircuitError: a weight is not finite, or the shape is not that of a matrix.
        """
        if weights.ndim != 2:
            raise CircuitError(f"weights of shape (outputs, inputs) expected, got {weights.shape}")
        if 2 * np.count_nonzero(weights) >= weights.size:
            every = range(weights.shape[1])
            return [(every, self._scalars(name, weights, weights, level))]
        blocks: list[tuple[Sequence[int], LimbArray]] = []
        for r, row in enumerate(weights):
            used = np.flatnonzero(row) if np.any(row) else np.arange(1)
            blocks.append(
                (used.tolist(), self._scalars(f"{name}/{r}", row, row[None, used], level))
            )
        return blocks

    def prepare(self, circuit: Circuit) -> None:
        """Encode a circuit's constants now, so that its first evaluation is as fast as the rest.

        Those that saves most are made first; the ones beyond the cache's limit are left to the
        evaluations.

        Raises:
            LevelError: the parameters have too few levels for a bootstrap.
        """
        from tacit.runtime.backends.native_constants import prepare

        prepare(self, circuit)

    def _rows(self, level: int, extended: bool) -> int:
        return level + 1 + (len(self.params.special_moduli) if extended else 0)

    def _encode(self, plain: Plain, at: ValueType, extended: bool) -> LimbArray:
        scale = self.scales[at.level] ** at.degree
        slots = plain.expand(self.params.slots)
        return self.kernels.encode(slots, scale, at.level, extended=extended)

    def _scalars(self, name: str, place: Floats, weights: Floats, level: int) -> LimbArray:
        """Return weights (outputs, inputs) as residues; `place` tells constants apart."""
        moduli = self.params.moduli[: level + 1]

        def make() -> LimbArray:
            return self.kernels.upload(encode.constants(weights, self.scales[level], moduli))

        return self.plaintexts.find(name, place, ("scalars", level), make, _WORTH_OF_SCALARS)


def _place(values: Floats) -> int:
    place: int = values.__array_interface__["data"][0]
    return place


def _halves(n: int, specials: int) -> Words:
    """Return specials / 2 in every coefficient, shape (N,).

    Division by P rounds down by that much on average. For odd numbers the halves are 0 and 1 in
    the pattern of Golay, Rudin and Shapiro, whose spectrum is flat.
    """
    index = np.arange(n, dtype=np.uint64)
    parity = index & (index >> np.uint64(1))
    for shift in (16, 8, 4, 2, 1):
        parity = parity ^ (parity >> np.uint64(shift))
    ups = (parity & np.uint64(1)) ^ np.uint64(1) if specials % 2 else np.uint64(0)
    return np.full(n, specials // 2, dtype=np.uint64) + ups
