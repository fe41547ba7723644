"""The native engine as a backend of the runtime."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tacit import wire
from tacit.circuit import Circuit
from tacit.errors import InternalError
from tacit.kernels.cuda.shared_device import SharedDevice
from tacit.kernels.devices import Device
from tacit.params import CryptoParams
from tacit.runtime.backends import native_keys
from tacit.runtime.backends.loading import BackendMemory, LoadedKeys
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_ciphertext import NativeCiphertext, join, split
from tacit.runtime.backends.native_engine import DEFAULT_CACHE_BYTES, NativeEngine
from tacit.runtime.backends.native_graphs import CircuitGraphs
from tacit.runtime.backends.native_keys import NativeKeys
from tacit.runtime.backends.native_shelf import EngineShelf


@dataclass(frozen=True, slots=True, eq=False)
class NativeCircuit:
    """A circuit whose constants an engine has encoded."""

    engine: NativeEngine
    graphs: CircuitGraphs | None = None

    def evaluator(self, owners: Sequence[LoadedKeys]) -> NativeEvaluator:
        """Make the evaluator of a batch, one owner per entry.

        Raises:
            InternalError: keys of another backend.
            KeyMismatchError: no keys, or of other parameters.
        """
        return NativeEvaluator(self._keys(owners))

    def at_once(
        self, owners: Sequence[LoadedKeys], inputs: Sequence[NativeCiphertext]
    ) -> Sequence[NativeCiphertext] | None:
        """Repeat the circuit as it was recorded for a batch of this size, on a CUDA device.

        Raises:
            InternalError: keys of another backend.
            UnknownKeyError: a key is missing.
            OutOfMemoryError: the keys do not fit into the device's memory for keys.
        """
        if self.graphs is None:
            return None
        return self.graphs.run(self._keys(owners), inputs)

    def _keys(self, owners: Sequence[LoadedKeys]) -> list[NativeKeys]:
        keys = [owner for owner in owners if isinstance(owner, NativeKeys)]
        if len(keys) != len(owners) or any(owner.engine is not self.engine for owner in keys):
            raise InternalError("keys that this engine loaded expected")
        return keys


class NativeBackend:
    """Engines shared by all key owners of a process.

    Args:
        threads: share the limbs of one operation.
        constant_bytes: how much memory the encoded constants of one parameter set may take; on a
            device a quarter of its memory, if that is more.
        cuda: the device to compute on; None for the processor.
    """

    joins = True

    def __init__(
        self, threads: int, constant_bytes: int | None, cuda: SharedDevice | None = None
    ) -> None:
        limit = DEFAULT_CACHE_BYTES if constant_bytes is None else constant_bytes
        if cuda is not None:
            limit = max(limit, cuda.limit_bytes // 4)
        self.spreads = cuda is None
        self._cuda = cuda
        self._shelf = EngineShelf(cache_bytes=limit, cuda=cuda)
        self._threads = threads

    def load_keys(
        self, params: CryptoParams, key_id: bytes, keys: Iterable[wire.EvaluationKey]
    ) -> NativeKeys:
        """Load checked evaluation keys."""
        return native_keys.load_keys(self._engine(params), key_id, keys)

    def bind(self, params: CryptoParams, circuit: Circuit) -> NativeCircuit:
        """Encode a circuit's constants."""
        engine = self._engine(params)
        engine.prepare(circuit)
        if self._cuda is None:
            return NativeCircuit(engine)
        kernels = self._cuda.kernels(params)
        return NativeCircuit(engine, CircuitGraphs(kernels, self._cuda.device, circuit))

    def join(self, parts: Sequence[NativeCiphertext]) -> NativeCiphertext:
        """Join ciphertexts of equal type into one batch."""
        return join(parts)

    def split(self, joined: NativeCiphertext) -> list[NativeCiphertext]:
        """Take a batch apart."""
        return split(joined)

    def memory(self) -> BackendMemory:
        """Count encoded constants and memory kept for results."""
        engines = self._shelf.engines()
        return BackendMemory(
            sum(engine.plaintexts.used_bytes for engine in engines),
            sum(engine.kernels.kept_bytes for engine in engines),
        )

    def _engine(self, params: CryptoParams) -> NativeEngine:
        device = Device.CPU if self._cuda is None else Device.CUDA
        return self._shelf.shared_engine(params, threads=self._threads, device=device)
