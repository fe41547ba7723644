"""Arithmetic position by position on a CUDA device, and batches joined and taken apart."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tacit.errors import InternalError
from tacit.kernels.cuda import structures
from tacit.kernels.cuda.launches import Launches
from tacit.kernels.cuda.levels import Level
from tacit.kernels.cuda.memory import DeviceArray
from tacit.kernels.cuda.tables import companion

Words = NDArray[np.uint64]
_MOST_FACTORS_KEPT = 1 << 16


class Elementwise:
    """Operations over Q and QP that move no position; results are new."""

    def __init__(self, launches: Launches) -> None:
        self._launches = launches
        self._factors: dict[bytes, ctypes.Array[ctypes.c_uint64]] = {}

    def join(self, arrays: Sequence[DeviceArray]) -> DeviceArray:
        """Put the batches of arrays one after the other."""
        components, rows, _, n = arrays[0].shape
        out = self._launches.array(components, rows, sum(a.shape[2] for a in arrays))
        start = 0
        for a in arrays:
            if (*a.shape[:2], a.shape[3]) != (components, rows, n):
                raise InternalError(f"{a.shape} does not fit {arrays[0].shape}")
            self._copy(a, 0, out, start, a.shape[2])
            start += a.shape[2]
        return out

    def split(self, a: DeviceArray) -> list[DeviceArray]:
        """Return each batch entry alone."""
        components, rows, batch, _ = a.shape
        if batch == 1:
            return [a]
        made = [self._launches.array(components, rows, 1) for _ in range(batch)]
        for entry, out in enumerate(made):
            self._copy(a, entry, out, 0, 1)
        return made

    def binary(self, a: DeviceArray, b: DeviceArray, *, subtract: bool) -> DeviceArray:
        """Return a + b or a - b."""
        if a.shape != b.shape:
            raise InternalError(f"{a.shape} and {b.shape} differ")
        out = self._like(a)
        arguments = structures.Binary(
            self._launches.over_q(a), a.address, b.address, out.address, int(subtract)
        )
        self._launches.elementwise("tacit_binary", out, arguments)
        return out

    def negate(self, a: DeviceArray) -> DeviceArray:
        """Return -a."""
        out = self._like(a)
        arguments = structures.Negate(self._launches.over_q(a), a.address, out.address)
        self._launches.elementwise("tacit_negate", out, arguments)
        return out

    def scale(self, a: DeviceArray, constants: Words) -> DeviceArray:
        """Multiply limb i by constants[i]; limbs without a constant are left out."""
        out = self._launches.array(a.shape[0], len(constants), a.shape[2])
        self._scaled(a, constants, self._launches.over_q(out), out)
        return out

    def times_p(self, a: DeviceArray, at: Level) -> DeviceArray:
        """Return P a over QP, zero modulo the primes of P."""
        out = self._launches.array(a.shape[0], at.rows, a.shape[2])
        constants = np.array(at.p_product(), dtype=np.uint64)
        self._scaled(a, constants, self._launches.span(at, out), out)
        return out

    def plus(self, a: DeviceArray, plain: DeviceArray | None, constants: Words) -> DeviceArray:
        """Add a plaintext, or constants[i] to limb i, to the first component."""
        if plain is not None and plain.shape != (1, a.shape[1], 1, a.shape[3]):
            raise InternalError(f"a plaintext {plain.shape} does not fit {a.shape}")
        out = self._like(a)
        arguments = structures.Plain(
            *(self._launches.over_q(a), a.address),
            *(0 if plain is None else plain.address, out.address),
        )
        for i, constant in enumerate(constants.tolist()):
            arguments.constants[i] = constant
        self._launches.elementwise("tacit_add_plain", out, arguments)
        return out

    def tensor_sum(self, pairs: Sequence[tuple[DeviceArray, DeviceArray]]) -> DeviceArray:
        """Add up products of ciphertexts: three components."""
        first = pairs[0][0]
        if first.shape[0] != 2 or any(x.shape != first.shape for pair in pairs for x in pair):
            shapes = [x.shape for pair in pairs for x in pair]
            raise InternalError(f"two ciphertexts of two components expected, got {shapes}")
        out = self._launches.array(3, *first.shape[1:3])
        for index, (a, b) in enumerate(pairs):
            arguments = structures.Tensor(
                *(self._launches.over_q(a), a.address, b.address, out.address, int(index > 0))
            )
            self._launches.pairs("tacit_tensor", a.shape[2], a.shape[1], 1, arguments)
        return out

    def dot(
        self, pairs: Sequence[tuple[DeviceArray, DeviceArray]], at: Level, extended: bool
    ) -> DeviceArray:
        """Return the sum of ciphertexts times plaintexts, over Q or QP."""
        rows = at.rows if extended else at.limbs
        batch = pairs[0][0].shape[2]
        out = self._launches.array(2, rows, batch)
        for a, b in pairs:
            if a.shape != out.shape or b.shape != (1, rows, 1, a.shape[3]):
                raise InternalError(f"{a.shape} times {b.shape} does not give {out.shape}")
        span = self._launches.span(at, out)
        for start in range(0, len(pairs), structures.MOST_TERMS):
            used = pairs[start : start + structures.MOST_TERMS]
            arguments = structures.Dot(span, out.address, len(used), int(start > 0))
            for t, (a, b) in enumerate(used):
                arguments.a[t], arguments.b[t] = a.address, b.address
            self._launches.elementwise("tacit_dot_pairs", out, arguments)
        return out

    def combine(self, inputs: Sequence[DeviceArray], weights: DeviceArray) -> list[DeviceArray]:
        """Return sum_t inputs[t] weights[limb][o][t] for each output o."""
        components, rows, batch, _ = inputs[0].shape
        outputs = weights.shape[1]
        if weights.shape != (rows, outputs, len(inputs)):
            raise InternalError(f"weights {weights.shape} for {len(inputs)} of {inputs[0].shape}")
        out = self._launches.array(outputs * components, rows, batch)
        chunks = -(-outputs // structures.OUTPUTS_PER_BLOCK)
        for start in range(0, len(inputs), structures.MOST_TERMS):
            used = inputs[start : start + structures.MOST_TERMS]
            arguments = structures.Combine(
                *(self._launches.over_q(inputs[0]), weights.address + 8 * start, out.address),
                *(components, outputs, len(used), len(inputs), int(start > 0), 0),
            )
            for t, a in enumerate(used):
                arguments.a[t] = a.address
            self._launches.pairs("tacit_combine", batch, components * rows, chunks, arguments)
        return [out.first(components * o, components * (o + 1)) for o in range(outputs)]

    def _like(self, a: DeviceArray) -> DeviceArray:
        return self._launches.array(*a.shape[:3])

    def _scaled(
        self, a: DeviceArray, constants: Words, span: structures.Span, out: DeviceArray
    ) -> None:
        arguments = structures.Scale(span, a.address, out.address, a.shape[1], len(constants))
        words = self._factor_words(constants)
        ctypes.memmove(arguments.factors, words, ctypes.sizeof(words))
        self._launches.elementwise("tacit_scale", out, arguments)

    def _factor_words(self, constants: Words) -> ctypes.Array[ctypes.c_uint64]:
        name = constants.tobytes()
        found = self._factors.get(name)
        if found is None:
            words = [
                word
                for w, q in zip(constants.tolist(), self._launches.ring.moduli, strict=False)
                for word in (w, companion(w, q))
            ]
            found = (ctypes.c_uint64 * len(words))(*words)
            if len(self._factors) < _MOST_FACTORS_KEPT:
                self._factors[name] = found
        return found

    def _copy(self, a: DeviceArray, entry: int, out: DeviceArray, at: int, batch: int) -> None:
        arguments = structures.Copy(
            a.address, out.address, a.shape[2], entry, out.shape[2], at, batch
        )
        rows = a.shape[0] * a.shape[1]
        self._launches.pairs("tacit_copy_entries", batch, rows, 1, arguments)
