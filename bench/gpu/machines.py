"""Where the benchmark runs: a GPU, or fibres for a rehearsal."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Protocol

from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.image import Nvrtc, compile_options, default_cache, sources
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.opening import open_cuda_kernels, open_device
from tacit.kernels.cuda.shim import Shim
from tacit.params import CryptoParams

RATES = Path(__file__).parent / "rates.cu"
RATES_RING = 10  # any: the kernels of rates.cu do not depend on it


class Machine(Protocol):
    """A device and how kernels get there."""

    @property
    def device(self) -> DriverDevice:
        """The device."""
        ...

    def kernels(self, params: CryptoParams) -> CudaKernels:
        """Make kernels."""
        ...

    def load_rates(self) -> int:
        """Load rates.cu; return the number to launch its kernels under."""
        ...

    def hardware(self) -> dict[str, Any]:
        """Describe the device."""
        ...


class Gpu:
    """The first CUDA device of this machine."""

    def __init__(self) -> None:
        self.device = open_device()
        self._made: dict[bytes, CudaKernels] = {}

    def kernels(self, params: CryptoParams) -> CudaKernels:
        """Make kernels once per parameter set; only those of the last set keep their memory."""
        if params.digest not in self._made:
            self._made.clear()
            self.device.pool.trim()
            self._made[params.digest] = open_cuda_kernels(params, self.device)
        return self._made[params.digest]

    def load_rates(self) -> int:
        """Compile and load rates.cu."""
        files = {**sources(), "kernels.cu": RATES.read_bytes()}
        abilities = self.device.abilities
        options = compile_options(RATES_RING, abilities.compute, abilities.doubles)
        self.device.load(-1, Nvrtc().compile(files, options, abilities.compute))
        return -1

    def hardware(self) -> dict[str, Any]:
        """Name the GPU."""
        abilities = self.device.abilities
        return {
            "gpu": abilities.name,
            "compute": abilities.compute,
            "multiprocessors": abilities.multiprocessors,
            "driver": self.device.driver_version,
            "cache": str(default_cache()),
        }


class Fibres:
    """The same launches, simulated."""

    def __init__(self) -> None:
        self._shim = Shim(Path(tempfile.gettempdir()) / "tacit-cuda-shim")
        self.device = DriverDevice(self._shim.driver())

    def kernels(self, params: CryptoParams) -> CudaKernels:
        """Make kernels."""
        return CudaKernels(params, self.device, self._shim.image(params.log_n))

    def load_rates(self) -> int:
        """Compile and load rates.cu."""
        self.device.load(-1, self._shim.image_of(RATES, RATES_RING))
        return -1

    def hardware(self) -> dict[str, Any]:
        """Say that nothing was measured on a GPU."""
        return {"gpu": "none: fibres on a processor"}
