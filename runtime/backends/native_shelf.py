"""Engines shared by all key owners of a process: one per parameter set."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import cast
from weakref import WeakValueDictionary

from tacit.kernels.cuda.shared_device import SharedDevice
from tacit.kernels.devices import Device, open_kernels
from tacit.kernels.limb_kernels import LimbKernels
from tacit.params import CryptoParams
from tacit.runtime.backends.native_engine import DEFAULT_CACHE_BYTES, NativeEngine

_Place = tuple[bytes, Device, int]


class EngineShelf:
    """Makes each engine once; owned by whoever runs the process; may be used by several threads.

    An engine that somebody's keys hold is always found. Of those that nobody holds, the last
    `limit` used stay, so that the next client of a model finds its constants encoded.

    Args:
        limit: engines to keep although nobody holds them.
        cache_bytes: how much memory the encoded constants of one engine may take.
        cuda: the device that engines for `Device.CUDA` share; by default each opens one.
    """

    def __init__(
        self,
        limit: int = 4,
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        cuda: SharedDevice | None = None,
    ) -> None:
        self._cuda = cuda
        self._limit = limit
        self._cache_bytes = cache_bytes
        self._kept: OrderedDict[_Place, NativeEngine] = OrderedDict()
        self._alive: WeakValueDictionary[_Place, NativeEngine] = WeakValueDictionary()
        self._lock = threading.Lock()

    def shared_engine(
        self, params: CryptoParams, *, threads: int = 1, device: Device = Device.CPU
    ) -> NativeEngine:
        """Return the engine of these parameters, the same object for all who ask.

        Args:
            params: the parameters.
            threads: share the limbs of one operation.
            device: where to compute.

        Raises:
            UnusableEnvironmentError: there are no compiled kernels.
            OutOfMemoryError: no memory for the tables.
        """
        place = (params.digest, device, threads)
        with self._lock:
            engine = self._alive.get(place)
            if engine is None:
                kernels = self._open(params, device, threads)
                encoders = threads if device is Device.CPU else 1
                engine = NativeEngine(
                    params, kernels, threads=encoders, cache_bytes=self._cache_bytes
                )
                self._alive[place] = engine
            self._kept[place] = engine
            self._kept.move_to_end(place)
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
            return engine

    def _open(self, params: CryptoParams, device: Device, threads: int) -> LimbKernels:
        if self._cuda is not None and device is Device.CUDA:
            return cast(LimbKernels, self._cuda.kernels(params))
        return open_kernels(params, device, threads=threads)

    def engines(self) -> list[NativeEngine]:
        """Return all engines that are alive, to count their memory."""
        with self._lock:
            return list(self._alive.values())
