"""The seam between CKKS and a device: all that an evaluator does with limbs, and nothing else.

An implementation serves one parameter set on one device. Only it knows where arrays lie: to
evaluators they are opaque. Every array has four axes and is C-contiguous,

    [component][row][batch][N]

uint64 residues below the modulus of their row, NTT form in OpenFHE's order. Components are the
polynomials of a ciphertext (2, or 3 before relinearisation; of digits, one per digit). Rows are the
limbs of Q at a level, `level + 1` of them (**over Q**), or those and then the primes of P
(**over QP**). The batch holds the same polynomial of several ciphertexts of one shape, of one
client or of several; it lies inside the row, so that a table of roots, a row of a plaintext or of
a key is read once and used for all of them. An array with a batch of 1 where another has more is
used for every entry (plaintexts).

Arrays are never changed after they were returned, unless a method says so; results are new.
Methods may return before the result is there; `download` waits. All may be called by several
threads at once.

Raises, any method: `OutOfMemoryError`, after which the object is as good as before;
`InternalError` where shapes do not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Floats = NDArray[np.float64]


class LimbArray(Protocol):
    """An array in a device's memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[component][row][batch][N]; other shapes for keys and weights."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        ...


class Galois(Protocol):
    """An automorphism X -> X^element, prepared for a device."""

    @property
    def element(self) -> int:
        """Odd, 1 to 2N - 1."""
        ...


class KeyTable(Protocol):
    """Which switching key each entry of a batch takes, prepared for a device."""

    @property
    def batch(self) -> int:
        """Entries."""
        ...


