"""Which backend answers requests, and one owner's evaluation keys loaded into it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, Protocol

from tacit import wire
from tacit.circuit import Circuit, Evaluator
from tacit.params import CryptoParams


class BackendName(str, Enum):
    """Backends that compute on ciphertexts."""

    OPENFHE = "openfhe"
    NATIVE = "native"


class LoadedKeys(Protocol):
    """One owner's evaluation keys in a backend; its ciphertexts are of a type of its own."""

    @property
    def key_id(self) -> bytes:
        """Name of the key set."""
        ...

    def ciphertext(self, received: wire.Ciphertext) -> Any:
        """Take a checked ciphertext in."""
        ...

    def frame(self, result: Any) -> wire.Ciphertext:
        """Give a result back in the wire format's terms."""
        ...

    def evaluator(self, circuit: Circuit) -> Evaluator[Any]:
        """Make the evaluator of one circuit, its constants encoded ahead if that helps."""
        ...


def load_keys(
    backend: BackendName, params: CryptoParams, key_id: bytes, keys: Iterable[wire.EvaluationKey]
) -> LoadedKeys:
    """Load checked evaluation keys into a backend.

    Raises:
        UnusableEnvironmentError: the native kernels are not compiled.
        InternalError: OpenFHE refuses what we wrote.
    """
    match backend:
        case BackendName.OPENFHE:
            from tacit.runtime.backends import openfhe_objects

            return openfhe_objects.load_keys(params, key_id, keys)
        case BackendName.NATIVE:
            from tacit.runtime.backends import native_keys
            from tacit.runtime.backends.native_engine import NativeEngine

            return native_keys.load_keys(NativeEngine(params), key_id, keys)
