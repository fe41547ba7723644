"""One client's evaluation keys as limbs, and ciphertexts to and from the wire format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import Circuit
from tacit.errors import KeyMismatchError, ParameterMismatchError, UnknownKeyError
from tacit.kernels.automorphism import Automorphism, automorphism, rotation_element
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.wire import Ciphertext, EvaluationKey, KeyKind

if TYPE_CHECKING:
    from tacit.runtime.backends.native import NativeEvaluator

Limbs = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class NativeCiphertext:
    """A ciphertext: `limbs` of shape (2, level + 1, N), NTT form, at a level and degree."""

    limbs: Limbs
    level: int
    degree: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class RotationKey:
    """A switching key, shape (2, dnum, limbs of Q + limbs of P, N), and its automorphism."""

    limbs: Limbs
    moved: Automorphism


@dataclass(frozen=True, slots=True, eq=False)
class NativeKeys:
    """One client's evaluation keys; nothing outside this object knows them.

    Attributes:
        engine: the parameters and tables.
        key_id: names the key set.
        relinearization: shape (2, dnum, limbs of Q + limbs of P, N), or None.
        rotations: by Galois element.
    """

    engine: NativeEngine
    key_id: bytes
    relinearization: Limbs | None = None
    rotations: Mapping[int, RotationKey] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Bytes of all keys."""
        own = 0 if self.relinearization is None else self.relinearization.nbytes
        return own + sum(key.limbs.nbytes for key in self.rotations.values())

    def relinearization_key(self) -> Limbs:
        """Return the relinearisation key.

        Raises:
            UnknownKeyError: there is none.
        """
        if self.relinearization is None:
            raise UnknownKeyError(f"a relinearisation key {_NEEDED}")
        return self.relinearization

    def rotation_key(self, steps: int) -> RotationKey:
        """Return the key for rotations by `steps` slots.

        Raises:
            UnknownKeyError: there is none.
        """
        key = self.rotations.get(rotation_element(self.engine.params.log_n, steps))
        if key is None:
            raise UnknownKeyError(f"a Galois key for rotations by {steps} slots {_NEEDED}")
        return key

    def evaluator(self, circuit: Circuit) -> NativeEvaluator:
        """Make the evaluator of one circuit, its constants encoded in the engine that all share."""
        from tacit.runtime.backends.native import NativeEvaluator

        self.engine.prepare(circuit)
        return NativeEvaluator(self)

    def ciphertext(self, received: Ciphertext) -> NativeCiphertext:
        """Take a checked ciphertext in.

        Raises:
            KeyMismatchError: it belongs to other keys.
            ParameterMismatchError: it has other limbs than its level.
        """
        if received.key_id != self.key_id:
            raise KeyMismatchError("encrypted under another key set: use the keys of this session")
        expected = (2, received.level + 1, self.engine.params.n)
        if received.limbs.shape != expected or received.level > self.engine.params.depth:
            raise ParameterMismatchError(f"limbs of shape {expected} expected")
        limbs = np.ascontiguousarray(received.limbs, dtype=np.uint64)
        return NativeCiphertext(limbs, received.level, received.degree)

    def frame(self, result: NativeCiphertext) -> Ciphertext:
        """Give a result back in the wire format's terms."""
        params = self.engine.params
        return Ciphertext(
            result.limbs,
            result.level,
            result.degree,
            self.engine.scales[result.level] ** result.degree,
            params.slots,
            params.digest,
            self.key_id,
        )


def load_keys(engine: NativeEngine, key_id: bytes, keys: Iterable[EvaluationKey]) -> NativeKeys:
    """Take checked evaluation keys in; their limbs are not copied if they are contiguous.

    Raises:
        ParameterMismatchError: a key of another shape than the parameters'.
    """
    params = engine.params
    shape = (2, params.dnum, len(engine.ring.moduli), params.n)
    relinearization: Limbs | None = None
    rotations: dict[int, RotationKey] = {}
    for key in keys:
        if key.limbs.shape != shape:
            raise ParameterMismatchError(f"a key of shape {shape} expected, got {key.limbs.shape}")
        limbs = np.ascontiguousarray(key.limbs, dtype=np.uint64)
        if key.kind is KeyKind.RELINEARIZATION:
            relinearization = limbs
        else:
            moved = automorphism(engine.ring, key.galois_element)
            rotations[key.galois_element] = RotationKey(limbs, moved)
    return NativeKeys(engine, key_id, relinearization, rotations)


_NEEDED = "is needed and was not given: upload the keys that the model's signature asks for"
