"""The CUDA kernels on fibres: compiled once per change of the sources, kept in pytest's cache.

With TACIT_TEST_CUDA=1 in the environment the same tests run on this machine's first GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tacit.errors import UnusableEnvironmentError
from tacit.kernels.build import build_if_stale
from tacit.kernels.compile_sources import find_compiler
from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.image import cubin
from tacit.kernels.cuda.shim import Shim, ShimControl
from tests.kernels.cuda.engines import VARIANTS, Engines, make_engines, variant_id

ON_A_GPU = os.environ.get("TACIT_TEST_CUDA") == "1"


class _Gpu(Shim):
    """A real device in the place of fibres."""

    def driver(self) -> Driver:
        try:
            return Driver()
        except UnusableEnvironmentError as error:
            pytest.skip(str(error))

    def image(self, log_n: int, *, doubles: bool = True) -> bytes:
        compute = DriverDevice(self.driver()).abilities.compute
        return cubin(log_n, compute, doubles=doubles, cache=self.folder)

    def library(self, log_n: int, *, doubles: bool = True, source: Path = Path()) -> Path:
        pytest.skip("this test looks into the simulation")


@pytest.fixture(scope="session")
def shim(request: pytest.FixtureRequest) -> Shim:
    if find_compiler() is None:
        pytest.skip("no C++ compiler")
    build_if_stale()
    made: type[Shim] = _Gpu if ON_A_GPU else Shim
    return made(request.config.cache.mkdir("cuda-gpu" if ON_A_GPU else "cuda-shim"))


@pytest.fixture(scope="session")
def shim_driver(shim: Shim) -> Driver:
    return shim.driver()


class _NoControl(ShimControl):
    """A real device cannot be told what to do; what merely varies the simulation is left out."""

    def __init__(self) -> None:
        pass

    def device(self, compute: int = 90, version: int = 13000, multiprocessors: int = 132) -> None:
        pass

    def reset(self, seed: int = 1) -> None:
        pass

    def fail(self, function: str, count: int, code: int) -> None:
        pytest.skip("a real device does not fail on demand")

    def limit(self, nbytes: int) -> None:
        pytest.skip("a real device has the memory that it has")

    def counts(self) -> tuple[int, int, int, int]:
        pytest.skip("a real device does not count")


@pytest.fixture
def control(shim_driver: Driver) -> Iterator[ShimControl]:
    if ON_A_GPU:
        yield _NoControl()
        return
    control = ShimControl(shim_driver)
    control.reset()
    yield control
    control.reset()
    control.limit(8 << 30)
    control.device()


@pytest.fixture(params=VARIANTS, ids=variant_id)
def engines(
    request: pytest.FixtureRequest, shim: Shim, shim_driver: Driver, control: ShimControl
) -> Engines:
    control.device(multiprocessors=8)  # blocks serve one entry in some launches, several in others
    name, form, doubles = request.param
    return make_engines(shim, shim_driver, name, form=form, doubles=doubles)
