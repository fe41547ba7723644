"""Memory and stream of torch in the place of the driver's: CPU tensors as the memory of fibres."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tacit.errors import InternalError, OutOfMemoryError, UnusableEnvironmentError
from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.owners import TorchOwner
from tacit.kernels.cuda.recorded import Recorded
from tacit.kernels.cuda.shim import Shim, ShimControl
from tests.kernels.cuda.engines import LOG_N, make_engines

torch: Any = pytest.importorskip("torch", reason="torch is not installed")


class KnownToFibres(TorchOwner):
    """CPU tensors that the driver of fibres takes for device memory."""

    def __init__(self, driver: Driver, control: ShimControl) -> None:
        super().__init__("cpu", driver.place("cuStreamCreate", 1))
        self._control = control

    def allocate(self, nbytes: int) -> int:
        address = super().allocate(nbytes)
        self._control.take_foreign(address, nbytes)
        return address

    def free(self, address: int) -> None:
        self._control.take_foreign(address, 0)
        super().free(address)


@pytest.fixture
def owner(shim_driver: Driver, control: ShimControl) -> Iterator[KnownToFibres]:
    made = KnownToFibres(shim_driver, control)
    yield made
    gc.collect()


def test_kernels_compute_in_memory_of_torch(
    shim: Shim, shim_driver: Driver, owner: KnownToFibres
) -> None:
    engines = make_engines(shim, shim_driver, "wide-first")
    device = DriverDevice(shim_driver, owner=owner)
    ours = CudaKernels(engines.params, device, shim.image(LOG_N))
    key, a = engines.key(), engines.over_q(engines.params.depth)
    results = []
    for cuda in (engines.cuda, ours):
        x, table = cuda.upload(a), cuda.key_table([cuda.upload_key(key)])
        results.append(cuda.rescale(cuda.multiply(x, x, table)))
    np.testing.assert_array_equal(ours.download(results[1]), engines.cuda.download(results[0]))


def test_tensors_go_in_and_come_out_without_a_copy(
    shim: Shim, shim_driver: Driver, owner: KnownToFibres, control: ShimControl
) -> None:
    engines = make_engines(shim, shim_driver, "narrow")
    device = DriverDevice(shim_driver, owner=owner)
    cuda = CudaKernels(engines.params, device, shim.image(LOG_N))
    a = engines.over_q(2)
    tensor = torch.from_numpy(a.view(np.int64).copy())
    control.take_foreign(tensor.data_ptr(), a.nbytes)
    x = owner.adopt(tensor)
    assert x.address == tensor.data_ptr()
    total = cuda.add(x, x)
    device.synchronize()
    out = owner.tensor(total)
    assert out.data_ptr() == total.address
    assert tuple(out.shape) == total.shape
    np.testing.assert_array_equal(out.numpy().view(np.uint64), cuda.download(total))
    second = owner.tensor(cuda.part(total, 1))
    assert second.data_ptr() == total.address + total.nbytes // 2
    control.take_foreign(tensor.data_ptr(), 0)


def test_graphs_keep_their_tensors(shim: Shim, shim_driver: Driver, owner: KnownToFibres) -> None:
    engines = make_engines(shim, shim_driver, "narrow")
    device = DriverDevice(shim_driver, owner=owner)
    cuda = CudaKernels(engines.params, device, shim.image(LOG_N))
    x = cuda.upload(engines.over_q(3))
    recorded = Recorded(cuda, device, lambda inputs: [cuda.add(inputs[0], inputs[0])], [x])
    (found,) = recorded.launch([x])
    np.testing.assert_array_equal(cuda.download(found), cuda.download(cuda.add(x, x)))
    recorded.close()


def test_all_tensors_are_let_go(shim: Shim, shim_driver: Driver, owner: KnownToFibres) -> None:
    engines = make_engines(shim, shim_driver, "narrow")
    device = DriverDevice(shim_driver, owner=owner)
    cuda = CudaKernels(engines.params, device, shim.image(LOG_N))
    x = cuda.upload(engines.over_q(3))
    cuda.download(cuda.add(x, x))
    assert owner._tensors
    device.close()
    del x, cuda
    gc.collect()
    assert not owner._tensors


def test_tensors_that_are_no_arrays_are_refused(shim_driver: Driver, owner: KnownToFibres) -> None:
    words = torch.zeros((4, 4), dtype=torch.int64)
    with pytest.raises(InternalError, match="contiguous tensor"):
        owner.adopt(words.t()[:2])
    with pytest.raises(InternalError, match="64-bit integers"):
        owner.adopt(words.double())
    with pytest.raises(InternalError, match="of cpu expected"):
        owner.adopt(words.to("meta"))
    elsewhere = DriverDevice(shim_driver)
    from tacit.kernels.cuda.memory import DeviceArray

    with pytest.raises(InternalError, match="memory of torch"):
        owner.tensor(DeviceArray((2,), elsewhere.block(16)))


def test_memory_that_torch_has_not_is_told(
    owner: KnownToFibres, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(owner._torch, "empty", none)
    with pytest.raises(OutOfMemoryError, match="no 64 bytes"):
        owner.allocate(64)


def test_a_device_that_torch_does_not_see_is_told() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(UnusableEnvironmentError, match="does not see"):
        TorchOwner()
