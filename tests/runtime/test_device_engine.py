"""A worker on a CUDA device (of fibres), and on the processor for what the device fails."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tacit.errors import DeviceLostError, OutOfMemoryError, TacitError, UnusableEnvironmentError
from tacit.kernels.build import build_if_stale
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.image import Nvrtc
from tacit.kernels.cuda.interface import Abilities
from tacit.kernels.cuda.shim import Shim, ShimControl
from tacit.kernels.devices import Device
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.device_choice import choose_device
from tacit.runtime.device_engine import DeviceEngine, open_engine
from tacit.runtime.requests import Result
from tacit.runtime.worker import ModelPlace
from tacit.runtime.worker_engine import WorkerEngine
from tacit.runtime.worker_settings import WorkerSettings
from tests.conformance.cuda_backend import fibres
from tests.runtime.worker_customers import Customer, run, values

BOUND = 2.0**-18
OUT_OF_MEMORY, DEVICE_LOST = 2, 719


@pytest.fixture
def control() -> Iterator[ShimControl]:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    made = ShimControl(fibres().driver())
    made.reset()
    yield made
    gc.collect()
    made.reset()
    made.limit(8 << 30)
    made.device()


def engine(device: Device, **settings: int) -> DeviceEngine:
    chosen = WorkerSettings(BackendName.NATIVE, device=device, **settings)  # type: ignore[arg-type]
    made = open_engine(chosen, fibres())
    assert isinstance(made, DeviceEngine)
    return made


def ask_all(
    worker: DeviceEngine, place: ModelPlace, customers: list[Customer], seed: int
) -> list[Result | Exception | None]:
    """One request of each customer; those that were answered are right."""
    rows = [values(seed + index, index + 1) for index in range(len(customers))]
    requests = [c.ask(v) for c, v in zip(customers, rows, strict=True)]
    answers, _ = run(worker, place, requests)
    for c, answer, row in zip(customers, answers, rows, strict=True):
        if isinstance(answer, Result):
            assert c.error(answer, row) < BOUND
    return answers


def answered(answers: list[Result | Exception | None]) -> bool:
    return all(isinstance(answer, Result) for answer in answers)


def test_requests_of_several_owners_run_on_the_device_and_then_as_a_graph(
    control: ShimControl, customers: list[Customer], place: ModelPlace
) -> None:
    worker = engine(Device.CUDA)
    before = control.counts()[1]
    for seed in range(5):
        assert answered(ask_all(worker, place, customers, 10 * seed))
    # The first job loads the model, the second shows the size of the batch.
    assert control.counts()[1] == before + 3
    memory = worker.memory()
    assert memory.device == "cuda: fibres on a processor"
    assert memory.owners == 3
    assert memory.device_keys == memory.keys > 0
    assert memory.device_bytes > memory.device_keys
    assert (memory.moved, memory.device_error) == (0, "")


def test_the_device_answers_as_the_processor_does_byte_for_byte(
    control: ShimControl, customers: list[Customer], place: ModelPlace
) -> None:
    plain = WorkerEngine(WorkerSettings(BackendName.NATIVE))
    worker = engine(Device.CUDA)
    requests = [c.ask(values(seed, 2)) for seed, c in enumerate(customers)]
    wanted, _ = run(plain, place, requests)
    before = control.counts()[1]
    for _ in range(4):
        found, _ = run(worker, place, requests)
        for mine, theirs in zip(found, wanted, strict=True):
            assert isinstance(mine, Result)
            assert isinstance(theirs, Result)
            assert [bytes(f) for f in mine.frames] == [bytes(f) for f in theirs.frames]
    assert control.counts()[1] > before


@pytest.mark.parametrize("function", ["cuLaunchKernel", "cuMemcpyDtoHAsync_v2", "cuGraphLaunch"])
def test_a_device_lost_midway_loses_no_request_where_the_processor_may_take_over(
    control: ShimControl, customers: list[Customer], place: ModelPlace, function: str
) -> None:
    worker = engine(Device.AUTO)
    for seed in range(4):
        assert answered(ask_all(worker, place, customers, seed))
    control.fail(function, 1, DEVICE_LOST)
    assert answered(ask_all(worker, place, customers, 50))
    memory = worker.memory()
    assert memory.device == "cpu"
    assert memory.moved == 3
    assert "device_lost" in memory.device_error
    assert answered(ask_all(worker, place, customers, 60))
    assert worker.memory().moved == 3  # the device is not tried again


def test_a_lost_device_is_told_where_only_the_device_may_compute(
    control: ShimControl, customers: list[Customer], place: ModelPlace
) -> None:
    worker = engine(Device.CUDA)
    assert answered(ask_all(worker, place, customers, 0))
    control.fail("cuLaunchKernel", 1, DEVICE_LOST)
    for seed in (1, 2):
        answers = ask_all(worker, place, customers, seed)
        assert all(isinstance(answer, DeviceLostError) for answer in answers)
    with pytest.raises(DeviceLostError):
        worker.prepare(place, customers[0].place)
    assert worker.memory().device == "cpu"


def test_requests_beyond_the_devices_memory_are_computed_on_the_processor(
    control: ShimControl, customers: list[Customer], place: ModelPlace
) -> None:
    worker = engine(Device.AUTO)
    assert answered(ask_all(worker, place, customers, 0))
    control.fail("cuMemAlloc_v2", 1, OUT_OF_MEMORY)  # once: what is kept is given back
    assert answered(ask_all(worker, place, customers, 1))
    control.limit(control.counts()[2])
    big = [customers[0].ask(values(2, 40))]
    answers, _ = run(worker, place, big)
    assert customers[0].error(answers[0], values(2, 40)) < BOUND
    memory = worker.memory()
    assert memory.moved == 1
    assert memory.device.startswith("cuda")
    assert "out_of_memory" in memory.device_error
    control.limit(8 << 30)
    assert answered(ask_all(worker, place, customers, 3))
    assert worker.memory().moved == 1  # the device computes again


@pytest.mark.parametrize(("device", "works"), [(Device.AUTO, True), (Device.CUDA, False)])
def test_keys_beyond_the_budget_are_an_error_or_go_to_the_processor(
    control: ShimControl, customers: list[Customer], place: ModelPlace, device: Device, works: bool
) -> None:
    worker = engine(device, device_key_bytes=1 << 10)
    answers = ask_all(worker, place, customers, 0)
    if works:
        assert answered(answers)
        assert worker.memory().moved == 3
        return
    assert all(isinstance(answer, OutOfMemoryError) for answer in answers)
    assert "evaluation keys" in str(answers[0])
    assert "budget" in str(answers[0])


def test_keys_that_fit_one_owner_at_a_time_take_turns(
    control: ShimControl, customers: list[Customer], place: ModelPlace
) -> None:
    one = engine(Device.CUDA)
    ask_all(one, place, customers[:1], 0)
    each = one.memory().device_keys
    worker = engine(Device.CUDA, device_key_bytes=each)
    for seed in range(4):
        assert answered(ask_all(worker, place, customers, seed))
    assert worker.memory().device_keys <= each
    assert worker.memory().moved == 0


@dataclass(frozen=True)
class Without:
    """A machine that lacks a driver, or a compiler."""

    shim: Shim
    driver_missing: bool = False
    compiler_missing: bool = False

    def driver(self) -> Driver:
        return Driver("/nowhere/libcuda.so.1") if self.driver_missing else self.shim.driver()

    def image_for(self, log_n: int, abilities: Abilities) -> bytes:
        return self.shim.image_for(log_n, abilities)

    def check_compiler(self) -> None:
        if self.compiler_missing:
            Nvrtc(Path("/nowhere/libnvrtc.so.13"))


@pytest.mark.parametrize("missing", ["driver", "compiler", "new driver", "device"])
def test_a_machine_without_what_cuda_needs_computes_on_the_processor_or_says_why(
    control: ShimControl, customers: list[Customer], place: ModelPlace, missing: str
) -> None:
    machine = Without(fibres(), missing == "driver", missing == "compiler")
    if missing == "new driver":
        control.device(version=11040)
    if missing == "device":
        control.fail("cuDeviceGet", 1, 100)
    said = {
        "driver": "no CUDA driver",
        "compiler": "no NVRTC",
        "new driver": r"11.4; 12.0 or later",
        "device": "no CUDA device",
    }[missing]
    settings = WorkerSettings(BackendName.NATIVE, device=Device.AUTO)
    worker = DeviceEngine(settings, machine)
    assert answered(ask_all(worker, place, customers, 0))
    memory = worker.memory()
    assert memory.device == "cpu"
    assert said in memory.device_error
    if missing == "device":
        control.fail("cuDeviceGet", 1, 100)
    strict = DeviceEngine(WorkerSettings(BackendName.NATIVE, device=Device.CUDA), machine)
    answers = ask_all(strict, place, customers, 0)
    assert all(isinstance(answer, UnusableEnvironmentError) for answer in answers)
    assert said in str(answers[0])


def test_a_kernel_that_cannot_be_compiled_goes_to_the_processor(
    control: ShimControl, customers: list[Customer], place: ModelPlace
) -> None:
    worker = engine(Device.AUTO)
    control.fail("cuModuleLoadData", 1, 200)
    assert answered(ask_all(worker, place, customers, 0))
    assert "not newer than the driver" in worker.memory().device_error


def test_torch_as_owner_that_is_not_there_goes_to_the_processor(
    control: ShimControl, customers: list[Customer], place: ModelPlace
) -> None:
    settings = WorkerSettings(BackendName.NATIVE, device=Device.AUTO, device_torch=True)
    worker = DeviceEngine(settings, fibres())
    assert answered(ask_all(worker, place, customers[:1], 0))
    assert "torch" in worker.memory().device_error


def test_the_choice_of_a_device_says_why() -> None:
    def nothing() -> str:
        raise UnusableEnvironmentError("no CUDA driver: install one")

    found = choose_device(Device.AUTO, BackendName.NATIVE, lambda: "a driver")
    assert (found.device, found.warning) == (Device.AUTO, "")
    missing = choose_device(Device.AUTO, BackendName.NATIVE, nothing)
    assert missing.device is Device.CPU
    assert "no CUDA driver" in missing.warning
    other = choose_device(Device.AUTO, BackendName.OPENFHE, lambda: "a driver")
    assert (other.device, other.warning) == (Device.CPU, "")
    assert choose_device(Device.CPU, BackendName.NATIVE, nothing).warning == ""
    for backend, look in ((BackendName.NATIVE, nothing), (BackendName.OPENFHE, lambda: "one")):
        with pytest.raises(TacitError):
            choose_device(Device.CUDA, backend, look)
