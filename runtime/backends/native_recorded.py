"""A circuit recorded as a CUDA graph for one batch size: one launch instead of hundreds.

Ciphertexts and keys change from run to run: inputs are copied to places that the graph knows, and
keys are found through tables in device memory, whose addresses are exchanged before each launch.
"""

from __future__ import annotations

from collections.abc import Sequence

from tacit.circuit import Circuit, execute
from tacit.errors import CircuitError, InternalError
from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.keys import CudaKeyTable
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.memory import DeviceArray
from tacit.kernels.cuda.recorded import Recorded
from tacit.key_levels import circuit_key_levels
from tacit.runtime.backends.native_ciphertext import NativeCiphertext
from tacit.runtime.backends.native_key_tables import KeyTables
from tacit.runtime.backends.native_keys import NativeKeys, evaluator_for


class RecordedCircuit:
    """A circuit on a CUDA device, recorded; may be used by several threads.

    Args:
        kernels: CUDA kernels, those of the keys' engine.
        device: of these kernels.
        circuit: what to run.
        keys: of each entry of the batch; another batch of the same size may bring others.
        inputs: an example, of levels and degrees as they will come.

    Raises:
        CircuitError: it bootstraps: raising the modulus needs the host in between.
        UnknownKeyError: a key is missing.
        OutOfMemoryError: working memory or keys do not fit.
    """

    def __init__(
        self,
        kernels: CudaKernels,
        device: DriverDevice,
        circuit: Circuit,
        keys: Sequence[NativeKeys],
        inputs: Sequence[NativeCiphertext],
    ) -> None:
        if circuit.bootstraps:
            raise CircuitError("a circuit that bootstraps cannot be recorded: run it as it is")
        self._uses = circuit_key_levels(circuit, keys[0].engine.params)
        self._kernels = kernels
        self._batch = len(keys)
        owners = tuple(client.key_id for client in keys)
        evaluator = evaluator_for(keys, circuit)
        types = [a.type for a in inputs]

        def run(arrays: Sequence[DeviceArray]) -> Sequence[DeviceArray]:
            wrapped = [
                NativeCiphertext(inputs[0].kernels, a, at.level, at.degree, owners)
                for a, at in zip(arrays, types, strict=True)
            ]
            made = execute(circuit, wrapped, evaluator)
            self._types = [output.type for output in made]
            return [output.limbs for output in made]  # type: ignore[misc]

        example = [a.limbs for a in inputs]
        self._recorded = Recorded(kernels, device, run, example)  # type: ignore[arg-type]
        names = self._tables(evaluator._keys)
        places = {id(table): name for name, table in names.items()}
        self._used = [places[id(table)] for table in self._recorded.tables]

    def run(
        self, keys: Sequence[NativeKeys], inputs: Sequence[NativeCiphertext]
    ) -> list[NativeCiphertext]:
        """Evaluate the circuit on a batch.

        Args:
            keys: of each entry.
            inputs: batches of these owners' ciphertexts.

        Raises:
            InternalError: another batch size, or ciphertexts of others.
            UnknownKeyError: a key is missing.
        """
        owners = tuple(client.key_id for client in keys)
        if len(keys) != self._batch or any(a.owners != owners for a in inputs):
            raise InternalError(f"a batch of {self._batch} expected, of the owners of its keys")
        tables = self._tables(KeyTables(keys))
        arrays = [a.limbs for a in inputs]
        outputs = self._recorded.launch(arrays, [tables[name] for name in self._used])  # type: ignore[arg-type]
        return [
            NativeCiphertext(inputs[0].kernels, limbs, at.level, at.degree, owners)
            for limbs, at in zip(outputs, self._types, strict=True)
        ]

    def close(self) -> None:
        """Give the reserved memory back."""
        self._recorded.close()

    def _tables(self, keys: KeyTables) -> dict[int, CudaKeyTable]:
        """Return the tables of all keys that the circuit may need, by steps; 0 relinearises."""
        made = {
            steps: keys.rotation(steps, self._batch, level).table
            for steps, level in sorted(self._uses.rotations.items())
        }
        if self._uses.relinearization is not None:
            made[0] = keys.relinearization(self._batch, self._uses.relinearization).table
        return made  # type: ignore[return-value]
