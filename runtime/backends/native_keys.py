"""One client's evaluation keys, and its ciphertexts to and from the wire format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import Circuit
from tacit.errors import (
    InternalError,
    KeyMismatchError,
    ParameterMismatchError,
    UnknownKeyError,
)
from tacit.kernels.automorphism import rotation_element
from tacit.kernels.limb_kernels import Galois, KeyTable, LimbArray
from tacit.key_levels import circuit_key_levels
from tacit.key_trimming import covered_limbs
from tacit.runtime.backends.native_ciphertext import NativeCiphertext
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.wire import Ciphertext, EvaluationKey, KeyKind

if TYPE_CHECKING:
    from tacit.runtime.backends.native import NativeEvaluator

__all__ = ["NativeCiphertext", "NativeKeys", "SwitchKeys", "evaluator_for", "load_keys"]


@dataclass(frozen=True, slots=True, eq=False)
class SwitchKeys:
    """The switching key of each entry of a batch, and the automorphism they share.

    Attributes:
        table: the keys.
        moved: X -> X for relinearisation.
        limbs: of Q that all of them cover.
    """

    table: KeyTable
    moved: Galois
    limbs: int


@dataclass(frozen=True, slots=True, eq=False)
class NativeKeys:
    """One client's evaluation keys; nothing outside this object knows them.

    Attributes:
        engine: the parameters and what all their clients share.
        key_id: names the key set.
        relinearization: shape (2, digits, limbs of Q + limbs of P, N), in the device's memory, or
            None; a trimmed key covers the lower levels only.
        rotations: such keys by Galois element; 2N - 1 is conjugation.
        to_sparse: from the secret to its sparse one, shape (2, 1, 3, N), modulo q_0 and the two
            primes of `encapsulation_moduli`; or None.
        from_sparse: back again, as `relinearization`.
        prepared: what `native_key_tables` made of these keys for batches of this client alone.
    """

    engine: NativeEngine
    key_id: bytes
    relinearization: LimbArray | None = field(default=None, repr=False)
    rotations: Mapping[int, LimbArray] = field(default_factory=dict, repr=False)
    to_sparse: LimbArray | None = field(default=None, repr=False)
    from_sparse: LimbArray | None = field(default=None, repr=False)
    prepared: dict[tuple[int, int], SwitchKeys] = field(default_factory=dict, repr=False)

    @property
    def size_bytes(self) -> int:
        """Bytes of all keys."""
        single = (self.relinearization, self.to_sparse, self.from_sparse)
        own = sum(key.nbytes for key in single if key is not None)
        return own + sum(key.nbytes for key in self.rotations.values())

    def limbs(self, key: LimbArray) -> int:
        """Return how many limbs of Q a key covers: it is for levels below that number."""
        return key.shape[2] - len(self.engine.params.special_moduli)

    def relinearization_key(self, level: int = 0) -> LimbArray:
        """Return the relinearisation key, for products at `level`.

        Raises:
            UnknownKeyError: there is none, or one for lower levels.
        """
        return self._reaching(self.relinearization, level, "a relinearisation key")

    def rotation_key(self, steps: int, level: int = 0) -> LimbArray:
        """Return the key for rotations by `steps` slots at `level`.

        Raises:
            UnknownKeyError: there is none, or one for lower levels.
        """
        key = self.rotations.get(rotation_element(self.engine.params.log_n, steps))
        return self._reaching(key, level, f"a Galois key for rotations by {steps} slots")

    def conjugation_key(self, level: int = 0) -> LimbArray:
        """Return the key for the complex conjugation of slots at `level`.

        Raises:
            UnknownKeyError: there is none, or one for lower levels.
        """
        key = self.rotations.get(2 * self.engine.params.n - 1)
        return self._reaching(key, level, "a Galois key for conjugation")

    def galois_key(self, element: int, level: int = 0) -> LimbArray:
        """Return the key for X -> X^element at `level`.

        Raises:
            UnknownKeyError: there is none, or one for lower levels.
        """
        key = self.rotations.get(element)
        return self._reaching(key, level, f"a Galois key for the element {element}")

    def sparse_keys(self, level: int = 0) -> tuple[LimbArray, LimbArray]:
        """Return the keys to the sparse secret, and back at `level`.

        Raises:
            UnknownKeyError: one of them is missing, or the second one is for lower levels.
        """
        if self.to_sparse is None or self.from_sparse is None:
            raise UnknownKeyError(f"keys to the sparse secret and back {_NEEDED}")
        back = self._reaching(self.from_sparse, level, "a key from the sparse secret")
        return self.to_sparse, back

    def check(self, circuit: Circuit) -> None:
        """Check that all keys are there that a circuit needs, for the levels it needs them at.

        Raises:
            UnknownKeyError: one is missing, or is for lower levels.
        """
        uses = circuit_key_levels(circuit, self.engine.params)
        if uses.relinearization is not None:
            self.relinearization_key(uses.relinearization)
        for steps, level in sorted(uses.rotations.items()):
            self.rotation_key(steps, level)
        if uses.conjugation is not None:
            self.conjugation_key(uses.conjugation)
        if uses.from_sparse is not None:
            self.sparse_keys(uses.from_sparse)

    def _reaching(self, key: LimbArray | None, level: int, what: str) -> LimbArray:
        if key is None:
            raise UnknownKeyError(f"{what} {_NEEDED}")
        if level >= self.limbs(key):
            raise UnknownKeyError(
                f"{what} at level {level} {_NEEDED}; the one given is trimmed to levels up to "
                f"{self.limbs(key) - 1}"
            )
        return key

    def evaluator(self, circuit: Circuit) -> NativeEvaluator:
        """Make the evaluator of one circuit, its constants encoded in the engine that all share."""
        return evaluator_for([self], circuit)

    def ciphertext(self, received: Ciphertext) -> NativeCiphertext:
        """Take a checked ciphertext in.

        Raises:
            KeyMismatchError: it belongs to other keys.
            ParameterMismatchError: it is of other parameters, or has other limbs than its level.
        """
        if received.key_id != self.key_id:
            raise KeyMismatchError("encrypted under another key set: use the keys of this session")
        if received.params_digest != self.engine.params.digest:
            raise ParameterMismatchError("encrypted with other parameters than those of these keys")
        return self.upload(received.limbs, received.level, received.degree)

    def upload(self, limbs: NDArray[np.uint64], level: int, degree: int = 1) -> NativeCiphertext:
        """Take limbs in that are encrypted under these keys.

        Args:
            limbs: shape (2, level + 1, N), NTT form, residues: checked by whoever made them.
            level: rescalings left.
            degree: 1, or 2 before a rescale.

        Raises:
            ParameterMismatchError: another shape.
        """
        params = self.engine.params
        expected = (2, level + 1, params.n)
        if limbs.shape != expected or not 0 <= level <= params.depth:
            raise ParameterMismatchError(
                f"limbs of shape {expected}, levels 0 to {params.depth} expected, got {limbs.shape}"
            )
        kernels = self.engine.kernels
        made = kernels.upload(limbs.reshape(2, level + 1, 1, params.n))
        return NativeCiphertext(kernels, made, level, degree, (self.key_id,))

    def download(self, result: NativeCiphertext) -> NDArray[np.uint64]:
        """Return the limbs of a result, shape (2, level + 1, N).

        Raises:
            InternalError: it is a batch, or belongs to other keys.
        """
        if result.owners != (self.key_id,):
            raise InternalError(
                f"a result of key set {self.key_id.hex()[:8]} expected, got one of "
                f"{_named(result.owners)}: split the batch and give each result to its owner"
            )
        limbs = self.engine.kernels.download(result.limbs)
        return limbs.reshape(2, result.level + 1, self.engine.params.n)

    def frame(self, result: NativeCiphertext) -> Ciphertext:
        """Give a result back in the wire format's terms.

        Raises:
            InternalError: it is a batch, or belongs to other keys.
        """
        params = self.engine.params
        return Ciphertext(
            self.download(result),
            result.level,
            result.degree,
            self.engine.scales[result.level] ** result.degree,
            params.slots,
            params.digest,
            self.key_id,
        )


def load_keys(engine: NativeEngine, key_id: bytes, keys: Iterable[EvaluationKey]) -> NativeKeys:
    """Take checked evaluation keys in; the processor does not copy them if they are contiguous.

    Raises:
        ParameterMismatchError: a key for other parameters, or of a shape that neither full nor
            trimmed keys have.
    """
    params = engine.params
    single: dict[KeyKind, LimbArray] = {}
    to_sparse: LimbArray | None = None
    rotations: dict[int, LimbArray] = {}
    for key in keys:
        if key.params_digest != params.digest:
            raise ParameterMismatchError("an evaluation key made for other parameters")
        covered_limbs(key, params)
        match key.kind:
            case KeyKind.TO_SPARSE:
                to_sparse = engine.kernels.upload_sparse_key(key.limbs)
            case KeyKind.ROTATION:
                engine.galois(key.galois_element)
                rotations[key.galois_element] = engine.kernels.upload_key(key.limbs)
            case _:
                single[key.kind] = engine.kernels.upload_key(key.limbs)
    return NativeKeys(
        engine,
        key_id,
        single.get(KeyKind.RELINEARIZATION),
        rotations,
        to_sparse,
        single.get(KeyKind.FROM_SPARSE),
    )


def evaluator_for(keys: Sequence[NativeKeys], circuit: Circuit) -> NativeEvaluator:
    """Make an evaluator of one circuit for a batch, constants encoded ahead.

    Args:
        keys: those of each batch entry, in order; or one client's, for batches of any size.
        circuit: what it will run.

    Raises:
        KeyMismatchError: no keys, or keys of different engines.
    """
    from tacit.runtime.backends.native import NativeEvaluator

    evaluator = NativeEvaluator(keys)
    keys[0].engine.prepare(circuit)
    return evaluator


def _named(owners: Sequence[bytes]) -> str:
    return ", ".join(owner.hex()[:8] for owner in owners) or "nobody"


_NEEDED = "is needed and was not given: upload the keys that the model's signature asks for"
