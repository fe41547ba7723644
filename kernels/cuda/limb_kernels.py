"""Limb arithmetic on a CUDA device: `tacit.kernels.limb_kernels.LimbKernels`.

Arrays are `DeviceArray`s [component][row][batch][N]. Calls put kernels into the device's stream
and return; `download` waits.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.errors import CircuitError, InternalError, ParameterError
from tacit.kernels.cuda import structures
from tacit.kernels.cuda.device import Device
from tacit.kernels.cuda.keys import CudaKey, CudaKeyTable, KeyShelf
from tacit.kernels.cuda.levels import Level
from tacit.kernels.cuda.memory import DeviceArray
from tacit.kernels.cuda.tables import Conversion, RingTables, companion, put
from tacit.kernels.cuda.transforms import Form, Transforms, entries_per_block
from tacit.kernels.encode import SlotTransform
from tacit.params import CryptoParams

Words = NDArray[np.uint64]
Floats = NDArray[np.float64]

DEFAULT_KEY_BYTES = 32 << 30

_THREADS = 256
_TARGETS_PER_BLOCK = 8
_LARGEST = 2.0**1000  # rounded coefficients; residues of larger ones would take too long


@dataclass(frozen=True, slots=True)
class CudaGalois:
    """X -> X^element; kernels compute where each position comes from."""

    element: int


class CudaKernels:
    """Arithmetic on limbs for one parameter set on one CUDA device.

    Args:
        params: the parameters.
        device: may have kernels of other parameters.
        image: the compiled kernels of this ring (`tacit.kernels.cuda.image`).
        form: of the transforms; by default the one that suits the device.
        doubles: whether narrow primes are transformed in doubles; by default where they are fast.
        key_bytes: how much device memory switching keys may take; others wait in host memory.

    Raises:
        OutOfMemoryError: the tables do not fit.
        ParameterError: the ring is too small or too large.
    """

    def __init__(
        self,
        params: CryptoParams,
        device: Device,
        image: bytes,
        *,
        form: Form | None = None,
        doubles: bool | None = None,
        key_bytes: int = DEFAULT_KEY_BYTES,
    ) -> None:
        self.params = params
        self._device = device
        moduli = params.moduli + params.special_moduli
        limbs = len(params.moduli)
        if len(moduli) > structures.MOST_ROWS:
            raise ParameterError(f"{len(moduli)} primes, but no more than {structures.MOST_ROWS}")
        if not 6 <= params.log_n <= 17:
            raise ParameterError("N = 2^6 to 2^17 is expected")
        device.load(params.log_n, image)
        fast = device.abilities.doubles if doubles is None else doubles
        self._ring = RingTables(device, params.log_n, moduli, doubles=fast)
        self.transforms = Transforms(device, self._ring, form)
        self._levels = [
            Level(device, self._ring, k, limbs, params.dnum) for k in range(1, limbs + 1)
        ]
        self._slots = SlotTransform(params.log_n)
        self.shelf = KeyShelf(device, key_bytes)
        self.tables_noted: tuple[int, list[CudaKeyTable]] | None = None  # by which thread
        self._factors: dict[bytes, ctypes.Array[ctypes.c_uint64]] = {}

    @property
    def device(self) -> str:
        """Name of the device."""
        return f"cuda: {self._device.abilities.name}"

    @property
    def kept_bytes(self) -> int:
        """Bytes of the device's memory that nobody uses and that are kept for the next results."""
        return self._device.kept_bytes

    @property
    def peak_bytes(self) -> int:
        """Most bytes that were in use at once, constants and keys included."""
        return self._device.peak_bytes

    # Into the device's memory and out of it.

    def upload(self, words: Words) -> DeviceArray:
        """Copy an array of any shape to the device."""
        return DeviceArray(words.shape, put(self._device, words))

    def upload_key(self, words: Words) -> CudaKey:
        """Copy a switching key to pinned host memory; it comes to the device when it is used.

        Raises:
            InternalError: another shape than (2, digits, limbs of Q + primes of P, N), with all
                limbs or, trimmed, with fewer and the digits that these fill.
        """
        specials, shape = len(self.params.special_moduli), words.shape
        limbs = shape[2] - specials if words.ndim == 4 else 0
        if not 1 <= limbs <= len(self._levels):
            raise InternalError(
                f"a key of shape (2, digits, limbs of Q + {specials}, N) expected, got {shape}"
            )
        digits = self._levels[limbs - 1].digits
        if shape != (2, digits, limbs + specials, self.params.n):
            raise InternalError(f"a key of {limbs} limbs of Q has {digits} digits, got {shape}")
        return CudaKey(shape, self._device.pin(words))

    def download(self, a: DeviceArray) -> Words:
        """Wait for an array and return its words."""
        return self._device.download(a.address, a.nbytes // 8).reshape(a.shape)

    def transform(self, coefficients: Words) -> DeviceArray:
        """Take coefficients in, shape (limbs, N), residues: (1, limbs, 1, N), NTT form."""
        limbs, n = coefficients.shape
        a = self.upload(coefficients).reshaped(1, limbs, 1, n)
        self.transforms.forward(self._levels[limbs - 1].forward(extended=False), a, 1)
        return a

    def transformed(self, a: DeviceArray, *, inverse: bool = False) -> DeviceArray:
        """Return coefficients, over Q, in NTT form, or with `inverse` the other way round."""
        at = self._levels[a.shape[1] - 1]
        out = self._array(*a.shape[:3])
        tables = at.transformed(a.shape[0], inverse=inverse)
        if inverse:
            self.transforms.backward(tables, a, out, a.shape[2])
        else:
            self.transforms.forward(tables, a, a.shape[2], out)
        return out

    def encode(
        self, slots: Floats, scale: float, level: int, *, extended: bool = False
    ) -> DeviceArray:
        """Encode real slots, shape (N/2,): (1, rows, 1, N).

        Raises:
            CircuitError: a value is not finite, or outgrows double precision at its scale.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = np.rint(self._slots.coefficients(slots) * scale)
        if not np.all(np.abs(rounded) < _LARGEST):
            raise CircuitError("a constant is not finite, or outgrows double precision")
        at = self._levels[level]
        out = self._array(1, at.rows if extended else at.limbs, 1)
        values = put(self._device, rounded)
        span = self._span(at, out)
        self._elementwise(
            "tacit_reduce_doubles", out, structures.Reduce(span, values.address, out.address)
        )
        self.transforms.forward(at.forward(extended=extended), out, 1)
        return out

    def galois(self, element: int) -> CudaGalois:
        """Prepare X -> X^element.

        Raises:
            ParameterError: the element is even or out of range.
        """
        if element % 2 == 0 or not 0 < element < 2 * self.params.n:
            raise ParameterError(f"{element} is not an odd number below {2 * self.params.n}")
        return CudaGalois(element)

    def key_table(self, keys: Sequence[CudaKey]) -> CudaKeyTable:
        """Prepare switching keys, one per batch entry."""
        if not all(isinstance(key, CudaKey) for key in keys):
            raise InternalError("keys from `upload_key` expected")
        return self.shelf.table(keys)

    # Components, limbs and batch entries.

    def part(self, a: DeviceArray, component: int) -> DeviceArray:
        """Return one component, shape (1, rows, batch, N), in the same memory."""
        return a.first(component, component + 1)

    def join(self, arrays: Sequence[DeviceArray]) -> DeviceArray:
        """Put the batches of arrays one after the other."""
        components, rows, _, n = arrays[0].shape
        out = self._array(components, rows, sum(a.shape[2] for a in arrays))
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
        made = [self._array(components, rows, 1) for _ in range(batch)]
        for entry, out in enumerate(made):
            self._copy(a, entry, out, 0, 1)
        return made

    # Position by position, over Q.

    def add(self, a: DeviceArray, b: DeviceArray) -> DeviceArray:
        """Return a + b."""
        return self._binary(a, b, subtract=False)

    def subtract(self, a: DeviceArray, b: DeviceArray) -> DeviceArray:
        """Return a - b."""
        return self._binary(a, b, subtract=True)

    def negate(self, a: DeviceArray) -> DeviceArray:
        """Return -a."""
        out = self._array(*a.shape[:3])
        arguments = structures.Negate(self._over_q(a), a.address, out.address)
        self._elementwise("tacit_negate", out, arguments)
        return out

    def scale(self, a: DeviceArray, constants: Words) -> DeviceArray:
        """Multiply limb i by constants[i]; limbs without a constant are left out."""
        out = self._array(a.shape[0], len(constants), a.shape[2])
        self._scaled(a, constants, self._over_q(out), out)
        return out

    def add_constant(self, a: DeviceArray, constants: Words) -> DeviceArray:
        """Add constants[i] to every position of limb i of the first component."""
        return self._plus(a, None, constants)

    def add_plain(self, a: DeviceArray, plain: DeviceArray) -> DeviceArray:
        """Add a plaintext to the first component of each entry."""
        if plain.shape != (1, a.shape[1], 1, a.shape[3]):
            raise InternalError(f"a plaintext {plain.shape} does not fit {a.shape}")
        return self._plus(a, plain, np.empty(0, dtype=np.uint64))

    def tensor(self, a: DeviceArray, b: DeviceArray) -> DeviceArray:
        """Multiply ciphertexts of two components: a0 b0, a0 b1 + a1 b0, a1 b1."""
        if a.shape != b.shape or a.shape[0] != 2:
            raise InternalError(f"two ciphertexts of two components expected: {a.shape} {b.shape}")
        out = self._array(3, *a.shape[1:3])
        arguments = structures.Tensor(self._over_q(a), a.address, b.address, out.address)
        self._pairs("tacit_tensor", a.shape[2], a.shape[1], 1, arguments)
        return out

    def weighted(self, inputs: Sequence[DeviceArray], weights: Words) -> DeviceArray:
        """Return a weighted sum of the first limbs of ciphertexts."""
        limbs, half = len(weights), inputs[0].shape[3] // 2
        ones = np.ones(limbs, dtype=np.uint64)
        cut = [a if a.shape[1] == limbs else self.scale(a, ones) for a in inputs]
        plain = np.repeat(weights[:, :, 0], half, axis=1)  # (limbs, N, terms)
        terms = [
            (a, self.upload(np.ascontiguousarray(plain[None, :, None, :, t])))
            for t, a in enumerate(cut)
        ]
        return self.dot_pairs([terms], limbs - 1)[0]

    def dot_pairs(
        self,
        terms: Sequence[Sequence[tuple[DeviceArray, DeviceArray]]],
        level: int,
        *,
        extended: bool = False,
    ) -> list[DeviceArray]:
        """Return the sum of a b over the pairs (a, b) of each output."""
        return [self._dot(pairs, self._levels[level], extended) for pairs in terms]

    def combine(self, inputs: Sequence[DeviceArray], weights: DeviceArray) -> list[DeviceArray]:
        """Return sum_t inputs[t] weights[limb][o][t] for each output o."""
        components, rows, batch, n = inputs[0].shape
        outputs = weights.shape[1]
        if weights.shape != (rows, outputs, len(inputs)):
            raise InternalError(f"weights {weights.shape} for {len(inputs)} of {inputs[0].shape}")
        words = outputs * components * rows * batch * n
        out = DeviceArray((outputs, components, rows, batch, n), self._device.block(8 * words))
        chunks = -(-outputs // structures.OUTPUTS_PER_BLOCK)
        for start in range(0, len(inputs), structures.MOST_TERMS):
            used = inputs[start : start + structures.MOST_TERMS]
            arguments = structures.Combine(
                *(self._over_q(inputs[0]), weights.address + 8 * start, out.address),
                *(components, outputs, len(used), len(inputs), int(start > 0), 0),
            )
            for t, a in enumerate(used):
                arguments.a[t] = a.address
            self._pairs("tacit_combine", batch, components * rows, chunks, arguments)
        return [out.first(o, o + 1).reshaped(components, rows, batch, n) for o in range(outputs)]

    # Between levels and bases.

    def rescale(self, a: DeviceArray) -> DeviceArray:
        """Divide by the last modulus, to the nearest; one limb less."""
        components, limbs, batch, _ = a.shape
        at = self._levels[limbs - 1]
        last, out = self._array(components, 1, batch), self._array(components, limbs - 1, batch)
        self.transforms.backward(at.last_down(components), a, last, batch)
        table = at.divided_by_last(components)
        self.transforms.divide(table, last, a, out, last_modulus=limbs - 1)
        return out

    def times_p(self, a: DeviceArray) -> DeviceArray:
        """Return P a over QP, zero modulo the primes of P."""
        at = self._levels[a.shape[1] - 1]
        out = self._array(a.shape[0], at.rows, a.shape[2])
        constants = np.array(at.p_product(), dtype=np.uint64)
        self._scaled(a, constants, self._span(at, out), out)
        return out

    def mod_up(self, a: DeviceArray) -> DeviceArray:
        """Extend the digits of a polynomial to QP: (digits, rows, batch, N)."""
        _, limbs, batch, _ = a.shape
        at = self._levels[limbs - 1]
        coefficients = self._array(1, limbs, batch)
        digits = self._array(at.digits, at.rows, batch)
        self.transforms.backward(at.digits_down(), a, coefficients, batch)
        self._convert(at.extension(), coefficients, digits)
        self.transforms.forward(at.digits_up(), digits, batch)
        return digits

    def key_product(self, a: DeviceArray, digits: DeviceArray, keys: CudaKeyTable) -> DeviceArray:
        """Sum digits times keys: two components over QP."""
        _, limbs, batch, n = a.shape
        at = self._levels[limbs - 1]
        if keys.batch != batch or digits.shape != (at.digits, at.rows, batch, n):
            raise InternalError(f"{keys.batch} keys, digits {digits.shape}, for {a.shape}")
        key_limbs = keys.rows - (at.rows - at.limbs)
        if keys.digits < at.digits or key_limbs < limbs:
            raise InternalError(f"keys of {key_limbs} limbs of Q, for a ciphertext of {limbs}")
        out = self._array(2, at.rows, batch)
        pieces = -(-n // (2 * _THREADS))
        arguments = structures.KeyProduct(
            *(self._ring.address, structures.Rows(limbs, at.full_limbs)),
            *(a.address, digits.address, keys.block.address, out.address),
            *(at.rows, at.digits, at.alpha, keys.digits, keys.rows, batch),
            entries_per_block(self._device, pieces * at.rows, batch),
            key_limbs,
        )
        chunks = -(-batch // arguments.per_block)
        threads = min(_THREADS, n // 2)
        with self.shelf.held([keys]):
            self._launch("tacit_key_product", (pieces, at.rows, chunks), threads, arguments)
        noted = self.tables_noted
        if noted is not None and noted[0] == threading.get_ident() and keys not in noted[1]:
            noted[1].append(keys)
        return out

    def switch(self, a: DeviceArray, keys: CudaKeyTable) -> tuple[DeviceArray, DeviceArray]:
        """Return `key_product` and the digits from `mod_up`."""
        digits = self.mod_up(a)
        return self.key_product(a, digits, keys), digits

    def multiply(self, a: DeviceArray, b: DeviceArray, keys: CudaKeyTable) -> DeviceArray:
        """Multiply ciphertexts and relinearise."""
        product = self.tensor(a, b)
        switched, _ = self.switch(self.part(product, 2), keys)
        low = (self.part(product, 0), self.part(product, 1))
        return self.mod_down(a.shape[1] - 1, switched, plus=low)

    def multiply_sum(
        self,
        pairs: Sequence[tuple[DeviceArray, DeviceArray]],
        keys: CudaKeyTable,
        plus: DeviceArray | None = None,
    ) -> DeviceArray:
        """Multiply pairs, one after the other, and add up."""
        total = plus
        for a, b in pairs:
            product = self.multiply(a, b, keys)
            total = product if total is None else self.add(total, product)
        assert total is not None  # there is a pair
        return total

    def switch_down(
        self,
        a: DeviceArray,
        keys: Sequence[CudaKeyTable],
        moved: Sequence[CudaGalois],
        *,
        plus: Sequence[DeviceArray | None] = (),
        shared: DeviceArray | None = None,
    ) -> list[DeviceArray]:
        """Switch keys, move and divide by P, one after the other."""
        digits, level = self.mod_up(a), a.shape[1] - 1
        return [
            self.mod_down(
                *(level, self.key_product(a, digits, table)),
                plus=plus,
                moved=galois,
                shared=shared,
            )
            for table, galois in zip(keys, moved, strict=True)
        ]

    def turned(
        self,
        a: DeviceArray,
        keys: Sequence[CudaKeyTable],
        moved: Sequence[CudaGalois],
        *,
        plus: DeviceArray | None = None,
        into: DeviceArray | None = None,
    ) -> list[DeviceArray]:
        """Switch keys and move over QP, one after the other."""
        digits, level = self.mod_up(a), a.shape[1] - 1
        made = [
            self.automorphism(
                level, self.key_product(a, digits, table), galois, plus=plus, into=into
            )
            for table, galois in zip(keys, moved, strict=True)
        ]
        return made if into is None else [into]

    def automorphism(
        self,
        level: int,
        a: DeviceArray,
        moved: CudaGalois,
        *,
        plus: DeviceArray | None = None,
        into: DeviceArray | None = None,
    ) -> DeviceArray:
        """Return (a + plus)(X^element), over QP; with `into`, added to that array in place."""
        at = self._levels[level]
        if a.shape[1] != at.rows or (into is not None and into.shape != a.shape):
            raise InternalError(f"arrays over QP at level {level} expected, got {a.shape}")
        out = self._array(*a.shape[:3]) if into is None else into
        arguments = structures.Move(
            *(self._span(at, a), a.address, 0 if plus is None else plus.address, out.address),
            *(moved.element, 0 if plus is None else plus.shape[1], int(into is not None)),
        )
        self._elementwise("tacit_move", out, arguments)
        return out

    def mod_down(
        self,
        level: int,
        x: DeviceArray,
        *,
        plus: Sequence[DeviceArray | None] = (),
        moved: CudaGalois | None = None,
        shared: DeviceArray | None = None,
    ) -> DeviceArray:
        """Return x(X^element) / P + plus(X^element) + shared, rounding down as OpenFHE does."""
        at = self._levels[level]
        components, rows, batch, _ = x.shape
        if rows != at.rows or components > 3 or len(plus) not in (0, components):
            raise InternalError(f"{x.shape} over QP at level {level}, {len(plus)} to add")
        element = 1 if moved is None else moved.element
        specials = self._array(components, at.specials, batch)
        limbs = self._array(components, at.limbs, batch)
        out = self._array(components, at.limbs, batch)
        self.transforms.backward(at.specials_down(components), x, specials, batch, element)
        self._convert(at.specials_to_limbs(components), specials, limbs)
        table = at.divided_by_p(components)
        self.transforms.divide(table, limbs, x, out, plus=plus, common=shared, element=element)
        return out

    def _array(self, components: int, rows: int, batch: int) -> DeviceArray:
        shape = (components, rows, batch, self.params.n)
        return DeviceArray(shape, self._device.block(8 * components * rows * batch * shape[3]))

    def _over_q(self, a: DeviceArray) -> structures.Span:
        rows = structures.Rows(a.shape[1], len(self.params.moduli))
        return structures.Span(self._ring.address, rows, a.shape[1], a.shape[2])

    def _span(self, at: Level, a: DeviceArray) -> structures.Span:
        rows = structures.Rows(at.limbs, at.full_limbs)
        return structures.Span(self._ring.address, rows, a.shape[1], a.shape[2])

    def _binary(self, a: DeviceArray, b: DeviceArray, *, subtract: bool) -> DeviceArray:
        if a.shape != b.shape:
            raise InternalError(f"{a.shape} and {b.shape} differ")
        out = self._array(*a.shape[:3])
        arguments = structures.Binary(
            self._over_q(a), a.address, b.address, out.address, int(subtract)
        )
        self._elementwise("tacit_binary", out, arguments)
        return out

    def _plus(self, a: DeviceArray, plain: DeviceArray | None, constants: Words) -> DeviceArray:
        out = self._array(*a.shape[:3])
        arguments = structures.Plain(
            self._over_q(a), a.address, 0 if plain is None else plain.address, out.address
        )
        for i, constant in enumerate(constants.tolist()):
            arguments.constants[i] = constant
        self._elementwise("tacit_add_plain", out, arguments)
        return out

    def _scaled(
        self, a: DeviceArray, constants: Words, span: structures.Span, out: DeviceArray
    ) -> None:
        arguments = structures.Scale(span, a.address, out.address, a.shape[1], len(constants))
        words = self._factor_words(constants)
        ctypes.memmove(arguments.factors, words, ctypes.sizeof(words))
        self._elementwise("tacit_scale", out, arguments)

    def _factor_words(self, constants: Words) -> ctypes.Array[ctypes.c_uint64]:
        name = constants.tobytes()
        found = self._factors.get(name)
        if found is None:
            words = [
                word
                for w, q in zip(constants.tolist(), self._ring.moduli, strict=False)
                for word in (w, companion(w, q))
            ]
            found = (ctypes.c_uint64 * len(words))(*words)
            if len(self._factors) < 1 << 16:
                self._factors[name] = found
        return found

    def _dot(
        self, pairs: Sequence[tuple[DeviceArray, DeviceArray]], at: Level, extended: bool
    ) -> DeviceArray:
        rows = at.rows if extended else at.limbs
        batch = pairs[0][0].shape[2]
        out = self._array(2, rows, batch)
        for a, b in pairs:
            if a.shape != out.shape or b.shape != (1, rows, 1, a.shape[3]):
                raise InternalError(f"{a.shape} times {b.shape} does not give {out.shape}")
        for start in range(0, len(pairs), structures.MOST_TERMS):
            used = pairs[start : start + structures.MOST_TERMS]
            arguments = structures.Dot(self._span(at, out), out.address, len(used), int(start > 0))
            for t, (a, b) in enumerate(used):
                arguments.a[t], arguments.b[t] = a.address, b.address
            self._elementwise("tacit_dot_pairs", out, arguments)
        return out

    def _convert(self, table: Conversion, source: DeviceArray, target: DeviceArray) -> None:
        batch, n = source.shape[2], source.shape[3]
        arguments = structures.Convert(
            *(self._ring.address, *(block.address for block in table.blocks)),
            *(source.address, target.address, batch, _TARGETS_PER_BLOCK),
            *(table.reads, table.writes),
        )
        chunks = -(-table.most_targets // _TARGETS_PER_BLOCK)
        grid = (-(-batch * n // _THREADS), table.groups, chunks)
        self._launch("tacit_convert", grid, _THREADS, arguments)

    def _copy(self, a: DeviceArray, entry: int, out: DeviceArray, at: int, batch: int) -> None:
        arguments = structures.Copy(
            a.address, out.address, a.shape[2], entry, out.shape[2], at, batch
        )
        self._pairs("tacit_copy_entries", batch, a.shape[0] * a.shape[1], 1, arguments)

    def _elementwise(self, name: str, out: DeviceArray, arguments: ctypes.Structure) -> None:
        components, rows, batch, _ = out.shape
        self._pairs(name, batch, components * rows, 1, arguments)

    def _launch(
        self,
        name: str,
        grid: tuple[int, int, int],
        threads: int,
        arguments: ctypes.Structure,
    ) -> None:
        self._device.launch(self.params.log_n, name, grid, threads, arguments)

    def _pairs(
        self, name: str, batch: int, rows: int, depth: int, arguments: ctypes.Structure
    ) -> None:
        pieces = -(-batch * self.params.n // (2 * _THREADS))
        self._launch(name, (pieces, rows, depth), _THREADS, arguments)
