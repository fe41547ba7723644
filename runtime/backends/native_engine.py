"""What all clients of one parameter set share: a device's kernels, constants, their encodings."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import Circuit, Constant, LinearPlan, Plain, ValueType, WeightedSumPlan
from tacit.errors import CircuitError
from tacit.kernels import encode
from tacit.kernels.devices import open_kernels
from tacit.kernels.limb_kernels import Galois, LimbArray, LimbKernels, Words
from tacit.kernels.modulus_raising import ModulusRaising
from tacit.packed_rows import memory_of_row
from tacit.params import CryptoParams
from tacit.runtime.backends.native_plaintexts import PlaintextCache

Floats = NDArray[np.float64]

DEFAULT_CACHE_BYTES = 1 << 30


class NativeEngine:
    """The kernels and constants of one parameter set on one device; holds nobody's keys.

    May be used by several threads.

    Args:
        params: the parameters.
        kernels: of these parameters; by default on the processor.
        threads: of the default kernels, that share the limbs of one operation.
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
        self._raising: ModulusRaising | None = None
        self._galois: dict[int, Galois] = {}
        self._lock = threading.Lock()

    def raising(self) -> ModulusRaising:
        """Return what raises the modulus, made once."""
        with self._lock:
            if self._raising is None:
                self._raising = ModulusRaising(self.params)
            return self._raising

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
            plain.key, plain.values, (at, extended), lambda: self._encode(plain, at, extended)
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
        )

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

        Constants beyond the limit of the cache are left to the evaluations.
        """
        constants = circuit.constants
        for node in circuit.nodes:
            at, to = circuit.types[node.inputs[0]], circuit.types[node.outputs[0]]
            match node.attribute:
                case Constant(name):
                    self._prepare_plain(Plain(name, constants[name]), at)
                case WeightedSumPlan(weights=name):
                    self.weight_blocks(name, constants[name], at.level)
                case LinearPlan() as plan:
                    extended = needs_extension(plan, self.params.slots)
                    for row in sorted({term.row for term in plan.terms}):
                        self.diagonal(plan, constants, row, at.level, extended=extended)
                    for r, bias in enumerate(constants[plan.bias] if plan.bias else ()):
                        self._prepare_plain(Plain(f"{plan.bias}/{r}", bias), to)

    def _prepare_plain(self, plain: Plain, at: ValueType) -> None:
        if not plain.is_scalar:
            self.plaintext(plain, at)

    def _encode(self, plain: Plain, at: ValueType, extended: bool) -> LimbArray:
        scale = self.scales[at.level] ** at.degree
        slots = plain.expand(self.params.slots)
        return self.kernels.encode(slots, scale, at.level, extended=extended)

    def _scalars(self, name: str, place: Floats, weights: Floats, level: int) -> LimbArray:
        """Return weights (outputs, inputs) as residues; `place` tells constants apart."""
        moduli = self.params.moduli[: level + 1]

        def make() -> LimbArray:
            return self.kernels.upload(encode.constants(weights, self.scales[level], moduli))

        return self.plaintexts.find(name, place, ("scalars", level), make)


def needs_extension(plan: LinearPlan, slots: int) -> bool:
    """Tell whether a plan has baby steps, whose rotated inputs stay over QP."""
    return any(term.baby % slots for term in plan.terms)


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
