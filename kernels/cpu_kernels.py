"""Limb kernels on the processor: numpy arrays, and the compiled library on them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from tacit.errors import InternalError
from tacit.kernels import automorphism, elementwise, encode, ntt
from tacit.kernels.basis import Basis, mod_down, mod_up
from tacit.kernels.cpu_arrays import CpuArrays, alike, own, typed
from tacit.kernels.cpu_tables import SparseKeys, permutation, pointers, sparse_words
from tacit.kernels.keyswitch import KeyPointers, Turn, key_product, switch, switch_scratch
from tacit.kernels.library import InstructionSet
from tacit.kernels.limb_kernels import Floats, Galois, KeyTable, LimbArray, Words
from tacit.kernels.modulus_raising import ModulusRaising
from tacit.kernels.rescale import rescale
from tacit.kernels.ring import Mods, Ring
from tacit.params import CryptoParams

DEFAULT_POOL_BYTES = 1 << 29


class CpuKernels(CpuArrays):
    """`tacit.kernels.limb_kernels.LimbKernels` on the processor.

    Args:
        params: the parameters.
        threads: share the limbs of one operation.
        pool_bytes: how much memory of past results and working arrays to keep for the next.
        instructions: by default the best of this processor.
        library: the compiled kernels.

    Attributes:
        ring: the primes and their tables.

    Raises:
        UnusableEnvironmentError: there are no compiled kernels.
        OutOfMemoryError: no memory for the tables.
    """

    def __init__(
        self,
        params: CryptoParams,
        *,
        threads: int = 1,
        pool_bytes: int = DEFAULT_POOL_BYTES,
        instructions: InstructionSet | None = None,
        library: ctypes.CDLL | None = None,
    ) -> None:
        moduli, full = params.moduli + params.special_moduli, len(params.moduli)
        self.ring = Ring(
            params.log_n, moduli, instructions=instructions, threads=threads, library=library
        )
        self._bases = [Basis(self.ring, k, full, params.dnum) for k in range(1, full + 1)]
        self._twice = [np.tile(np.arange(k, dtype=np.uint32), 2) for k in range(1, full + 1)]
        self._twice_extended = [np.tile(basis.mods, 2) for basis in self._bases]
        self._slots = encode.SlotTransform(params.log_n, library)
        super().__init__(pool_bytes)
        self._params = params
        self._raise: ModulusRaising | None = None

    @property
    def device(self) -> str:
        """The instruction set in use."""
        return f"cpu ({self.ring.instructions.name.lower()})"

    @typed
    def transform(self, coefficients: Words) -> LimbArray:
        """Transform a copy of coefficients (limbs, N)."""
        made = np.array(coefficients, dtype=np.uint64)
        ntt.forward(self.ring, made)
        return made[None, :, None]

    @typed
    def encode(
        self, slots: Floats, scale: float, level: int, *, extended: bool = False
    ) -> LimbArray:
        """Encode slots; of real ones the first half of each row is kept."""
        basis = self._bases[level]
        mods, rows = (basis.mods, basis.rows) if extended else (None, basis.limbs)
        coefficients = self._slots.coefficients(slots)
        whole = encode.encode(self.ring, coefficients, scale, mods, rows)[None, :, None]
        return whole if np.iscomplexobj(slots) else whole[..., : self.ring.n // 2].copy()

    def plaintext_bytes(self, rows: int, *, real: bool) -> int:
        """Half of the rows, for real slots."""
        return 8 * rows * (self.ring.n // 2 if real else self.ring.n)

    @typed
    def galois(self, element: int) -> Galois:
        """Prepare X -> X^element."""
        return automorphism.automorphism(self.ring, element)

    def key_table(self, keys: Sequence[LimbArray]) -> KeyTable:
        """Take the addresses of switching keys."""
        return KeyPointers(self.ring, [own(key) for key in keys], self._bases[0].specials)

    def sparse_key_table(self, keys: Sequence[LimbArray]) -> KeyTable:
        """Collect keys to sparse secrets."""
        return SparseKeys(tuple(own(key) for key in keys))

    def add(self, a: LimbArray, b: LimbArray) -> LimbArray:
        """Return a + b."""
        x, y = alike(a, b)
        out, batch = self._array(*x.shape), x.shape[2]
        return elementwise.add(self.ring, x, y, self._mods(x), out, batch=batch)

    def subtract(self, a: LimbArray, b: LimbArray) -> LimbArray:
        """Return a - b."""
        x, y = alike(a, b)
        out, batch = self._array(*x.shape), x.shape[2]
        return elementwise.subtract(self.ring, x, y, self._mods(x), out, batch=batch)

    def negate(self, a: LimbArray) -> LimbArray:
        """Return -a."""
        x = own(a)
        out, batch = self._array(*x.shape), x.shape[2]
        return elementwise.negate(self.ring, x, self._mods(x), out, batch=batch)

    def scale(self, a: LimbArray, constants: Words) -> LimbArray:
        """Multiply limb i by constants[i]."""
        x, limbs = own(a), len(constants)
        components, _, batch, n = x.shape
        out = self._array(components, limbs, batch, n)
        for part, target in zip(x, out, strict=True):
            elementwise.scale(self.ring, part[:limbs], constants, out=target, batch=batch)
        return out

    def add_constant(self, a: LimbArray, constants: Words) -> LimbArray:
        """Add constants[i] to limb i of the first component."""
        x = own(a)
        out = self._array(*x.shape)
        out[1] = x[1]
        elementwise.add_constant(self.ring, x[0], constants, out=out[0], batch=x.shape[2])
        return out

    def add_plain(self, a: LimbArray, plain: LimbArray) -> LimbArray:
        """Add a plaintext to the first component."""
        x = own(a)
        out = self._array(*x.shape)
        out[1] = x[1]
        elementwise.add(self.ring, x[0], self._whole(plain), out=out[0], batch=x.shape[2])
        return out

    def tensor(self, a: LimbArray, b: LimbArray) -> LimbArray:
        """Multiply ciphertexts without relinearising."""
        x, y = alike(a, b)
        out = self._array(3, *x.shape[1:])
        return elementwise.tensor(self.ring, x, y, out, batch=x.shape[2])

    def tensor_sum(self, pairs: Sequence[tuple[LimbArray, LimbArray]]) -> LimbArray:
        """Sum products without relinearising."""
        words = [alike(a, b) for a, b in pairs]
        if any(x.shape != words[0][0].shape for x, _ in words):
            raise InternalError(f"pairs of one shape expected, got {[x.shape for x, _ in words]}")
        shape = words[0][0].shape
        return elementwise.tensor_sum(self.ring, words, self._array(3, *shape[1:]), batch=shape[2])

    def weighted(self, inputs: Sequence[LimbArray], weights: Words) -> LimbArray:
        """Return a weighted sum of the first limbs of ciphertexts."""
        words, limbs = [own(a) for a in inputs], len(weights)
        batch = words[0].shape[2]
        out = self._array(2, limbs, batch, self.ring.n)
        for component in range(2):
            sources = [w[component, :limbs] for w in words]
            elementwise.combine(self.ring, sources, weights, None, [out[component]], batch=batch)
        return out

    def dot_pairs(
        self,
        terms: Sequence[Sequence[tuple[LimbArray, LimbArray]]],
        level: int,
        *,
        extended: bool = False,
    ) -> list[LimbArray]:
        """Return sums of ciphertexts times plaintexts."""
        basis = self._bases[level]
        mods, rows = (basis.mods, basis.rows) if extended else (None, basis.limbs)
        pairs = [[(own(a), own(b)) for a, b in part] for part in terms]
        batch = pairs[0][0][0].shape[2] if pairs and pairs[0] else 1
        out = [self._array(2, rows, batch, self.ring.n) for _ in pairs]
        elementwise.dot_pairs(self.ring, pairs, out, mods, batch=batch)
        return list(out)

    def combine(self, inputs: Sequence[LimbArray], weights: LimbArray) -> list[LimbArray]:
        """Return a matrix of scalars times ciphertexts."""
        words, table = [own(a) for a in inputs], own(weights)
        out = [self._array(*words[0].shape) for _ in range(table.shape[1])]
        for component in range(words[0].shape[0]):
            sources, targets = [w[component] for w in words], [o[component] for o in out]
            batch = words[0].shape[2]
            elementwise.combine(self.ring, sources, table, None, targets, batch=batch)
        return list(out)

    def rescale(self, a: LimbArray) -> LimbArray:
        """Divide by the last modulus."""
        x = own(a)
        components, limbs, batch, n = x.shape
        if limbs < 2:
            raise InternalError("one limb cannot be rescaled")
        out, scratch = (
            self._array(components, limbs - 1, batch, n),
            self._array(components, batch, n),
        )
        rescale(self._bases[limbs - 1], x, out, scratch, batch=batch)
        return out

    def times_p(self, a: LimbArray) -> LimbArray:
        """Return P a over QP."""
        x = own(a)
        components, limbs, batch, n = x.shape
        basis = self._bases[limbs - 1]
        out = self._array(components, basis.rows, batch, n)
        out[:, limbs:] = 0
        for part, target in zip(x, out, strict=True):
            elementwise.scale(self.ring, part, basis.p_product, out=target[:limbs], batch=batch)
        return out

    def multiply(self, a: LimbArray, b: LimbArray, keys: KeyTable) -> LimbArray:
        """Multiply ciphertexts and relinearise."""
        return self.multiply_sum([(a, b)], keys)

    def multiply_sum(
        self,
        pairs: Sequence[tuple[LimbArray, LimbArray]],
        keys: KeyTable,
        plus: LimbArray | None = None,
    ) -> LimbArray:
        """Add up products and relinearise the sum."""
        product, level = self.tensor_sum(pairs), pairs[0][0].shape[1] - 1
        switched = self.switched(self.part(product, 2), keys)
        low = [self.part(product, 0), self.part(product, 1)]
        if plus is not None:
            low = [self.add(part, self.part(plus, i)) for i, part in enumerate(low)]
        return self.mod_down(level, switched, plus=low)

    def switch_down(
        self,
        a: LimbArray,
        keys: Sequence[KeyTable],
        moved: Sequence[Galois],
        *,
        plus: Sequence[LimbArray | None] = (),
        shared: LimbArray | None = None,
    ) -> list[LimbArray]:
        """Switch keys, move and divide by P, one after the other."""
        digits, level = self.mod_up(a) if len(keys) > 1 else None, a.shape[1] - 1
        first, second = (*plus, None, None)[:2]
        # What is added is moved in cache with the product, and so comes before the division.
        times_p = None if first is None else self.scale(first, self._bases[level].p_product)
        made: list[LimbArray] = []
        for table, galois in zip(keys, moved, strict=True):
            product = self.switched(a, table, digits=digits, moved=galois, plus=times_p)
            added = None if second is None else self._permuted(own(second), galois)
            made.append(self.mod_down(level, product, plus=(None, added), shared=shared))
        return made

    def turned(
        self,
        a: LimbArray,
        keys: Sequence[KeyTable],
        moved: Sequence[Galois],
        *,
        plus: LimbArray | None = None,
        into: LimbArray | None = None,
    ) -> list[LimbArray]:
        """Switch keys and move over QP, one after the other."""
        digits = self.mod_up(a) if len(keys) > 1 else None
        made = [
            self.switched(a, table, digits=digits, moved=galois, plus=plus, into=into)
            for table, galois in zip(keys, moved, strict=True)
        ]
        return made if into is None else [into]

    @typed
    def raised(self, a: LimbArray, limbs: int) -> LimbArray:
        """Take coefficients modulo the first prime as integers around 0."""
        return self._raising().raised(own(a), limbs)

    @typed
    def to_sparse(self, a: LimbArray, keys: KeyTable) -> LimbArray:
        """Switch to sparse secrets."""
        return self._raising().to_sparse(own(a), sparse_words(keys))

    def mod_up(self, a: LimbArray) -> LimbArray:
        """Extend digits to QP."""
        x = own(a)
        basis, batch = self._bases[x.shape[1] - 1], x.shape[2]
        digits = self._array(basis.digits, basis.rows, batch, self.ring.n)
        mod_up(basis, x, digits, self._array(*x.shape), batch=batch)
        return digits

    def key_product(self, a: LimbArray, digits: LimbArray, keys: KeyTable) -> LimbArray:
        """Sum digits times keys."""
        x, addresses = own(a), pointers(keys)
        basis = self._bases[x.shape[1] - 1]
        out = self._array(2, basis.rows, keys.batch, self.ring.n)
        key_product(basis, x, own(digits), addresses, out)
        return out

    def switched(
        self,
        a: LimbArray,
        keys: KeyTable,
        *,
        digits: LimbArray | None = None,
        moved: Galois | None = None,
        plus: LimbArray | None = None,
        into: LimbArray | None = None,
    ) -> LimbArray:
        """Multiply digits by keys and permute the product."""
        x, addresses = own(a), pointers(keys)
        basis, ring, batch = self._bases[x.shape[1] - 1], self.ring, keys.batch
        turn = None
        if moved is not None:
            added = None if plus is None else own(plus)
            turn = Turn(permutation(moved), added, accumulate=into is not None)
        shape = (2, basis.rows, batch, ring.n)
        out = self._array(*shape) if into is None else own(into)
        if out.shape != shape:
            raise InternalError(f"an array of shape {shape} expected, got {out.shape}")
        if digits is None:
            switch(basis, x, addresses, out, self._rows(switch_scratch(basis), batch), turn=turn)
            return out
        scratch = None if turn is None else self._rows(2 * ring.threads, batch)
        key_product(basis, x, own(digits), addresses, out, turn=turn, scratch=scratch)
        return out

    def automorphism(
        self,
        level: int,
        a: LimbArray,
        moved: Galois,
        *,
        plus: LimbArray | None = None,
        into: LimbArray | None = None,
    ) -> LimbArray:
        """Permute two components over QP."""
        x = own(a)
        return automorphism.apply(
            self.ring,
            permutation(moved),
            x,
            self._twice_extended[level],
            plus=None if plus is None else own(plus),
            accumulate=into is not None,
            out=self._array(*x.shape) if into is None else own(into),
            batch=x.shape[2],
        )

    def mod_down(
        self,
        level: int,
        x: LimbArray,
        *,
        plus: Sequence[LimbArray | None] = (),
        shared: LimbArray | None = None,
    ) -> LimbArray:
        """Divide by P."""
        basis, words = self._bases[level], own(x)
        components, _, batch, n = words.shape
        added = [None if part is None else own(part) for part in plus or (None,) * components]
        out = self._array(components, basis.limbs, batch, n)
        all_rows = None if shared is None else own(shared)[0]
        mod_down(basis, words, added, out, shared=all_rows, batch=batch)
        return out

    def _raising(self) -> ModulusRaising:
        if self._raise is None:
            self._raise = ModulusRaising(self._params, self.ring)
        return self._raise

    def _whole(self, plain: LimbArray) -> Words:
        """Return a plaintext's rows, those of which half was kept completed."""
        words, half = own(plain), self.ring.n // 2
        if words.shape[-1] == self.ring.n:
            return words
        out = self._array(*words.shape[:-1], self.ring.n)
        out[..., :half] = words
        out[..., half:] = words[..., ::-1]
        return out

    def _permuted(self, x: Words, moved: Galois) -> Words:
        # Nothing is added, so no modulus matters: all rows count as entries of one.
        entries = self.ring.rows_of(x)
        out = self._array(*x.shape)
        return automorphism.apply(self.ring, permutation(moved), x, out=out, batch=entries)

    def _rows(self, rows: int, batch: int) -> Words:
        return self._array(rows, batch, self.ring.n)

    def _mods(self, x: Words) -> Mods | None:
        return None if x.shape[0] == 1 else self._twice[x.shape[1] - 1]
