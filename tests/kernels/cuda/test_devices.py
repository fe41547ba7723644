"""Devices by name on a machine without a GPU."""

from __future__ import annotations

import pytest

from tacit.errors import UnusableEnvironmentError
from tacit.kernels.build import build_if_stale
from tacit.kernels.cpu_kernels import CpuKernels
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.devices import Device, open_kernels
from tests.kernels.cuda.engines import basis_params


@pytest.fixture
def no_gpu() -> None:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    try:
        Driver()
    except UnusableEnvironmentError:
        return
    pytest.skip("this machine has a CUDA device")


@pytest.mark.usefixtures("no_gpu")
def test_cuda_without_a_gpu_is_an_error() -> None:
    with pytest.raises(UnusableEnvironmentError, match="driver"):
        open_kernels(basis_params("narrow"), Device.CUDA, threads=1)


@pytest.mark.usefixtures("no_gpu")
def test_the_processor_takes_over_where_that_is_configured() -> None:
    kernels = open_kernels(basis_params("narrow"), Device.AUTO, threads=1)
    assert isinstance(kernels, CpuKernels)
