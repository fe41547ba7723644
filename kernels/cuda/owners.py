"""Who owns a device's memory and stream: the driver, or torch where a program uses both.

Kernels get addresses either way. With torch as owner, blocks are tensors of its caching allocator:
both share what is free, a torch stream orders all work, and tensors go in and out without a copy.
"""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from tacit.errors import InternalError, OutOfMemoryError, UnusableEnvironmentError
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.memory import Block, DeviceArray

if TYPE_CHECKING:
    import torch


class Owner(Protocol):
    """Memory and a stream of one device."""

    @property
    def stream(self) -> int:
        """Handle of the stream that kernels are put into."""
        ...

    def allocate(self, nbytes: int) -> int:
        """Return the address of new memory.

        Raises:
            OutOfMemoryError: there is not as much.
        """
        ...

    def free(self, address: int) -> None:
        """Give memory back, in the order of the stream."""
        ...

    def close(self) -> None:
        """Give the stream back."""
        ...


class DriverOwner:
    """Memory and a stream of the driver's; its context must be current."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.stream = driver.place("cuStreamCreate", 1)

    def allocate(self, nbytes: int) -> int:
        """Allocate; see `Owner`."""
        made = ctypes.c_uint64()
        self._driver.call("cuMemAlloc_v2", ctypes.byref(made), nbytes)
        return made.value

    def free(self, address: int) -> None:
        """Give memory back."""
        self._driver.call("cuMemFree_v2", address)

    def close(self) -> None:
        """Give the stream back."""
        self._driver.call("cuStreamDestroy_v2", self.stream)


class TorchOwner:
    """Memory of torch's caching allocator, and one of its streams.

    Args:
        device: of the tensors: "cuda:0"; tests take "cpu", with a stream of their own.
        stream: to use in place of a new torch stream.

    Raises:
        UnusableEnvironmentError: torch is not installed, or does not see the device.
    """

    def __init__(self, device: str = "cuda:0", stream: int | None = None) -> None:
        if find_spec("torch") is None:
            raise UnusableEnvironmentError("torch is not installed: install the extra `gpu`")
        import torch

        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UnusableEnvironmentError(f"torch does not see the device {device}")
        self._torch: Any = torch
        self._device = device
        self._made = torch.cuda.Stream(device) if stream is None else None
        self.stream = self._made.cuda_stream if self._made is not None else int(stream or 0)
        self._tensors: dict[int, torch.Tensor] = {}

    def allocate(self, nbytes: int) -> int:
        """Make a tensor; torch orders its reuse by the stream that is current then."""
        try:
            with self._torch.cuda.stream(self._made):
                made = self._torch.empty(nbytes, dtype=self._torch.uint8, device=self._device)
        except (self._torch.OutOfMemoryError, MemoryError) as error:
            raise OutOfMemoryError(
                f"torch has no {nbytes} bytes of device memory: lower the batch size"
            ) from error
        self._tensors[made.data_ptr()] = made
        return int(made.data_ptr())

    def free(self, address: int) -> None:
        """Let a tensor go."""
        del self._tensors[address]

    def close(self) -> None:
        """Nothing to do: torch keeps its streams."""

    def tensor(self, a: DeviceArray) -> torch.Tensor:
        """Return an array as a tensor of int64 (the same bits) in the same memory.

        It is valid as long as the array is; wait for the stream, or use it in the stream.

        Raises:
            InternalError: its memory is not torch's.
        """
        whole = self._tensors.get(a.block.address)
        if whole is None:
            raise InternalError("this array does not lie in memory of torch")
        offset = a.address - a.block.address
        words = whole[offset : offset + a.nbytes].view(self._torch.int64)
        made: torch.Tensor = words.reshape(a.shape)
        return made

    def adopt(self, tensor: torch.Tensor) -> DeviceArray:
        """Return a contiguous tensor of 64-bit integers as an array in the same memory.

        The array keeps the tensor. What computes it must be ordered before the stream's next work.

        Raises:
            InternalError: not contiguous, of another type, or of another device.
        """
        words = (self._torch.int64, self._torch.uint64)
        if tensor.dtype not in words or not tensor.is_contiguous():
            raise InternalError("a contiguous tensor of 64-bit integers expected")
        if tensor.device != self._torch.device(self._device):
            raise InternalError(f"a tensor of {self._device} expected, got one of {tensor.device}")
        held = [tensor]
        nbytes = tensor.numel() * 8
        block = Block(tensor.data_ptr(), nbytes, lambda address, size: held.clear())
        return DeviceArray(tuple(tensor.shape), block)
