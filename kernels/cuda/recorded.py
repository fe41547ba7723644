"""A function of arrays, recorded once as a CUDA graph and repeated with other inputs and keys."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tacit.errors import InternalError
from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.keys import CudaKey, CudaKeyTable
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

        tables: of keys that the function uses, side by side; by default those that it turns out
            to use.

    Attributes:
        tables: key tables; `launch` takes other keys in their place.

    Raises:
        OutOfMemoryError: its working memory, which stays reserved, does not fit.
        InternalError: the function uses other tables than the given ones.
    """

    def __init__(
        self,
        kernels: CudaKernels,
        device: DriverDevice,
        function: Function,
        inputs: Sequence[DeviceArray],
        tables: Sequence[CudaKeyTable] | None = None,
    ) -> None:
        self._kernels = kernels
        self._device = device
        self._inputs = [self._like(a) for a in inputs]
        self._fill(self._inputs, inputs)
        function(self._inputs)
        used: list[CudaKeyTable] = []
        with kernels.shelf.exclusive(), device.exclusive():
            kernels.switching.tables_noted = (threading.get_ident(), used)
            try:
                with device.capture() as graph:
                    self._outputs = list(function(self._inputs))
            finally:
                kernels.switching.tables_noted = None
        self._graph = graph
        if tables is not None and any(table not in tables for table in used):
            raise InternalError("the recorded work uses keys that are in none of its tables")
        self._together = tables is not None
        self.tables = tuple(used if tables is None else tables)

    @property
    def arena_bytes(self) -> int:
        """Bytes of device memory that stay reserved."""
        return self._graph.arena_bytes

    def forget_keys(self) -> None:
        """Let go of the example's keys: every launch brings its own from now on."""
        for table in self.tables:
            table.forget()

    def launch(
        self, inputs: Sequence[DeviceArray], keys: Sequence[Sequence[CudaKey]] | None = None
    ) -> list[DeviceArray]:
        """Repeat the work.

        Args:
            inputs: of the example's shapes.
            keys: for each of `tables` one per entry of its batch; by default those that it holds.

        Raises:
            InternalError: other shapes, or another number of keys.
            OutOfMemoryError: the keys do not fit into the device's memory for keys.
        """
        if [a.shape for a in inputs] != [a.shape for a in self._inputs]:
            raise InternalError("inputs of other shapes than those that were recorded")
        groups = [table.keys for table in self.tables] if keys is None else keys
        if [len(group) for group in groups] != [table.batch for table in self.tables]:
            raise InternalError(f"keys for {len(self.tables)} tables of the same batches expected")
        outputs = [self._like(a) for a in self._outputs]
        with self._placed(groups), self._device.exclusive():
            self._fill(self._inputs, inputs)
            self._graph.launch()
            self._fill(outputs, self._outputs)
        return outputs

    def close(self) -> None:
        """Give the memory back."""
        self._outputs = []
        self._graph.close()

    @contextmanager
    def _placed(self, groups: Sequence[Sequence[CudaKey]]) -> Iterator[None]:
        shelf = self._kernels.shelf
        with ExitStack() as stack:
            if self._together and self.tables:
                stack.enter_context(shelf.placed(self.tables, groups))
            else:  # tables of others, somewhere: one by one, under one lock
                stack.enter_context(shelf.exclusive())
                for table, group in zip(self.tables, groups, strict=True):
                    stack.enter_context(shelf.placed([table], [group]))
            yield

    def _like(self, a: DeviceArray) -> DeviceArray:
        return DeviceArray(a.shape, self._device.block(a.nbytes))

    def _fill(self, targets: Sequence[DeviceArray], sources: Sequence[DeviceArray]) -> None:
        for target, source in zip(targets, sources, strict=True):
            self._device.copy(source.address, target.address, source.nbytes)
