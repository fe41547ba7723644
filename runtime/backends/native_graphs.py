"""A circuit's recordings on a CUDA device, one per size of a batch, made as they are needed.

The first batch of a size is evaluated operation by operation; with the second it is clear that the
size comes again, and the work is recorded. What is used least gives its memory back.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from tacit.circuit import Circuit
from tacit.errors import KeyMismatchError, OutOfMemoryError, UnknownKeyError
from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.runtime.backends.native_ciphertext import NativeCiphertext
from tacit.runtime.backends.native_keys import NativeKeys
from tacit.runtime.backends.native_recorded import RecordedCircuit

MOST_SIZES = 16


class CircuitGraphs:
    """Recordings of one circuit; may be used by several threads.

    Args:
        kernels: CUDA kernels of the circuit's parameters.
        device: of these kernels.
        circuit: what is evaluated.
        limit: sizes to keep recordings for.
    """

    def __init__(
        self,
        kernels: CudaKernels,
        device: DriverDevice,
        circuit: Circuit,
        limit: int = MOST_SIZES,
    ) -> None:
        self._kernels = kernels
        self._device = device
        self._circuit = circuit
        self._limit = limit
        self._seen: set[int] = set()
        self._refused: set[int] = set()
        self._made: OrderedDict[int, RecordedCircuit] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of batches that are recorded."""
        with self._lock:
            return tuple(self._made)

    def run(
        self, keys: Sequence[NativeKeys], inputs: Sequence[NativeCiphertext]
    ) -> list[NativeCiphertext] | None:
        """Evaluate a batch by its recording.

        Args:
            keys: of each entry.
            inputs: batches of these owners' ciphertexts.

        Returns:
            The outputs, or None if the batch is to be evaluated operation by operation.
        """
        with self._lock:  # a recording is copied to, launched and copied from by one at a time
            try:
                recorded = self._find(keys, inputs)
                return None if recorded is None else recorded.run(keys, inputs)
            except (UnknownKeyError, KeyMismatchError, OutOfMemoryError):
                # Operation by operation fewer keys are needed at once, and errors name the node.
                return None

    def close(self) -> None:
        """Give the memory of all recordings back."""
        with self._lock:
            while self._made:
                self._made.popitem()[1].close()

    def _find(
        self, keys: Sequence[NativeKeys], inputs: Sequence[NativeCiphertext]
    ) -> RecordedCircuit | None:
        size = len(keys)
        if size in self._made:
            self._made.move_to_end(size)
            return self._made[size]
        if size in self._refused or size not in self._seen:
            self._seen.add(size)
            return None
        while len(self._made) >= self._limit:
            self._made.popitem(last=False)[1].close()
        try:
            made = RecordedCircuit(self._kernels, self._device, self._circuit, keys, inputs)
        except OutOfMemoryError:  # its memory stays reserved: without a recording there may be room
            self._refused.add(size)
            return None
        self._made[size] = made
        return made
