"""A circuit recorded as a CUDA graph for one batch size: one launch instead of hundreds.

Ciphertexts and keys change from run to run: inputs are copied to places that the graph knows, and
keys are found through tables in device memory, whose addresses are exchanged before each launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from tacit.circuit import Circuit, execute
from tacit.errors import InternalError, KeyMismatchError
from tacit.kernels.automorphism import rotation_element
from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.keys import CudaKey
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.memory import DeviceArray
from tacit.kernels.cuda.recorded import Recorded
from tacit.kernels.limb_kernels import KeyTable, LimbArray
from tacit.key_levels import circuit_key_levels
from tacit.params import CryptoParams
from tacit.runtime.backends.native_ciphertext import NativeCiphertext
from tacit.runtime.backends.native_key_tables import FROM_SPARSE, TO_SPARSE, KeyTables
from tacit.runtime.backends.native_keys import NativeKeys, SwitchKeys, evaluator_for


class RecordedCircuit:
    """A circuit on a CUDA device, recorded; may be used by several threads.

    Args:
        kernels: CUDA kernels, those of the keys' engine.
        device: of these kernels.
        circuit: what to run.
        keys: of each entry of the batch; another batch of the same size may bring others.
        inputs: an example, of levels and degrees as they will come.

    Raises:
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
        self._batch = len(keys)
        owners = tuple(client.key_id for client in keys)
        evaluator = evaluator_for(keys, circuit)
        self._uses = _uses(circuit, keys[0].engine.params)
        groups = self._keys(keys)
        self._shapes = [group[0].shape for group in groups]
        tables, first = kernels.shelf.tables(groups), keys[0]
        found = {
            (element, self._batch): SwitchKeys(
                cast(KeyTable, table),
                first.engine.galois(max(element, 1)),
                1 if element == TO_SPARSE else first.limbs(group[0]),
            )
            for (element, _), table, group in zip(self._uses, tables, groups, strict=True)
        }
        evaluator._keys = KeyTables(keys, found)
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
        self._recorded = Recorded(kernels, device, run, example, tables)  # type: ignore[arg-type]
        self._recorded.forget_keys()

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
            KeyMismatchError: keys are trimmed in another way than those of the recording.
        """
        owners = tuple(client.key_id for client in keys)
        if len(keys) != self._batch or any(a.owners != owners for a in inputs):
            raise InternalError(f"a batch of {self._batch} expected, of the owners of its keys")
        groups = self._keys(keys)
        if any(
            key.shape != shape
            for group, shape in zip(groups, self._shapes, strict=True)
            for key in group
        ):
            raise KeyMismatchError("keys trimmed as those of the recording expected")
        outputs = self._recorded.launch([a.limbs for a in inputs], groups)  # type: ignore[misc]
        return [
            NativeCiphertext(inputs[0].kernels, limbs, at.level, at.degree, owners)
            for limbs, at in zip(outputs, self._types, strict=True)
        ]

    def close(self) -> None:
        """Give the reserved memory back."""
        self._recorded.close()

    def _keys(self, clients: Sequence[NativeKeys]) -> list[list[CudaKey]]:
        """Return, for each key that the circuit may need, that of every entry."""
        return [[cast(CudaKey, _key(client, *use)) for client in clients] for use in self._uses]


def _uses(circuit: Circuit, params: CryptoParams) -> list[tuple[int, int]]:
    """Return Galois elements and the highest level of their keys; 1 relinearises."""
    levels, log_n = circuit_key_levels(circuit, params), params.log_n
    made = [(rotation_element(log_n, steps), at) for steps, at in levels.rotations.items()]
    others = ((1, levels.relinearization), (2 * params.n - 1, levels.conjugation))
    made += [(element, at) for element, at in others if at is not None]
    if levels.from_sparse is not None:
        made += [(FROM_SPARSE, levels.from_sparse), (TO_SPARSE, 0)]
    return sorted(made)


def _key(client: NativeKeys, element: int, level: int) -> LimbArray:
    if element == 1:
        return client.relinearization_key(level)
    if element in (FROM_SPARSE, TO_SPARSE):
        return client.sparse_keys(level)[int(element == FROM_SPARSE)]
    return client.galois_key(element, level)
