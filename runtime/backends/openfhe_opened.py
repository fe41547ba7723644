"""OpenFHE as a backend of the runtime: one evaluation at a time, one key owner per process."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tacit import wire
from tacit.circuit import Circuit, Evaluator
from tacit.errors import InternalError
from tacit.params import CryptoParams
from tacit.runtime.backends import openfhe_objects
from tacit.runtime.backends.loading import BackendMemory, Encrypted, LoadedKeys
from tacit.runtime.backends.openfhe import DEFAULT_PLAINTEXT_BYTES, OpenFHEEvaluator
from tacit.runtime.backends.openfhe_objects import OpenFHEKeys
from tacit.runtime.backends.openfhe_plaintexts import PlaintextBudget


@dataclass(slots=True, eq=False)
class OpenFHECircuit:
    """A circuit; its constants are encoded per key owner, by the owner's context."""

    circuit: Circuit
    made: dict[bytes, OpenFHEEvaluator] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def evaluator(self, owners: Sequence[LoadedKeys]) -> Evaluator[Encrypted]:
        """Return the evaluator of the one owner; see `BoundCircuit`."""
        (keys,) = owners
        if not isinstance(keys, OpenFHEKeys):
            raise InternalError("keys of another backend")
        with self.lock:
            if keys.key_id not in self.made:
                self.made[keys.key_id] = keys.evaluator(self.circuit)
            return self.made[keys.key_id]

    def at_once(self, owners: Sequence[LoadedKeys], inputs: Sequence[Encrypted]) -> None:
        """Return nothing: OpenFHE computes operation by operation."""


class OpenFHEBackend:
    """OpenFHE behind the `Backend` protocol.

    Args:
        constant_bytes: how much memory encoded constants may take; None for the default.
    """

    joins = False
    spreads = True

    def __init__(self, constant_bytes: int | None = None) -> None:
        limit = DEFAULT_PLAINTEXT_BYTES if constant_bytes is None else constant_bytes
        self._budget = PlaintextBudget(limit)

    def load_keys(
        self, params: CryptoParams, key_id: bytes, keys: Iterable[wire.EvaluationKey]
    ) -> LoadedKeys:
        """Load keys into OpenFHE's tables; see `Backend`."""
        return openfhe_objects.load_keys(params, key_id, keys, self._budget)

    def bind(self, params: CryptoParams, circuit: Circuit) -> OpenFHECircuit:
        """Remember a circuit; constants are encoded with the first evaluator."""
        return OpenFHECircuit(circuit)

    def join(self, parts: Sequence[Encrypted]) -> Encrypted:
        """Return the only part: OpenFHE has no batches."""
        (part,) = parts
        return part

    def split(self, joined: Encrypted) -> Sequence[Encrypted]:
        """Return the only part."""
        return [joined]

    def memory(self) -> BackendMemory:
        """Count encoded constants; OpenFHE keeps no arrays for reuse that it could tell of."""
        return BackendMemory(self._budget.used_bytes)
