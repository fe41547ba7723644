"""Devices that fail, memory that ends, keys that do not fit, graphs: on the driver of fibres."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tacit.errors import (
    DeviceLostError,
    InternalError,
    OutOfMemoryError,
    UnusableEnvironmentError,
)
from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.keys import CudaKeyTable
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.memory import DeviceArray
from tacit.kernels.cuda.recorded import Recorded
from tacit.kernels.cuda.shim import Shim, ShimControl
from tests.kernels.cuda.engines import LOG_N, basis_params, make_engines
from tests.kernels.residues import Limbs

OUT_OF_MEMORY, LAUNCH_FAILED, ILLEGAL_ADDRESS, BAD_IMAGE = 2, 719, 700, 200


def test_a_machine_without_a_driver_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnusableEnvironmentError, match="install NVIDIA's driver"):
        Driver(tmp_path / "libcuda.so.1")


def test_a_library_that_is_no_driver_says_so(shim: Shim) -> None:
    with pytest.raises(UnusableEnvironmentError, match="lacks a function"):
        Driver(shim.library(LOG_N))


def test_a_driver_that_is_too_old_says_so(shim: Shim, control: ShimControl) -> None:
    control.device(version=11080)
    with pytest.raises(UnusableEnvironmentError, match=r"11\.8; 12\.0 or later"):
        shim.driver()


def test_a_device_that_is_not_there_says_so(shim_driver: Driver, control: ShimControl) -> None:
    with pytest.raises(UnusableEnvironmentError, match="choose the device `cpu`"):
        DriverDevice(shim_driver, ordinal=3)


def test_kernels_that_the_driver_refuses_are_explained(
    shim_driver: Driver, control: ShimControl
) -> None:
    with pytest.raises(UnusableEnvironmentError, match="not newer than the driver"):
        CudaKernels(basis_params("narrow"), DriverDevice(shim_driver), b"no cubin")


def test_out_of_memory_leaves_everything_usable(
    shim: Shim, shim_driver: Driver, control: ShimControl
) -> None:
    engines = make_engines(shim, shim_driver, "narrow")
    cuda, a = engines.cuda, engines.over_q(3)
    x = cuda.upload(a)
    wanted = cuda.download(cuda.add(x, x))
    control.fail(
        "cuMemAlloc_v2", 1, OUT_OF_MEMORY
    )  # once: memory is given back, then there is some
    big = cuda.upload(engines.over_q(3, batch=7))
    control.limit(control.counts()[2])
    with pytest.raises(OutOfMemoryError, match="batch size"):
        cuda.join([big] * 100)
    control.limit(8 << 30)
    np.testing.assert_array_equal(cuda.download(cuda.add(x, x)), wanted)


def test_a_limit_of_memory_is_kept(shim: Shim, shim_driver: Driver) -> None:
    params = basis_params("narrow")
    device = DriverDevice(shim_driver, memory_bytes=1 << 20)
    cuda = CudaKernels(params, device, shim.image(LOG_N))
    words = np.zeros((2, 4, 64, params.n), dtype=np.uint64)
    held = cuda.upload(words)
    with pytest.raises(OutOfMemoryError, match="exceed the limit of 1048576 bytes"):
        cuda.upload(words)
    assert device.pool.used_bytes <= 1 << 20
    assert device.peak_bytes <= 1 << 20
    del held
    gc.collect()
    cuda.upload(words)


@pytest.mark.parametrize("code", [LAUNCH_FAILED, ILLEGAL_ADDRESS])
def test_a_lost_device_is_told_from_other_failures(
    shim: Shim, shim_driver: Driver, control: ShimControl, code: int
) -> None:
    engines = make_engines(shim, shim_driver, "narrow")
    x = engines.cuda.upload(engines.over_q(3))
    control.fail("cuLaunchKernel", 1, code)
    with pytest.raises(DeviceLostError, match="restart the process"):
        engines.cuda.add(x, x)
    with pytest.raises(DeviceLostError):
        engines.cuda.download(x)
    control.reset()
    engines.cuda.download(engines.cuda.add(x, x))


def test_a_write_beyond_an_array_is_noticed(
    shim: Shim, shim_driver: Driver, control: ShimControl
) -> None:
    """The driver of fibres guards its memory, so that a kernel cannot stray unseen."""
    engines = make_engines(shim, shim_driver, "narrow")
    cuda, device = engines.cuda, DriverDevice(shim_driver)
    device.load(LOG_N, shim.image(LOG_N))
    x = cuda.upload(engines.over_q(3))
    short = DeviceArray(x.shape, device.block(x.nbytes))
    arguments = cuda.launches.over_q(x)
    from tacit.kernels.cuda.structures import Negate

    device.launch(
        *(LOG_N, "tacit_negate", (1, 9, 1), 256, Negate(arguments, x.address, short.address))
    )
    with pytest.raises(DeviceLostError, match="ILLEGAL_ADDRESS"):
        device.synchronize()


def _switched(cuda: CudaKernels, x: DeviceArray, table: CudaKeyTable) -> Limbs:
    return cuda.download(cuda.turned(x, [table], [cuda.galois(1)])[0])


def test_keys_used_last_stay_on_the_device(shim: Shim, shim_driver: Driver) -> None:
    engines = make_engines(shim, shim_driver, "narrow")
    keys = [engines.key() for _ in range(4)]
    device = DriverDevice(shim_driver)
    room = 2 * keys[0].nbytes
    cuda = CudaKernels(engines.params, device, shim.image(LOG_N), key_bytes=room)
    x = cuda.upload(engines.over_q(3, 1))
    tables = [cuda.key_table([cuda.upload_key(key)]) for key in keys]
    wanted = [
        _switched(engines.cuda, x, engines.cuda.key_table([engines.cuda.upload_key(key)]))
        for key in keys
    ]
    for index in (0, 1, 0, 2, 0, 3, 1, 2, 0):
        np.testing.assert_array_equal(_switched(cuda, x, tables[index]), wanted[index])
        assert cuda.shelf.used_bytes <= room
    assert cuda.shelf.uploads == 7
    three = cuda.key_table([table.keys[0] for table in tables[:3]])
    batch = cuda.upload(engines.over_q(3, 1, 3))
    with pytest.raises(OutOfMemoryError, match="3 evaluation keys"):
        cuda.turned(batch, [three], [cuda.galois(1)])
    np.testing.assert_array_equal(_switched(cuda, x, tables[0]), wanted[0])


def _product(cuda: CudaKernels, table: CudaKeyTable):  # type: ignore[no-untyped-def]
    """Return a function of a ciphertext: its square, relinearised and rescaled."""

    def run(inputs):  # type: ignore[no-untyped-def]
        (a,) = inputs
        return [cuda.rescale(cuda.multiply(a, a, table))]

    return run


def test_recorded_work_repeats_with_other_inputs_and_keys(
    shim: Shim, shim_driver: Driver, control: ShimControl
) -> None:
    engines = make_engines(shim, shim_driver, "wide-first")
    params, device = engines.params, DriverDevice(shim_driver)
    cuda = CudaKernels(params, device, shim.image(LOG_N))
    keys = [cuda.upload_key(engines.key()) for _ in range(3)]
    mine, theirs = cuda.key_table(keys[:2]), cuda.key_table([keys[2], keys[0]])
    inputs = [cuda.upload(engines.over_q(params.depth, 2, 2)) for _ in range(3)]
    recorded = Recorded(cuda, device, _product(cuda, mine), inputs[:1])
    assert recorded.tables == (mine,)
    for a in inputs:
        for table in (mine, theirs, mine):
            (wanted,) = _product(cuda, table)([a])
            before = device.launches
            (found,) = recorded.launch([a], [table.keys])
            assert device.launches == before
            np.testing.assert_array_equal(cuda.download(found), cuda.download(wanted))
    held, _ = recorded.launch(inputs[:1])[0], recorded.launch(inputs[1:2])
    (wanted,) = _product(cuda, mine)(inputs[:1])
    np.testing.assert_array_equal(cuda.download(held), cuda.download(wanted))
    with pytest.raises(InternalError, match="other shapes"):
        recorded.launch([cuda.part(inputs[0], 0)])
    with pytest.raises(InternalError, match="keys for 1 tables"):
        recorded.launch(inputs[:1], [keys])
    assert recorded.arena_bytes > 0
    recorded.close()


def test_words_that_recorded_work_uploads_stay_for_every_launch(
    shim: Shim, shim_driver: Driver
) -> None:
    engines = make_engines(shim, shim_driver, "narrow")
    device = DriverDevice(shim_driver)
    cuda = CudaKernels(engines.params, device, shim.image(LOG_N))
    x, constant = cuda.upload(engines.over_q(3)), engines.over_q(3)

    def work(inputs: Sequence[DeviceArray]) -> list[DeviceArray]:
        """Memory of sums before and after the upload must not be that of the words."""
        total = cuda.negate(cuda.add(inputs[0], inputs[0]))
        total = cuda.add(total, cuda.upload(constant))
        return [cuda.negate(cuda.add(total, total))]

    (wanted,) = work([x])
    recorded = Recorded(cuda, device, work, [x])
    for _ in range(3):
        (found,) = recorded.launch([x])
        np.testing.assert_array_equal(cuda.download(found), cuda.download(wanted))
    recorded.close()


def test_reading_a_result_cannot_be_recorded(shim: Shim, shim_driver: Driver) -> None:
    engines = make_engines(shim, shim_driver, "narrow")
    device = DriverDevice(shim_driver)
    cuda = CudaKernels(engines.params, device, shim.image(LOG_N))
    x = cuda.upload(engines.over_q(3))
    runs = []

    def reads(inputs):  # type: ignore[no-untyped-def]
        runs.append(cuda.add(inputs[0], inputs[0]))
        if len(runs) == 2:
            cuda.download(runs[-1])
        return runs[-1:]

    with pytest.raises(InternalError, match="while a graph is recorded"):
        Recorded(cuda, device, reads, [x])
    assert cuda.download(cuda.add(x, x)).shape == x.shape


def test_everything_goes_back_to_the_device(
    shim: Shim, shim_driver: Driver, control: ShimControl
) -> None:
    gc.collect()
    before = control.counts()[3]
    params, device = basis_params("narrow"), DriverDevice(shim_driver)
    cuda = CudaKernels(params, device, shim.image(LOG_N))
    x = cuda.upload(np.zeros((2, 4, 1, params.n), dtype=np.uint64))
    cuda.download(cuda.rescale(cuda.add(x, x)))
    assert control.counts()[3] > before
    device.close()
    del x, cuda
    gc.collect()
    assert control.counts()[3] <= before


def test_other_libraries_see_arrays_without_a_copy(shim: Shim, shim_driver: Driver) -> None:
    engines = make_engines(shim, shim_driver, "narrow")
    a = engines.over_q(2)
    x = engines.cuda.upload(a)
    described = x.__cuda_array_interface__
    assert described["shape"] == a.shape
    assert described["typestr"] == "<u8"
    assert described["data"] == (x.address, False)


def test_what_was_uploaded_may_change_at_once(shim: Shim, shim_driver: Driver) -> None:
    """More uploads than there are slots of pinned memory, larger than one, before any work."""
    engines = make_engines(shim, shim_driver, "narrow")
    cuda = engines.cuda
    words = [engines.rng.integers(0, 1 << 62, (9 << 17,), dtype=np.uint64) for _ in range(6)]
    kept = [word.copy() for word in words]
    uploaded = []
    for word in words:
        uploaded.append(cuda.upload(word))
        word[:] = 0
    for a, expected in zip(uploaded, kept, strict=True):
        np.testing.assert_array_equal(cuda.download(a), expected)


def test_several_threads_may_use_one_device(shim: Shim, shim_driver: Driver) -> None:
    engines = make_engines(shim, shim_driver, "narrow")
    params, device = engines.params, DriverDevice(shim_driver)
    key = engines.key()
    cuda = CudaKernels(params, device, shim.image(LOG_N), key_bytes=2 * key.nbytes)
    tables = [cuda.key_table([cuda.upload_key(engines.key())]) for _ in range(4)]
    inputs = [engines.over_q(params.depth) for _ in range(4)]

    def work(index: int) -> Limbs:
        a = cuda.upload(inputs[index])
        (made,) = _product(cuda, tables[index])([a])
        return cuda.download(made)

    wanted = [work(index) for index in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for index, found in enumerate(pool.map(work, [0, 1, 2, 3] * 8)):
            np.testing.assert_array_equal(found, wanted[index % 4])
