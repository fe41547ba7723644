"""Which backend computes on ciphertexts, and what the runtime asks of it.

`native` is the default where its kernels were compiled, `openfhe` everywhere else. Nothing here
imports either: `open_backend` loads the one that was chosen.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from tacit import wire
from tacit.circuit import Circuit, Evaluator
from tacit.errors import UnusableEnvironmentError
from tacit.kernels import library
from tacit.params import CryptoParams

if TYPE_CHECKING:
    from tacit.kernels.cuda.shared_device import SharedDevice

# A backend's ciphertext type; only the backend names it, so that nothing here imports openfhe.
Encrypted = Any
_ADVICE = (
    "install a wheel that was built with a C++ compiler, or install g++ and run "
    "`python -m tacit.kernels.build`"
)


class BackendName(str, Enum):
    """Backends that compute on ciphertexts."""

    OPENFHE = "openfhe"
    NATIVE = "native"


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """The backend that computes, and why it and no other.

    Attributes:
        name: the backend.
        reason: why it was chosen, for people.
        warning: what is missing and what to do about it; empty if nothing is.
    """

    name: BackendName
    reason: str
    warning: str = ""


class LoadedKeys(Protocol):
    """One owner's evaluation keys in a backend; its ciphertexts are of a type of its own."""

    @property
    def key_id(self) -> bytes:
        """Name of the key set."""
        ...

    @property
    def size_bytes(self) -> int:
        """Bytes of all keys."""
        ...

    def ciphertext(self, received: wire.Ciphertext) -> Encrypted:
        """Take a checked ciphertext in."""
        ...

    def frame(self, result: Encrypted) -> wire.Ciphertext:
        """Give a result back in the wire format's terms."""
        ...


class BoundCircuit(Protocol):
    """A circuit whose constants a backend has encoded, for every owner it knows."""

    def evaluator(self, owners: Sequence[LoadedKeys]) -> Evaluator[Encrypted]:
        """Make the evaluator of a batch; `owners` has one entry per evaluation in it."""
        ...

    def at_once(
        self, owners: Sequence[LoadedKeys], inputs: Sequence[Encrypted]
    ) -> Sequence[Encrypted] | None:
        """Evaluate the whole circuit in one step, on backends that can; None where they cannot."""
        ...


@dataclass(frozen=True, slots=True)
class BackendMemory:
    """Bytes a backend holds beside the keys: encoded constants, and arrays kept for reuse."""

    constants: int = 0
    pool: int = 0


class Backend(Protocol):
    """What computes on ciphertexts, one per process; may be used by several threads.

    Attributes:
        joins: whether several evaluations can be computed as one batch.
        spreads: whether several threads evaluate faster than one with larger batches.
    """

    joins: bool
    spreads: bool

    def load_keys(
        self, params: CryptoParams, key_id: bytes, keys: Iterable[wire.EvaluationKey]
    ) -> LoadedKeys:
        """Load checked evaluation keys.

        Raises:
            InternalError: OpenFHE refuses what we wrote.
        """
        ...

    def bind(self, params: CryptoParams, circuit: Circuit) -> BoundCircuit:
        """Prepare a circuit, its constants encoded ahead if that helps."""
        ...

    def join(self, parts: Sequence[Encrypted]) -> Encrypted:
        """Join ciphertexts of equal type into one batch."""
        ...

    def split(self, joined: Encrypted) -> Sequence[Encrypted]:
        """Take a batch apart."""
        ...

    def memory(self) -> BackendMemory:
        """Count what is held."""
        ...


def choose_backend(wanted: BackendName | None = None) -> BackendChoice:
    """Choose the backend for this machine.

    Args:
        wanted: None takes `native` if its kernels load, else `openfhe`.

    Raises:
        UnusableEnvironmentError: the wanted backend cannot be used, or none can.
    """
    if wanted is BackendName.OPENFHE:
        _require_openfhe("")
        return BackendChoice(wanted, "it was asked for")
    try:
        library.load()
    except UnusableEnvironmentError as error:
        missing = str(error).partition(":")[0]
        if wanted is BackendName.NATIVE:
            raise UnusableEnvironmentError(
                f"the native backend was asked for, but {_sentence(missing)}: {_ADVICE}, "
                "or choose the backend `openfhe`"
            ) from error
        warning = f"{_sentence(missing)}, so OpenFHE computes, several times slower: {_ADVICE}"
        _require_openfhe(f"{_sentence(missing)} ({_ADVICE}), and ")
        return BackendChoice(BackendName.OPENFHE, _sentence(missing), warning)
    asked = "it was asked for" if wanted else "its compiled kernels load"
    return BackendChoice(BackendName.NATIVE, asked)


def open_backend(
    name: BackendName,
    *,
    threads: int = 1,
    constant_bytes: int | None = None,
    cuda: SharedDevice | None = None,
) -> Backend:
    """Load a backend.

    Args:
        name: from `choose_backend`.
        threads: of one operation, where the backend can share one.
        constant_bytes: how much memory encoded constants may take; None for its default.
        cuda: the device that the native backend computes on; None for the processor.

    Raises:
        UnusableEnvironmentError: the native kernels are not compiled.
    """
    if name is BackendName.OPENFHE:
        from tacit.runtime.backends.openfhe_opened import OpenFHEBackend

        return OpenFHEBackend(constant_bytes)
    from tacit.runtime.backends.native_opened import NativeBackend

    return NativeBackend(threads, constant_bytes, cuda)


def _require_openfhe(missing: str) -> None:
    if importlib.util.find_spec("openfhe") is None:
        raise UnusableEnvironmentError(
            f"{missing}the package `openfhe` is not installed: `tacit doctor` says which one fits"
        )


def _sentence(missing: str) -> str:
    """Turn the loader's words into a clause."""
    return "there are no compiled kernels" if missing.startswith("no ") else missing
