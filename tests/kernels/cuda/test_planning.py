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
        "tacit_backward_whole_product": 1,  # digits of the product
        "tacit_backward_whole_keyed": 1,  # P's rows of the products with keys
        "tacit_backward_whole": 1,  # the last limb
        "tacit_convert": 2,
        "tacit_forward_whole": 1,
        "tacit_forward_whole_keyed": 1,
        "tacit_raise_whole_divided": 1,
    },
    Form.TILED: {
        "tacit_backward_rows_product": 1,
        "tacit_backward_rows_keyed": 1,
        "tacit_backward_rows": 1,
        "tacit_backward_columns": 3,
        "tacit_convert": 2,
        "tacit_forward_columns": 2,
        "tacit_forward_rows": 1,
        "tacit_forward_rows_keyed": 1,
        "tacit_forward_rows_divided": 1,
        "tacit_raise_columns": 1,
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
    cuda.rescale(cuda.multiply(a, a, table))


@pytest.mark.parametrize("form", list(Form), ids=lambda form: form.value)
@pytest.mark.parametrize("batch", [1, 5])
def test_a_multiplication_takes_eight_launches_or_fourteen(form: Form, batch: int) -> None:
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


def test_keys_of_different_clients_are_read_for_each_of_them() -> None:
    params = CryptoParams.choose(12, 3, 45, 55, 2, Security.UNCHECKED_INSECURE)
    device = CountingDevice(12, {})
    cuda = CudaKernels(params, device, b"")
    shape = (2, params.dnum, len(params.moduli) + len(params.special_moduli), params.n)
    keys = [cuda.upload_key(np.zeros(shape, dtype=np.uint64)) for _ in range(4)]
    a = cuda.upload(np.zeros((2, len(params.moduli), 4, params.n), dtype=np.uint64))
    traffic = []
    for chosen in (keys[:1] * 4, keys):
        table = cuda.key_table(chosen)
        for _ in range(2):
            device.restart()
            cuda.multiply(a, a, table)
        traffic.append(device.work.nbytes)
    assert traffic[1] - traffic[0] == 3 * keys[0].nbytes


def test_several_rotations_read_digits_once_and_are_launched_together() -> None:
    params = CryptoParams.choose(12, 3, 45, 55, 2, Security.UNCHECKED_INSECURE)
    device = CountingDevice(12, {})
    cuda = CudaKernels(params, device, b"")
    shape = (2, params.dnum, len(params.moduli) + len(params.special_moduli), params.n)
    tables = [cuda.key_table([cuda.upload_key(np.zeros(shape, dtype=np.uint64))])] * 8
    a = cuda.upload(np.zeros((1, len(params.moduli), 1, params.n), dtype=np.uint64))
    made = []
    for turns in (1, 8):
        moves = [cuda.galois(2 * turn + 1) for turn in range(turns)]
        for _ in range(2):
            device.restart()
            cuda.switch_down(a, tables[:turns], moves)
        made.append(device.work)
    assert made[1].launches == made[0].launches
    assert made[1].nbytes < 6 * made[0].nbytes
