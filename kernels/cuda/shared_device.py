"""The one device of a process: its memory, the keys on it, and kernels per parameter set."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from weakref import WeakValueDictionary

from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.keys import KeyShelf
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.owners import Owner
from tacit.kernels.cuda.toolchain import Nvidia, Toolchain
from tacit.params import CryptoParams


@dataclass(frozen=True, slots=True)
class DeviceBudget:
    """How much of a device's memory to use.

    Attributes:
        memory_bytes: in all; 0 for all that is free but half a GiB.
        key_bytes: for switching keys; 0 for half of it.
        ordinal: which device.
    """

    memory_bytes: int = 0
    key_bytes: int = 0
    ordinal: int = 0


_WHOLE = DeviceBudget()


class SharedDevice:
    """A device that several parameter sets use; may be used by several threads.

    Args:
        toolchain: driver and kernels; by default NVIDIA's.
        budget: of memory.
        owner: of memory and stream; by default the driver.

    Raises:
        UnusableEnvironmentError: no driver, too old a driver, or no such device.
        OutOfMemoryError: the device has no room for anything.
    """

    def __init__(
        self,
        toolchain: Toolchain | None = None,
        budget: DeviceBudget = _WHOLE,
        owner: Owner | None = None,
    ) -> None:
        self._toolchain = Nvidia() if toolchain is None else toolchain
        self._toolchain.check_compiler()
        self.device = DriverDevice(
            self._toolchain.driver(),
            ordinal=budget.ordinal,
            memory_bytes=budget.memory_bytes or None,
            owner=owner,
        )
        self.limit_bytes = self.device.pool.limit_bytes
        self.shelf = KeyShelf(self.device, budget.key_bytes or self.limit_bytes // 2)
        self._kernels: WeakValueDictionary[bytes, CudaKernels] = WeakValueDictionary()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The device, for reports."""
        return f"cuda: {self.device.abilities.name}"

    @property
    def used_bytes(self) -> int:
        """Bytes of device memory in use or kept for the next results."""
        return self.device.pool.used_bytes + self.device.kept_bytes

    def kernels(self, params: CryptoParams) -> CudaKernels:
        """Return the kernels of a parameter set, the same for all who hold them.

        Raises:
            UnusableEnvironmentError: no NVRTC that knows the device.
            OutOfMemoryError: the tables do not fit.
            ParameterError: the ring is too small or too large.
        """
        with self._lock:
            found = self._kernels.get(params.digest)
            if found is None:
                image = self._toolchain.image_for(params.log_n, self.device.abilities)
                found = CudaKernels(params, self.device, image, shelf=self.shelf)
                self._kernels[params.digest] = found
            return found


def check(toolchain: Toolchain | None = None) -> str:
    """Look whether CUDA can be used here, without taking any of the device's memory.

    Returns:
        What was found: the version of CUDA that the driver knows.

    Raises:
        UnusableEnvironmentError: no driver, too old a driver, no device, or no NVRTC.
    """
    toolchain = Nvidia() if toolchain is None else toolchain
    version = toolchain.driver().version
    toolchain.check_compiler()
    return f"a driver for CUDA {version // 1000}.{version % 1000 // 10}"
