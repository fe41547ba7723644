"""A worker's engine on a CUDA device, and on the processor for what the device cannot do.

Where the settings say `auto`, a request that the device fails (it is lost, its memory or the budget
of keys is exhausted, it cannot be opened) is computed on the processor, in the same process; after
a lost device everything is. Where they say `cuda`, such a request is answered by the error; the
server then tries it in a new process, which may find the device well again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from tacit.errors import DeviceLostError, OutOfMemoryError, TacitError, UnusableEnvironmentError
from tacit.kernels.cuda.owners import TorchOwner
from tacit.kernels.cuda.shared_device import DeviceBudget, SharedDevice
from tacit.kernels.cuda.toolchain import Toolchain
from tacit.kernels.devices import Device
from tacit.runtime.requests import Owner, Result
from tacit.runtime.worker import Answer, Begin, Engine, KeyPlace, ModelPlace, Request
from tacit.runtime.worker_engine import WorkerEngine
from tacit.runtime.worker_settings import WorkerMemory, WorkerSettings

DEVICE_ERRORS = (DeviceLostError, OutOfMemoryError, UnusableEnvironmentError)


def open_engine(settings: WorkerSettings, toolchain: Toolchain | None = None) -> Engine:
    """Make the engine of a worker.

    Args:
        settings: of the worker.
        toolchain: of CUDA; by default NVIDIA's.

    Raises:
        UnusableEnvironmentError: the backend cannot be used here.
    """
    if settings.device is Device.CPU:
        return WorkerEngine(settings)
    return DeviceEngine(settings, toolchain)


class DeviceEngine:
    """An `Engine` on a CUDA device; may be used by several threads.

    Args:
        settings: of the worker.
        toolchain: of CUDA; by default NVIDIA's.
    """

    def __init__(self, settings: WorkerSettings, toolchain: Toolchain | None = None) -> None:
        self._settings = settings
        self._falls_back = settings.device is Device.AUTO
        self._lock = threading.Lock()
        self._cuda: SharedDevice | None = None
        self._on_device: WorkerEngine | None = None
        self._spare: WorkerEngine | None = None
        self._failure: TacitError | None = None
        self._moved = 0
        budget = DeviceBudget(settings.device_bytes, settings.device_key_bytes)
        try:
            owner = TorchOwner() if settings.device_torch else None
            self._cuda = SharedDevice(toolchain, budget, owner)
            self._on_device = WorkerEngine(settings, self._cuda)
        except DEVICE_ERRORS as error:
            self._failure = error

    def prepare(self, model: ModelPlace, keys: KeyPlace) -> None:
        """Load keys and a model where they will be used; see `Engine`."""
        try:
            self._first().prepare(model, keys)
        except DEVICE_ERRORS as error:
            self._fail(error)
            if not self._falls_back:
                raise
            self._processor().prepare(model, keys)

    def run(
        self,
        model: ModelPlace,
        plan: str,
        requests: Sequence[Request],
        begin: Begin,
        answer: Answer,
    ) -> None:
        """Answer requests on the device, and what it fails on the processor; see `Engine`."""
        left: list[int] = []

        def look(index: int, result: Result | Exception) -> None:
            if isinstance(result, DEVICE_ERRORS):
                self._fail(result)
                if self._falls_back:
                    left.append(index)
                    return
            answer(index, result)

        try:
            first = self._first()
        except DEVICE_ERRORS as error:
            for index in range(len(requests)):
                answer(index, error)
            return
        if first is self._spare:
            first.run(model, plan, requests, begin, answer)
            return
        first.run(model, plan, requests, begin, look)
        if left:
            self._run_left(sorted(left), model, plan, requests, begin, answer)

    def forget(self, owner: Owner) -> None:
        """Drop the keys of an owner."""
        for engine in (self._on_device, self._spare):
            if engine is not None:
                engine.forget(owner)

    def memory(self) -> WorkerMemory:
        """Count what is held, and say where it is computed."""
        engines = [engine for engine in (self._on_device, self._spare) if engine is not None]
        held = [engine.memory() for engine in engines]
        cuda = self._cuda if self._on_device is not None else None
        counted = WorkerMemory(
            sum(memory.keys for memory in held),
            sum(memory.constants for memory in held),
            sum(memory.pool for memory in held),
            max((memory.owners for memory in held), default=0),
        )
        failure = self._failure
        return replace(
            counted,
            device=Device.CPU.value if cuda is None else cuda.name,
            device_bytes=0 if cuda is None else cuda.used_bytes,
            device_keys=0 if cuda is None else cuda.shelf.used_bytes,
            moved=self._moved,
            device_error="" if failure is None else f"{failure.code}: {failure}",
        )

    def _first(self) -> WorkerEngine:
        """Return the engine that tries first.

        Raises:
            TacitError: the device cannot be used, and nothing may take its place.
        """
        on_device = self._on_device
        if on_device is not None:
            return on_device
        if not self._falls_back:
            assert self._failure is not None
            raise self._failure
        return self._processor()

    def _processor(self) -> WorkerEngine:
        with self._lock:
            if self._spare is None:
                self._spare = WorkerEngine(self._settings)
            return self._spare

    def _fail(self, error: TacitError) -> None:
        """Note what the device did; one that is lost is not tried again."""
        with self._lock:
            self._failure = error
            if isinstance(error, DeviceLostError):
                self._on_device = None
                self._cuda = None

    def _run_left(
        self,
        left: Sequence[int],
        model: ModelPlace,
        plan: str,
        requests: Sequence[Request],
        begin: Begin,
        answer: Answer,
    ) -> None:
        self._moved += len(left)
        self._processor().run(
            model,
            plan,
            [requests[index] for index in left],
            lambda indices: begin([left[index] for index in indices]),
            lambda index, result: answer(left[index], result),
        )
