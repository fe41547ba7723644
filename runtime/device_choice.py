"""Where ciphertexts are computed on: the processor or a CUDA device, and why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from tacit.errors import UnusableEnvironmentError
from tacit.kernels.cuda.shared_device import check
from tacit.kernels.devices import Device
from tacit.runtime.backends.loading import BackendName

_CHECK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """The device that workers are told to use, and why it and no other.

    Attributes:
        device: `cuda` and `auto` name a device that was found; `cpu` the processor.
        reason: why it was chosen, for people.
        warning: what is missing and what to do about it; empty if nothing is.
    """

    device: Device
    reason: str
    warning: str = ""


def choose_device(
    wanted: Device, backend: BackendName, look: Callable[[], str] = check
) -> DeviceChoice:
    """Choose where to compute.

    Args:
        wanted: `auto` takes a CUDA device where one can be used, else the processor.
        backend: what computes; only the native backend knows devices.
        look: returns what was found of CUDA, or raises.

    Raises:
        UnusableEnvironmentError: CUDA was asked for and cannot be used.
    """
    if wanted is Device.CPU:
        return DeviceChoice(wanted, "the processor computes unless a device is asked for")
    if backend is not BackendName.NATIVE:
        missing = f"the backend `{backend.value}` computes on the processor only"
        if wanted is Device.CUDA:
            raise UnusableEnvironmentError(f"{missing}: choose the backend `native`")
        return DeviceChoice(Device.CPU, missing)
    try:
        return DeviceChoice(wanted, f"there is {look()}")
    except UnusableEnvironmentError as error:
        if wanted is Device.CUDA:
            raise UnusableEnvironmentError(f"the device `cuda` was asked for: {error}") from error
        return DeviceChoice(Device.CPU, str(error), f"the processor computes: {error}")


def device_works() -> str:
    """Open the device in a process of its own; return what is wrong with it, or nothing."""
    command = [sys.executable, "-m", "tacit.kernels.cuda.trial"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_SECONDS)
    except subprocess.TimeoutExpired:
        return f"the device did not answer within {_CHECK_SECONDS:g} s"
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it fails"])[-1]
