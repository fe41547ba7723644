"""Limb arithmetic on a CUDA device: `tacit.kernels.limb_kernels.LimbKernels`.

Arrays are `DeviceArray`s [component][row][batch][N]. Calls put kernels into the device's stream
and return; `download` waits. What the operations launch is in `elementwise`, `keyswitch`,
`encoding` and `raising`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.errors import InternalError, ParameterError
from tacit.kernels.cuda import structures
from tacit.kernels.cuda.elementwise import Elementwise
from tacit.kernels.cuda.encoding import Encoder
from tacit.kernels.cuda.interface import Device
from tacit.kernels.cuda.keys import CudaKey, CudaKeyTable, KeyShelf
from tacit.kernels.cuda.keyswitch import KeySwitch
from tacit.kernels.cuda.launches import Launches
from tacit.kernels.cuda.memory import DeviceArray
from tacit.kernels.cuda.raising import SmallRing
from tacit.kernels.cuda.tables import RingTables, put
from tacit.kernels.cuda.transforms import Form, Transforms
from tacit.params import CryptoParams, SecretDistribution

Words = NDArray[np.uint64]
Floats = NDArray[np.float64]

DEFAULT_KEY_BYTES = 32 << 30
_NO_CONSTANTS: Words = np.empty(0, dtype=np.uint64)


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
        shelf: of keys, shared with kernels of other parameters, in place of `key_bytes`.

    Attributes:
        params: the parameters.
        launches: what kernels are launched with.
        transforms: between coefficients and NTT form.
        switching: products with keys.
        shelf: keys on the device.

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
        shelf: KeyShelf | None = None,
    ) -> None:
        self.params = params
        self._device = device
        moduli = params.moduli + params.special_moduli
        if len(moduli) > structures.MOST_ROWS:
            raise ParameterError(f"{len(moduli)} primes, but no more than {structures.MOST_ROWS}")
        if not 6 <= params.log_n <= 17:
            raise ParameterError("N = 2^6 to 2^17 is expected")
        device.load(params.log_n, image)
        fast = device.abilities.doubles if doubles is None else doubles
        ring = RingTables(device, params.log_n, moduli, doubles=fast)
        self.launches = Launches(params, device, ring)
        self.transforms = Transforms(device, ring, form)
        self.shelf = KeyShelf(device, key_bytes) if shelf is None else shelf
        self.switching = KeySwitch(self.launches, self.transforms, self.shelf)
        self._elementwise = Elementwise(self.launches)
        self._encoder = Encoder(self.launches, self.transforms)
        self._small: SmallRing | None = None
        if params.secret is SecretDistribution.SPARSE_ENCAPSULATED:
            form = self.transforms.form
            self._small = SmallRing(self.launches, self.shelf, form, doubles=fast)

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
        if not 1 <= limbs <= len(self.launches.levels):
            raise InternalError(
                f"a key of shape (2, digits, limbs of Q + {specials}, N) expected, got {shape}"
            )
        digits = self.launches.levels[limbs - 1].digits
        if shape != (2, digits, limbs + specials, self.params.n):
            raise InternalError(f"a key of {limbs} limbs of Q has {digits} digits, got {shape}")
        return CudaKey(shape, self._device.pin(words))

    def upload_sparse_key(self, words: Words) -> CudaKey:
        """Copy a key to the sparse secret to pinned host memory.

        Raises:
            InternalError: another shape than (2, 1, 3, N).
        """
        shape = (2, 1, 3, self.params.n)
        if words.shape != shape:
            raise InternalError(f"a key of shape {shape} expected, got {words.shape}")
        return CudaKey(shape, self._device.pin(words))

    def download(self, a: DeviceArray) -> Words:
        """Wait for an array and return its words."""
        return self._device.download(a.address, a.nbytes // 8).reshape(a.shape)

    def transform(self, coefficients: Words) -> DeviceArray:
        """Take coefficients in, shape (limbs, N), residues: (1, limbs, 1, N), NTT form."""
        limbs, n = coefficients.shape
        a = self.upload(coefficients).reshaped(1, limbs, 1, n)
        self.transforms.forward(self.launches.levels[limbs - 1].forward(extended=False), a, 1)
        return a

    def transformed(self, a: DeviceArray, *, inverse: bool = False) -> DeviceArray:
        """Return coefficients, over Q, in NTT form, or with `inverse` the other way round."""
        at = self.launches.levels[a.shape[1] - 1]
        out = self.launches.array(*a.shape[:3])
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
        return self._encoder.encode(slots, scale, level, extended=extended)

    def plaintext_bytes(self, rows: int, *, real: bool) -> int:
        """All of the rows, whatever the slots are."""
        return 8 * rows * self.launches.params.n

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

    def sparse_key_table(self, keys: Sequence[CudaKey]) -> CudaKeyTable:
        """Prepare keys to sparse secrets, one per batch entry."""
        return self.key_table(keys)

    # Components, limbs and batch entries.

    def part(self, a: DeviceArray, component: int) -> DeviceArray:
        """Return one component, shape (1, rows, batch, N), in the same memory."""
        return a.first(component, component + 1)

    def join(self, arrays: Sequence[DeviceArray]) -> DeviceArray:
        """Put the batches of arrays one after the other."""
        return self._elementwise.join(arrays)

    def split(self, a: DeviceArray) -> list[DeviceArray]:
        """Return each batch entry alone."""
        return self._elementwise.split(a)

    # Position by position, over Q.

    def add(self, a: DeviceArray, b: DeviceArray) -> DeviceArray:
        """Return a + b."""
        return self._elementwise.binary(a, b, subtract=False)

    def subtract(self, a: DeviceArray, b: DeviceArray) -> DeviceArray:
        """Return a - b."""
        return self._elementwise.binary(a, b, subtract=True)

    def negate(self, a: DeviceArray) -> DeviceArray:
        """Return -a."""
        return self._elementwise.negate(a)

    def scale(self, a: DeviceArray, constants: Words) -> DeviceArray:
        """Multiply limb i by constants[i]; limbs without a constant are left out."""
        return self._elementwise.scale(a, constants)

    def add_constant(self, a: DeviceArray, constants: Words) -> DeviceArray:
        """Add constants[i] to every position of limb i of the first component."""
        return self._elementwise.plus(a, None, constants)

    def add_plain(self, a: DeviceArray, plain: DeviceArray) -> DeviceArray:
        """Add a plaintext to the first component of each entry."""
        return self._elementwise.plus(a, plain, _NO_CONSTANTS)

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
        at = self.launches.levels[level]
        return [self._elementwise.dot(pairs, at, extended) for pairs in terms]

    def combine(self, inputs: Sequence[DeviceArray], weights: DeviceArray) -> list[DeviceArray]:
        """Return sum_t inputs[t] weights[limb][o][t] for each output o."""
        return self._elementwise.combine(inputs, weights)

    # Between levels and bases.

    def rescale(self, a: DeviceArray) -> DeviceArray:
        """Divide by the last modulus, to the nearest; one limb less."""
        components, limbs, batch, _ = a.shape
        at, array = self.launches.levels[limbs - 1], self.launches.array
        last, out = array(components, 1, batch), array(components, limbs - 1, batch)
        self.transforms.backward(at.last_down(components), a, last, batch)
        table = at.divided_by_last(components)
        self.transforms.divide(table, last, a, out, last_modulus=limbs - 1)
        return out

    def times_p(self, a: DeviceArray) -> DeviceArray:
        """Return P a over QP, zero modulo the primes of P."""
        return self._elementwise.times_p(a, self.launches.levels[a.shape[1] - 1])

    def multiply(self, a: DeviceArray, b: DeviceArray, keys: CudaKeyTable) -> DeviceArray:
        """Multiply ciphertexts and relinearise."""
        return self.switching.multiply(a, b, keys)

    def multiply_sum(
        self,
        pairs: Sequence[tuple[DeviceArray, DeviceArray]],
        keys: CudaKeyTable,
        plus: DeviceArray | None = None,
    ) -> DeviceArray:
        """Add up products of ciphertexts and relinearise the sum."""
        if len(pairs) == 1 and plus is None:
            return self.multiply(*pairs[0], keys)
        product = self._elementwise.tensor_sum(pairs)
        low = product.first(0, 2) if plus is None else self.add(product.first(0, 2), plus)
        return self.switching.multiply_sum(product, keys, [self.part(low, i) for i in range(2)])

    def switch_down(
        self,
        a: DeviceArray,
        keys: Sequence[CudaKeyTable],
        moved: Sequence[CudaGalois],
        *,
        plus: Sequence[DeviceArray | None] = (),
        shared: DeviceArray | None = None,
    ) -> list[DeviceArray]:
        """Switch keys and move, once for each pair, and divide by P."""
        digits, elements = self.switching.mod_up(a), [galois.element for galois in moved]
        return self.switching.switch_down(a, digits, keys, elements, plus, shared)

    def turned(
        self,
        a: DeviceArray,
        keys: Sequence[CudaKeyTable],
        moved: Sequence[CudaGalois],
        *,
        plus: DeviceArray | None = None,
        into: DeviceArray | None = None,
    ) -> list[DeviceArray]:
        """Switch keys and move, once for each pair, over QP; with `into`, add all to that array."""
        digits, elements = self.switching.mod_up(a), [galois.element for galois in moved]
        return self.switching.turned(a, digits, keys, elements, plus, into)

    def mod_down(
        self,
        level: int,
        x: DeviceArray,
        *,
        plus: Sequence[DeviceArray | None] = (),
        shared: DeviceArray | None = None,
    ) -> DeviceArray:
        """Return x / P + plus + shared, rounding down as OpenFHE does."""
        return self.switching.mod_down(self.launches.levels[level], x, plus, shared)

    def raised(self, a: DeviceArray, limbs: int) -> DeviceArray:
        """Take coefficients modulo the first prime as small integers, over more limbs."""
        components, _, batch, _ = a.shape
        at, array = self.launches.levels[limbs - 1], self.launches.array
        coefficients, out = array(components, 1, batch), array(components, limbs, batch)
        lowest = self.launches.levels[0].transformed(components, inverse=True)
        self.transforms.backward(lowest, a, coefficients, batch)
        self.transforms.raised(at.raised(components), coefficients, out, batch)
        return out

    def to_sparse(self, a: DeviceArray, keys: CudaKeyTable) -> DeviceArray:
        """Switch a batch at the first prime to sparse secrets.

        Raises:
            InternalError: the secret is not encapsulated, or shapes do not fit.
        """
        if self._small is None:
            raise InternalError("no sparse secret is encapsulated in these parameters")
        return self._small.switch(a, keys)
