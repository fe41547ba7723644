"""CUDA's driver interface by ctypes: the calls that this engine makes, and their errors.

The driver (libcuda) comes with the GPU; nothing else of CUDA is needed to run kernels. In tests a
library of the same interface takes its place (`tacit.kernels.cuda.shim`).
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from tacit.errors import DeviceLostError, InternalError, OutOfMemoryError, UnusableEnvironmentError

OLDEST_VERSION = 12000  # CUDA 12.0: 1000 major + 10 minor

_INT, _UINT, _SIZE = ctypes.c_int, ctypes.c_uint, ctypes.c_size_t
_ADDRESS, _WORD = ctypes.c_void_p, ctypes.c_uint64
_INTS = ctypes.POINTER(ctypes.c_int)
_WORDS = ctypes.POINTER(ctypes.c_uint64)
_SIZES = ctypes.POINTER(ctypes.c_size_t)
_PLACES = ctypes.POINTER(ctypes.c_void_p)

_SIGNATURES: dict[str, tuple[object, ...]] = {
    "cuInit": (_UINT,),
    "cuDriverGetVersion": (_INTS,),
    "cuDeviceGetCount": (_INTS,),
    "cuDeviceGet": (_INTS, _INT),
    "cuDeviceGetName": (ctypes.c_char_p, _INT, _INT),
    "cuDeviceGetAttribute": (_INTS, _INT, _INT),
    "cuDevicePrimaryCtxRetain": (_PLACES, _INT),
    "cuDevicePrimaryCtxRelease_v2": (_INT,),
    "cuCtxSetCurrent": (_ADDRESS,),
    "cuMemGetInfo_v2": (_SIZES, _SIZES),
    "cuMemAlloc_v2": (_WORDS, _SIZE),
    "cuMemFree_v2": (_WORD,),
    "cuMemHostAlloc": (_PLACES, _SIZE, _UINT),
    "cuMemFreeHost": (_ADDRESS,),
    "cuMemcpyHtoDAsync_v2": (_WORD, _ADDRESS, _SIZE, _ADDRESS),
    "cuMemcpyDtoHAsync_v2": (_ADDRESS, _WORD, _SIZE, _ADDRESS),
    "cuMemcpyDtoDAsync_v2": (_WORD, _WORD, _SIZE, _ADDRESS),
    "cuStreamCreate": (_PLACES, _UINT),
    "cuStreamDestroy_v2": (_ADDRESS,),
    "cuStreamSynchronize": (_ADDRESS,),
    "cuEventCreate": (_PLACES, _UINT),
    "cuEventRecord": (_ADDRESS, _ADDRESS),
    "cuEventSynchronize": (_ADDRESS,),
    "cuEventElapsedTime": (ctypes.POINTER(ctypes.c_float), _ADDRESS, _ADDRESS),
    "cuEventDestroy_v2": (_ADDRESS,),
    "cuModuleLoadData": (_PLACES, _ADDRESS),
    "cuModuleUnload": (_ADDRESS,),
    "cuModuleGetFunction": (_PLACES, _ADDRESS, ctypes.c_char_p),
    "cuFuncSetAttribute": (_ADDRESS, _INT, _INT),
    "cuLaunchKernel": (_ADDRESS, *((_UINT,) * 7), _ADDRESS, _ADDRESS, _PLACES),
    "cuStreamBeginCapture_v2": (_ADDRESS, _INT),
    "cuStreamEndCapture": (_ADDRESS, _PLACES),
    "cuGraphInstantiateWithFlags": (_PLACES, _ADDRESS, ctypes.c_ulonglong),
    "cuGraphLaunch": (_ADDRESS, _ADDRESS),
    "cuGraphDestroy": (_ADDRESS,),
    "cuGraphExecDestroy": (_ADDRESS,),
    "cuGetErrorName": (_INT, ctypes.POINTER(ctypes.c_char_p)),
}

_OUT_OF_MEMORY = 2
_NO_DEVICE = (100, 101)
_UNUSABLE = {
    34: "the driver is a stub",
    35: "the driver is too old",
    803: "the driver and the GPU's kernel module do not fit together",
}
_BAD_IMAGE = (200, 209, 218, 222)
# What leaves a context unusable: illegal accesses, failed launches, hardware errors, time-outs.
_LOST = frozenset((*range(214, 221), 226, 700, 702, *range(708, 720), 721, 999)) - {218}


class Driver:
    """The driver, loaded and initialised.

    Args:
        path: of the library; by default the system's.

    Raises:
        UnusableEnvironmentError: no driver, too old a driver, or no device.
    """

    def __init__(self, path: Path | str = "libcuda.so.1") -> None:
        advice = "install NVIDIA's driver, or choose the device `cpu`"
        try:
            self.library = ctypes.CDLL(str(path))
            for name, arguments in _SIGNATURES.items():
                function = getattr(self.library, name)
                function.argtypes = arguments
                function.restype = ctypes.c_int
        except OSError as error:
            raise UnusableEnvironmentError(f"no CUDA driver ({path}): {advice}") from error
        except AttributeError as error:
            raise UnusableEnvironmentError(
                f"the CUDA driver lacks a function: version 12.0 or later is needed; {error}"
            ) from error
        self.call("cuInit", 0)
        self.version = self.integer("cuDriverGetVersion")
        if self.version < OLDEST_VERSION:
            raise UnusableEnvironmentError(
                f"the CUDA driver is of version {_version(self.version)}; 12.0 or later is needed: "
                "update NVIDIA's driver"
            )
        if self.integer("cuDeviceGetCount") == 0:
            raise UnusableEnvironmentError(f"no CUDA device: {advice}")

    def call(self, name: str, *arguments: object) -> None:
        """Call a function of the driver.

        Raises:
            OutOfMemoryError: the device's memory does not suffice.
            DeviceLostError: the device does not work any more.
            UnusableEnvironmentError: driver and device cannot be used at all.
            InternalError: any other failure.
        """
        code = getattr(self.library, name)(*arguments)
        if code:
            raise self._error(name, code)

    def integer(self, name: str, *arguments: object) -> int:
        """Call a function that writes an int to its first argument."""
        made = ctypes.c_int()
        self.call(name, ctypes.byref(made), *arguments)
        return made.value

    def place(self, name: str, *arguments: object) -> int:
        """Call a function that writes a handle to its first argument."""
        made = ctypes.c_void_p()
        self.call(name, ctypes.byref(made), *arguments)
        return made.value or 0

    def _error(self, name: str, code: int) -> Exception:
        found = ctypes.c_char_p()
        known = self.library.cuGetErrorName(code, ctypes.byref(found)) == 0 and found.value
        meaning = f"{name} gave {found.value.decode() if known and found.value else code}"
        if code == _OUT_OF_MEMORY:
            return OutOfMemoryError(f"{meaning}: lower the batch size or the memory of constants")
        if code in _LOST:
            return DeviceLostError(f"{meaning}: restart the process that uses the device")
        if code in _NO_DEVICE:
            return UnusableEnvironmentError(f"{meaning}: no CUDA device; choose the device `cpu`")
        if code in _UNUSABLE:
            return UnusableEnvironmentError(f"{meaning}: {_UNUSABLE[code]}; update the driver")
        if code in _BAD_IMAGE:
            return UnusableEnvironmentError(
                f"{meaning}: the driver cannot load these kernels; install an nvidia-cuda-nvrtc "
                "that is not newer than the driver"
            )
        return InternalError(meaning)


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
