"""What all clients of one parameter set share: tables, constants, working memory."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import Circuit, Constant, LinearPlan, Plain, ValueType
from tacit.kernels import encode, ntt
from tacit.kernels.basis import Basis
from tacit.kernels.library import InstructionSet
from tacit.kernels.ring import Limbs, Ring
from tacit.params import CryptoParams
from tacit.runtime.backends.native_memory import ArrayPool
from tacit.runtime.backends.native_plaintexts import PlaintextCache

Floats = NDArray[np.float64]

DEFAULT_CACHE_BYTES = 1 << 30
DEFAULT_POOL_BYTES = 1 << 28


class NativeEngine:
    """The kernels' tables for one parameter set; holds nobody's keys.

    Args:
        params: the parameters.
        cache_bytes: how much memory encoded constants may take.
        pool_bytes: how much memory of past results and working arrays to keep for the next.
        threads: share the limbs of one operation.
        instructions: by default the best of this processor.
        library: the compiled kernels.

    Raises:
        UnusableEnvironmentError: there are no compiled kernels.
    """

    def __init__(
        self,
        params: CryptoParams,
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        pool_bytes: int = DEFAULT_POOL_BYTES,
        threads: int = 1,
        instructions: InstructionSet | None = None,
        library: ctypes.CDLL | None = None,
    ) -> None:
        self.params = params
        moduli = params.moduli + params.special_moduli
        self.ring = Ring(
            params.log_n, moduli, instructions=instructions, threads=threads, library=library
        )
        limbs = range(1, len(params.moduli) + 1)
        self.bases = [Basis(self.ring, k, len(params.moduli), params.dnum) for k in limbs]
        self.scales = tuple(params.scale(level) for level in range(params.depth + 1))
        self.twice = [np.tile(np.arange(k, dtype=np.uint32), 2) for k in limbs]
        self.twice_extended = [np.tile(basis.mods, 2) for basis in self.bases]
        self.halves = _halves(self.ring, len(params.moduli), len(params.special_moduli))
        self.plaintexts = PlaintextCache(cache_bytes)
        self._transform = encode.SlotTransform(params.log_n)
        self._memory = ArrayPool(pool_bytes)

    def array(self, *shape: int) -> Limbs:
        """Return an array of this shape and N columns, its content undefined.

        Its memory is used again once nobody holds it or a view of it.
        """
        return self._memory.array((*shape, self.ring.n))

    def scalar(self, value: float, at: ValueType, level_of_scale: int | None = None) -> Limbs:
        """Return a number at a level's scale as residues, one per limb."""
        scale = self.scales[at.level if level_of_scale is None else level_of_scale] ** at.degree
        return encode.constant(value, scale, self.ring.moduli[: at.level + 1])

    def plaintext(self, plain: Plain, at: ValueType, *, extended: bool = False) -> Limbs:
        """Return a constant for ciphertexts of type `at`, NTT form.

        Args:
            plain: the constant.
            at: level and degree.
            extended: also modulo the special primes: shape (rows of the basis, N).
        """
        return self.plaintexts.find(
            plain.key, plain.values, (at, extended), lambda: self._encode(plain, at, extended)
        )

    def weights(
        self, name: str, weights: Floats, level: int, used: NDArray[np.intp] | None = None
    ) -> Limbs:
        """Return scalars as residues for two components, shape (2 limbs, outputs, inputs).

        Args:
            name: of the constant.
            weights: shape (outputs, inputs); or (inputs,), one output.
            level: of the ciphertexts.
            used: which inputs of one output are meant; always the same ones.
        """
        chosen = weights if used is None else weights[None, used]
        return self.plaintexts.find(
            name, weights, ("scalars", level), lambda: self._scalars(chosen, level)
        )

    def prepare(self, circuit: Circuit) -> None:
        """Encode a circuit's constants now, so that its first evaluation is as fast as the rest.

        Constants beyond the limit of the cache are left to the evaluations.
        """
        for node in circuit.nodes:
            at = circuit.types[node.inputs[0]]
            match node.attribute:
                case Constant(name):
                    self._prepare_plain(Plain(name, circuit.constants[name]), at)
                case LinearPlan() as plan:
                    extended = needs_extension(plan, self.params.slots)
                    for row in sorted({term.row for term in plan.terms}):
                        self.diagonal(plan, circuit.constants, row, at.level, extended=extended)
                    self._prepare_bias(plan, circuit, circuit.types[node.outputs[0]])

    def diagonal(
        self,
        plan: LinearPlan,
        constants: Mapping[str, Floats],
        row: int,
        level: int,
        *,
        extended: bool,
    ) -> Limbs:
        """Return one encoded diagonal of a linear transform."""
        plain = Plain(f"{plan.diagonals}/{row}", constants[plan.diagonals][row])
        return self.plaintext(plain, ValueType(level), extended=extended)

    def _prepare_bias(self, plan: LinearPlan, circuit: Circuit, at: ValueType) -> None:
        for r, bias in enumerate(circuit.constants[plan.bias] if plan.bias else ()):
            self._prepare_plain(Plain(f"{plan.bias}/{r}", bias), at)

    def _prepare_plain(self, plain: Plain, at: ValueType) -> None:
        if not plain.is_scalar:
            self.plaintext(plain, at)

    def _encode(self, plain: Plain, at: ValueType, extended: bool) -> Limbs:
        basis = self.bases[at.level]
        coefficients = self._transform.coefficients(plain.expand(self.params.slots))
        mods, rows = (basis.mods, basis.rows) if extended else (None, basis.limbs)
        scale = self.scales[at.level] ** at.degree
        return encode.encode(self.ring, coefficients, scale, mods, rows)

    def _scalars(self, weights: Floats, level: int) -> Limbs:
        moduli = self.ring.moduli[: level + 1]
        flat = [encode.constant(float(w), self.scales[level], moduli) for w in weights.flat]
        limbs = np.array(flat, dtype=np.uint64).T.reshape(level + 1, *weights.shape)
        return np.ascontiguousarray(np.concatenate([limbs, limbs]))


def needs_extension(plan: LinearPlan, slots: int) -> bool:
    """Tell whether a plan has baby steps, whose rotated inputs stay over QP."""
    return any(term.baby % slots for term in plan.terms)


def _halves(ring: Ring, limbs: int, specials: int) -> Limbs:
    """Return specials / 2 in every coefficient, shape (limbs, N), NTT form.

    Division by P rounds down by that much on average. For odd numbers the halves are 0 and 1 in
    the pattern of Golay, Rudin and Shapiro, whose spectrum is flat.
    """
    index = np.arange(ring.n, dtype=np.uint64)
    pairs = index & (index >> np.uint64(1))
    parity = pairs
    for shift in (16, 8, 4, 2, 1):
        parity = parity ^ (parity >> np.uint64(shift))
    ups = (parity & np.uint64(1)) ^ np.uint64(1) if specials % 2 else np.uint64(0)
    row = np.full(ring.n, specials // 2, dtype=np.uint64) + ups
    halves = np.tile(row, (limbs, 1))
    ntt.forward(ring, halves)
    return halves
