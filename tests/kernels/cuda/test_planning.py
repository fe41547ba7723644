"""Work that is counted: exactly the launches that a device gets, and bytes that can be checked."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.planning import CountingDevice
from tacit.kernels.cuda.shim import Shim
from tacit.kernels.cuda.transforms import Form
from tacit.params import CryptoParams, Security
from tests.kernels.cuda.engines import LOG_N, basis_params

MULTIPLICATION = {
    Form.WHOLE: {
        "tacit_tensor": 1,
        "tacit_backward_whole": 3,  # digits, specials, the last limb
        "tacit_convert": 2,
        "tacit_forward_whole": 1,
        "tacit_key_product": 1,
        "tacit_forward_whole_divided": 1,
        "tacit_rescale_whole": 1,
    },
    Form.TILED: {
        "tacit_tensor": 1,
        "tacit_backward_rows": 3,
        "tacit_backward_columns": 3,
        "tacit_convert": 2,
        "tacit_forward_columns": 2,
        "tacit_forward_rows": 1,
        "tacit_key_product": 1,
        "tacit_forward_rows_divided": 2,
        "tacit_rescale_columns": 1,
    },
}


def _multiply(cuda: CudaKernels, batch: int) -> None:
    """One product of ciphertexts, relinearised and rescaled."""
    params = cuda.params
    shape = (2, len(params.moduli), batch, params.n)
    key_rows = len(params.moduli) + len(params.special_moduli)
    key = cuda.upload_key(np.zeros((2, params.dnum, key_rows, params.n), dtype=np.uint64))
    a = cuda.upload(np.zeros(shape, dtype=np.uint64))
    table = cuda.key_table([key] * batch)
    product = cuda.tensor(a, a)
    switched, _ = cuda.switch(cuda.part(product, 2), table)
    plus = (cuda.part(product, 0), cuda.part(product, 1))
    cuda.rescale(cuda.mod_down(params.depth, switched, plus=plus))


@pytest.mark.parametrize("form", list(Form), ids=lambda form: form.value)
@pytest.mark.parametrize("batch", [1, 5])
def test_a_multiplication_takes_ten_launches_or_seventeen(form: Form, batch: int) -> None:
    params = basis_params("wide-first")
    device = CountingDevice(LOG_N, {})
    cuda = CudaKernels(params, device, b"", form=form)
    _multiply(cuda, batch)
    device.restart()
    _multiply(cuda, batch)
    assert device.work.launches == MULTIPLICATION[form]


def test_counted_launches_are_those_of_a_device(shim: Shim, shim_driver: Driver) -> None:
    params = basis_params("ten-digits")
    counting, real = CountingDevice(LOG_N, {}), DriverDevice(shim_driver)
    counted = CudaKernels(params, counting, b"")
    launched = CudaKernels(params, real, shim.image(LOG_N))
    for cuda in (counted, launched):
        _multiply(cuda, 3)
    assert sum(counting.work.launches.values()) == real.launches


def test_bytes_of_simple_work_are_those_of_its_arrays() -> None:
    params = basis_params("narrow")
    device = CountingDevice(LOG_N, {"tacit_binary": 10})
    cuda = CudaKernels(params, device, b"")
    a = cuda.upload(np.zeros((2, 3, 4, params.n), dtype=np.uint64))
    device.restart()
    cuda.add(a, a)
    assert device.work.nbytes == 3 * a.nbytes
    assert device.work.instructions == 10 * 256 * 6  # one block of 256 for each of six rows
    device.restart()
    cuda.tensor(a, a)
    assert device.work.nbytes == 7 * a.nbytes // 2


def test_keys_of_one_client_are_read_once_per_batch() -> None:
    params = CryptoParams.choose(12, 3, 45, 55, 2, Security.UNCHECKED_INSECURE)
    traffic = []
    for batch in (1, 8):
        device = CountingDevice(12, {})
        cuda = CudaKernels(params, device, b"")
        _multiply(cuda, batch)
        device.restart()
        _multiply(cuda, batch)
        traffic.append(device.work.nbytes / batch)
    assert traffic[1] < 0.9 * traffic[0]