class LimbKernels(Protocol):
    """Arithmetic on limbs for one parameter set on one device."""

    @property
    def device(self) -> str:
        """Name of the device, for reports."""
        ...

    @property
    def kept_bytes(self) -> int:
        """Bytes of the device's memory that nobody uses and that are kept for the next results."""
        ...

    @property
    def peak_bytes(self) -> int:
        """Most bytes that results and working arrays took at once, those kept included."""
        ...

    # Into the device's memory and out of it.

    def upload(self, words: Words) -> LimbArray:
        """Take an array of any shape in; its memory may be used from now on, not copied."""
        ...

    def upload_key(self, words: Words) -> LimbArray:
        """Take a switching key in, for `key_table` alone; it may stay in the host's memory.

        Args:
            words: shape (2, digits, limbs of Q + primes of P, N), NTT form; the part that is added
                to the first component first. A trimmed key has limbs q_0 .. q_l only and the
                digits that these fill, and switches ciphertexts of level l and below.
        """
        ...

    def upload_sparse_key(self, words: Words) -> LimbArray:
        """Take a key to a sparse secret in, shape (2, 1, 3, N), for `sparse_key_table` alone."""
        ...

    def download(self, a: LimbArray) -> Words:
        """Return the words of an array, contiguous; its memory may be shared."""
        ...

    def transform(self, coefficients: Words) -> LimbArray:
        """Take coefficients in, shape (limbs, N), residues: over Q, shape (1, limbs, 1, N)."""
        ...

    def encode(
        self, slots: Floats, scale: float, level: int, *, extended: bool = False
    ) -> LimbArray:
        """Encode slots: rounded coefficients times the scale, over Q or, extended, over QP.

        Args:
            slots: real or complex, shape (N/2,).
            scale: of the plaintext.
            level: whose rows are wanted.
            extended: over QP.

        Returns:
            Shape (1, rows, 1, N); or, where slots are real, (1, rows, 1, N/2): the other half of
            each row is its mirror image, and a device may leave it out.

        Raises:
            CircuitError: a value is not finite, or outgrows double precision at its scale.
        """
        ...

    def plaintext_bytes(self, rows: int, *, real: bool) -> int:
        """Return what `encode` takes to keep so many rows, of real slots or complex ones."""
        ...

    def galois(self, element: int) -> Galois:
        """Prepare X -> X^element.

        Raises:
            ParameterError: the element is even or out of range.
        """
        ...

    def key_table(self, keys: Sequence[LimbArray]) -> KeyTable:
        """Prepare switching keys, one per batch entry; the same array may come more than once.

        Args:
            keys: each from `upload_key`, all trimmed alike.
        """
        ...

    def sparse_key_table(self, keys: Sequence[LimbArray]) -> KeyTable:
        """Prepare keys to sparse secrets, one per batch entry, each from `upload_sparse_key`."""
        ...

    # Components, limbs and batch entries.

    def part(self, a: LimbArray, component: int) -> LimbArray:
        """Return one component, shape (1, rows, batch, N); its memory may be that of `a`."""
        ...

    def join(self, arrays: Sequence[LimbArray]) -> LimbArray:
        """Put the batches of arrays, equal in all other axes, one after the other."""
        ...

    def split(self, a: LimbArray) -> list[LimbArray]:
        """Return each batch entry alone, a batch of 1."""
        ...

    # Position by position, over Q.

    def add(self, a: LimbArray, b: LimbArray) -> LimbArray:
        """Return a + b, of one shape."""
        ...

    def subtract(self, a: LimbArray, b: LimbArray) -> LimbArray:
        """Return a - b, of one shape."""
        ...

    def negate(self, a: LimbArray) -> LimbArray:
        """Return -a."""
        ...

    def scale(self, a: LimbArray, constants: Words) -> LimbArray:
        """Multiply limb i by constants[i].

        Args:
            a: over Q; limbs for which there is no constant are left out of the result.
            constants: in the host's memory, shape (limbs,), residues.
        """
        ...

    def add_constant(self, a: LimbArray, constants: Words) -> LimbArray:
        """Add constants[i] to every position of limb i of the first component.

        Args:
            a: over Q, two components.
            constants: in the host's memory, shape (limbs,), residues.
        """
        ...

    def add_plain(self, a: LimbArray, plain: LimbArray) -> LimbArray:
        """Add a plaintext, over Q, to the first component of each entry."""
        ...

    def weighted(self, inputs: Sequence[LimbArray], weights: Words) -> LimbArray:
        """Return a weighted sum of ciphertexts; weights may be complex.

        Args:
            inputs: over Q; limbs for which there are no weights are left out.
            weights: in the host's memory, shape (limbs, 2, 1, terms): residues for the first half
                of the positions and for the second.
        """
        ...

    def dot_pairs(
        self,
        terms: Sequence[Sequence[tuple[LimbArray, LimbArray]]],
        level: int,
        *,
        extended: bool = False,
    ) -> list[LimbArray]:
        """Return the sum of a b over the pairs (a, b) of each output.

        Args:
            terms: for each output one or more pairs: a of two components, b a plaintext; all of
                real slots or all of complex ones.
            level: of all.
            extended: all are over QP.
        """
        ...

    def combine(self, inputs: Sequence[LimbArray], weights: LimbArray) -> list[LimbArray]:
        """Return sum_t inputs[t] weights[limb][o][t] for each output o.

        Args:
            inputs: over Q, of one shape.
            weights: uploaded, shape (limbs, outputs, terms), residues.
        """
        ...

    # Between levels and bases; the formulas are those of `tacit.kernels.reference`.

    def rescale(self, a: LimbArray) -> LimbArray:
        """Divide by the last modulus, to the nearest; one limb less."""
        ...

    def times_p(self, a: LimbArray) -> LimbArray:
        """Return P a over QP, zero modulo the primes of P; `a` over Q, any components."""
        ...

    # Key switches: digits of a polynomial, extended to QP, times keys; then the automorphism, which
    # OpenFHE makes before it divides. Several of one polynomial share the digits.

    def multiply(self, a: LimbArray, b: LimbArray, keys: KeyTable) -> LimbArray:
        """Multiply ciphertexts of two components and relinearise.

        Args:
            a: over Q.
            b: of the same shape.
            keys: as many as the batch has entries.
        """
        ...

    def multiply_sum(
        self,
        pairs: Sequence[tuple[LimbArray, LimbArray]],
        keys: KeyTable,
        plus: LimbArray | None = None,
    ) -> LimbArray:
        """Return the sum of products of pairs, plus `plus`, with one relinearisation.

        Args:
            pairs: ciphertexts of two components over Q, all of one shape; one pair or more.
            keys: as many as the batch has entries.
            plus: of the same shape.
        """
        ...

    def switch_down(
        self,
        a: LimbArray,
        keys: Sequence[KeyTable],
        moved: Sequence[Galois],
        *,
        plus: Sequence[LimbArray | None] = (),
        shared: LimbArray | None = None,
    ) -> list[LimbArray]:
        """Return s(X^element) / P + plus(X^element) + shared, s being `a` switched, for each key.

        Args:
            a: over Q, one component.
            keys: each for the whole batch.
            moved: an automorphism for each of the keys.
            plus: for each component, what is added to it, one component over Q, or None; empty
                for nothing.
            shared: over Q, shape (1, limbs or more, 1, N), added to every component and entry.

        Returns:
            Two components over Q each; the division rounds down, as OpenFHE's does.
        """
        ...

    def turned(
        self,
        a: LimbArray,
        keys: Sequence[KeyTable],
        moved: Sequence[Galois],
        *,
        plus: LimbArray | None = None,
        into: LimbArray | None = None,
    ) -> list[LimbArray]:
        """Return (s + plus)(X^element) over QP, s being `a` switched, for each key.

        Args:
            a: over Q, one component.
            keys: each for the whole batch.
            moved: an automorphism for each of the keys.
            plus: one component over Q or QP, added to the first component.
            into: two components over QP, to which all are added in place; it alone is returned.
        """
        ...

    def mod_down(
        self,
        level: int,
        x: LimbArray,
        *,
        plus: Sequence[LimbArray | None] = (),
        shared: LimbArray | None = None,
    ) -> LimbArray:
        """Return x / P + plus + shared, rounding down as OpenFHE does.

        Args:
            level: of the result, over Q.
            x: over QP; its memory is given up: it may be changed.
            plus: for each component, what is added to it, one component over Q, or None; empty
                for nothing.
            shared: over Q, shape (1, limbs or more, 1, N), added to every component and entry.
        """
        ...

    # First steps of bootstrapping; see `tacit.kernels.modulus_raising`.

    def raised(self, a: LimbArray, limbs: int) -> LimbArray:
        """Take coefficients modulo the first prime as integers around 0, over more limbs.

        Args:
            a: two components of one limb.
            limbs: of the result.
        """
        ...

    def to_sparse(self, a: LimbArray, keys: KeyTable) -> LimbArray:
        """Switch ciphertexts of one limb to sparse secrets.

        Args:
            a: two components of one limb.
            keys: from `sparse_key_table`, as many as the batch has entries.
        """
        ...
