"""Limb kernels by the name of a device."""

from __future__ import annotations

from enum import Enum

from tacit.kernels.cpu_kernels import CpuKernels
from tacit.kernels.limb_kernels import LimbKernels
from tacit.params import CryptoParams


class Device(str, Enum):
    """Where limbs are computed on."""

    CPU = "cpu"


def open_kernels(params: CryptoParams, device: Device = Device.CPU, *, threads: int) -> LimbKernels:
    """Make the limb kernels of a parameter set on a device.

    Args:
        params: the parameters.
        device: where to compute.
        threads: of the processor, that share the limbs of one operation.

    Raises:
        UnusableEnvironmentError: there are no compiled kernels.
        OutOfMemoryError: no memory for the tables.
    """
    match device:
        case Device.CPU:
            return CpuKernels(params, threads=threads)
