"""Limb kernels by the name of a device."""

from __future__ import annotations

from enum import Enum
from typing import cast

from tacit.errors import UnusableEnvironmentError
from tacit.kernels.cpu_kernels import CpuKernels
from tacit.kernels.cuda.opening import open_cuda_kernels
from tacit.kernels.limb_kernels import LimbKernels
from tacit.params import CryptoParams


class Device(str, Enum):
    """Where limbs are computed on."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"


def open_kernels(params: CryptoParams, device: Device = Device.CPU, *, threads: int) -> LimbKernels:
    """Make the limb kernels of a parameter set on a device.

    Args:
        params: the parameters.
        device: where to compute; `auto` takes the processor where CUDA cannot be used.
        threads: of the processor, that share the limbs of one operation.

    Raises:
        UnusableEnvironmentError: there are no compiled kernels; no driver, GPU or NVRTC.
        OutOfMemoryError: no memory for the tables.
    """
    match device:
        case Device.CPU:
            return CpuKernels(params, threads=threads)
        case Device.CUDA:
            return cast(LimbKernels, open_cuda_kernels(params))
        case Device.AUTO:
            try:
                return open_kernels(params, Device.CUDA, threads=threads)
            except UnusableEnvironmentError:
                return open_kernels(params, Device.CPU, threads=threads)
