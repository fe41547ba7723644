"""CUDA kernels for a parameter set, from whatever the machine has."""

from __future__ import annotations

from pathlib import Path

from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.image import cubin, default_cache
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.owners import Owner
from tacit.params import CryptoParams


def open_device(
    *, ordinal: int = 0, memory_bytes: int | None = None, owner: Owner | None = None
) -> DriverDevice:
    """Open a CUDA device of this machine.

    Args:
        ordinal: which one.
        memory_bytes: the most of its memory to use; by default all that is free but half a GiB.
        owner: of memory and stream; by default the driver, `TorchOwner` where torch is in use.

    Raises:
        UnusableEnvironmentError: no driver, too old a driver, or no such device.
    """
    return DriverDevice(Driver(), ordinal=ordinal, memory_bytes=memory_bytes, owner=owner)


def open_cuda_kernels(
    params: CryptoParams, device: DriverDevice | None = None, *, cache: Path | None = None
) -> CudaKernels:
    """Make the limb kernels of a parameter set on a CUDA device; compiles them on first use.

    Args:
        params: the parameters.
        device: by default the first of this machine.
        cache: folder of compiled kernels; by default the user's.

    Raises:
        UnusableEnvironmentError: no driver, no device, or no NVRTC that knows it.
        OutOfMemoryError: the tables do not fit into the device's memory.
        ParameterError: the ring is too small or too large.
    """
    device = open_device() if device is None else device
    abilities = device.abilities
    image = cubin(
        params.log_n,
        abilities.compute,
        doubles=abilities.doubles,
        cache=default_cache() if cache is None else cache,
    )
    return CudaKernels(params, device, image)
