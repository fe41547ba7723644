"""A function of arrays, recorded once as a CUDA graph and repeated with other inputs and keys."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from tacit.errors import InternalError
from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.keys import CudaKeyTable
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.memory import DeviceArray

Function = Callable[[Sequence[DeviceArray]], Sequence[DeviceArray]]


class Recorded:
    """A recorded function: one launch instead of hundreds.

    The function runs twice: once so that constants, rows and kernels are on the device, once to be
    recorded. It must do the same work whenever inputs of these shapes come, and read no results.

    Args:
        kernels: that the function uses.
        device: of these kernels.
        function: arrays to arrays.
        inputs: an example.

    Attributes:
        tables: key tables in the order of their first use; `launch` takes others in their place.

    Raises:
        OutOfMemoryError: its working memory, which stays reserved, does not fit.
    """

    def __init__(
        self,
        kernels: CudaKernels,
        device: DriverDevice,
        function: Function,
        inputs: Sequence[DeviceArray],
    ) -> None:
        self._kernels = kernels
        self._device = device
        self._inputs = [self._like(a) for a in inputs]
        self._fill(self._inputs, inputs)
        function(self._inputs)
        used: list[CudaKeyTable] = []
        with device.exclusive():
            kernels.tables_noted = (threading.get_ident(), used)
            try:
                with device.capture() as graph:
                    self._outputs = list(function(self._inputs))
            finally:
                kernels.tables_noted = None
        self.tables = tuple(used)
        self._graph = graph

    @property
    def arena_bytes(self) -> int:
        """Bytes of device memory that stay reserved."""
        return self._graph.arena_bytes

    def launch(
        self, inputs: Sequence[DeviceArray], tables: Sequence[CudaKeyTable] | None = None
    ) -> list[DeviceArray]:
        """Repeat the work.

        Args:
            inputs: of the example's shapes.
            tables: of the same batch sizes and keys' shapes as `tables`; by default those.

        Raises:
            InternalError: other shapes, or another number of tables.
            OutOfMemoryError: the keys do not fit into the device's memory for keys.
        """
        used = self.tables if tables is None else tables
        if [a.shape for a in inputs] != [a.shape for a in self._inputs]:
            raise InternalError("inputs of other shapes than those that were recorded")
        if [_form(table) for table in used] != [_form(table) for table in self.tables]:
            raise InternalError(
                f"{len(self.tables)} key tables of the same batches and shapes expected"
            )
        outputs = [self._like(a) for a in self._outputs]
        with self._device.exclusive(), self._kernels.shelf.held([*self.tables, *used]):
            self._fill(self._inputs, inputs)
            kept = [self._saved(mine, other) for mine, other in zip(self.tables, used, strict=True)]
            self._graph.launch()
            for mine, saved in zip(self.tables, kept, strict=True):
                if saved is not None:
                    self._device.copy(saved.address, mine.block.address, 8 * mine.batch)
            self._fill(outputs, self._outputs)
        return outputs

    def close(self) -> None:
        """Give the memory back."""
        self._outputs = []
        self._graph.close()

    def _saved(self, mine: CudaKeyTable, other: CudaKeyTable) -> DeviceArray | None:
        """Put the addresses of another table into the recorded one; return what was there."""
        if mine is other:
            return None
        saved = DeviceArray((mine.batch,), self._device.block(8 * mine.batch))
        self._device.copy(mine.block.address, saved.address, 8 * mine.batch)
        self._device.copy(other.block.address, mine.block.address, 8 * mine.batch)
        return saved

    def _like(self, a: DeviceArray) -> DeviceArray:
        return DeviceArray(a.shape, self._device.block(a.nbytes))

    def _fill(self, targets: Sequence[DeviceArray], sources: Sequence[DeviceArray]) -> None:
        for target, source in zip(targets, sources, strict=True):
            self._device.copy(source.address, target.address, source.nbytes)


def _form(table: CudaKeyTable) -> tuple[int, int, int]:
    """Return what the recorded work takes for granted of a table."""
    return table.batch, table.digits, table.rows
